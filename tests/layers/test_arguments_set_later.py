"""The arguments of conditioning, set as attributes of a layer that exists already."""

import abc

import keras
import numpy as np
import pytest

from keras_wcond import (
    Conditioned,
    ConditionedDense,
    ConditionedMultiHeadAttention,
    conditioners,
)
from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from tests.helpers import normal, to_numpy

LAYERS = {
    "own kernels": lambda **kwargs: ConditionedDense(4, **kwargs),
    "wrapper": lambda **kwargs: Conditioned(keras.layers.Dense(4), **kwargs),
    "attention": lambda **kwargs: ConditionedMultiHeadAttention(2, 3, **kwargs),
}


def outputs(layer):
    x = normal(2, 5, 3)
    arguments = (x, x) if isinstance(layer, keras.layers.MultiHeadAttention) else (x,)
    return to_numpy(layer(*arguments))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gain", 3.0),
        ("gain", "kernel_norm"),
        ("kernel_conditioner", "weight_standardization"),
        ("kernel_conditioner", ["row_equilibration", "newton_orthogonalization"]),
        ("kernel_conditioner", None),
    ],
)
def test_call_fold_and_copy_follow_an_argument_that_is_set_after_building(kind, name, value):
    layer = LAYERS[kind]()
    before = outputs(layer)
    setattr(layer, name, value)
    after = outputs(layer)
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(outputs(layer.fold()), after, rtol=1e-4, atol=1e-5)
    copy = type(layer).from_config(layer.get_config())
    outputs(copy)
    copy.set_weights(layer.get_weights())
    np.testing.assert_allclose(outputs(copy), after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_arguments_that_are_set_before_building_are_those_of_the_kernels(kind):
    layer = LAYERS[kind]()
    layer.gain = 2.0
    layer.trainable_gain = "per_unit"
    outputs(layer)
    assert len(layer.gain_weights) == len(layer.raw_kernels)
    for gain in layer.gain_weights:
        np.testing.assert_array_equal(to_numpy(gain), 2.0)
    plain = LAYERS[kind]()
    plain.kernel_conditioner = None
    outputs(plain)
    assert all(kernel.reparametrization is None for kernel in plain.kernels)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ({}, "trainable_gain", "scalar"),
        ({}, "gain", "initial_norm"),
        ({"gain": "initial_norm"}, "gain", 2.0),
        ({"trainable_gain": "per_unit"}, "trainable_gain", None),
        ({"trainable_gain": "per_unit"}, "kernel_conditioner", None),
    ],
)
def test_gain_that_is_a_weight_is_decided_before_building(kind, arguments, name, value):
    layer = LAYERS[kind](**arguments)
    before = outputs(layer)
    with pytest.raises(ValueError, match=rf"`{name}` to be set before .* Received: {name}="):
        setattr(layer, name, value)
    setattr(layer, name, getattr(layer, name))  # Nothing changes.
    np.testing.assert_array_equal(outputs(layer), before)


@pytest.mark.parametrize("kind", ["wrapper", "attention"])
def test_layer_built_without_conditioning_cannot_be_conditioned_later(kind):
    layer = LAYERS[kind](kernel_conditioner=None)
    outputs(layer)
    with pytest.raises(ValueError, match=r"it has no kernel that it can condition\. Received"):
        layer.kernel_conditioner = "row_equilibration"


def test_quantized_plain_kernel_is_the_one_that_the_layer_has():
    layer = ConditionedDense(4, kernel_conditioner=None)
    outputs(layer)
    layer.quantize("int8")
    assert keras.backend.standardize_dtype(layer.raw_kernels["kernel"].dtype) == "int8"


def test_quantized_layer_cannot_be_conditioned_again():
    layer = ConditionedDense(4)
    outputs(layer)
    layer.quantize("int8")
    with pytest.raises(ValueError, match=r"it has no kernel that it can condition\. Received"):
        layer.kernel_conditioner = "row_equilibration"


@pytest.mark.parametrize("kind", LAYERS)
def test_values_are_checked_and_standardized_when_they_are_set(kind):
    layer = LAYERS[kind]()
    with pytest.raises(ValueError, match=r"gain=-1"):
        layer.gain = -1
    with pytest.raises(ValueError, match="Expected `trainable_gain` to be None"):
        layer.trainable_gain = "each"
    with pytest.raises(
        ValueError, match="Did you mean 'newton_step' or 'newton_orthogonalization'"
    ):
        layer.kernel_conditioner = "newton"
    layer.kernel_conditioner = "newton_orthogonalization"
    assert layer.kernel_conditioner == conditioners.NewtonOrthogonalization()


def test_class_for_a_layer_made_of_cells_is_refused():
    class ConditionedConvLSTM1D(KernelConditioning, keras.layers.ConvLSTM1D):
        pass

    layer = ConditionedConvLSTM1D(2, 3)
    with pytest.raises(ValueError, match=r"has the weights .*cell/kernel.* Wrap the Keras layer"):
        layer.build((None, 4, 8, 3))


def test_class_for_a_layer_without_a_layout_is_refused():
    class ConditionedBilinear(KernelConditioning, keras.layers.Layer):
        activation = None

    with pytest.raises(ValueError, match=r"whose kernels `keras_wcond` knows.* Received"):
        ConditionedBilinear().build((None, 4))


def test_class_for_a_layer_whose_kernel_has_another_name(tmp_path):
    @register
    class ConditionedEmbedding(KernelConditioning, keras.layers.Embedding):
        activation = None

        def call(self, inputs):
            with self.conditioned_scope():
                return super().call(inputs)

    model = keras.Sequential([ConditionedEmbedding(5, 4, gain="initial_norm")])
    x = np.array([[1, 2]])
    before = to_numpy(model(x))
    assert [weight.name for weight in model.weights] == ["embeddings", "embeddings_gain"]
    model.save_weights(tmp_path / "a.weights.h5")
    copy = keras.Sequential([ConditionedEmbedding(5, 4, gain="initial_norm")])
    copy(x)
    copy.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(to_numpy(copy(x)), before)


def test_class_may_extend_an_abstract_class_too():
    class Described(abc.ABC):
        @abc.abstractmethod
        def description(self): ...

    class DescribedDense(ConditionedDense, Described):
        def description(self):
            return "dense"

    assert DescribedDense(2).description() == "dense"
    assert issubclass(DescribedDense, Described)
