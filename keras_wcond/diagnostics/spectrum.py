"""Singular values of kernels, in float64 on the host."""

import dataclasses
from typing import Any

import keras
import ml_dtypes
import numpy as np

from keras_wcond.kernels.layout import KernelLayout

UnitAxes = int | tuple[int, ...] | KernelLayout


def singular_values(kernel: Any, unit_axes: UnitAxes = -1) -> np.ndarray:
    """The singular values of a kernel's matrix, largest first.

    The kernel is laid out as a matrix of output units × everything else and decomposed
    in float64 by NumPy. Pass `layer.kernel` for the raw spectrum and
    `layer.conditioned_kernel` for the effective one.

    Args:
        kernel: Tensor, variable or array with at least two axes.
        unit_axes: Integer, tuple of integers or `KernelLayout`, the axes that index
            output units: -1 for `Dense` and convolution kernels, -2 for transposed
            convolutions.

    Returns:
        float64 array of shape `(min(rows, columns),)`, or of shape
        `(matrices, min(rows, columns))` where a `KernelLayout` makes the kernel several
        matrices. NaN for a matrix with non-finite entries.

    Example:

    >>> singular_values(np.array([[3.0, 0.0], [0.0, 4.0]])).tolist()
    [4.0, 3.0]
    """
    layout = KernelLayout.of(unit_axes)
    return _unstacked(Spectrum.of(kernel, layout).values, layout)


def condition_number(kernel: Any, unit_axes: UnitAxes = -1) -> Any:
    """`κ = σ_max / σ_min`, infinite for a rank-deficient matrix.

    Singular values of at most `σ_max · max(rows, columns) · 2.2e-16`, the rounding error
    of the decomposition, count as zero: condition numbers up to 1e12 are told apart from
    infinite ones. A kernel that lost its rank but for float32 rounding has a κ of some
    1e7, not infinity; `effective_condition_number()` is the measure for those.

    Args:
        kernel: As of `singular_values()`.
        unit_axes: As of `singular_values()`.

    Returns:
        A float, or a float64 array with one value per matrix where a `KernelLayout` makes
        the kernel several. NaN for non-finite entries.

    Example:

    >>> condition_number(np.diag([100.0, 1.0]))
    100.0
    >>> condition_number(np.ones((2, 2)))
    inf
    """
    layout = KernelLayout.of(unit_axes)
    return _unstacked(Spectrum.of(kernel, layout).condition_numbers(), layout)


def effective_condition_number(
    kernel: Any, unit_axes: UnitAxes = -1, tolerance: float | None = None
) -> Any:
    """`σ_max / σ_r`, the condition number over the numerical rank r of the matrix.

    Args:
        kernel: As of `singular_values()`.
        unit_axes: As of `singular_values()`.
        tolerance: Float in [0, 1). Singular values of at most `tolerance · σ_max` count as
            zero. By default those of at most `ε · ‖W‖_F` do, ε being the machine epsilon of
            the kernel's own dtype: rounding its entries moves singular values by up to half
            of that.

    Returns:
        As of `condition_number()`, but infinite only for a zero matrix.

    Example:

    >>> effective_condition_number(np.diag([100.0, 1.0, 0.0]))
    100.0
    """
    if tolerance is not None and not 0.0 <= tolerance < 1.0:
        raise ValueError(
            f"Expected `tolerance` to be None or in [0, 1). Received: tolerance={tolerance}"
        )
    layout = KernelLayout.of(unit_axes)
    return _unstacked(Spectrum.of(kernel, layout).effective_condition_numbers(tolerance), layout)


