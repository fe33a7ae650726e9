"""What the methods that are not scalings of rows do to condition numbers."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from keras_wcond import condition_number, effective_condition_number
from keras_wcond.conditioners import (
    FrobeniusNormalization,
    NewtonOrthogonalization,
    PolynomialPreconditioner,
    RowEquilibration,
    RuizEquilibration,
    WeightStandardization,
)
from keras_wcond.conditioners.ruiz_equilibration import _reciprocal
from tests import helpers, methods_in_numpy
from tests.helpers import gradient, normal, to_numpy
from tests.reference import central_differences

FACTORS = {1: 1.507, 2: 2.083, 3: 2.909, 4: 3.625}


def glorot(seed):
    return to_numpy(keras.initializers.GlorotUniform(seed=seed)((256, 256)))


def with_spectrum(values, rows, columns, seed=0):
    """A kernel of `columns` inputs and `rows` units with the given singular values."""
    random = np.random.default_rng(seed)
    left, _ = np.linalg.qr(random.normal(size=(rows, len(values))))
    right, _ = np.linalg.qr(random.normal(size=(columns, len(values))))
    return ((left * values) @ right.T).T.astype("float32")


def scaled_kernel(shape, seed=0):
    """A dense kernel whose rows and columns are scaled by 1e-6 to 1e6."""
    random = np.random.default_rng(seed)
    scales = [10.0 ** random.uniform(-6, 6, size=n) for n in shape]
    return (random.normal(size=shape) * np.multiply.outer(*scales)).astype("float32")


def spread(norms):
    return norms.max() / norms.min() - 1.0


class TestNewton:
    @pytest.mark.parametrize("seed", range(3))
    def test_condition_number_of_a_random_kernel_comes_to_one(self, seed):
        kernel = glorot(seed)
        newton = NewtonOrthogonalization(iterations=30, center=False)
        assert condition_number(kernel) > 100.0
        assert condition_number(helpers.conditioned(newton, kernel)) < 1.05
        # Centering takes one singular value, which is not counted.
        centered = helpers.conditioned(NewtonOrthogonalization(iterations=30), kernel)
        assert effective_condition_number(centered) < 1.05
        np.testing.assert_allclose(centered.mean(axis=0), 0.0, atol=1e-7)

    @pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5), (1, 4), (4, 1)])
    def test_limit_is_the_polar_factor(self, shape):
        kernel = normal(*shape)
        conditioned = helpers.conditioned(
            NewtonOrthogonalization(iterations=30, center=False), kernel
        )
        expected, _ = linalg.polar(kernel.astype("float64"))
        np.testing.assert_allclose(conditioned, expected, atol=1e-5)

    @pytest.mark.parametrize("iterations", [5, 60])
    @pytest.mark.parametrize("center", [False, True])
    @pytest.mark.parametrize("shape", [(64, 16), (16, 64), (32, 32)])
    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_never_diverges(self, iterations, center, shape, scale):
        kernel = scale * normal(*shape)
        kernel[:, 1] = kernel[:, 0]  # No full rank.
        conditioned = helpers.conditioned(NewtonOrthogonalization(iterations, center), kernel)
        assert np.linalg.norm(conditioned, ord=2) <= 1.0 + 1e-5

    def test_iterations_beyond_what_rounding_allows_keep_rows_centered(self):
        conditioned = helpers.conditioned(NewtonOrthogonalization(iterations=60), glorot(0))
        assert effective_condition_number(conditioned) < 1.001

    def test_arguments_are_checked(self):
        with pytest.raises(ValueError, match=r"`iterations` to be a positive integer. Received"):
            NewtonOrthogonalization(iterations=0)
        with pytest.raises(TypeError, match=r"`center` to be a boolean. Received: center=1 "):
            NewtonOrthogonalization(center=1)
        config = NewtonOrthogonalization(3, center=False).get_config()
        assert config == {"iterations": 3, "center": False, "differentiate_multiplier": False}


class TestPolynomial:
    @pytest.mark.parametrize(("degree", "kappa"), [(1, 6.66), (2, 4.89), (3, 3.56), (4, 2.89)])
    @pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2, 2)])
    def test_condition_number_ten_becomes_what_the_reference_says(self, degree, kappa, shape):
        # With one value far above the other, the bound is exact.
        kernel = with_spectrum([1.0, 0.1], *shape)
        result = effective_condition_number(
            helpers.conditioned(PolynomialPreconditioner(degree), kernel)
        )
        values = np.linspace(0.1, 1.0, 1001)
        mapped = methods_in_numpy.composed([methods_in_numpy.COEFFICIENTS[degree]])(values)
        np.testing.assert_allclose(mapped.max() / mapped.min(), kappa, rtol=0.01)
        np.testing.assert_allclose(result, mapped[-1] / mapped[0], rtol=0.01)

    @pytest.mark.parametrize("degree", FACTORS)
    def test_singular_values_are_mapped_one_by_one(self, degree):
        values = np.geomspace(2.0, 1e-3, 8)
        kernel = with_spectrum(values, 10, 14)
        bound = methods_in_numpy.norm_bound(kernel.astype("float64").T, 8)
        s = values / bound
        expected = (
            bound
            * s
            * np.polynomial.polynomial.polyval(s**2, methods_in_numpy.COEFFICIENTS[degree])
        )
        result = np.linalg.svd(
            helpers.conditioned(PolynomialPreconditioner(degree), kernel), compute_uv=False
        )
        np.testing.assert_allclose(result[:8], np.sort(expected)[::-1], rtol=1e-3)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("degree", FACTORS)
    def test_condition_number_of_a_random_kernel_falls_by_the_first_coefficient(self, seed, degree):
        kernel = glorot(seed)
        conditioned = helpers.conditioned(PolynomialPreconditioner(degree), kernel)
        factor = condition_number(kernel) / condition_number(conditioned)
        # The largest value of p is 1 for low degrees and 1.02 for the highest.
        largest = np.linalg.norm(kernel, ord=2)
        bound = methods_in_numpy.norm_bound(kernel.astype("float64"), 8)
        assert 1.0 <= bound / largest < 1.05
        np.testing.assert_allclose(factor, FACTORS[degree] / (bound / largest), rtol=0.03)
        np.testing.assert_allclose(np.linalg.norm(conditioned, ord=2), bound, rtol=0.03)

    @pytest.mark.parametrize("degree", [0, 5, -1, 2.0, None, True])
    def test_degree_is_checked(self, degree):
        with pytest.raises(ValueError, match=r"Expected `degree` to be .* Received: degree="):
            PolynomialPreconditioner(degree)


class TestRuiz:
    @pytest.mark.parametrize("shape", [(256, 256), (40, 60), (60, 40)])
    def test_balances_what_equilibrating_rows_does_not(self, shape):
        for seed in range(3):
            kernel = scaled_kernel(shape, seed)
            balanced = helpers.conditioned(RuizEquilibration(), kernel).astype("float64")
            rows = np.linalg.norm(balanced, axis=0)
            columns = np.linalg.norm(balanced, axis=1)
            assert spread(rows) < 0.01
            assert spread(columns) < 0.01
            np.testing.assert_allclose(rows, 1.0, rtol=0.01)
            np.testing.assert_allclose(columns, np.sqrt(shape[1] / shape[0]), rtol=0.01)
            by_rows = helpers.conditioned(RowEquilibration(), kernel).astype("float64")
            assert spread(np.linalg.norm(by_rows, axis=1)) > 1e3
            assert condition_number(balanced) < 1e-2 * condition_number(by_rows)

    def test_zero_columns_are_left_out(self):
        kernel = normal(6, 5)
        kernel[2] = 0.0
        balanced = helpers.conditioned(RuizEquilibration(), kernel)
        np.testing.assert_array_equal(balanced[2], 0.0)
        assert spread(np.linalg.norm(balanced, axis=0)) < 0.01
        assert spread(np.linalg.norm(np.delete(balanced, 2, axis=0), axis=1)) < 0.01

    @pytest.mark.parametrize("pattern", ["triangular", "arrow", "corner"])
    def test_a_pattern_that_cannot_be_balanced_stays_finite(self, pattern):
        kernel = normal(12, 12)
        if pattern == "triangular":
            kernel = np.triu(kernel)
        if pattern == "arrow":
            kernel[1:, :9] = 0.0
        if pattern == "corner":
            kernel[1:, :-1] = 0.0
        ruiz = RuizEquilibration(iterations=40)
        assert np.all(np.isfinite(helpers.conditioned(ruiz, kernel)))
        result = gradient(
            lambda w: keras.ops.sum(keras.ops.multiply(ruiz(w), normal(12, 12, seed=1))), kernel
        )
        assert np.all(np.isfinite(result))

    def test_zero_rows_and_columns_do_not_count(self):
        kernel = np.zeros((9, 12), "float32")
        kernel[:4, :6] = normal(4, 6)
        balanced = helpers.conditioned(RuizEquilibration(), kernel)
        np.testing.assert_allclose(np.linalg.norm(balanced[:4, :6], axis=0), 1.0, rtol=1e-3)
        columns = np.linalg.norm(balanced[:4, :6], axis=1)
        np.testing.assert_allclose(columns, np.sqrt(6 / 4), rtol=1e-3)

    def test_factors_are_bounded_where_norms_cannot_be_equal(self):
        sums = np.array([0.0, 1e-30, 1e-10, 1.6e-10, 0.5, 1.0, 1e10, 1e30, np.inf])
        expected = [1.0, 1e10, 1e10, 6.25e9, 2.0, 1.0, 1e-10, 1e-10, 1e-10]
        np.testing.assert_allclose(_reciprocal(sums), expected, rtol=1e-12)
        assert np.isnan(_reciprocal(np.array([np.nan])))

    def test_gradient_of_a_single_iteration_is_that_of_all_its_divisions(self):
        kernel, upstream = normal(4, 6), normal(4, 6, seed=1)
        ruiz = RuizEquilibration(iterations=1)
        found = gradient(lambda w: keras.ops.sum(keras.ops.multiply(ruiz(w), upstream)), kernel)

        def loss(w):
            return np.sum(ruiz.condition(w.T[None])[0].T * upstream)

        expected = central_differences(loss, kernel)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

    def test_iterations_are_checked(self):
        with pytest.raises(ValueError, match=r"`iterations` to be a positive integer. Received"):
            RuizEquilibration(iterations=0)


class TestFrobenius:
    @pytest.mark.parametrize("seed", range(3))
    def test_condition_number_stays_but_for_rounding(self, seed):
        kernel = glorot(seed)
        conditioned = helpers.conditioned(FrobeniusNormalization(), kernel)
        # Rounding every entry of a float32 kernel moves σ_min by up to 1e-8 σ_max.
        tolerance = 1e-8 * condition_number(kernel)
        np.testing.assert_allclose(
            condition_number(conditioned), condition_number(kernel), rtol=max(1e-6, tolerance)
        )
        np.testing.assert_allclose(np.linalg.norm(conditioned), 16.0, rtol=1e-6)

    @pytest.mark.parametrize("seed", range(3))
    def test_condition_number_stays_in_double_precision(self, seed):
        kernel = keras.ops.convert_to_tensor(glorot(seed).astype("float64"))
        if keras.backend.standardize_dtype(kernel.dtype) != "float64":
            pytest.skip("JAX has no float64 unless it is switched on for the whole process")
        conditioned = FrobeniusNormalization()(kernel)
        np.testing.assert_allclose(
            condition_number(conditioned), condition_number(kernel), rtol=1e-6
        )


class TestStandardization:
    def test_rows_have_zero_mean_and_unit_norm(self):
        conditioned = helpers.conditioned(WeightStandardization(), 3.0 + normal(40, 7))
        np.testing.assert_allclose(conditioned.mean(axis=0), 0.0, atol=1e-7)
        np.testing.assert_allclose(np.linalg.norm(conditioned, axis=0), 1.0, rtol=1e-5)

    @pytest.mark.parametrize("constant", [0.1, -3e7, 1e-30])
    @pytest.mark.parametrize("length", [1, 7, 5000])
    def test_constant_row_becomes_zero_and_not_rounding_noise(self, constant, length):
        kernel = np.stack([np.full(length, constant), normal(length)], axis=1).astype("float32")
        conditioned = helpers.conditioned(WeightStandardization(), kernel)
        np.testing.assert_array_equal(conditioned[:, 0], 0.0)
        expected = 0.0 if length == 1 else 1.0
        np.testing.assert_allclose(np.linalg.norm(conditioned[:, 1]), expected, rtol=1e-5)


@given(seed=st.integers(0, 2**16), shape=st.sampled_from([(4, 3), (5, 5), (12, 4), (3, 6)]))
def test_row_equilibration_is_within_van_der_sluis_bound(seed, shape):
    random = np.random.default_rng(seed)
    kernel = normal(*shape, seed=seed)
    if shape[0] < shape[1]:
        kernel = kernel[:, : shape[0]]  # The theorem is about full row rank.
    equilibrated = condition_number(helpers.conditioned(RowEquilibration(), kernel))
    rows = kernel.shape[1]
    for _ in range(5):
        scaled = kernel.astype("float64") * 10.0 ** random.uniform(-2, 2, size=rows)
        assert equilibrated <= np.sqrt(rows) * condition_number(scaled) * (1.0 + 1e-3)
