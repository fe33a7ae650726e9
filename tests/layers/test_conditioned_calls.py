"""Arguments, masks and states of calls reach the layer that `Conditioned` wraps."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, fold_model
from keras_wcond.layers.base.survey import survey
from tests.helpers import normal, relative, to_numpy
from tests.layers.wrapped_layers import SEQUENCES, TOKENS, BuiltByCall, layers, model_of


def test_call_itself_conditions_as_well():
    """Some wrappers of Keras' use it, on layers that were built otherwise."""
    inputs = keras.ops.convert_to_tensor(SEQUENCES)
    wrapped = Conditioned(BuiltByCall())
    outputs = to_numpy(wrapped.call(inputs))
    assert len(wrapped.raw_kernels) == 2
    np.testing.assert_array_equal(outputs, to_numpy(wrapped(inputs)))


def test_layer_that_tells_its_output_shape_is_built_all_the_same():
    class Telling(BuiltByCall):
        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], 4)

    for build in (lambda layer: layer(SEQUENCES), lambda layer: layer.build(SEQUENCES.shape)):
        wrapped = Conditioned(Telling())
        build(wrapped)
        assert len(wrapped.raw_kernels) == 2


def test_states_of_a_stateful_layer_are_kept():
    wrapped = Conditioned(layers.LSTM(4, stateful=True))
    first, second = (to_numpy(wrapped(SEQUENCES)) for _ in range(2))
    assert np.any(first != second)
    wrapped.reset_state()
    np.testing.assert_allclose(to_numpy(wrapped(SEQUENCES)), first, rtol=1e-6)


def conditioned(layer):
    return {id(kernel.variable) for kernel in survey(layer) if kernel.conditioned_by}


@pytest.mark.parametrize(
    "around",
    [
        lambda: layers.RNN(Conditioned(layers.LSTMCell(4))),
        lambda: layers.RNN([Conditioned(layers.GRUCell(4)), layers.SimpleRNNCell(3)]),
        lambda: layers.TimeDistributed(Conditioned(layers.Dense(4))),
    ],
)
def test_inside_loops_and_other_wrappers(around, tmp_path):
    layer = around()
    model = model_of(layer, SEQUENCES)
    kernels = [weight for weight in model.trainable_weights if "kernel" in weight.name]
    assert conditioned(layer) <= {id(kernel) for kernel in kernels}
    assert len(conditioned(layer)) == (2 if len(kernels) > 1 else 1)
    before = [to_numpy(kernel).copy() for kernel in kernels]
    model.compile("sgd", "mse")
    model.fit(SEQUENCES, np.ones((4, model.output_shape[1])), verbose=0)
    for kernel, value in zip(kernels, before, strict=True):
        assert np.any(to_numpy(kernel) != value)
    expected = model.predict(SEQUENCES, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(SEQUENCES, verbose=0), expected, rtol=1e-5)
    assert len(conditioned(loaded.layers[1])) == len(conditioned(layer))
    folded = fold_model(model)
    assert "keras_wcond" not in folded.to_json()
    np.testing.assert_allclose(folded.predict(SEQUENCES, verbose=0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [lambda: layers.LSTM(4), lambda: layers.GRU(4, name="inner")])
def test_masks_reach_the_wrapped_layer(layer):
    inputs = SEQUENCES.copy()
    inputs[:, 4:] = 0.0
    wrapped = Conditioned(layer())
    masked = to_numpy(keras.Sequential([layers.Masking(), wrapped])(inputs))
    np.testing.assert_allclose(masked, to_numpy(wrapped(inputs[:, :4])), rtol=1e-5, atol=1e-6)
    given = to_numpy(wrapped(inputs, mask=np.any(inputs != 0.0, axis=-1)))
    np.testing.assert_allclose(given, masked, rtol=1e-6)


def test_masks_go_on_as_from_the_wrapped_layer():
    masked = layers.Masking()(keras.ops.convert_to_tensor(SEQUENCES))
    for layer, passes in ((layers.LSTM(4, return_sequences=True), True), (layers.LSTM(4), False)):
        outputs = Conditioned(layer)(masked)
        assert (getattr(outputs, "_keras_mask", None) is not None) == passes
    with pytest.warns(UserWarning, match="does not support masking"):
        outputs = Conditioned(layers.Conv1D(4, 3))(masked)
    assert getattr(outputs, "_keras_mask", None) is None
    embedding = layers.Embedding(9, 3, mask_zero=True)
    mask = Conditioned(embedding).compute_mask(keras.ops.convert_to_tensor(TOKENS))
    np.testing.assert_array_equal(to_numpy(mask), TOKENS != 0)


def test_inputs_are_cast_as_the_wrapped_layer_casts_them():
    class Reading(layers.Dense):
        def call(self, inputs, training=None):
            seen.append(keras.backend.standardize_dtype(inputs.dtype))
            return super().call(keras.ops.cast(inputs, "float32"))

    seen = []
    half = keras.ops.cast(SEQUENCES, "float16")
    Conditioned(Reading(4, autocast=False))(half)
    assert seen[-1] == "float16"
    Conditioned(Reading(4))(half)
    assert seen[-1] == "float32"


def test_several_arguments_reach_the_wrapped_layer():
    attention = layers.MultiHeadAttention(2, 3)
    wrapped = Conditioned(attention)
    query, value = normal(2, 4, 5), normal(2, 6, 5, seed=1)
    outputs, scores = wrapped(
        query, value, attention_mask=np.tri(4, 6)[None] > 0, return_attention_scores=True
    )
    assert tuple(outputs.shape) == (2, 4, 5)
    assert np.all(
        to_numpy(scores)[:, :, np.triu_indices(4, 1, 6)[0], np.triu_indices(4, 1, 6)[1]] == 0.0
    )
    plain, _ = wrapped.fold()(
        query, value, attention_mask=np.tri(4, 6)[None] > 0, return_attention_scores=True
    )
    np.testing.assert_allclose(to_numpy(plain), to_numpy(outputs), rtol=1e-5, atol=1e-6)


def test_initial_states_reach_the_wrapped_layer():
    wrapped = Conditioned(layers.LSTM(4))
    states = [np.ones((4, 4), "float32"), np.ones((4, 4), "float32")]
    outputs = to_numpy(wrapped(SEQUENCES, initial_state=states))
    assert np.any(outputs != to_numpy(wrapped(SEQUENCES)))
    folded = wrapped.fold()(SEQUENCES, initial_state=states)
    assert relative(to_numpy(folded), outputs) <= 1e-6
