"""The minimax polynomials, against their defining property and against a linear program."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from keras_wcond.linalg.minimax import minimax_polynomials, odd_minimax


def value(coefficients, s):
    return s * np.polynomial.polynomial.polyval(s**2, coefficients)


def by_linear_program(lower, upper, degree):
    """The coefficients and the error t that minimize t with |p - 1| ≤ t on a grid."""
    s = np.geomspace(lower, upper, 4000)
    powers = s[:, None] ** np.arange(1, degree + 1, 2)
    ones = np.ones((len(s), 1))
    found = optimize.linprog(
        [*np.zeros(powers.shape[1]), 1.0],
        A_ub=np.block([[powers, -ones], [-powers, -ones]]),
        b_ub=np.concatenate([np.ones(len(s)), -np.ones(len(s))]),
        bounds=(None, None),
    )
    return found.x[:-1], found.x[-1]


@pytest.mark.parametrize("degree", [3, 5])
@pytest.mark.parametrize(("lower", "upper"), [(0.05, 1.0), (0.5, 1.0), (1e-3, 1.0), (0.4, 1.6)])
def test_polynomial_agrees_with_a_linear_program(lower, upper, degree):
    coefficients, error = odd_minimax(lower, upper, degree)
    expected, expected_error = by_linear_program(lower, upper, degree)
    np.testing.assert_allclose(error, expected_error, rtol=1e-4)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-2)


@given(lower=st.floats(1e-4, 0.98), degree=st.sampled_from([3, 5]))
def test_errors_alternate_and_are_equal(lower, degree):
    coefficients, error = odd_minimax(lower, 1.0, degree)
    s = np.geomspace(lower, 1.0, 20001)
    deviations = value(coefficients, s) - 1.0
    np.testing.assert_allclose(np.abs(deviations).max(), error, rtol=1e-5, atol=1e-12)
    extremal = deviations[np.abs(deviations) > error * (1.0 - 1e-4) - 1e-12]
    changes = np.count_nonzero(np.diff(np.sign(extremal)))
    assert changes >= (degree + 1) // 2


@pytest.mark.parametrize(
    ("lower", "degree", "expected"),
    [
        (0.05, 5, [(6.752, -18.351, 13.263), (2.538, -1.875, 0.441)]),
        (0.1, 3, [(3.963, -3.571), (1.850, -0.549)]),
    ],
)
def test_coefficients_are_the_published_ones(lower, degree, expected):
    for found, published in zip(minimax_polynomials(2, lower, degree), expected, strict=True):
        np.testing.assert_allclose(found, published, atol=6e-4)


@pytest.mark.parametrize("degree", [3, 5])
@pytest.mark.parametrize("lower", [1e-100, 1e-17, 1e-5, 1e-4, 1e-3, 0.02])
def test_rounding_errors_do_not_grow(lower, degree):
    random = np.random.default_rng(0)
    s = np.append(np.geomspace(max(lower, 1e-5), 1.0, 1001), np.ones(1000)).astype("float32")
    for coefficients in minimax_polynomials(300, lower, degree):
        s = value(np.asarray(coefficients, "float32"), s)
        s = s * (1.0 + 1e-6 * random.normal(size=s.shape)).astype("float32")
        assert np.all((s > 0.0) & (s <= 2.01))
    np.testing.assert_allclose(s, 1.0, atol=1e-5)


@pytest.mark.parametrize("degree", [3, 5])
@pytest.mark.parametrize("lower", [1e-4, 0.05, 0.5, 0.999])
def test_compositions_come_to_one_and_stay_there(lower, degree):
    s = np.geomspace(lower, 1.0, 1001)
    for coefficients in minimax_polynomials(30, lower, degree):
        s = value(coefficients, s)
        assert np.all((s >= 0.0) & (s <= 2.0))
    np.testing.assert_allclose(s, 1.0, atol=1e-12)
