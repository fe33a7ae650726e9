"""How many products of matrices the methods take that work on whole spectra."""

import keras
import numpy as np
import pytest

from keras_wcond import conditioners
from tests.helpers import normal, operations, to_numpy

DIFFERENTIATED = {"differentiate_multiplier": True}
PRODUCTS = {"dot_general", "BatchMatMulV2", "MatMul", "bmm", "mm"}


@pytest.mark.parametrize(
    ("conditioner", "shape", "expected"),
    [
        # One for each Gram matrix; one more for powers above the second, and one with the kernel.
        (conditioners.SpectralNormalization(iterations=6), (8, 8), 6),
        (conditioners.PolynomialPreconditioner(degree=1, **DIFFERENTIATED), (8, 8), 4 + 1),
        (conditioners.PolynomialPreconditioner(degree=2, **DIFFERENTIATED), (8, 8), 4 + 1),
        (conditioners.PolynomialPreconditioner(degree=3, **DIFFERENTIATED), (8, 8), 4 + 2),
        (conditioners.PolynomialPreconditioner(degree=4, **DIFFERENTIATED), (8, 8), 4 + 2),
        # Two for σ̂, which the first step uses, and one with the kernel. Each further step takes a
        # Gram matrix and a product with it.
        (conditioners.NewtonOrthogonalization(iterations=1, **DIFFERENTIATED), (8, 8), 2 + 1),
        (
            conditioners.NewtonOrthogonalization(iterations=5, **DIFFERENTIATED),
            (8, 8),
            2 + 1 + 2 * 4,
        ),
        # All but the first and the last have the smaller dimension.
        (conditioners.NewtonOrthogonalization(iterations=5, **DIFFERENTIATED), (8, 32), 14),
        (conditioners.NewtonOrthogonalization(iterations=5, **DIFFERENTIATED), (32, 8), 14),
        (conditioners.NewtonOrthogonalization(iterations=6, **DIFFERENTIATED), (8, 32), 16),
        # A Gram matrix, its square and a product for each step.
        (conditioners.NewtonStep(**DIFFERENTIATED), (8, 8), 2),
        (conditioners.PolarExpress(steps=1, **DIFFERENTIATED), (8, 8), 3),
        (conditioners.PolarExpress(steps=1, **DIFFERENTIATED), (32, 8), 3),
        (conditioners.PolarExpress(steps=3, **DIFFERENTIATED), (8, 8), 9),
        # A constant multiplier is applied once more, except for the products that it consists of.
        (conditioners.PolarExpress(steps=1), (8, 8), 3),
        (conditioners.PolarExpress(steps=2), (8, 8), 7),
        # Norms alone take none.
        (conditioners.RowEquilibration(), (8, 8), 0),
    ],
    ids=str,
)
def test_number_of_products(conditioner, shape, expected):
    found = operations(conditioner, normal(*shape))
    assert sum(name in PRODUCTS for name in found) == expected


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="float64 has to be switched on for the whole process"
)
@pytest.mark.parametrize("name", ["row_equilibration", "frobenius_normalization"])
def test_products_of_double_precision_are_exact_to_it(name):
    inputs, kernel = normal(4, 300, dtype="float64"), normal(300, 201, dtype="float64")
    norms = np.linalg.norm(kernel, axis=0)
    if name == "frobenius_normalization":
        norms = np.linalg.norm(kernel) / np.sqrt(201)
    tensors = map(keras.ops.convert_to_tensor, (inputs, kernel))
    found = to_numpy(conditioners.get(name).product(*tensors))
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, inputs @ (kernel / norms), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize(
    "name", ["row_equilibration", "column_equilibration", "frobenius_normalization"]
)
def test_scalings_that_are_constants_of_the_gradient_have_no_product(name):
    method = conditioners.METHODS[name](differentiate_multiplier=False)
    assert method.product(normal(4, 300), normal(300, 200)) is None
