"""Each conditioning method in NumPy float64, on one matrix with a row per output unit.

Written from the mathematics and not from the code: by singular values where the package
multiplies matrices, and by another iteration with the same limit where it iterates.
"""

import numpy as np

from keras_wcond import conditioners

COEFFICIENTS = {
    1: (1.507, -0.507),
    2: (2.083, -1.643, 0.560),
    3: (2.909, -4.649, 4.023, -1.283),
    4: (3.625, -9.261, 14.097, -10.351, 2.890),
}


def row_equilibration(matrix):
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def column_equilibration(matrix):
    return matrix / np.linalg.norm(matrix, axis=0, keepdims=True)


def ruiz_equilibration(matrix):
    """Ruiz' own iteration: rows and columns at once, by the square roots of their norms."""
    aspect = len(matrix) / matrix.shape[1]
    for _ in range(500):
        rows = np.linalg.norm(matrix, axis=1, keepdims=True)
        columns = np.linalg.norm(matrix, axis=0, keepdims=True) / np.sqrt(aspect)
        matrix = matrix / np.sqrt(rows) / np.sqrt(columns)
    return matrix


def frobenius_normalization(matrix):
    return matrix * np.sqrt(len(matrix)) / np.linalg.norm(matrix)


def weight_standardization(matrix):
    deviation = matrix.std(axis=1, keepdims=True) * np.sqrt(matrix.shape[1])
    return (matrix - matrix.mean(axis=1, keepdims=True)) / deviation


def gram_bound(values, iterations):
    """σ̂ = (Σ σ^(2^(iterations + 1)))^(2^-(iterations + 1)), from the singular values."""
    power = 2.0 ** (iterations + 1)
    return values[0] * np.sum((values / values[0]) ** power) ** (1.0 / power)


def spectral_normalization(matrix, iterations=6):
    return matrix / gram_bound(np.linalg.svd(matrix, compute_uv=False), iterations)


def newton_orthogonalization(matrix, iterations=5, center=True):
    if center:
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sum(values**4) ** 0.25
    for _ in range(iterations):
        values = 1.5 * values - 0.5 * values**3
    return left * values @ right


def polynomial_preconditioner(matrix, degree=4, constant_bound=None):
    """`constant_bound`: σ̂ as a number, where the factor through which no gradient passes."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    bound = gram_bound(values, 6)
    values = values / bound
    values = values * np.polynomial.polynomial.polyval(values**2, COEFFICIENTS[degree])
    return (constant_bound or bound) * (left * values @ right)


METHODS = {
    "row_equilibration": row_equilibration,
    "column_equilibration": column_equilibration,
    "ruiz_equilibration": ruiz_equilibration,
    "frobenius_normalization": frobenius_normalization,
    "weight_standardization": weight_standardization,
    "spectral_normalization": spectral_normalization,
    "polynomial_preconditioner": polynomial_preconditioner,
    "newton_orthogonalization": newton_orthogonalization,
}


def conditioned(name, kernel, layout):
    """The reference's result in the kernel's own shape."""
    kernel = np.asarray(kernel, "float64")
    matrices = np.stack([METHODS[name](matrix) for matrix in layout.to_matrices(kernel)])
    # Where each entry of the matrices came from.
    places = layout.to_matrices(np.arange(kernel.size).reshape(kernel.shape))
    result = np.empty(kernel.size)
    result[places.reshape(-1)] = matrices.reshape(-1)
    return result.reshape(kernel.shape)


def names():
    """Every method of the package, so that none is left without a reference."""
    return list(conditioners.METHODS)
