"""The replacements that docs/how-to/migration.md lists compute what other packages compute."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedConv2D, ConditionedDense, WeightConditioning
from keras_wcond.conditioners import SpectralNormalization
from tests.helpers import normal, to_numpy

layers = keras.layers
only_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="compares with PyTorch's own"
)


def as_torch(kernel):
    """Units first, and channels before space."""
    return np.ascontiguousarray(np.moveaxis(kernel, [-1, -2], [0, 1]))


def weight_normalized(kernel, gains):
    """G v / ‖v‖ by unit (Salimans and Kingma 2016), as `tensorflow_addons` computes it."""
    kernel = kernel.astype("float64")
    norms = np.sqrt(np.sum(kernel**2, axis=tuple(range(kernel.ndim - 1))))
    return gains * kernel / norms


class Own(layers.Layer):
    """A user's own layer."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 4))

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: ConditionedDense(4, trainable_gain="per_unit"),
        lambda: Conditioned(layers.Dense(4), trainable_gain="per_unit"),
        lambda: Conditioned(Own(), trainable_gain="per_unit", weights="kernel"),
        lambda: ConditionedConv2D(4, 3, trainable_gain="per_unit"),
    ],
)
def test_weight_normalization_of_tensorflow_addons(layer):
    layer = layer()
    layer(normal(2, 5, 5, 3))
    ((path, kernel),) = layer.raw_kernels.items()
    (gain,) = layer.gain_weights
    gains = np.arange(1.0, 5.0)
    gain.assign(gains)
    np.testing.assert_allclose(
        to_numpy(layer.conditioned_kernels[path]),
        weight_normalized(to_numpy(kernel), gains),
        rtol=1e-5,
    )


def test_weight_normalization_can_start_as_the_plain_layer():
    layer = ConditionedDense(4, gain="initial_norm", trainable_gain="per_unit")
    layer.build((None, 3))
    np.testing.assert_allclose(
        to_numpy(layer.conditioned_kernel), to_numpy(layer.kernel), rtol=1e-5
    )


@pytest.mark.parametrize("plain", [lambda: layers.Dense(4), lambda: layers.Conv2D(4, 3)])
def test_spectral_normalization_of_keras(plain):
    inputs = normal(2, 5, 5, 3)
    theirs = layers.SpectralNormalization(plain(), power_iterations=50)
    theirs.build(inputs.shape)
    ours = Conditioned(plain(), SpectralNormalization(iterations=9))
    ours.build(inputs.shape)
    ours.layer.set_weights(theirs.layer.get_weights())
    for _ in range(3):
        outputs = theirs(inputs, training=True)
    np.testing.assert_allclose(to_numpy(ours(inputs)), to_numpy(outputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("shape", "axis"), [((5, 4), 0), ((3, 3, 2, 4), [0, 1, 2])])
def test_unit_norm_of_keras(shape, axis):
    kernel = normal(*shape)
    theirs = keras.constraints.UnitNorm(axis=axis)(keras.ops.convert_to_tensor(kernel))
    ours = WeightConditioning()(keras.ops.convert_to_tensor(kernel))
    np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5)


def torch_module(rank):
    import torch

    return torch.nn.Linear(3, 4, bias=False) if rank == 0 else torch.nn.Conv2d(3, 4, 3, bias=False)


def conditioned(rank, **arguments):
    if rank == 0:
        return ConditionedDense(4, use_bias=False, **arguments)
    return ConditionedConv2D(4, 3, use_bias=False, **arguments)


@only_torch
@pytest.mark.parametrize("rank", [0, 2])
def test_weight_norm_of_pytorch(rank):
    import torch

    layer = conditioned(rank, trainable_gain="per_unit")
    outputs = layer(normal(2, 5, 5, 3))
    module = torch.nn.utils.parametrizations.weight_norm(torch_module(rank))
    originals = module.parametrizations.weight
    with torch.no_grad():
        originals.original1.copy_(torch.from_numpy(as_torch(to_numpy(layer.kernel))))
        layer.gain_weight.assign(originals.original0.flatten())
    np.testing.assert_allclose(
        as_torch(to_numpy(layer.conditioned_kernel)), to_numpy(module.weight), rtol=1e-5
    )
    assert outputs.shape[-1] == 4


@only_torch
@pytest.mark.parametrize("rank", [0, 2])
def test_spectral_norm_of_pytorch(rank):
    import torch

    layer = conditioned(rank, kernel_conditioner=SpectralNormalization(iterations=9))
    layer(normal(2, 5, 5, 3))
    module = torch_module(rank)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(as_torch(to_numpy(layer.kernel))))
    module = torch.nn.utils.parametrizations.spectral_norm(module, n_power_iterations=50)
    for _ in range(20):
        weight = module.weight  # Every look at it in training is a step of power iteration.
    np.testing.assert_allclose(
        as_torch(to_numpy(layer.conditioned_kernel)), to_numpy(weight), rtol=2e-3
    )
