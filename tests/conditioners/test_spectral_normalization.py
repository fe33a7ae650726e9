import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wcond.conditioners import SpectralNormalization
from keras_wcond.kernels.layout import KernelLayout
from tests.helpers import gradient, normal, to_numpy
from tests.reference import central_differences

SHAPES = [(1, 1), (1, 5), (5, 1), (3, 7), (7, 3), (6, 6)]


def condition(kernel, unit_axes=-1, **arguments):
    kernel = keras.ops.convert_to_tensor(kernel)
    return to_numpy(SpectralNormalization(**arguments)(kernel, unit_axes))


def bound(kernel, iterations):
    """σ̂ = (Σ σ^(2^(iterations + 1)))^(2^-(iterations + 1)), from the singular values."""
    values = np.linalg.svd(np.asarray(kernel, "float64"), compute_uv=False)
    power = 2.0 ** (iterations + 1)
    return values[0] * np.sum((values / values[0]) ** power) ** (1.0 / power)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [1, 4, 6, 8])
def test_divides_by_the_bound_that_the_mathematics_gives(shape, iterations):
    kernel = normal(*shape)
    np.testing.assert_allclose(
        condition(kernel, iterations=iterations), kernel / bound(kernel, iterations), rtol=1e-5
    )


def test_the_bound_is_as_close_as_the_documentation_says():
    kernel = normal(512, 512)
    largest = np.linalg.norm(kernel.astype("float64"), ord=2)
    for iterations, error in ((4, 0.06), (6, 0.0051), (8, 1.2e-4)):
        ratio = kernel[0, 0] / condition(kernel, iterations=iterations)[0, 0] / largest
        assert 1.0 - 1e-5 <= ratio <= 1.0 + error


@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**16), exponent=st.integers(-35, 35))
def test_largest_singular_value_is_at_most_one_and_the_spectrum_keeps_its_shape(
    shape, seed, exponent
):
    kernel = normal(*shape, seed=seed)
    conditioned = condition((kernel * 10.0**exponent).astype("float32"), iterations=8)
    values = np.linalg.svd(conditioned.astype("float64"), compute_uv=False)
    assert min(shape) ** (-(2.0**-9)) * (1 - 1e-5) <= values[0] <= 1.0 + 1e-5
    expected = np.linalg.svd(kernel.astype("float64"), compute_uv=False)
    np.testing.assert_allclose(values / values[0], expected / expected[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_gradient_agrees_with_finite_differences(shape):
    kernel, upstream = normal(*shape), normal(*shape, seed=1)
    conditioner = SpectralNormalization(iterations=4)
    result = gradient(lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w), upstream)), kernel)
    expected = central_differences(lambda w: np.sum(w / bound(w, 4) * upstream), kernel)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)


def test_each_matrix_of_a_kernel_has_its_own_norm():
    kernel = normal(3, 3, 4, 6)
    conditioned = condition(kernel, KernelLayout(blocks=2), iterations=8)
    for group in (slice(0, 3), slice(3, 6)):
        matrix = conditioned[..., group].reshape(36, 3)
        np.testing.assert_allclose(np.linalg.norm(matrix, ord=2), 1.0, rtol=1e-2)


def test_zero_matrix_stays_zero_with_zero_gradient():
    conditioner = SpectralNormalization()
    zeros = np.zeros((4, 3), "float32")
    assert np.all(condition(zeros) == 0.0)
    result = gradient(
        lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w), normal(4, 3))), zeros
    )
    np.testing.assert_array_equal(result, 0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_entries_stay_visible(value):
    kernel = normal(4, 3)
    kernel[1, 1] = value
    assert np.all(np.isnan(condition(kernel)))


@pytest.mark.parametrize("iterations", [0, -1, 2.0, True, None])
def test_number_of_iterations_is_checked(iterations):
    with pytest.raises(ValueError, match=r"positive integer. Received: iterations="):
        SpectralNormalization(iterations)


def test_config_tells_the_iterations():
    assert SpectralNormalization(3).get_config() == {
        "iterations": 3,
        "differentiate_multiplier": True,
    }
    assert SpectralNormalization(3) != SpectralNormalization(4)
