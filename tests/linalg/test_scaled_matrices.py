"""Matrices over their largest magnitudes."""

import keras
import numpy as np
import pytest

from keras_wcond.linalg.norms import divided_by_maximum, scaled_matrices, with_zero_rows_fixed
from tests.helpers import gradient, normal


@pytest.mark.parametrize("column_axis", [1, 2])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 3e37])
def test_the_same_as_in_two_passes(scale, column_axis):
    matrices = np.stack([normal(4, 6), np.zeros((4, 6), "float32")]) * np.float32(scale)
    matrices[0, 1] = 0.0
    found = scaled_matrices(matrices, column_axis)
    expected = divided_by_maximum(with_zero_rows_fixed(matrices, column_axis), axis=(1, 2))
    for each, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-6)


@pytest.mark.parametrize("column_axis", [1, 2])
def test_zero_rows_have_no_gradient_and_others_that_of_a_constant_divisor(column_axis):
    zero_row = (0, slice(None), 1) if column_axis == 1 else (0, 1)
    matrices = normal(4, 6)[None]
    matrices[zero_row] = 0.0
    upstream = normal(1, 4, 6, seed=1)

    def loss(x):
        scaled, _, _ = scaled_matrices(keras.ops.convert_to_tensor(x), column_axis)
        return keras.ops.sum(keras.ops.multiply(scaled, upstream))

    expected = upstream / np.abs(matrices).max()
    expected[zero_row] = 0.0
    np.testing.assert_allclose(gradient(loss, matrices), expected, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(value):
    matrices = normal(4, 6)[None]
    matrices[0, 2, 3] = value
    with np.errstate(invalid="ignore"):
        scaled, _, _ = scaled_matrices(matrices, 2)
    assert not np.isfinite(scaled).all()
