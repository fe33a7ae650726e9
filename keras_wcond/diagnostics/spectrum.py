"""Singular values of kernels, in float64 on the host."""

from typing import Any

import keras
import ml_dtypes
import numpy as np

from keras_wcond.kernels import KernelLayout

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
    values, _ = _spectrum(kernel, unit_axes)
    return values


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
    values, size = _spectrum(kernel, unit_axes)
    largest, smallest = values[..., 0], values[..., -1]
    tolerance = size * np.finfo("float64").eps
    return _ratio(largest, np.where(smallest <= tolerance * largest, 0.0, smallest))


def effective_condition_number(
    kernel: Any, unit_axes: UnitAxes = -1, tolerance: float | None = None
) -> Any:
    """`σ_max / σ_r`, the condition number over the numerical rank r of the matrix.

    Args:
        kernel: As of `singular_values()`.
        unit_axes: As of `singular_values()`.
        tolerance: Float in [0, 1). Singular values of at most `tolerance · σ_max` count as
            zero. By default `max(rows, columns)` times the machine epsilon of the kernel's
            own dtype.

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
    values, size = _spectrum(kernel, unit_axes)
    if tolerance is None:
        tolerance = size * _machine_epsilon(kernel.dtype)
    largest = values[..., :1]
    # Inverted, so that NaN stays among the values.
    counted = np.where(values <= tolerance * largest, np.inf, values)
    smallest = counted.min(axis=-1)
    return _ratio(largest[..., 0], np.where(np.isposinf(smallest), 0.0, smallest))


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
    values, _ = _spectrum(kernel, unit_axes)
    largest = values[..., :1]
    relative = values / np.where(largest == 0.0, 1.0, largest)
    return _scalar(np.sum(relative**2, axis=-1))


def _spectrum(kernel, unit_axes):
    """The singular values of each matrix, and the larger of its dimensions."""
    layout = KernelLayout.of(unit_axes)
    kernel = keras.ops.convert_to_numpy(kernel).astype("float64")
    matrices = layout.to_matrices(kernel)
    values = np.full((len(matrices), min(matrices.shape[1:])), np.nan)
    finite = np.isfinite(matrices).all(axis=(1, 2))
    values[finite] = np.linalg.svd(matrices[finite], compute_uv=False)
    is_stack = layout.blocks > 1 or layout.matrix_axes
    return (values if is_stack else values[0]), max(matrices.shape[1:])


def _machine_epsilon(dtype):
    dtype = keras.backend.standardize_dtype(dtype)
    return float(ml_dtypes.finfo(dtype if "float" in dtype else "float64").eps)


def _ratio(largest, smallest):
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(smallest == 0.0, np.inf, largest / smallest)
    return _scalar(ratio)


def _scalar(values):
    return float(values) if values.ndim == 0 else values
