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
# The methods whose results have the scale of the kernel.
KEEPING_THE_SCALE = ["newton_step", "polynomial_preconditioner"]


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


def norm_bound(matrix, power):
    """The smaller of ‖Gᵖ‖_F and ‖Gᵖ‖_∞ of the smaller Gram matrix G, to the power 1/2p."""
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    size = np.abs(gram).max()
    powers = np.linalg.matrix_power(gram / size, power)
    norm = min(np.linalg.norm(powers), np.linalg.norm(powers, np.inf))
    return np.sqrt(size) * norm ** (0.5 / power)


def by_singular_values(matrix, function):
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left * function(values) @ right


def composed(polynomials):
    """The odd polynomials one after the other, each by its coefficients in odd powers."""

    def function(values):
        for coefficients in polynomials:
            values = values * np.polynomial.polynomial.polyval(values**2, coefficients)
        return values

    return function


def centered(matrix):
    return matrix - matrix.mean(axis=1, keepdims=True)


def newton_orthogonalization(matrix, iterations=5, center=True):
    matrix = centered(matrix) if center else matrix
    return by_singular_values(matrix / norm_bound(matrix, 2), composed([(1.5, -0.5)] * iterations))


# The best odd quintic for [0.05, 1], and the best for the interval that it maps to.
QUINTICS = (
    (6.752375277478281, -18.35096905293189, 13.263264737941082),
    (2.537864499569129, -1.8746769301017832, 0.4412803604916001),
)


def polar_express(matrix, polynomials=QUINTICS):
    return by_singular_values(matrix / norm_bound(matrix, 2), composed(polynomials))


def polynomial_preconditioner(matrix, degree=4, constant_bound=None):
    """`constant_bound`: σ̂ as a number, where the factor through which no gradient passes."""
    bound = norm_bound(matrix, 8)
    conditioned = by_singular_values(matrix / bound, composed([COEFFICIENTS[degree]]))
    return (constant_bound or bound) * conditioned


def newton_step(matrix, strength=1.0, center=False):
    norm = np.linalg.norm(matrix)
    matrix = centered(matrix) if center else matrix
    values = np.linalg.svd(matrix, compute_uv=False)
    scale = max(np.sqrt(np.mean(values**2)), norm_bound(matrix, 1) / np.sqrt(2.0))
    half = 0.5 * strength
    moved = by_singular_values(matrix, lambda s: s + half * (s - s**3 / scale**2))
    return moved * norm / np.linalg.norm(moved)


METHODS = {
    "row_equilibration": row_equilibration,
    "column_equilibration": column_equilibration,
    "ruiz_equilibration": ruiz_equilibration,
    "frobenius_normalization": frobenius_normalization,
    "weight_standardization": weight_standardization,
    "spectral_normalization": spectral_normalization,
    "newton_step": newton_step,
    "polynomial_preconditioner": polynomial_preconditioner,
    "polar_express": polar_express,
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
