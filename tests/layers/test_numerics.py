"""Outputs and gradients against float64 NumPy, finite differences and PyTorch."""

import keras
import numpy as np
import pytest

import keras_wcond
from keras_wcond.conditioners import METHODS
from tests.helpers import kernel_gradient, normal, to_numpy
from tests.reference import central_differences, convolution, equilibrated

CONVOLUTIONS = {rank: getattr(keras_wcond, f"ConditionedConv{rank}D") for rank in (1, 2, 3)}


def assert_close(result, expected, tolerance=1e-5):
    """Agreement relative to the largest value: single values may cancel to near zero."""
    error = np.max(np.abs(to_numpy(result).astype("float64") - expected))
    assert error <= tolerance * np.max(np.abs(expected))


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (1, 2, 5, 3)])
@pytest.mark.parametrize("units", [1, 7])
def test_dense_agrees_with_numpy(shape, units):
    layer = keras_wcond.ConditionedDense(units, gain=2.0, bias_initializer="normal")
    inputs = normal(*shape)
    outputs = layer(inputs)
    kernel, bias = (to_numpy(weight).astype("float64") for weight in layer.weights)
    assert_close(outputs, inputs @ (2.0 * equilibrated(kernel)) + bias)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has no float64 unless jax_enable_x64 is set"
)
@pytest.mark.parametrize("gain", [2.0, "kernel_norm"])
def test_float64_kernels_are_conditioned_in_float64(gain):
    layer = keras_wcond.ConditionedDense(4, gain=gain, dtype="float64")
    layer.build((None, 3))
    kernel = to_numpy(layer.kernel)
    scale = np.linalg.norm(kernel) / 2.0 if gain == "kernel_norm" else gain
    assert_close(layer.conditioned_kernel, scale * equilibrated(kernel), tolerance=1e-14)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": "same"},
        {"strides": 2},
        {"strides": 2, "padding": "same"},
        {"dilation": 2},
        {"groups": 2},
        {"groups": 4, "padding": "same"},
    ],
    ids=str,
)
def test_convolution_agrees_with_numpy(rank, arguments, data_format):
    renamed = {{"dilation": "dilation_rate"}.get(k, k): v for k, v in arguments.items()}
    layer = CONVOLUTIONS[rank](8, 3, data_format=data_format, gain=2.0, **renamed)
    inputs = normal(2, *[7] * rank, 4)
    channels_first = data_format == "channels_first"
    seen = np.moveaxis(inputs, -1, 1) if channels_first else inputs
    if channels_first and not computes_channels_first(rank, renamed):
        pytest.skip("TensorFlow has no channels-first kernel for this convolution on this device")
    outputs = to_numpy(layer(seen))
    kernel = 2.0 * equilibrated(to_numpy(layer.kernel))
    expected = convolution(inputs, kernel, **arguments)
    assert_close(outputs, np.moveaxis(expected, -1, 1) if channels_first else expected)


def computes_channels_first(rank, arguments):
    """Whether Keras' plain layer does; only TensorFlow is allowed not to."""
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    plain = getattr(keras.layers, f"Conv{rank}D")
    try:
        plain(8, 3, data_format="channels_first", **arguments)(normal(2, 4, *[7] * rank))
    except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
        return False
    return True


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (3, 6), (6, 3)])
def test_dense_gradient_agrees_with_finite_differences(shape):
    layer = keras_wcond.ConditionedDense(shape[1], use_bias=False, gain=1.5)
    layer.build((None, shape[0]))
    inputs, upstream = normal(5, shape[0]), normal(5, shape[1], seed=1)

    def loss(kernel):
        return np.sum(inputs @ (1.5 * equilibrated(kernel)) * upstream)

    result = kernel_gradient(layer, inputs, upstream)
    if shape[0] == 1:  # A row of one entry is ±1 whatever its size.
        np.testing.assert_allclose(result, 0.0, atol=1e-5)
    else:
        assert_close(result, central_differences(loss, to_numpy(layer.kernel)))


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_gradient_agrees_with_finite_differences(groups):
    layer = keras_wcond.ConditionedConv2D(4, 2, groups=groups, use_bias=False)
    inputs = normal(2, 4, 4, 2)
    upstream = normal(*layer(inputs).shape, seed=1)

    def loss(kernel):
        return np.sum(convolution(inputs, equilibrated(kernel), groups=groups) * upstream)

    expected = central_differences(loss, to_numpy(layer.kernel))
    assert_close(kernel_gradient(layer, inputs, upstream), expected)


