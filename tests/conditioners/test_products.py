"""How many products of matrices the methods take that work on whole spectra."""

import pytest

from keras_wcond import conditioners
from tests.helpers import normal, operations

PRODUCTS = {"dot_general", "BatchMatMulV2", "MatMul", "bmm", "mm"}


@pytest.mark.parametrize(
    ("conditioner", "shape", "expected"),
    [
        # One for each power of the Gram matrix that bounds σ_max, one more for powers of q above
        # the second, and one with the kernel.
        (conditioners.SpectralNormalization(iterations=6), (8, 8), 6),
        (conditioners.PolynomialPreconditioner(degree=1), (8, 8), 4 + 1),
        (conditioners.PolynomialPreconditioner(degree=2), (8, 8), 4 + 1),
        (conditioners.PolynomialPreconditioner(degree=3), (8, 8), 4 + 2),
        (conditioners.PolynomialPreconditioner(degree=4), (8, 8), 4 + 2),
        (conditioners.NewtonStep(), (8, 8), 1 + 1),
        (conditioners.PolarExpress(steps=1), (8, 8), 2 + 1),
        (conditioners.PolarExpress(steps=1, degree=3), (8, 8), 2 + 1),
        # A further step takes two for the next Gram matrix, one for its square, and one to
        # multiply the multipliers.
        (conditioners.PolarExpress(steps=2), (8, 8), 2 + 4 + 1),
        (conditioners.PolarExpress(steps=2), (32, 8), 2 + 4 + 1),
        # From the third on, rounding asks for the Gram matrix of the kernel multiplied so far.
        (conditioners.PolarExpress(steps=3), (8, 8), 2 + 4 + 1 + 1 + 1 + 1 + 1),
        # The square that is known already saves one of the second step.
        (conditioners.NewtonOrthogonalization(iterations=1), (8, 8), 2 + 1),
        (conditioners.NewtonOrthogonalization(iterations=2), (8, 8), 2 + 2 + 1),
        (conditioners.NewtonOrthogonalization(iterations=5), (8, 8), 2 + 2 + 3 * 3 + 1),
        (conditioners.NewtonOrthogonalization(iterations=5), (8, 32), 2 + 2 + 3 * 3 + 1),
        # Norms alone take none.
        (conditioners.RowEquilibration(), (8, 8), 0),
    ],
    ids=str,
)
def test_number_of_products(conditioner, shape, expected):
    found = operations(conditioner, normal(*shape))
    assert sum(name in PRODUCTS for name in found) == expected
