import keras
import numpy as np
import pytest

from keras_wcond.linalg.norms import (
    SMALLEST_NORMAL,
    centered,
    divided_by_maximum,
    frobenius_norm,
    inverse_column_norms,
    normalized,
)
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


def test_vectors_below_the_smallest_normal_number_count_as_zero():
    x = SMALLEST_NORMAL * np.array([[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_array_equal(normalized(x, axis=1), [[1.0, 0.0], [0.0, 0.0]])
    scaled, divisor, is_zero = divided_by_maximum(x, axis=1)
    np.testing.assert_array_equal(is_zero, [[False], [True]])
    np.testing.assert_array_equal(divisor, [[SMALLEST_NORMAL], [1.0]])
    np.testing.assert_array_equal(scaled, [[1.0, 0.0], x[1]])


@pytest.mark.parametrize("one_norm", [False, True])
@pytest.mark.parametrize("units", [1, 3])
def test_factors_of_inverse_column_norms(units, one_norm):
    kernel = normal(5, units)
    factors = inverse_column_norms(keras.ops.convert_to_tensor(kernel), one_norm)
    reciprocal, inverse = map(to_numpy, factors)
    assert reciprocal.shape == inverse.shape == (units,)
    norms = np.linalg.norm(kernel, axis=0)
    expected = np.full(units, np.linalg.norm(kernel)) if one_norm else norms
    np.testing.assert_allclose(reciprocal * inverse, 1.0 / expected, rtol=1e-6)


class TestCentered:
    @pytest.mark.parametrize("constant", [3e-8, 0.3, 3e7])
    def test_constant_rows_become_zero_beside_others(self, constant):
        rows = np.stack([np.full(7, constant), 1e-6 * normal(7), 1e6 * normal(7)])
        found = centered(rows.astype("float32"))
        np.testing.assert_array_equal(found[0], 0.0)
        for row, result in zip(rows[1:], found[1:], strict=True):
            expected = row - row.mean()
            np.testing.assert_allclose(result, expected, atol=1e-6 * np.abs(expected).max())

    def test_rounding_errors_of_long_columns_are_told_from_deviations(self):
        # Sums of so many equal numbers are not exact, so that two subtractions leave errors.
        columns = np.stack([np.full(20_000, 0.64042264), 1e6 * normal(20_000)], axis=1)
        found = centered(columns.astype("float32"), axis=0)
        np.testing.assert_array_equal(found[:, 0], 0.0)
        assert np.all(found[:, 1] != 0.0)

    def test_double_precision_keeps_what_single_precision_loses(self):
        deviations = 1e-10 * normal(7).astype("float64")
        found = centered(1.0 + deviations[None])
        expected = (deviations - deviations.mean())[None]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-15)