def torch_weight_norm(module, kernel, gain):
    """PyTorch's own weight normalization of a module, with its magnitude held at the gain."""
    import torch

    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(kernel))
    module = torch.nn.utils.parametrizations.weight_norm(module, dim=0)
    magnitude, direction = module.parametrizations.weight.original0, None
    direction = module.parametrizations.weight.original1
    with torch.no_grad():
        magnitude.fill_(gain)
    return module, direction


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="compares with PyTorch's own")
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_agrees_with_the_weight_norm_of_pytorch(rank):
    import torch

    if rank == 0:
        layer = keras_wcond.ConditionedDense(5, use_bias=False, gain=1.5)
        module, inputs = torch.nn.Linear(4, 5, bias=False), normal(3, 4)
    else:
        layer = CONVOLUTIONS[rank](6, 3, use_bias=False, gain=1.5, groups=2)
        module = getattr(torch.nn, f"Conv{rank}d")(4, 6, 3, groups=2, bias=False)
        inputs = normal(3, *[5] * rank, 4)
    outputs = layer(inputs)
    # PyTorch keeps units first and channels before space.
    to_torch = [rank + 1, rank, *range(rank)]
    kernel = to_numpy(layer.kernel).transpose(to_torch).copy()
    module, direction = torch_weight_norm(module, kernel, gain=1.5)
    theirs = module(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy()))
    assert_close(outputs, np.moveaxis(to_numpy(theirs).astype("float64"), 1, -1))

    upstream = normal(*outputs.shape, seed=1)
    theirs.backward(torch.from_numpy(np.moveaxis(upstream, -1, 1).copy()))
    ours = kernel_gradient(layer, inputs, upstream).transpose(to_torch)
    assert_close(ours, to_numpy(direction.grad).astype("float64"))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch has `torch.autocast`")
@pytest.mark.parametrize("gain", [2.0, "kernel_norm"])
@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.__name__)
@pytest.mark.parametrize("form", ["layer", "wrapper"])
def test_methods_compute_in_full_precision_under_autocast(form, method, gain):
    """Outputs are rounded as those of the folded layer, and gradients agree with full precision."""
    import torch

    x = normal(3, 256)
    if form == "layer":
        layer = keras_wcond.ConditionedDense(160, kernel_conditioner=method(), gain=gain)
    else:
        inner = keras.layers.Dense(160)
        layer = keras_wcond.Conditioned(inner, kernel_conditioner=method(), gain=gain)
    expected = layer(x)
    (raw,) = layer.raw_kernels.values()
    (kernel,) = (to_numpy(kernel) for kernel in layer.conditioned_kernels.values())
    (gradient,) = torch.autograd.grad(expected.square().sum(), raw.value)
    folded = layer.fold()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(*map(to_numpy, layer.conditioned_kernels.values()), kernel, tolerance=1e-6)
        constrained = keras_wcond.WeightConditioning(method())(normal(9, 4))
        outputs, rounded = layer(x), folded(x)
        (under_autocast,) = torch.autograd.grad(outputs.float().square().sum(), raw.value)
    assert outputs.dtype == rounded.dtype
    assert_close(outputs.float(), to_numpy(rounded.float()), tolerance=1e-2)
    assert_close(under_autocast, to_numpy(gradient).astype("float64"), tolerance=3e-2)
    assert_close(constrained, to_numpy(keras_wcond.WeightConditioning(method())(normal(9, 4))))
