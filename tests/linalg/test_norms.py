import keras
import numpy as np
import pytest

from keras_wcond.linalg.norms import frobenius_norm
from tests.helpers import gradient, normal, to_numpy


def norm(x):
    return to_numpy(frobenius_norm(keras.ops.convert_to_tensor(x)))


@pytest.mark.parametrize("scale", [1e-36, 1e-15, 1.0, 1e15, 4e36])
def test_frobenius_norm_stays_in_range(scale):
    x = (scale * normal(3, 4, 5)).astype("float32")
    expected = np.linalg.norm(x.astype("float64").ravel())
    np.testing.assert_allclose(norm(x), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_gradient_of_the_frobenius_norm_is_the_unit_tensor(scale):
    x = (scale * normal(3, 4)).astype("float32")
    expected = x.astype("float64") / np.linalg.norm(x.astype("float64"))
    np.testing.assert_allclose(gradient(frobenius_norm, x), expected, rtol=1e-5)


def test_zero_has_norm_and_gradient_zero():
    zero = np.zeros((3, 4), "float32")
    assert norm(zero) == 0.0
    np.testing.assert_array_equal(gradient(frobenius_norm, zero), zero)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_entries_stay_visible(value):
    x = normal(3, 4)
    x[1, 2] = value
    assert not np.isfinite(norm(x))
