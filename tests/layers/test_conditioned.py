"""`Conditioned` around recurrent layers, embeddings, attention and layers of a user's own."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedDense, fold_model
from keras_wcond.layers.base.survey import survey
from tests.helpers import normal, to_numpy
from tests.reference import equilibrated, equilibrated_along, row_norms

layers = keras.layers
SEQUENCES = normal(4, 7, 3)


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A kernel of its own, inner layers with names that Keras gives, and state."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu")
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.5)
        self.second = layers.Dense(4)

    def build(self, input_shape):
        size = input_shape[-1]
        self.mixing = self.add_weight(name="mixing", shape=(size, size))
        inner_shape = (*input_shape[:-1], self.units)
        self.first.build(input_shape)
        self.norm.build(inner_shape)
        self.second.build(inner_shape)

    def call(self, inputs, training=None):
        hidden = self.first(keras.ops.matmul(inputs, self.mixing))
        hidden = self.dropout(self.norm(hidden, training=training), training=training)
        return self.second(hidden)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tests")
class BuiltByCall(layers.Layer):
    """Without a `build`, as layers often are written."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(5, activation="relu"), layers.Dense(4)

    def call(self, inputs):
        return self.second(self.first(inputs))


@keras.saving.register_keras_serializable("tests")
class BuiltInPart(BuiltByCall):
    """Its `build` makes a weight, and leaves its layers to be built by the call."""

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(1,), initializer="ones")
        self.first.build(input_shape)

    def call(self, inputs):
        return super().call(inputs) * self.scale


@keras.saving.register_keras_serializable("tests")
class Tokens(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding, self.projection = layers.Embedding(9, 3), layers.Dense(4)

    def build(self, input_shape):
        self.embedding.build(input_shape)
        self.projection.build((*input_shape, 3))

    def call(self, tokens):
        return self.projection(self.embedding(tokens))


TOKENS = np.random.default_rng(0).integers(0, 9, size=(4, 7)).astype("int32")
FRAMES = normal(4, 3, 6, 2)

# A layer, its inputs, and the axes of each kernel it is to find.
WRAPPED = {
    "SimpleRNN": (
        lambda: layers.SimpleRNN(4),
        SEQUENCES,
        {"simple_rnn_cell/kernel": "iu->u", "simple_rnn_cell/recurrent_kernel": "iu->u"},
    ),
    "LSTM": (
        lambda: layers.LSTM(4, return_sequences=True),
        SEQUENCES,
        {"lstm_cell/kernel": "iu->u", "lstm_cell/recurrent_kernel": "iu->u"},
    ),
    "GRU": (
        lambda: layers.GRU(4),
        SEQUENCES,
        {"gru_cell/kernel": "iu->u", "gru_cell/recurrent_kernel": "iu->u"},
    ),
    "RNN of a cell": (
        lambda: layers.RNN(layers.LSTMCell(4, name="cell")),
        SEQUENCES,
        {"cell/kernel": "iu->u", "cell/recurrent_kernel": "iu->u"},
    ),
    "ConvLSTM1D": (
        lambda: layers.ConvLSTM1D(4, 3),
        FRAMES,
        {"conv_lstm_cell/kernel": "kiu->u", "conv_lstm_cell/recurrent_kernel": "kiu->u"},
    ),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(4, name="lstm")),
        SEQUENCES,
        {
            "forward_lstm/lstm_cell/kernel": "iu->u",
            "forward_lstm/lstm_cell/recurrent_kernel": "iu->u",
            "backward_lstm/lstm_cell/kernel": "iu->u",
            "backward_lstm/lstm_cell/recurrent_kernel": "iu->u",
        },
    ),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Conv1D(4, 3, name="conv")),
        FRAMES,
        {"conv/kernel": "kiu->u"},
    ),
    "Embedding": (lambda: layers.Embedding(9, 3), TOKENS, {"embeddings": "td->t"}),
    "Dense": (lambda: layers.Dense(4), SEQUENCES, {"kernel": "iu->u"}),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(4, 3),
        SEQUENCES,
        {"depthwise_kernel": "kcm->cm", "pointwise_kernel": "kiu->u"},
    ),
    "Sequential": (
        lambda: keras.Sequential([layers.Dense(5, name="one"), layers.Dense(4, name="two")]),
        SEQUENCES,
        {"one/kernel": "iu->u", "two/kernel": "iu->u"},
    ),
    "a layer of one's own": (Block, SEQUENCES, {"dense": "iu->u", "dense_1": "iu->u"}),
    "a layer built by its call": (BuiltByCall, SEQUENCES, {"dense": "iu->u", "dense_1": "iu->u"}),
    "a layer built in part": (BuiltInPart, SEQUENCES, {"dense": "iu->u", "dense_1": "iu->u"}),
    "a layer with an embedding": (Tokens, TOKENS, {"dense": "iu->u"}),
}
every_wrapped = pytest.mark.parametrize("case", WRAPPED.values(), ids=WRAPPED.keys())