def stable_rank(kernel: Any, unit_axes: UnitAxes = -1) -> Any:
    """`‖W‖_F² / σ_max²`, between 1 and the rank, and insensitive to small singular values.

    Args:
        kernel: As of `singular_values()`.
        unit_axes: As of `singular_values()`.

    Returns:
        As of `condition_number()`; 0 for a zero matrix.

    Example:

    >>> stable_rank(np.eye(3))
    3.0
    """
    layout = KernelLayout.of(unit_axes)
    return _unstacked(Spectrum.of(kernel, layout).stable_ranks(), layout)


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The singular values of a kernel's matrices, and what is read off them.

    Args:
        values: float64 array of shape `(matrices, min(rows, columns))`, largest first.
        size: The larger of a matrix's dimensions.
        epsilon: The machine epsilon of the kernel's dtype.
    """

    values: np.ndarray
    size: int
    epsilon: float

    @classmethod
    def of(cls, kernel: Any, layout: KernelLayout) -> "Spectrum":
        kernel = kernel if hasattr(kernel, "dtype") else np.asarray(kernel)
        epsilon = machine_epsilon(kernel.dtype)
        kernel = keras.ops.convert_to_numpy(kernel).astype("float64")
        return cls.of_matrices(layout.to_matrices(kernel), epsilon)

    @classmethod
    def of_matrices(cls, matrices: np.ndarray, epsilon: float) -> "Spectrum":
        values = np.full((len(matrices), min(matrices.shape[1:])), np.nan)
        finite = np.isfinite(matrices).all(axis=(1, 2))
        values[finite] = np.linalg.svd(matrices[finite], compute_uv=False)
        return cls(values, max(matrices.shape[1:]), epsilon)

    @classmethod
    def by_gram(cls, matrices: np.ndarray, epsilon: float) -> "Spectrum":
        """By the eigenvalues of the Gram matrices: faster, and exact to 1e-8 of the largest."""
        if matrices.shape[1] > matrices.shape[2]:
            matrices = matrices.transpose(0, 2, 1)
        values = np.full(matrices.shape[:2], np.nan)
        finite = np.isfinite(matrices).all(axis=(1, 2))
        grams = matrices[finite] @ matrices[finite].transpose(0, 2, 1)
        values[finite] = np.sqrt(np.maximum(np.linalg.eigvalsh(grams)[:, ::-1], 0.0))
        return cls(values, max(matrices.shape[1:]), epsilon)

    def condition_numbers(self) -> np.ndarray:
        largest, smallest = self.values[:, 0], self.values[:, -1]
        tolerance = self.size * np.finfo("float64").eps
        return _ratio(largest, np.where(smallest <= tolerance * largest, 0.0, smallest))

    def effective_condition_numbers(self, tolerance: float | None = None) -> np.ndarray:
        largest = self.values[:, :1]
        # Inverted, so that NaN stays among the values.
        counted = np.where(self.values <= self._negligible(tolerance), np.inf, self.values)
        smallest = counted.min(axis=1)
        return _ratio(largest[:, 0], np.where(np.isposinf(smallest), 0.0, smallest))

    def numerical_ranks(self) -> np.ndarray:
        return np.sum(self.values > self._negligible(), axis=1)

    def _negligible(self, tolerance: float | None = None) -> np.ndarray:
        """Up to where singular values count as zero, with shape `(matrices, 1)`."""
        if tolerance is not None:
            return tolerance * self.values[:, :1]
        return self.epsilon * np.linalg.norm(self.values, axis=1, keepdims=True)

    def stable_ranks(self) -> np.ndarray:
        largest = self.values[:, :1]
        relative = self.values / np.where(largest == 0.0, 1.0, largest)
        return np.sum(relative**2, axis=1)


def machine_epsilon(dtype):
    dtype = keras.backend.standardize_dtype(dtype)
    return float(ml_dtypes.finfo(dtype if "float" in dtype else "float64").eps)


def _ratio(largest, smallest):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(smallest == 0.0, np.inf, largest / smallest)


def _unstacked(per_matrix, layout):
    """One matrix's part where the kernel is one; a float where that is a number."""
    if layout.blocks > 1 or layout.matrix_axes:
        return per_matrix
    return float(per_matrix[0]) if per_matrix.ndim == 1 else per_matrix[0]
