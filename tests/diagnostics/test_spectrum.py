import keras
import numpy as np
import pytest
from scipy import linalg

from keras_wcond import (
    ConditionedConv2D,
    condition_number,
    effective_condition_number,
    singular_values,
    stable_rank,
)
from keras_wcond.kernels.layout import KernelLayout
from tests.helpers import normal, to_numpy


def with_spectrum(values, rows=6, columns=9, seed=0):
    """A Dense kernel whose matrix has the given singular values, in float64."""
    random = np.random.default_rng(seed)
    left, _ = np.linalg.qr(random.normal(size=(rows, rows)))
    right, _ = np.linalg.qr(random.normal(size=(columns, columns)))
    return (left[:, : len(values)] * values @ right[: len(values)]).T


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (3, 8), (8, 3), (5, 5)])
def test_agrees_with_scipy(shape):
    kernel = normal(*shape)
    expected = linalg.svdvals(kernel.astype("float64").T)
    np.testing.assert_allclose(singular_values(kernel), expected, rtol=1e-10)
    np.testing.assert_allclose(condition_number(kernel), expected[0] / expected[-1], rtol=1e-9)
    np.testing.assert_allclose(
        stable_rank(kernel), np.sum(kernel.astype("float64") ** 2) / expected[0] ** 2, rtol=1e-9
    )


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e9, 1e12])
def test_condition_numbers_up_to_1e12_are_resolved(condition):
    kernel = with_spectrum(np.geomspace(1.0, 1.0 / condition, 6))
    # The rounding of σ_min, some 1e-16 σ_max, is 1e-4 of it where κ is 1e12.
    np.testing.assert_allclose(condition_number(kernel), condition, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_rank_deficient_is_infinite_and_effective_is_not(scale):
    kernel = scale * with_spectrum([4.0, 2.0, 1.0])
    assert condition_number(kernel) == np.inf
    np.testing.assert_allclose(effective_condition_number(kernel), 4.0, rtol=1e-9)


def test_repeated_unit_is_infinite_in_float32():
    kernel = normal(8, 3)
    kernel[:, 2] = kernel[:, 0]
    assert condition_number(keras.ops.convert_to_tensor(kernel)) == np.inf


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numerical_rank_goes_by_the_kernels_own_dtype(dtype):
    kernel = keras.ops.cast(with_spectrum([4.0, 2.0, 1.0]).astype("float32"), dtype)
    # Rounding to `dtype` gave the kernel full rank; it is not counted.
    np.testing.assert_allclose(effective_condition_number(kernel), 4.0, rtol=0.1)
    assert condition_number(kernel) > 10.0


def test_tolerance_sets_the_numerical_rank():
    kernel = with_spectrum([1.0, 0.1, 0.01])
    np.testing.assert_allclose(effective_condition_number(kernel, tolerance=0.05), 10.0)
    with pytest.raises(ValueError, match=r"`tolerance` to be None or in \[0, 1\). Received: toler"):
        effective_condition_number(kernel, tolerance=1.0)


def test_zero_matrix():
    zero = np.zeros((3, 4))
    assert condition_number(zero) == effective_condition_number(zero) == np.inf
    assert stable_rank(zero) == 0.0


def test_non_finite_kernels_are_nan():
    kernel = normal(3, 4)
    kernel[0, 0] = np.nan
    measures = (condition_number, effective_condition_number, stable_rank)
    assert all(np.isnan(measure(kernel)) for measure in measures)
    assert np.all(np.isnan(singular_values(kernel)))


def test_stacks_have_a_value_per_matrix():
    kernel = normal(3, 3, 2, 8)
    values = singular_values(kernel, KernelLayout(blocks=2))
    assert values.shape == (2, 4)
    for group in range(2):
        matrix = kernel[..., 4 * group : 4 * group + 4].reshape(-1, 4).astype("float64")
        np.testing.assert_allclose(values[group], linalg.svdvals(matrix), rtol=1e-10)
    assert condition_number(kernel, KernelLayout(blocks=2)).shape == (2,)


def test_raw_and_effective_spectrum_of_a_layer():
    layer = ConditionedConv2D(4, 3)
    layer.build((None, 8, 8, 2))
    layer.kernel.assign(to_numpy(layer.kernel) * np.array([1e-3, 1.0, 1.0, 1e3], "float32"))
    assert condition_number(layer.kernel) > 1e5
    assert condition_number(layer.conditioned_kernel) < 10.0


@pytest.mark.parametrize(
    "measure", [singular_values, condition_number, effective_condition_number, stable_rank]
)
def test_vectors_are_refused(measure):
    with pytest.raises(ValueError, match=r"at least one input axis"):
        measure(np.ones(3))