def model_of(layer, inputs):
    tensor = keras.Input(inputs.shape[1:], dtype=str(inputs.dtype))
    return keras.Model(tensor, layers.Flatten()(layer(tensor)))


@every_wrapped
def test_computes_what_the_plain_layer_computes_with_equilibrated_kernels(case):
    make, inputs, axes = case
    wrapped = Conditioned(make(), gain=1.5)
    outputs = to_numpy(wrapped(inputs))
    raw = list(wrapped.raw_kernels.values())
    if any("/" in path or path in ("kernel", "embeddings") for path in axes):
        assert list(wrapped.raw_kernels) == list(axes)
    assert len(raw) == len(axes)
    for kernel, letters in zip(raw, axes.values(), strict=True):
        kernel.assign(1.5 * equilibrated_along(to_numpy(kernel), letters))
    np.testing.assert_allclose(to_numpy(wrapped.layer(inputs)), outputs, rtol=1e-5, atol=1e-6)


@every_wrapped
def test_conditioned_kernels_have_unit_rows(case):
    make, inputs, axes = case
    wrapped = Conditioned(make())
    wrapped(inputs)
    for kernel, letters in zip(wrapped.conditioned_kernels.values(), axes.values(), strict=True):
        np.testing.assert_allclose(row_norms(to_numpy(kernel), letters), 1.0, rtol=1e-5)


@every_wrapped
def test_trains_saves_and_folds(case, tmp_path):
    trains_saves_and_folds(case, {"gain": "initial_norm", "trainable_gain": "per_unit"}, tmp_path)


@pytest.mark.parametrize(
    "gain", [{"gain": "initial_norm"}, {"trainable_gain": "per_unit"}], ids=str
)
def test_either_gain_trains_saves_and_folds(gain, tmp_path):
    trains_saves_and_folds(WRAPPED["LSTM"], gain, tmp_path)


def trains_saves_and_folds(case, gain, tmp_path):
    make, inputs, axes = case
    wrapped = Conditioned(make(), **gain)
    model = model_of(wrapped, inputs)
    assert len(wrapped.gain_weights) == len(axes)
    assert all(weight.trainable == ("trainable_gain" in gain) for weight in wrapped.gain_weights)
    before = [to_numpy(variable).copy() for variable in model.trainable_variables]
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(inputs, np.zeros((4, model.output_shape[1])), verbose=0)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert np.any(to_numpy(variable) != value), variable.path
    expected = model.predict(inputs, verbose=0)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), expected, rtol=1e-6, atol=1e-7)

    folded = fold_model(model)
    assert type(folded.layers[1]) is type(wrapped.layer)
    assert folded.count_params() == wrapped.layer.count_params()
    np.testing.assert_allclose(folded.predict(inputs, verbose=0), expected, rtol=1e-5, atol=1e-6)


def numpy_lstm(inputs, kernel, recurrent_kernel, bias):
    """An LSTM written out, with the gates in Keras' order: input, forget, cell, output."""

    def sigmoid(x):
        return 1.0 / (1.0 + np.exp(-x))

    units = recurrent_kernel.shape[0]
    hidden = cell = np.zeros((len(inputs), units))
    for step in range(inputs.shape[1]):
        gates = inputs[:, step] @ kernel + hidden @ recurrent_kernel + bias
        i, f, c, o = (gates[:, n * units : (n + 1) * units] for n in range(4))
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
    return hidden


