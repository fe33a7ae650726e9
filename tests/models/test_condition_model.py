"""`condition_model`: what is converted, what is left, and that the given model is untouched."""

import keras
import numpy as np
import pytest

import keras_wcond
from keras_wcond import Conditioned, ConditionedConv2D, ConditionedDense, condition_model
from tests.helpers import normal, to_numpy
from tests.layers.cases import every_layer
from tests.models.small_models import moved, require_unchanged, small, state
from tests.reference import equilibrated

layers = keras.layers


IMAGES = normal(4, 8, 8, 2)


def plain_weights(layer):
    gains = {id(gain) for gain in getattr(layer, "gain_weights", [])}
    return [to_numpy(weight) for weight in layer.weights if id(weight) not in gains]


def test_every_layer_of_a_model_is_converted_with_its_weights():
    model = moved(small())
    before = state(model)
    conditioned = condition_model(model)
    require_unchanged(model, before)
    kinds = {
        "depthwise": layers.DepthwiseConv2D,
        "shared": ConditionedDense,
        "attention": keras_wcond.ConditionedMultiHeadAttention,
        "recurrent": Conditioned,
        "block": Conditioned,
        "logits": layers.Dense,
        "value": layers.Dense,
    }
    for name, kind in kinds.items():
        assert type(conditioned.get_layer(name)) is kind
    assert type(conditioned.get_layer("features").get_layer("stem")) is ConditionedConv2D
    assert type(conditioned.get_layer("features").get_layer("norm")) is layers.BatchNormalization
    pairs = zip(model.layers, conditioned.layers, strict=True)
    for original, layer in pairs:
        assert layer is not original
        assert layer.name == original.name
        if original.name == "features":
            continue
        for ours, theirs in zip(plain_weights(layer), original.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not conditioned.compiled


def test_converted_model_starts_at_the_scale_it_had():
    model = moved(small())
    conditioned = condition_model(model)
    for name in ("shared", "attention", "recurrent"):
        layer = conditioned.get_layer(name)
        raw = layer.raw_kernels
        for path, kernel in layer.conditioned_kernels.items():
            expected = np.linalg.norm(to_numpy(raw[path]))
            np.testing.assert_allclose(np.linalg.norm(to_numpy(kernel)), expected, rtol=1e-5)


def test_equilibrated_model_computes_what_it_computed():
    """Where rows have one norm already, the default gain makes the conversion exact."""
    model = small()
    for layer in model.layers:
        if layer.name in ("shared", "logits"):
            layer.kernel.assign(0.7 * equilibrated(to_numpy(layer.kernel)))
    conditioned = condition_model(model, layers="shared")
    for ours, theirs in zip(conditioned(IMAGES), model(IMAGES), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-4, atol=1e-6)


def test_arguments_reach_every_layer():
    conditioned = condition_model(small(), gain="kernel_norm", trainable_gain="scalar")
    for name in ("shared", "attention", "block"):
        layer = conditioned.get_layer(name)
        assert layer.kernel_conditioner == keras_wcond.conditioners.RowEquilibration()
        assert (layer.gain, layer.trainable_gain) == ("kernel_norm", "scalar")
        assert all(gain.trainable for gain in layer.gain_weights)


def test_shared_layers_stay_shared_across_nested_models():
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, layers.ReLU()], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Flatten()(inner(shared(inner(inputs)))))
    conditioned = condition_model(model, layers=layers.Dense)
    assert conditioned.get_layer("shared") is conditioned.get_layer("inner").get_layer("shared")
    assert len(conditioned.trainable_weights) == len(model.trainable_weights) == 2


def test_training_changes_every_conditioned_kernel_and_the_file_is_read_again(tmp_path):
    conditioned = condition_model(small())
    kernels = [
        kernel
        for layer in [*conditioned.layers, *conditioned.get_layer("features").layers]
        for kernel in getattr(layer, "raw_kernels", {}).values()
    ]
    assert len(kernels) == 1 + 1 + 4 + 4 + 2
    before = [to_numpy(kernel).copy() for kernel in kernels]
    conditioned.compile("adam", ["mse", "mse"])
    conditioned.fit(IMAGES, [np.zeros((4, 3)), np.ones((4, 1))], verbose=0)
    for kernel, value in zip(kernels, before, strict=True):
        assert np.any(to_numpy(kernel) != value), kernel.path
    conditioned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = conditioned.predict(IMAGES, verbose=0)
    for ours, theirs in zip(loaded.predict(IMAGES, verbose=0), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_training_one_model_leaves_the_other():
    """On JAX, training gives away the memory of the arrays it replaces."""
    model = small()
    expected = [to_numpy(output) for output in model(IMAGES)]
    conditioned = condition_model(model)
    conditioned.compile("sgd", ["mse", "mse"])
    conditioned.fit(IMAGES, [np.zeros((4, 3)), np.ones((4, 1))], verbose=0)
    for ours, theirs in zip(model(IMAGES), expected, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), theirs)


