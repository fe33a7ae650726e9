"""Inputs that are scaled in place of the columns of the matrix, which are rows of the kernel."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wcond import backends
from keras_wcond.conditioners import ColumnEquilibration
from tests.helpers import gradient, normal, relative, to_numpy
from tests.reference import equilibrated, equilibrated_gradient

ROWS = 8
IS_JAX = keras.backend.backend() == "jax"


def product(kernel, inputs, gain=None):
    inputs, kernel = (keras.ops.convert_to_tensor(x) for x in (inputs, kernel))
    return backends.column_equilibrated_product(inputs, kernel, gain)


def product_gradient(kernel, upstream, inputs):
    def loss(w):
        return keras.ops.sum(keras.ops.multiply(product(w, inputs), upstream))

    return gradient(loss, kernel)


def expected_gradient(kernel, upstream, inputs):
    pulled = inputs.T.astype("float64") @ upstream
    return equilibrated_gradient(kernel.T, pulled.T).T


@pytest.mark.parametrize("shape", [(1, 5), (3, 64), (64, 3), (65, 7), (640, 480)], ids=str)
def test_agrees_with_numpy(shape):
    kernel, inputs = normal(*shape), normal(ROWS, shape[0], seed=1)
    upstream = normal(ROWS, shape[1], seed=2)
    assert relative(product(kernel, inputs, 2.0), 2.0 * inputs @ equilibrated(kernel, 0)) <= 1e-5
    found = product_gradient(kernel, upstream, inputs)
    assert relative(found, expected_gradient(kernel, upstream, inputs)) <= 1e-4


@given(exponents=st.lists(st.floats(-30.0, 30.0), min_size=3, max_size=3))
def test_scale_of_a_column_does_not_matter(exponents):
    """Whether squares of the kernel are within range or not."""
    kernel = np.random.default_rng(0).uniform(0.5, 1.0, size=(3, 8))
    scales = 10.0 ** np.array(exponents)[:, None]
    inputs, upstream = normal(ROWS, 3, seed=1), normal(ROWS, 8, seed=2)
    scaled = (kernel * scales).astype("float32")
    assert relative(product(scaled, inputs), inputs @ equilibrated(kernel, 0)) <= 1e-5
    found = product_gradient(scaled, upstream, inputs).astype("float64") * scales
    assert relative(found, expected_gradient(kernel, upstream, inputs)) <= 1e-4


@pytest.mark.parametrize("size", [1.0, 1e-20])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_zero_stays_zero_with_a_zero_gradient(axis, size):
    kernel = (size * normal(64, 5)).astype("float32")
    is_zero = np.zeros((64, 5), bool)
    is_zero[(2,) if axis == 0 else (slice(None), 2)] = True
    kernel[is_zero] = 0.0
    inputs, upstream = normal(ROWS, 64, seed=1), normal(ROWS, 5, seed=2)
    norms = np.linalg.norm(kernel.astype("float64"), axis=1, keepdims=True)
    formed = kernel / np.where(norms == 0.0, 1.0, norms)
    assert relative(product(kernel, inputs), inputs @ formed) <= 1e-5
    found = product_gradient(kernel, upstream, inputs)
    assert np.all(np.isfinite(found))
    assert np.all(found[is_zero] == 0.0)
    assert np.all(found[~is_zero] != 0.0)


def test_entry_that_is_zero_at_the_start_of_a_column_has_its_gradient():
    kernel, inputs, upstream = normal(64, 5), normal(ROWS, 64, seed=1), normal(ROWS, 5, seed=2)
    kernel[0, 2] = 0.0
    found = product_gradient(kernel, upstream, inputs)
    assert relative(found, expected_gradient(kernel, upstream, inputs)) <= 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_stay_visible(value):
    kernel = normal(64, 3)
    kernel[2, 1] = value
    assert np.all(np.isnan(to_numpy(product(kernel, normal(ROWS, 64)))))


@pytest.mark.parametrize("rows", [0, 1, 3, 32, 40])
def test_any_number_of_rows_gives_the_gradient_of_the_formed_kernel(rows):
    kernel, inputs, upstream = normal(64, 5), normal(rows, 64), normal(rows, 5, seed=1)
    found = product_gradient(kernel, upstream, inputs)
    expected = expected_gradient(kernel, upstream, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras has no sparse tensors on PyTorch"
)
def test_sparse_inputs_are_multiplied_by_the_formed_kernel():
    kernel, inputs, upstream = normal(64, 5), normal(ROWS, 64), normal(ROWS, 5, seed=1)
    inputs[:, 8:] = 0.0
    sparse = sparse_tensor(inputs)

    def loss(k):
        outputs = backends.column_equilibrated_product(sparse, k)
        return keras.ops.sum(keras.ops.multiply(outputs, upstream))

    found = backends.column_equilibrated_product(sparse, keras.ops.convert_to_tensor(kernel))
    assert relative(found, inputs @ equilibrated(kernel, 0)) <= 1e-5
    assert relative(gradient(loss, kernel), expected_gradient(kernel, upstream, inputs)) <= 1e-4


def sparse_tensor(array):
    if IS_JAX:
        from jax.experimental import sparse

        return sparse.BCOO.fromdense(array)
    import tensorflow as tf

    return tf.sparse.from_dense(array)


@pytest.mark.skipif(not IS_JAX, reason="vectorizes by JAX")
def test_stacks_of_kernels_are_vectorized_by_jax():
    import jax

    kernels, x = normal(3, 64, 5), normal(ROWS, 64)
    kernels[1] *= 1e-25  # Only some of them are within range.
    together = jax.vmap(lambda k: product(k, x))(kernels)
    for one, kernel in zip(together, kernels, strict=True):
        assert relative(one, x @ equilibrated(kernel, 0)) <= 1e-5


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="transforms by PyTorch")
@pytest.mark.parametrize("transform", ["vmap", "jvp"])
def test_is_transformed_by_pytorch(transform):
    import torch

    x, kernel, tangent = (
        keras.ops.convert_to_tensor(normal(*shape, seed=seed))
        for seed, shape in enumerate([(ROWS, 64), (64, 5), (64, 5)])
    )

    def scaled(k):
        return backends.column_equilibrated_product(x, k)

    def formed(k):
        return x @ ColumnEquilibration()(k)

    def apply(function):
        if transform == "vmap":
            return torch.func.vmap(function)(torch.stack([kernel, tangent]))
        return torch.func.jvp(function, (kernel,), (tangent,))[1]

    assert relative(apply(scaled), apply(formed)) <= 1e-5
