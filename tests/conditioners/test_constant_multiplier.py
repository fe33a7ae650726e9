"""The gradient with a multiplier that is held constant, against one that is a number."""

import keras
import numpy as np
import pytest

from keras_wcond import conditioners
from keras_wcond.linalg.held_constant import exact_derivatives
from tests import methods_in_numpy
from tests.helpers import gradient, normal, to_numpy

METHODS = sorted(conditioners.METHODS)
CENTERED = ["newton_orthogonalization", "weight_standardization"]


def multiplied_by_numbers(name, matrix):
    """A linear function that equals the method at a matrix, with its multiplier as a number."""
    conditioned = methods_in_numpy.METHODS[name](matrix)
    z = methods_in_numpy.centered(matrix) if name in CENTERED else matrix
    if name in ("newton_orthogonalization", "newton_step", "polar_express") or (
        "polynomial" in name
    ):
        if len(z) <= z.shape[1]:
            multiplier = conditioned @ np.linalg.pinv(z)
            return lambda w: multiplier @ w
        multiplier = np.linalg.pinv(z) @ conditioned
        return lambda w: w @ multiplier
    ratio = conditioned / z
    return lambda w: ratio * w


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (7, 6)])
def test_gradient_is_that_of_a_product_with_numbers(name, shape):
    kernel, upstream = normal(*shape), normal(*shape, seed=1)
    method = conditioners.METHODS[name](differentiate_multiplier=False)
    exact = conditioners.METHODS[name](differentiate_multiplier=True)
    np.testing.assert_allclose(
        to_numpy(method(kernel)), to_numpy(exact(kernel)), rtol=1e-5, atol=1e-6
    )
    result = gradient(lambda w: keras.ops.sum(keras.ops.multiply(method(w), upstream)), kernel)
    matrix = kernel.astype("float64").T
    linear = multiplied_by_numbers(name, matrix)
    center = methods_in_numpy.centered if name in CENTERED else lambda w: w
    basis = np.eye(matrix.size).reshape(-1, *matrix.shape)
    expected = [np.sum(linear(center(direction)) * upstream.T) for direction in basis]
    expected = np.reshape(expected, matrix.shape).T
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", METHODS)
def test_the_multiplier_is_constant_by_default_where_the_spectrum_changes(name):
    method = conditioners.METHODS[name]
    assert method().differentiate_multiplier == (method.changes != "spectrum")


@pytest.mark.parametrize("name", METHODS)
def test_zero_rows_have_zero_gradients(name):
    kernel = normal(6, 5)
    kernel[:, 2] = 0.0
    method = conditioners.METHODS[name](differentiate_multiplier=False)
    result = gradient(
        lambda w: keras.ops.sum(keras.ops.multiply(method(w), normal(6, 5, seed=1))), kernel
    )
    assert np.all(np.isfinite(result))
    np.testing.assert_array_equal(result[:, 2], 0.0)


@pytest.mark.parametrize("name", METHODS)
def test_exact_derivatives_pass_through_the_multiplier(name):
    kernel, upstream = normal(6, 5), normal(6, 5, seed=1)

    def loss(method):
        return lambda w: keras.ops.sum(keras.ops.multiply(method(w), upstream))

    with exact_derivatives():
        results = [
            gradient(loss(conditioners.METHODS[name](differentiate_multiplier=each)), kernel)
            for each in (False, True)
        ]
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-6)