@every_layer
def test_every_layer_with_a_class_of_its_own_becomes_one_of_that_class(case):
    plain = moved(case.model(case.plain(**case.arguments)))
    conditioned = condition_model(plain, layers=lambda layer: True)
    layer = next(layer for layer in conditioned.layers if layer.weights)
    assert type(layer) is case.conditioned
    assert len(layer.gain_weights) == len(case.axes)
    for ours, theirs in zip(plain_weights(layer), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_that_are_conditioned_already_are_left():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            ConditionedDense(4, name="ours", gain=3.0),
            layers.Dense(4),
            layers.Dense(2),
        ]
    )
    conditioned = condition_model(model)
    assert conditioned.get_layer("ours").gain == 3.0
    assert [type(layer) for layer in conditioned.layers[1:]] == [ConditionedDense, layers.Dense]


@pytest.mark.parametrize("name", ["dense", "lstm"])
def test_gains_of_layers_that_are_conditioned_already_are_kept(name):
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Dense(4, name="dense"),
            layers.LSTM(4, name="lstm"),
            layers.Dense(3, name="rest"),
            layers.Dense(2),
        ]
    )
    once = condition_model(model, layers=name, trainable_gain="scalar")
    for gain in once.get_layer(name).gain_weights:
        gain.assign(5.0)
    twice = condition_model(once, layers="rest")
    assert [float(to_numpy(gain)) for gain in twice.get_layer(name).gain_weights] == [
        5.0 for _ in once.get_layer(name).gain_weights
    ]
    assert type(twice.get_layer("rest")) is ConditionedDense


def test_subclasses_built_as_functional_models():
    class WithStep(keras.Model):
        def train_step(self, *args):
            return super().train_step(*args)

    class WithConstructor(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((3,))
            outputs = layers.Dense(2)(layers.Dense(units, name="hidden")(inputs))
            super().__init__(inputs, outputs)

    inputs = keras.Input((3,))
    model = WithStep(inputs, layers.Dense(2)(layers.Dense(4, name="hidden")(inputs)))
    assert type(condition_model(model)) is WithStep
    conditioned = condition_model(WithConstructor(4))
    assert type(conditioned.get_layer("hidden")) is ConditionedDense
    assert not isinstance(conditioned, WithConstructor)


def test_frozen_layers_stay_frozen():
    model = small()
    model.get_layer("shared").trainable = False
    model.get_layer("block").first.trainable = False
    conditioned = condition_model(model)
    assert len(conditioned.trainable_variables) == len(model.trainable_variables)
    assert conditioned.get_layer("shared").trainable_variables == []
    assert not conditioned.get_layer("block").layer.first.kernel.trainable


def test_gains_of_frozen_layers_are_frozen():
    model = small()
    for name in ("shared", "recurrent", "attention"):
        model.get_layer(name).trainable = False
    conditioned = condition_model(model, trainable_gain="scalar")
    for name in ("shared", "recurrent", "attention"):
        assert conditioned.get_layer(name).trainable_variables == []


def test_functions_that_are_not_registered_are_taken_along():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Lambda(lambda x: 3.0 * x),
            layers.Dense(4, activation=lambda x: keras.ops.sin(x), name="hidden"),
            layers.Dense(2, activation=lambda x: x + 1.0),
        ]
    )
    hidden = model.get_layer("hidden")
    hidden.kernel.assign(0.7 * equilibrated(to_numpy(hidden.kernel)))
    conditioned, x = condition_model(model), normal(2, 3)
    assert type(conditioned.get_layer("hidden")) is ConditionedDense
    np.testing.assert_allclose(to_numpy(conditioned(x)), to_numpy(model(x)), rtol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras looks words up with TensorFlow"
)
def test_vocabularies_are_carried_over():
    lookup = layers.StringLookup(vocabulary=["a", "b", "c"])
    inputs = keras.Input((2,), dtype="string")
    x = layers.Flatten()(layers.Embedding(4, 3)(lookup(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(4, name="hidden")(x)))
    words = keras.ops.convert_to_tensor([["a", "c"], ["b", "?"]])
    conditioned = condition_model(model, gain="kernel_norm")
    assert conditioned.layers[1].get_vocabulary() == lookup.get_vocabulary()
    assert np.all(np.isfinite(to_numpy(conditioned(words))))


def test_layer_that_lists_in_its_config_what_its_constructor_refuses(tmp_path):
    """KerasHub's `ViTPatchingAndEmbedding` is one."""

    @keras.saving.register_keras_serializable("tests")
    class Derived(layers.Dense):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)
            self.doubled = 2 * units

        def get_config(self):
            return {**super().get_config(), "doubled": self.doubled}

    model = keras.Sequential([keras.Input((3,)), Derived(4), layers.Dense(2)])
    conditioned = condition_model(model)
    assert type(conditioned.layers[0].layer) is Derived
    inputs, loaded = normal(2, 3), conditioned
    for _ in range(3):
        loaded.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(to_numpy(loaded(inputs)), to_numpy(conditioned(inputs)))
