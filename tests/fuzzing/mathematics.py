"""gain · C(W) in NumPy and float64, with bounds of what rounding in another dtype may change."""

import dataclasses

import numpy as np

from tests import methods_in_numpy

# Each method takes fewer matrix products than this, one after the other.
PRODUCTS = 8
# A polynomial rounds each of its terms, once in the power and once in the product.
ROUNDINGS_OF_A_TERM = 2
# The relative accuracy that `gain="auto"` documents.
AUTO_ACCURACY = 1e-5
# Methods after which the rows have a mean square norm of 1.
UNIT_ROWS = {
    "row_equilibration",
    "ruiz_equilibration",
    "frobenius_normalization",
    "weight_standardization",
}
# Methods that divide rows or columns by norms of their own, which zero ones do not have.
BY_ROW = {"row_equilibration", "ruiz_equilibration", "weight_standardization"}
BY_COLUMN = {"column_equilibration", "ruiz_equilibration"}


def centered(matrix):
    """The deviations from the means of rows, zero for rows that are constant up to rounding."""
    deviations = methods_in_numpy.centered(matrix)
    spread, size = (np.max(np.abs(x), axis=1, keepdims=True) for x in (deviations, matrix))
    return np.where(spread <= 1e-13 * size, 0.0, deviations)


def weight_standardization(matrix):
    return methods_in_numpy.row_equilibration(matrix)  # It is centered already.


def ruiz_equilibration(matrix, iterations=20):
    """Rows and columns in turn, divided by their norms as often as the package does."""
    aspect = len(matrix) / matrix.shape[1]
    for _ in range(iterations + 1):
        matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        matrix = matrix / np.linalg.norm(matrix, axis=0, keepdims=True) * np.sqrt(aspect)
    return matrix


def polar_express(matrix, center=False):
    return methods_in_numpy.polar_express(matrix)  # It is centered already.


def newton_step(matrix, strength=1.0, center=False):
    if center and not np.any(centered(matrix)):
        return np.zeros_like(matrix)
    return methods_in_numpy.newton_step(matrix, strength, center)


METHODS = {
    **methods_in_numpy.METHODS,
    "weight_standardization": weight_standardization,
    "ruiz_equilibration": ruiz_equilibration,
    "polar_express": polar_express,
    "newton_step": newton_step,
}


def cancellation(name, arguments):
    """How much larger the terms of a method's polynomials are at 1 than the polynomials."""
    polynomials = ()
    if name == "polar_express":
        polynomials = methods_in_numpy.QUINTICS
    if name == "polynomial_preconditioner":
        polynomials = (methods_in_numpy.COEFFICIENTS[arguments.get("degree", 4)],)
    return sum(np.sum(np.abs(each)) / np.abs(np.sum(each)) for each in polynomials)


def apply_method(name, matrix, arguments):
    """C(W) of one matrix. Zero rows and columns, and rows that are zero once centered, stay so."""
    # It has no effect on values.
    arguments = {k: v for k, v in arguments.items() if k != "differentiate_multiplier"}
    kept = matrix
    if _centers(name, arguments):
        kept = centered(matrix)
    rows, columns = np.any(kept, axis=1), np.any(kept, axis=0)
    if not rows.any():
        return np.zeros_like(matrix)
    used = np.ix_(
        rows if name in BY_ROW else np.ones_like(rows),
        columns if name in BY_COLUMN else np.ones_like(columns),
    )
    result = np.zeros_like(matrix)
    result[used] = METHODS[name](kept[used], **arguments)
    result[~rows] = 0.0  # And not what rounding leaves of them.
    return result


def _centers(name, arguments):
    """Whether only the deviations of a matrix from the means of its rows count."""
    # A step also keeps the norm that the matrix had with its means.
    defaults = {"newton_orthogonalization": True, "weight_standardization": True}
    return name != "newton_step" and arguments.get("center", defaults.get(name, False))


def to_matrices(kernel, axes):
    """The kernel as matrices with a row per output unit, and the function back."""
    columns = [letter for letter in axes.letters if letter not in axes.rows + axes.stack]
    target = [*axes.stack, *axes.rows, *columns]
    permutation = [axes.letters.index(letter) for letter in target]
    moved = np.transpose(kernel, permutation)
    stacked, rows = len(axes.stack), len(axes.rows)
    matrices = moved.reshape(
        int(np.prod(moved.shape[:stacked], dtype=int)) * axes.blocks,
        int(np.prod(moved.shape[stacked : stacked + rows])) // axes.blocks,
        -1,
    )

    def back(matrices):
        return np.transpose(matrices.reshape(moved.shape), np.argsort(permutation))

    return matrices, back


