"""`fold_model`: the plain model that computes the same, at the plain model's cost."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedDense, condition_model, fold_model
from keras_wcond.layers.base.survey import conditioned_kernel, survey
from tests.helpers import normal, operations, relative, to_numpy
from tests.models.test_condition_model import IMAGES, moved, require_unchanged, small, state

layers = keras.layers


@pytest.mark.parametrize(
    ("gain", "trainable_gain"),
    [("initial_norm", None), ("kernel_norm", "scalar"), (2.0, "per_unit")],
)
def test_folded_model_is_plain_and_computes_the_same(gain, trainable_gain):
    model = small()
    conditioned = moved(condition_model(model, gain=gain, trainable_gain=trainable_gain))
    before = state(conditioned)
    folded = fold_model(conditioned)
    require_unchanged(conditioned, before)
    assert "keras_wcond" not in folded.to_json()
    assert [type(layer) for layer in folded.layers] == [type(layer) for layer in model.layers]
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers]
    assert folded.count_params() == model.count_params()
    assert not folded.compiled
    for ours, theirs in zip(survey(folded), survey(conditioned), strict=True):
        expected = conditioned_kernel(theirs).value()
        assert relative(to_numpy(ours.variable), to_numpy(expected)) <= 1e-6
    # Sums may cancel in all entries of one output, so that both count as one.
    ours, theirs = (
        np.concatenate([to_numpy(output).ravel() for output in each(IMAGES)])
        for each in (folded, conditioned)
    )
    assert relative(ours, theirs) <= 1e-5


def test_plain_model_folds_into_a_copy():
    model = small()
    folded = fold_model(model)
    for ours, theirs in zip(folded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_trainability_is_kept():
    conditioned = condition_model(small())
    conditioned.get_layer("shared").trainable = False
    conditioned.get_layer("block").layer.first.trainable = False
    folded = fold_model(conditioned)
    assert not folded.get_layer("shared").trainable
    assert not folded.get_layer("block").first.kernel.trainable
    assert folded.get_layer("block").second.kernel.trainable


def test_layers_of_classes_that_are_not_registered_fold():
    class Unregistered(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4)

        def build(self, input_shape):
            self.dense.build(input_shape)

        def call(self, inputs):
            return self.dense(inputs)

    model = keras.Sequential([keras.Input((3,)), Unregistered(), layers.Dense(2)])
    conditioned = condition_model(model)
    folded = fold_model(conditioned)
    assert type(folded.layers[0]) is Unregistered
    x = normal(2, 3)
    assert relative(to_numpy(folded(x)), to_numpy(conditioned(x))) <= 1e-5


def test_functions_that_are_not_registered_fold():
    def gaussian(x):
        return keras.ops.exp(-keras.ops.square(x))

    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, activation=gaussian),
            layers.Dense(4, activation=lambda x: keras.ops.sin(30.0 * x)),
            layers.Dense(2),
        ]
    )
    conditioned = condition_model(model, gain="auto")
    folded = fold_model(conditioned)
    assert folded.layers[0].activation is gaussian
    x = normal(2, 3)
    assert relative(to_numpy(folded(x)), to_numpy(conditioned(x))) <= 1e-5


def test_training_the_folded_model_leaves_the_conditioned_one():
    """On JAX, training gives away the memory of the arrays it replaces."""
    conditioned = condition_model(small())
    expected = [to_numpy(output) for output in conditioned(IMAGES)]
    folded = fold_model(conditioned)
    folded.compile("sgd", ["mse", "mse"])
    folded.fit(IMAGES, [np.zeros((4, 3)), np.ones((4, 1))], verbose=0)
    for ours, theirs in zip(conditioned(IMAGES), expected, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), theirs)


def test_lora_is_merged():
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(4, name="dense")(attention)))
    conditioned = condition_model(model)
    adapted = [conditioned.get_layer("dense"), conditioned.get_layer("attention").query_dense]
    for layer in adapted:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(normal(*layer.lora_kernel_b.shape))
    folded = fold_model(conditioned)
    assert folded.count_params() == model.count_params()
    assert folded.get_layer("attention").query_dense.kernel.trainable
    x = normal(2, 5, 4)
    np.testing.assert_allclose(to_numpy(folded(x)), to_numpy(conditioned(x)), rtol=1e-5, atol=1e-6)


def test_folded_model_quantizes():
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(32, activation="relu"), layers.Dense(4)]
    )
    folded = fold_model(condition_model(model))
    inputs = normal(3, 16)
    exact = to_numpy(folded(inputs))
    folded.quantize("int8")
    assert [layer.quantization_mode for layer in folded.layers] == ["int8", "int8"]
    assert 0.0 < np.max(np.abs(to_numpy(folded(inputs)) - exact)) < 0.1


def test_folded_file_loads_where_the_package_is_not_installed(tmp_path):
    folded = fold_model(
        condition_model(
            keras.Sequential(
                [keras.Input((6, 4)), layers.LSTM(5), layers.Dense(8), layers.Dense(2)]
            )
        )
    )
    inputs = normal(3, 6, 4)
    folded.save(tmp_path / "folded.keras")
    np.save(tmp_path / "inputs.npy", inputs)
    code = (
        "import sys; sys.modules['keras_wcond'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('folded.keras')\n"
        "np.save('outputs.npy', model.predict(np.load('inputs.npy'), verbose=0))\n"
    )
    # A GPU of its own process would multiply in TF32.
    on_cpu = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, env=on_cpu, check=True, capture_output=True)
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(outputs, to_numpy(folded(inputs)), rtol=1e-5, atol=1e-6)


def operations_of(model):
    """Those of an inference, with the model's weights as arguments where that takes some."""
    variables = [
        [variable.value for variable in each]
        for each in (model.trainable_variables, model.non_trainable_variables)
    ]
    return operations(lambda x: model.stateless_call(*variables, x, training=False)[0], IMAGES)


