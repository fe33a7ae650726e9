"""Singular values of kernels, in float64 on the host."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import ml_dtypes
import numpy as np

from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import Tensor

UnitAxes = int | Sequence[int] | KernelLayout


def singular_values(kernel: Tensor, unit_axes: UnitAxes = -1) -> np.ndarray:
    """The singular values of a kernel's matrix, largest first.

    NumPy decomposes the kernel in float64 as a matrix with one row per output unit, and all other
    axes as columns. Pass `layer.kernel` for the raw spectrum and `layer.conditioned_kernel` for
    the effective one.

    Args:
        kernel: Tensor, variable or array of any dtype with at least two axes.
        unit_axes: Integer, tuple of integers or `KernelLayout`, the axes that index output
            units. They are -1 for kernels of `Dense` and convolution layers, and -2 for kernels
            of transposed convolutions. Defaults to -1. An axis that the kernel lacks is an
            error.

    Returns:
        float64 array of shape `(min(rows, columns),)`. With a `KernelLayout` that reads the
        kernel as several matrices, the shape is `(matrices, min(rows, columns))`. NaN for a
        matrix with non-finite entries.

    Examples:
        >>> singular_values(np.array([[3.0, 0.0], [0.0, 4.0]])).tolist()
        [4.0, 3.0]
    """
    layout = KernelLayout.of(unit_axes)
    values = Spectrum.of(kernel, layout).values
    if _is_stack(layout):
        return values
    (single,) = values
    return np.asarray(single)


def condition_number(kernel: Tensor, unit_axes: UnitAxes = -1) -> float | np.ndarray:
    """`κ = σ_max / σ_min`, infinite for a rank-deficient matrix.

    Singular values of at most `σ_max · max(rows, columns) · 2.2e-16`, the rounding error of the
    decomposition, count as zero. Condition numbers up to about 1e12 can be told from infinite ones.
    A kernel in float32 that has lost its rank except for rounding has a κ of about 1e7, and not
    infinity. Use `effective_condition_number()` for such kernels.

    Args:
        kernel: Tensor, variable or array of any dtype with at least two axes.
        unit_axes: Integer, tuple of integers or `KernelLayout`, the axes that index output
            units, as for `singular_values()`. Defaults to -1.

    Returns:
        Float. With a `KernelLayout` that reads the kernel as several matrices, a float64 array
        of shape `(matrices,)`. NaN for a matrix with non-finite entries.

    Examples:
        >>> condition_number(np.diag([100.0, 1.0]))
        100.0
        >>> condition_number(np.ones((2, 2)))
        inf
    """
    layout = KernelLayout.of(unit_axes)
    return _per_matrix(Spectrum.of(kernel, layout).condition_numbers(), layout)


def effective_condition_number(
    kernel: Tensor, unit_axes: UnitAxes = -1, tolerance: float | None = None
) -> float | np.ndarray:
    """`σ_max / σ_r`, the condition number over the numerical rank r of the matrix.

    The numerical rank is the number of singular values that do not count as zero.

    Args:
        kernel: Tensor, variable or array of any dtype with at least two axes.
        unit_axes: Integer, tuple of integers or `KernelLayout`, the axes that index output
            units, as for `singular_values()`. Defaults to -1.
        tolerance: Float in [0, 1), or None. Singular values of at most `tolerance · σ_max` count
            as zero. With None, singular values of at most `ε · ‖W‖_F` do, where ε is the machine
            epsilon of the kernel's own dtype. Rounding the entries changes singular values by up
            to half of this bound. Defaults to None.

    Returns:
        Float. With a `KernelLayout` that reads the kernel as several matrices, a float64 array
        of shape `(matrices,)`. Infinite for a zero matrix only, and NaN for a matrix with
        non-finite entries.

    Raises:
        ValueError: `tolerance` is not in [0, 1).

    Examples:
        >>> effective_condition_number(np.diag([100.0, 1.0, 0.0]))
        100.0
    """
    if tolerance is not None and not 0.0 <= tolerance < 1.0:
        raise ValueError(
            f"Expected `tolerance` to be None or in [0, 1). Received: tolerance={tolerance}"
        )
    layout = KernelLayout.of(unit_axes)
    return _per_matrix(Spectrum.of(kernel, layout).effective_condition_numbers(tolerance), layout)


def stable_rank(kernel: Tensor, unit_axes: UnitAxes = -1) -> float | np.ndarray:
    """`‖W‖_F² / σ_max²`, between 1 and the rank, and insensitive to small singular values.

    Args:
        kernel: Tensor, variable or array of any dtype with at least two axes.
        unit_axes: Integer, tuple of integers or `KernelLayout`, the axes that index output
            units, as for `singular_values()`. Defaults to -1.

    Returns:
        Float. With a `KernelLayout` that reads the kernel as several matrices, a float64 array
        of shape `(matrices,)`. 0 for a zero matrix, and NaN for a matrix with non-finite entries.

    Examples:
        >>> stable_rank(np.eye(3))
        3.0
    """
    layout = KernelLayout.of(unit_axes)
    return _per_matrix(Spectrum.of(kernel, layout).stable_ranks(), layout)


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The singular values of a kernel's matrices, and the measures derived from them.

    Args:
        values: float64 array of shape `(matrices, min(rows, columns))`, largest first.
        size: The larger of a matrix's dimensions.
        epsilon: The machine epsilon of the kernel's dtype.
    """

    values: np.ndarray
    size: int
    epsilon: float

    @classmethod
    def of(cls, kernel: Tensor, layout: KernelLayout) -> "Spectrum":
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
        """From eigenvalues of Gram matrices. Faster, with errors up to 1e-8 of the largest."""
        if matrices.shape[1] > matrices.shape[2]:
            matrices = matrices.transpose(0, 2, 1)
        values = np.full(matrices.shape[:2], np.nan)
        finite = np.isfinite(matrices).all(axis=(1, 2))
        kept = matrices[finite]
        # Of a product of an array with its own transpose, NumPy computes one triangle only.
        grams = kept @ kept.transpose(0, 2, 1)
        values[finite] = np.sqrt(np.maximum(np.linalg.eigvalsh(grams)[:, ::-1], 0.0))
        return cls(values, max(matrices.shape[1:]), epsilon)

    def condition_numbers(self) -> np.ndarray:
        largest, smallest = self.values[:, 0], self.values[:, -1]
        tolerance = self.size * np.finfo("float64").eps
        return _ratio(largest, np.where(smallest <= tolerance * largest, 0.0, smallest))

    def effective_condition_numbers(self, tolerance: float | None = None) -> np.ndarray:
        largest = self.values[:, :1]
        # This comparison is False for NaN, so NaN stays among the values.
        counted = np.where(self.values <= self._negligible(tolerance), np.inf, self.values)
        smallest = counted.min(axis=1)
        return _ratio(largest[:, 0], np.where(np.isposinf(smallest), 0.0, smallest))

    def numerical_ranks(self) -> np.ndarray:
        ranks: np.ndarray = np.sum(self.values > self._negligible(), axis=1)
        return ranks

    def _negligible(self, tolerance: float | None = None) -> np.ndarray:
        """The bound up to which singular values count as zero, with shape `(matrices, 1)`."""
        if tolerance is not None:
            return np.asarray(tolerance * self.values[:, :1])
        return np.asarray(self.epsilon * np.linalg.norm(self.values, axis=1, keepdims=True))

    def stable_ranks(self) -> np.ndarray:
        largest = self.values[:, :1]
        relative = self.values / np.where(largest == 0.0, 1.0, largest)
        ranks: np.ndarray = np.sum(relative**2, axis=1)
        return ranks


def machine_epsilon(dtype: Any) -> float:
    """The machine epsilon of a floating-point dtype, and of float64 for any other."""
    name = keras.backend.standardize_dtype(dtype)
    finfo: Callable[[str], Any] = ml_dtypes.finfo  # It has no types.
    return float(finfo(name if "float" in name else "float64").eps)


def _ratio(largest: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(smallest == 0.0, np.inf, largest / smallest)


def _is_stack(layout: KernelLayout) -> bool:
    """Whether a layout reads a kernel as several matrices."""
    return layout.blocks > 1 or bool(layout.matrix_axes)


def _per_matrix(numbers: np.ndarray, layout: KernelLayout) -> float | np.ndarray:
    """The numbers of several matrices as an array, or that of a single matrix as a float."""
    return numbers if _is_stack(layout) else float(numbers[0])
