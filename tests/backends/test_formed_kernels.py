"""Kernels with unit columns, formed by the backend."""

import keras
import numpy as np
import pytest

from keras_wcond import backends
from keras_wcond.conditioners import (
    RowEquilibration,
)
from tests.helpers import normal, relative, to_numpy
from tests.reference import equilibrated

ROWS, INPUTS, UNITS = 8, 256, 130


def equilibrated_kernel(kernel):
    return backends.equilibrated(kernel, kernel.shape[-1])


@pytest.mark.parametrize("shape", [(16, 3), (2, 2, 4, 3)], ids=str)
@pytest.mark.parametrize("scale", [1e-25, 1e-15, 1.0, 1e25])
def test_formed_kernels_have_the_derivatives_of_their_equation(scale, shape):
    """Of first and second order, whether squares are within range or not."""
    kernel, weights = (scale * normal(16, 3)).astype("float32"), normal(16, 3, seed=1)
    weights = keras.ops.convert_to_tensor(weights)
    vector = (scale * normal(16, 3, seed=2)).astype("float32")

    def of_equation(values):
        # In float32 by PyTorch, JAX and TensorFlow themselves, of a kernel of scale 1.
        unit = values[0] * np.float32(1.0 / scale)
        norms = keras.ops.sqrt(keras.ops.sum(keras.ops.square(unit), axis=0))
        return keras.ops.sum(keras.ops.square(unit / norms) * weights)

    def ours(values):
        conditioned = equilibrated_kernel(keras.ops.reshape(values[0], shape))
        assert conditioned.shape == shape
        return keras.ops.sum(keras.ops.square(keras.ops.reshape(conditioned, (16, 3))) * weights)

    values, vectors = ([keras.ops.convert_to_tensor(x)] for x in (kernel, vector))
    for function in (
        lambda loss: backends.gradient(loss)(values),
        lambda loss: backends.hessian_product(loss)(values, vectors),
    ):
        assert relative(scale * function(ours)[0], scale * function(of_equation)[0]) <= 1e-4


def test_kernels_that_are_not_contiguous_are_read_in_their_order():
    kernel = keras.ops.transpose(keras.ops.convert_to_tensor(normal(64, 96)))
    found = equilibrated_kernel(kernel)
    assert relative(found, equilibrated(to_numpy(kernel))) <= 1e-6
    inputs = keras.ops.convert_to_tensor(normal(ROWS, 96, seed=1))
    one = keras.ops.convert_to_tensor(np.float32(1.0))
    found = backends.equilibrated_product(inputs, kernel, one)
    assert relative(found, to_numpy(inputs) @ equilibrated(to_numpy(kernel))) <= 1e-5


def test_gauss_newton_products_agree_with_those_of_the_formed_kernel():
    """On JAX by a derivative in forward mode."""
    start, vectors = ([normal(16, 3, seed=seed)] for seed in (0, 1))
    inputs, target = normal(ROWS, 16, seed=2), normal(ROWS, 3, seed=3)

    def scaled(values):
        tensors = (keras.ops.convert_to_tensor(x) for x in (inputs, np.float32(1.5)))
        x, gain = tensors
        return backends.equilibrated_product(x, values[0], gain)

    def formed(values):
        return keras.ops.matmul(inputs, RowEquilibration()(values[0])) * 1.5

    def loss(outputs):
        return keras.ops.sum(keras.ops.square(keras.ops.subtract(outputs, target)))

    tensors = [[keras.ops.convert_to_tensor(x) for x in each] for each in (start, vectors)]
    (found,) = backends.gauss_newton_product(scaled, loss)(*tensors)
    (expected,) = backends.gauss_newton_product(formed, loss)(*tensors)
    assert relative(found, expected) <= 1e-4


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own functions")
def test_gradient_that_a_function_leaves_out_adds_nothing():
    import torch

    class WithoutGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, upstream):
            return None

    kernel = keras.ops.convert_to_tensor(normal(8, 8)).clone().requires_grad_(True)
    loss = WithoutGradient.apply(equilibrated_kernel(kernel)).sum() + kernel.square().sum()
    (gradient,) = torch.autograd.grad(loss, kernel, create_graph=True)
    np.testing.assert_allclose(to_numpy(gradient), 2.0 * to_numpy(kernel), rtol=1e-6)