def test_folded_model_has_the_operations_of_the_plain_one():
    model = small()
    conditioned = condition_model(model)
    plain = operations_of(model)
    assert len(plain) > 5
    assert operations_of(fold_model(conditioned)) == plain
    assert len(operations_of(conditioned)) > len(plain) + 5


@keras.saving.register_keras_serializable("tests")
class MakesItsOwn(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = ConditionedDense(4)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)


@keras.saving.register_keras_serializable("tests")
class Doubled(ConditionedDense):
    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs, training=training)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            MakesItsOwn(name="mine"),
            r"Received: layer.name='mine' of type MakesItsOwn, whose.*own: \['conditioned_dense",
        ),
        (Doubled(4, name="mine"), r"has a plain one to fold into. Received: layer.name='mine'"),
        (
            keras.Sequential([Doubled(4)], name="mine"),
            r"has a plain one to fold into. Received: layer.name='doubled.*Doubled, which",
        ),
        (
            Conditioned(keras.Sequential([Doubled(4)]), kernel_conditioner=None, name="mine"),
            r"Received: layer.name='mine' of type Conditioned, whose.*own: \['doubled",
        ),
        (
            Conditioned(MakesItsOwn(name="mine"), kernel_conditioner=None),
            r"holds conditioned layers of its own: \['conditioned_dense",
        ),
    ],
    ids=["made in its code", "another call", "in a model", "in a wrapper", "wrapped"],
)
def test_what_has_no_plain_layer_is_refused_and_left_as_it_is(layer, message):
    model = keras.Sequential([keras.Input((3,)), ConditionedDense(4), layer])
    before = state(model)
    with pytest.raises(ValueError, match=message):
        fold_model(model)
    require_unchanged(model, before)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"Expected a Keras model.*folded by its `fold\(\)`"):
        fold_model(ConditionedDense(4))
    with pytest.raises(ValueError, match=r"Expected a built model"):
        fold_model(keras.Sequential([ConditionedDense(4)]))


def test_gains_have_the_dtype_of_their_layer():
    plain = keras.Sequential(
        [keras.Input((4,)), *(keras.layers.Dense(4, dtype="float64") for _ in range(2))]
    )
    conditioned = condition_model(plain)
    (gain,) = conditioned.layers[0].gain_weights
    assert gain.dtype == "float64"