@dataclasses.dataclass(frozen=True)
class Formula:
    """gain · C(W) of one kernel.

    Args:
        methods: Pairs of a method's name and its arguments, in the order of application.
        gain: The argument `gain`.
        axes: `Axes` of the kernel.
        activation_gain: The number that `"auto"` stands for.
    """

    methods: tuple[tuple[str, dict], ...]
    gain: float | str
    axes: object
    activation_gain: float = 1.0

    def conditioned(self, kernel):
        """C(W)."""
        matrices, back = to_matrices(kernel, self.axes)
        methods = [*self.methods]
        if self.gain == "auto" and methods[-1][0] not in UNIT_ROWS:
            methods.append(("frobenius_normalization", {}))
        results = []
        for matrix in matrices:
            for name, arguments in methods:
                matrix = apply_method(name, matrix, arguments)
            results.append(matrix)
        return back(np.stack(results))

    def initial_gain(self, kernel, trainable_gain):
        """The value that a gain that is a weight starts at."""
        if self.gain == "kernel_norm":
            return 1.0
        if self.gain == "auto":
            return self.activation_gain
        if self.gain != "initial_norm":
            return self.gain
        raw, conditioned = kernel, self.conditioned(kernel)
        if trainable_gain != "per_unit":
            return np.linalg.norm(raw) / np.linalg.norm(conditioned)
        letters = "".join(dict.fromkeys(self.axes.letters))
        units = "".join(x for x in letters if x in self.axes.rows + self.axes.stack)
        norms = [np.sqrt(np.einsum(f"{letters}->{units}", w**2)) for w in (raw, conditioned)]
        return np.where(norms[1] == 0.0, 1.0, norms[0] / np.where(norms[1] == 0.0, 1.0, norms[1]))

    def value(self, kernel, gain=None):
        """The kernel gain · C(W), with the present value of a gain that is a weight."""
        conditioned = self.conditioned(kernel)
        if self.gain == "kernel_norm":
            norm = np.linalg.norm(conditioned)
            conditioned = conditioned * (np.linalg.norm(kernel) / norm if norm else 0.0)
        if gain is None:
            fixed = {"auto": self.activation_gain, "kernel_norm": 1.0}
            return conditioned * fixed.get(self.gain, self.gain)
        gain = np.asarray(gain, "float64")
        if gain.ndim:
            units = self.axes.rows + self.axes.stack
            shape = [
                size if letter in units else 1
                for letter, size in zip(self.axes.letters, kernel.shape, strict=True)
            ]
            gain = gain.reshape(shape)
        return conditioned * gain

    def is_constant_at(self, kernel):
        """Whether small changes of a kernel leave C(W) as it is, as if columns have one entry."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=kernel.shape)
        moved = self.conditioned(kernel * (1.0 + 1e-3 * signs))
        return self.gain != "kernel_norm" and np.allclose(moved, self.conditioned(kernel), atol=0.0)

    def rounding(self, kernel, epsilon, function):
        """The largest change of a result if the kernel is rounded as in the method's products.

        Each of `PRODUCTS` products adds errors of `epsilon` times the length of its sums, and the
        terms of polynomials add theirs. Such a change of the kernel has the same effect on the
        result, up to rounding of the result.

        Args:
            kernel: Array W.
            epsilon: The spacing of numbers at 1 in the dtype of the computation.
            function: The function of W.
        """
        matrices, _ = to_matrices(kernel, self.axes)
        length = max(matrices.shape[1:])
        terms = sum(cancellation(*method) for method in self.methods)
        size = (PRODUCTS * len(self.methods) * length + ROUNDINGS_OF_A_TERM * terms) * epsilon
        result = np.asarray(function(kernel))
        if self.gain == "auto" and self.activation_gain != 1.0:
            size += AUTO_ACCURACY
        bound = size * np.max(np.abs(result))
        for seed in range(2):
            signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=kernel.shape)
            moved = kernel + size * np.max(np.abs(kernel)) * signs * (kernel != 0.0)
            bound = max(bound, np.max(np.abs(function(moved) - result)))
        return bound


def activation_gain(name):
    """1/√E[φ(z)²], z ~ N(0, 1), by Gauss-Hermite quadrature."""
    if name in (None, "linear"):
        return 1.0
    if name == "relu":
        return np.sqrt(2.0)
    points, weights = np.polynomial.hermite_e.hermegauss(100)
    return 1.0 / np.sqrt(np.sum(weights * getattr(np, name)(points) ** 2) / np.sum(weights))