@pytest.mark.parametrize("use_cudnn", ["auto", False])
def test_lstm_equals_numpy(use_cudnn):
    wrapped = Conditioned(layers.LSTM(5, use_cudnn=use_cudnn), gain=2.0)
    inputs = normal(3, 20, 4)
    outputs = to_numpy(wrapped(inputs))
    kernel, recurrent, bias = (to_numpy(w).astype("float64") for w in wrapped.layer.weights)
    expected = numpy_lstm(inputs, 2.0 * equilibrated(kernel), 2.0 * equilibrated(recurrent), bias)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [lambda: layers.LSTM(8, dropout=0.5), lambda: layers.LSTM(8, recurrent_dropout=0.5), Block],
)
def test_dropout_draws_a_new_mask_at_every_call(layer):
    wrapped = Conditioned(layer())
    first, second = (to_numpy(wrapped(SEQUENCES, training=True)) for _ in range(2))
    assert np.any(first != second)
    first, second = (to_numpy(wrapped(SEQUENCES, training=False)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_batch_normalization_updates_its_moving_mean():
    wrapped = Conditioned(Block())
    model = model_of(wrapped, SEQUENCES)
    mean = wrapped.layer.norm.moving_mean
    values = [to_numpy(mean).copy()]
    wrapped(SEQUENCES, training=True)
    values.append(to_numpy(mean).copy())
    model.compile("sgd", "mse")
    model.fit(SEQUENCES, np.zeros((4, 28)), verbose=0)
    values.append(to_numpy(mean).copy())
    assert np.any(values[0] != values[1])
    assert np.any(values[1] != values[2])
    wrapped(SEQUENCES, training=False)
    np.testing.assert_array_equal(to_numpy(mean), values[2])


class AddsLoss(layers.Dense):
    def call(self, inputs, training=None):
        self.add_loss(100.0 * keras.ops.ones(()))
        return super().call(inputs)


@pytest.mark.parametrize(
    "layer",
    [lambda: AddsLoss(4), lambda: layers.LSTM(4, activity_regularizer=keras.regularizers.L2(50.0))],
)
def test_losses_of_the_wrapped_layer_are_part_of_the_loss(layer):
    wrapped = Conditioned(layer())
    model = model_of(wrapped, SEQUENCES)
    model.compile("sgd", "mse")
    targets = np.zeros((4, model.output_shape[1]))
    data_loss = np.mean(np.square(model.predict(SEQUENCES, verbose=0)))
    wrapped(SEQUENCES)
    added = float(to_numpy(wrapped.losses[0]))
    assert added > 0.1
    assert len(wrapped.losses) == 1
    loss = model.evaluate(SEQUENCES, targets, verbose=0)
    np.testing.assert_allclose(loss, data_loss + added, rtol=1e-4)
    history = model.fit(SEQUENCES, targets, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(history[0], data_loss + added, rtol=1e-4)


def test_layers_built_after_the_kernels_were_searched_are_refused():
    class Late(layers.Layer):
        def __init__(self):
            super().__init__(name="late")
            self.first, self.second = layers.Dense(3), layers.Dense(3, name="second")

        def build(self, input_shape):
            self.first.build(input_shape)

        def call(self, inputs, training=None):
            return self.second(self.first(inputs)) if training else self.first(inputs)

    wrapped = Conditioned(Late())
    wrapped(SEQUENCES)
    wrapped(SEQUENCES, training=True)
    with pytest.raises(ValueError, match=r"layer.name='late', of which \['second'\] were built"):
        wrapped(SEQUENCES)


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


def test_frozen_wrapper_folds_into_a_frozen_layer():
    wrapped = Conditioned(layers.LSTM(4), trainable=False)
    model = model_of(wrapped, SEQUENCES)
    assert not wrapped.fold().trainable
    assert not fold_model(model).layers[1].trainable


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
    np.testing.assert_allclose(
        to_numpy(wrapped.fold()(SEQUENCES, initial_state=states)), outputs, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ("mixing", ["mixing"]),
        ("dense*/kernel", ["kernel", "kernel"]),
        (["mixing", "*/kernel"], ["mixing", "kernel", "kernel"]),
        ({"mixing": 0, "*/kernel": -1}, ["mixing", "kernel", "kernel"]),
    ],
    ids=str,
)
def test_weights_are_named_by_patterns(weights, names, tmp_path):
    wrapped = Conditioned(Block(), weights=weights)
    model = model_of(wrapped, SEQUENCES)
    assert [kernel.name for kernel in wrapped.raw_kernels.values()] == names
    rows_first = isinstance(weights, dict)
    for path, kernel in wrapped.conditioned_kernels.items():
        letters = "ui->u" if path == "mixing" and rows_first else "iu->u"
        np.testing.assert_allclose(row_norms(to_numpy(kernel), letters), 1.0, rtol=1e-5)
    # A layer that is loaded gives its inner layers other names.
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [k.name for k in loaded.layers[1].raw_kernels.values()] == names
    np.testing.assert_array_equal(
        loaded.predict(SEQUENCES, verbose=0), model.predict(SEQUENCES, verbose=0)
    )


def test_paths_that_look_like_patterns_are_paths():
    inner = keras.Sequential([layers.Dense(4, name="b[1]"), layers.Dense(4, name="b1")])
    wrapped = Conditioned(inner, weights="b[1]/kernel")
    wrapped(SEQUENCES)
    assert list(wrapped.raw_kernels) == ["b[1]/kernel"]


@pytest.mark.parametrize("weights", [None, "*/kernel"])
def test_layers_of_one_name_are_told_apart(weights):
    class Twins(BuiltByCall):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(5, name="twin"), layers.Dense(4, name="twin")

    wrapped = Conditioned(Twins(), gain="initial_norm", weights=weights)
    wrapped(SEQUENCES)
    assert list(wrapped.raw_kernels) == ["twin/kernel", "twin/kernel_1"]
    assert [kernel.shape for kernel in wrapped.raw_kernels.values()] == [(3, 5), (5, 4)]
    assert len(wrapped.gain_weights) == len(wrapped.conditioned_kernels) == 2


def through_clone(layer):
    twin = keras.models.clone_model(model_of(layer, SEQUENCES)).layers[1]
    twin.set_weights(layer.get_weights())
    return twin


def through_config(layer):
    twin = Conditioned.from_config(layer.get_config())
    twin(SEQUENCES)
    twin.set_weights(layer.get_weights())
    return twin


@pytest.mark.parametrize(
    "way", [through_clone, through_config, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_survives_copying(way):
    layer = Conditioned(layers.LSTM(4), gain="initial_norm", trainable_gain="scalar")
    layer(SEQUENCES)
    for seed, variable in enumerate(layer.trainable_variables):
        variable.assign(variable + np.abs(normal(*variable.shape, seed=seed)))
    twin = way(layer)
    assert type(twin) is Conditioned
    np.testing.assert_array_equal(to_numpy(twin(SEQUENCES)), to_numpy(layer(SEQUENCES)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_takes_the_dtype_of_the_wrapped_layer(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless jax_enable_x64 is set")
    wrapped = Conditioned(layers.LSTM(4, dtype=policy))
    outputs = wrapped(SEQUENCES)
    assert keras.backend.standardize_dtype(outputs.dtype) == wrapped.layer.compute_dtype
    assert wrapped.dtype_policy == wrapped.layer.dtype_policy
    kernel = wrapped.conditioned_kernels["lstm_cell/kernel"]
    assert keras.backend.standardize_dtype(kernel.dtype) == wrapped.layer.compute_dtype


def test_a_trained_layer_keeps_its_weights_and_its_scale():
    layer = layers.LSTM(4)
    layer(SEQUENCES)
    weights = [3.0 * weight for weight in layer.get_weights()]
    layer.set_weights(weights)
    wrapped = Conditioned(layer, gain="initial_norm")
    wrapped(SEQUENCES)
    for weight, value in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, value)
    for path, kernel in wrapped.conditioned_kernels.items():
        raw = to_numpy(wrapped.raw_kernels[path])
        np.testing.assert_allclose(np.linalg.norm(to_numpy(kernel)), np.linalg.norm(raw), rtol=1e-5)


def test_without_conditioner_it_is_the_wrapped_layer():
    layer = layers.BatchNormalization()
    wrapped = Conditioned(layer, kernel_conditioner=None)
    np.testing.assert_array_equal(to_numpy(wrapped(SEQUENCES)), to_numpy(layer(SEQUENCES)))


def test_automatic_gain_is_that_of_the_owner_of_each_kernel():
    wrapped = Conditioned(BuiltByCall(), gain="auto")
    wrapped(SEQUENCES)
    first, second = wrapped.conditioned_kernels.values()
    np.testing.assert_allclose(np.linalg.norm(to_numpy(first), axis=0), np.sqrt(2.0), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(to_numpy(second), axis=0), 1.0, rtol=1e-4)


def test_lora_inside_is_conditioned_as_a_merged_kernel():
    layer = layers.Dense(4)
    wrapped = Conditioned(layer)
    wrapped(SEQUENCES)
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(normal(2, 4))
    kernel = wrapped.conditioned_kernels["kernel"]
    np.testing.assert_allclose(to_numpy(kernel), equilibrated(to_numpy(layer.kernel)), rtol=1e-5)
    expected = SEQUENCES @ to_numpy(kernel)
    np.testing.assert_allclose(to_numpy(wrapped(SEQUENCES)), expected, rtol=1e-4, atol=1e-5)


BAD = {
    "no kernel": (
        lambda: Conditioned(layers.BatchNormalization(name="norm")),
        r"kernels are known.*Received: layer.name='norm' of type BatchNormalization"
        r".*'gamma', 'beta'.*Name those that are kernels",
    ),
    "no match": (
        lambda: Conditioned(layers.Dense(4, name="mine"), weights="kernels"),
        r"match a weight of layer 'mine'. Received: weights='kernels', of which 'kernels' "
        r"matches none of \['kernel', 'bias'\]",
    ),
    "a bias": (
        lambda: Conditioned(layers.Dense(4), weights="*"),
        r"no biases. Received: pattern '\*', which matches 'bias' of shape \(4,\)",
    ),
    "a bias with two axes": (
        lambda: Conditioned(layers.GRU(4), weights="*/bias"),
        r"no biases. Received: pattern '\*/bias', which matches 'gru_cell/bias' of shape \(2, 12\)",
    ),
    "named twice": (
        lambda: Conditioned(layers.Dense(4), weights=["kernel", "k*"]),
        r"named once. Received: weights=\['kernel', 'k\*'\], which names 'kernel' twice",
    ),
    "no pattern": (
        lambda: Conditioned(layers.Dense(4), weights=3),
        r"`weights` to be None, a pattern.*Received: weights=3",
    ),
    "wrong axes": (
        lambda: Conditioned(layers.Dense(4), weights={"kernel": 5}),
        r"unit axes within the kernel's 2 axes. Received: unit_axes=\(5,\)",
    ),
    "a conditioned layer": (
        lambda: Conditioned(ConditionedDense(4, name="mine")),
        r"not conditioned yet. Received: layer.name='mine', whose 'kernel' already is",
    ),
    "a conditioned layer inside": (
        lambda: Conditioned(keras.Sequential([ConditionedDense(4), layers.Dense(3)])),
        r"not conditioned yet.*whose 'conditioned_dense.*/kernel' already is",
    ),
    "wrapped twice": (
        lambda: Conditioned(Conditioned(layers.LSTM(4))),
        r"not conditioned yet.*/kernel' already is by a layer inside it",
    ),
    "spectral normalization inside": (
        lambda: Conditioned(layers.SpectralNormalization(layers.Dense(4))),
        r"not conditioned yet.*/kernel' already is by a layer inside it",
    ),
    "an automatic gain": (
        lambda: Conditioned(layers.LSTM(4), gain="auto"),
        r"not just one activation belongs. Received: gain='auto' for 'lstm_cell/kernel'",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_conditioned_is_refused(make, message):
    layer = make()
    with pytest.raises(ValueError, match=message):
        layer(SEQUENCES)


def test_what_is_no_layer_is_refused():
    with pytest.raises(ValueError, match="isn't a supported layer type"):
        Conditioned(keras.activations.relu)


def test_unbuilt_layer_is_refused():
    layer = Conditioned(layers.LSTM(4), name="mine")
    message = r"Expected a built layer.*layer.name='mine'"
    with pytest.raises(AttributeError, match=message):
        _ = layer.conditioned_kernels
    with pytest.raises(ValueError, match=message):
        layer.fold()


@pytest.mark.parametrize(
    "cell",
    [
        lambda: layers.LSTMCell(4, dropout=0.5),
        lambda: layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(4, dropout=0.5)]),
    ],
)
def test_cell_with_dropout_is_refused(cell):
    with pytest.raises(ValueError, match=r"cell without dropout.*dropout=0.5, recurrent_dropout"):
        Conditioned(cell())


def test_quantizing_inside_folds_first(tmp_path):
    """As quantizing the folded layer does, and in files as well."""
    x = normal(4, 7, 3)
    inner = keras.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(3)])
    model = model_of(Conditioned(inner, trainable_gain="per_unit", gain="initial_norm"), x)
    folded = fold_model(model)
    for each in (folded, model):
        with pytest.warns(UserWarning, match="does not have a `quantize` method"):
            each.quantize("int8")
    wrapped = model.layers[1]
    assert folded.layers[1].layers[0].quantization_mode == "int8"
    assert wrapped.layer.layers[0].quantization_mode == "int8"
    assert wrapped.kernel_conditioner is None
    assert not wrapped.gain_weights
    np.testing.assert_allclose(to_numpy(model(x)), to_numpy(folded(x)), atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(folded(x)), atol=1e-6)


def test_quantizing_inside_that_fails_leaves_the_kernel():
    layer = Conditioned(layers.Dense(4))
    x = normal(2, 3)
    before = to_numpy(layer(x))
    with pytest.raises(ValueError, match="Invalid quantization mode"):
        layer.layer.quantize("int3")
    assert layer.kernel_conditioner is not None
    np.testing.assert_array_equal(to_numpy(layer(x)), before)


def test_automatic_names_are_unique():
    inputs = keras.Input((8,))
    hidden = ConditionedDense(6)(Conditioned(layers.Dense(4))(inputs))
    hidden = Conditioned(layers.Dense(4, name="dense_1"))(ConditionedDense(6)(hidden))
    model = keras.Model(inputs, Conditioned(layers.Dense(4))(hidden))
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert Conditioned(layers.Dense(4), name="mine").name == "mine"


def test_bidirectional_around_a_conditioned_layer_is_refused():
    message = r"Received: go_backwards=True.*Conditioned\(Bidirectional\(layer\)\)"
    with pytest.raises(ValueError, match=message):
        layers.Bidirectional(Conditioned(layers.LSTM(4)))


def test_kernel_that_is_not_read_is_refused():
    class Unused(layers.Dense):
        def call(self, inputs):
            return keras.ops.matmul(inputs, keras.ops.ones(self.kernel.shape))

    class Ignored(layers.Layer):
        def __init__(self):
            super().__init__()
            self.used, self.ignored = layers.Dense(4), layers.Dense(4, name="ignored")

        def build(self, input_shape):
            self.used.build(input_shape)
            self.ignored.build(input_shape)

        def call(self, inputs):
            return self.used(inputs)

    message = r"reads the kernels that are conditioned.*did not read \['ignored/kernel'\].*weights="
    with pytest.raises(ValueError, match=message):
        Conditioned(Ignored())(normal(2, 3))
    chosen = Conditioned(Ignored(), weights="dense*/kernel")
    assert chosen(normal(2, 3)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"did not read \['kernel'\]"):
        Conditioned(Unused(4))(normal(2, 3))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch has its modules")
class TestTorchModules:
    """A PyTorch module reads its own parameters, not the Keras variables around them."""

    def layer(self, **arguments):
        import torch

        module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
        inner = layers.TorchModuleWrapper(module)
        weights = {inner.weights[0].name: 0, inner.weights[2].name: 0}
        return Conditioned(inner, weights=weights, **arguments)

    def test_outputs_and_gradients(self):
        layer = self.layer(gain=2.0)
        x = normal(6, 3)
        outputs = layer(x)
        first, first_bias, second, second_bias = (
            to_numpy(w).astype("float64") for w in layer.layer.weights
        )
        hidden = np.tanh(x @ (2.0 * equilibrated(first, 0)).T + first_bias)
        expected = hidden @ (2.0 * equilibrated(second, 0)).T + second_bias
        np.testing.assert_allclose(to_numpy(outputs), expected, atol=1e-5)
        keras.ops.sum(keras.ops.square(outputs)).backward()
        gradient = to_numpy(layer.layer.weights[0].value.grad)
        assert np.max(np.abs(np.sum(gradient * first, axis=1))) <= 1e-4 * np.max(np.abs(gradient))

    def test_parameters_are_themselves_afterwards(self):
        layer = self.layer()
        module = layer.layer.module
        before = dict(module.named_parameters())
        layer(normal(2, 3))
        after = dict(module.named_parameters())
        assert list(after) == list(before)
        assert all(after[name] is before[name] for name in before)

    def test_fold_training_and_rematerialization(self):
        x, folded = normal(8, 3), []
        for mode in (None, "full"):
            with keras.RematScope(mode=mode):
                layer = self.layer(gain="kernel_norm")
            model = keras.Sequential([keras.Input((3,)), layer])
            for i, weight in enumerate(layer.layer.weights):
                weight.assign(normal(*weight.shape, seed=i))
            model.compile(keras.optimizers.SGD(0.05), "mse")
            model.fit(x, np.ones((8, 4)), epochs=3, verbose=0, shuffle=False)
            plain = layer.fold()
            np.testing.assert_allclose(to_numpy(plain(x)), to_numpy(model(x)), atol=1e-5)
            folded.append(to_numpy(plain(x)))
        np.testing.assert_allclose(*folded, atol=1e-5)
