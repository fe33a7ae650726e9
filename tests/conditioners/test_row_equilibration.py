import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_wcond.conditioners import RowEquilibration
from tests.helpers import gradient, normal, to_numpy
from tests.reference import central_differences, equilibrated, equilibrated_gradient

pytestmark = pytest.mark.usefixtures("each_arithmetic")

SHAPES = [(1, 1), (1, 5), (5, 1), (3, 7), (7, 3), (4, 4)]


def condition(kernel, unit_axes=-1):
    return to_numpy(RowEquilibration()(keras.ops.convert_to_tensor(kernel), unit_axes))


def kernel_gradient(kernel, upstream):
    def loss(w):
        return keras.ops.sum(keras.ops.multiply(RowEquilibration()(w), upstream))

    return gradient(loss, kernel)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 3, 4, 6), (2, 2, 2, 3, 5)])
@pytest.mark.parametrize("unit_axis", [-1, -2, 0])
def test_agrees_with_numpy(shape, unit_axis):
    kernel = normal(*shape)
    np.testing.assert_allclose(
        condition(kernel, unit_axis), equilibrated(kernel, unit_axis), rtol=1e-5
    )


@given(
    shape=st.sampled_from(SHAPES),
    data=st.data(),
)
def test_rows_have_unit_norm_whatever_their_scale(shape, data):
    kernel = data.draw(arrays.arrays("float32", shape, elements=st.floats(0.125, 1.0, width=32)))
    exponents = data.draw(st.lists(st.integers(-30, 30), min_size=shape[1], max_size=shape[1]))
    scaled = (kernel * 10.0 ** np.array(exponents)).astype("float32")
    conditioned = condition(scaled).astype("float64")
    np.testing.assert_allclose(np.linalg.norm(conditioned, axis=0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(conditioned, equilibrated(kernel), rtol=1e-5)


def test_is_idempotent():
    once = condition(normal(7, 3))
    np.testing.assert_allclose(condition(once), once, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_gradient_is_orthogonal_to_rows_and_inverse_to_their_scale(scale):
    kernel, upstream = (scale * normal(7, 3)).astype("float32"), normal(7, 3, seed=1)
    result = kernel_gradient(kernel, upstream).astype("float64")
    along_rows = np.abs(np.sum(result * kernel, axis=0))
    norms = np.linalg.norm(result, axis=0) * np.linalg.norm(kernel, axis=0, ord=2)
    assert np.all(along_rows <= 1e-5 * norms)
    np.testing.assert_allclose(result, equilibrated_gradient(kernel, upstream), rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_agrees_with_finite_differences(shape):
    kernel, upstream = normal(*shape), normal(*shape, seed=1)
    expected = central_differences(lambda w: np.sum(equilibrated(w) * upstream), kernel)
    result = kernel_gradient(kernel, upstream)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_zero_rows_stay_zero_with_zero_gradient():
    kernel = normal(5, 3)
    kernel[:, 1] = 0.0
    conditioned = condition(kernel)
    assert np.all(conditioned[:, 1] == 0.0)
    np.testing.assert_allclose(conditioned[:, [0, 2]], equilibrated(kernel[:, [0, 2]]), rtol=1e-5)
    result = kernel_gradient(kernel, normal(5, 3, seed=1))
    assert np.all(np.isfinite(result))
    assert np.all(result[:, 1] == 0.0)
    assert np.any(result[:, 0] != 0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_entries_make_their_row_nan_and_no_other(value):
    kernel = normal(5, 3)
    kernel[2, 1] = value
    conditioned = condition(kernel)
    assert np.all(np.isnan(conditioned[:, 1]))
    np.testing.assert_allclose(conditioned[:, [0, 2]], equilibrated(kernel[:, [0, 2]]), rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "largest", "epsilon"), [("float16", 6e4, 2.0**-10), ("bfloat16", 3e38, 2.0**-7)]
)
@pytest.mark.parametrize("position", ["near the largest", "near the smallest"])
def test_half_precision_kernels_are_computed_in_float32(dtype, largest, epsilon, position):
    """No overflow, no underflow, and no rounding but that of the result."""
    scale = largest if position == "near the largest" else 8.0 / largest
    kernel = keras.ops.cast(scale * np.linspace(0.5, 1.0, 600).reshape(200, 3), dtype)
    conditioned = RowEquilibration()(kernel)
    assert keras.backend.standardize_dtype(conditioned.dtype) == dtype
    conditioned = to_numpy(keras.ops.cast(conditioned, "float32"))
    reference = equilibrated(to_numpy(keras.ops.cast(kernel, "float32")))
    np.testing.assert_allclose(conditioned, reference, rtol=0.6 * epsilon)


def test_van_der_sluis_bound():
    """κ(Ŵ) ≤ √m · κ(DW) for every diagonal D, m the number of rows."""
    random = np.random.default_rng(0)
    for _ in range(20):
        rows = random.normal(size=(5, 9)) * 10.0 ** random.uniform(-3, 3, size=(5, 1))
        conditioned = condition(rows.T.astype("float32")).T
        for _ in range(20):
            diagonal = 10.0 ** random.uniform(-3, 3, size=(5, 1))
            bound = np.sqrt(5) * np.linalg.cond(diagonal * rows)
            assert np.linalg.cond(conditioned) <= bound * (1 + 1e-5)
