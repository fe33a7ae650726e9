"""Norms that neither overflow nor underflow, with finite gradients at zero."""

import math

import keras
import numpy as np
from keras import ops

from keras_wcond.linalg.arrays import Axes, Tensor, namespace
from keras_wcond.linalg.held_constant import held_constant

SMALLEST_NORMAL = float(np.finfo("float32").tiny)
# Compilers turn a division into a product with the reciprocal, which must be normal as well.
LARGEST_DIVISOR = 2.0**125
# Between these bounds, a sum of squares in float32 is exact to rounding. A sum with an overflow
# lies above them, and the underflow of single squares is negligible beside the sum.
SQUARES_WITHIN_RANGE = (1e-24, 1e36)
NORMS_WITHIN_RANGE = (1e-12, 1e18)


def normalized(x: Tensor, axis: Axes, norm: float = 1.0, differentiate_norm: bool = True) -> Tensor:
    """`norm · x / ‖x‖₂` along `axis`.

    The tensor is divided by its largest magnitude first, so that squares stay in range
    for every finite input. No gradient passes through that division, because the result does
    not depend on the scale of `x`. Vectors whose entries all lie below the smallest normal
    number of float32 (1.2e-38) count as zero.

    Args:
        x: Tensor or NumPy array.
        axis: Integer or tuple of integers. The axes along which the norm is taken.
        norm: Float. The norm of the result. Defaults to `1.0`.
        differentiate_norm: Boolean. Whether the gradient passes through ‖x‖₂. Defaults to `True`.

    Returns:
        Tensor or array of the shape of `x`. A zero vector stays zero and has a zero gradient.
    """
    ops = namespace(x)
    scaled, _, is_zero = divided_by_maximum(x, axis)
    squares = ops.sum(ops.square(scaled), axis=axis, keepdims=True)
    # Both branches of `where` are differentiated, so the one not taken must be finite.
    reciprocal = norm * ops.rsqrt(ops.where(is_zero, 1.0, squares))
    reciprocal = reciprocal if differentiate_norm else held_constant(reciprocal)
    return scaled * ops.where(is_zero, 0.0, reciprocal)


def inverse_column_norms(kernel: Tensor, one_norm: bool = False) -> tuple[Tensor, Tensor]:
    """Two factors of `1 / ‖kernelⱼ‖₂` for each column j.

    The product of the factors may be out of range where neither factor is. The kernel multiplied
    by one factor and then by the other is always within range.

    Args:
        kernel: Tensor of shape `(inputs, units)`.
        one_norm: Boolean. Whether to use the norm of the whole kernel for every column. Defaults
            to `False`.

    Returns:
        Two tensors of shape `(units,)`. The first is zero where a column is zero, and the
        gradients in that column are zero.
    """
    scaled, divisor, is_zero = divided_by_maximum(kernel, axis=None if one_norm else 0)
    squares = ops.sum(ops.square(scaled), axis=None if one_norm else 0, keepdims=True)
    reciprocal = ops.where(is_zero, 0.0, ops.rsqrt(ops.where(is_zero, 1.0, squares)))
    if one_norm:
        reciprocal = ops.where(_largest_magnitude(kernel, axis=0) == 0.0, 0.0, reciprocal)
    inverse = 1.0 / divisor * ops.ones_like(reciprocal)
    return ops.squeeze(reciprocal, 0), ops.squeeze(inverse, 0)


def frobenius_norm(x: Tensor) -> Tensor:
    """`√(Σ x²)` over all axes, as a scalar, with a zero gradient at zero."""
    ops = namespace(x)
    scaled, divisor, is_zero = divided_by_maximum(x, axis=None)
    squares = ops.where(is_zero, 1.0, ops.sum(ops.square(scaled), keepdims=True))
    norm = ops.where(is_zero, 0.0, ops.sqrt(squares)) * divisor
    return ops.reshape(norm, ())


def scaled_by_maximum(x: Tensor, axis: Axes) -> tuple[Tensor, Tensor]:
    """`x` divided by its largest magnitude along `axis`.

    No gradient passes through the division. The result is meant for functions that do not depend
    on the scale of `x`.

    Args:
        x: Tensor or NumPy array.
        axis: Integer or tuple of integers. The axes along which the maximum is taken.

    Returns:
        The scaled tensor, and a boolean tensor with `axis` of size 1: whether the magnitude is
        zero.
    """
    scaled, _, is_zero = divided_by_maximum(x, axis)
    return scaled, is_zero


def centered(x: Tensor, axis: Axes = -1) -> Tensor:
    """`x` without its mean along `axis`.

    Subtracting the mean of a constant vector leaves rounding errors, which normalization would
    make as large as any other vector. Vectors that are constant up to rounding become zero.

    Args:
        x: Tensor or NumPy array.
        axis: Integer or tuple of integers. The axes along which the mean is taken. Defaults to
            `-1`.

    Returns:
        Tensor or array of the shape of `x`.
    """
    ops = namespace(x)
    # Not by Keras' `ops.mean`, which computes float64 in float32 on JAX.
    axes = axis if isinstance(axis, tuple) else (axis,)
    number = math.prod(x.shape[each] for each in axes)
    deviations = x - ops.sum(x, axis=axis, keepdims=True) / number
    deviations = deviations - ops.sum(deviations, axis=axis, keepdims=True) / number
    rounding = 4.0 * float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)
    spread, size = (_largest_magnitude(vector, axis) for vector in (deviations, x))
    return ops.where(spread <= rounding * size, 0.0, deviations)


def with_zero_rows_fixed(matrices: Tensor, axis: Axes = -1) -> Tensor:
    """The matrices, without a gradient in rows that are zero.

    This is for methods that are smooth at zero. Newton's iteration multiplies a small row by 1.5
    in each iteration, so that one training step would make a zero row the largest of all.

    Args:
        matrices: Tensor or NumPy array.
        axis: Integer or tuple of integers. The axes along which a row runs. Defaults to `-1`.

    Returns:
        Tensor or array with the values of `matrices`.
    """
    ops = namespace(matrices)
    is_zero = _largest_magnitude(matrices, axis) == 0.0
    return ops.where(is_zero, ops.stop_gradient(matrices), matrices)


def scaled_matrices(matrices: Tensor, column_axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices divided by their largest magnitudes, without a gradient in rows that are zero.

    One pass less over the matrices than `divided_by_maximum(with_zero_rows_fixed(matrices))`.

    Args:
        matrices: Tensor or NumPy array of shape `(matrices, rows, columns)`, or of shape
            `(matrices, columns, rows)`.
        column_axis: 2 or 1. The axis along which a row runs.

    Returns:
        As of `divided_by_maximum()`.
    """
    ops = namespace(matrices)
    magnitudes = _largest_magnitude(matrices, column_axis)
    divisor, is_zero = _divisor(ops.max(magnitudes, axis=(1, 2), keepdims=True))
    # A factor of zero stops the gradient in zero rows.
    return matrices * ops.where(magnitudes == 0.0, 0.0, 1.0 / divisor), divisor, is_zero


def divided_by_maximum(x: Tensor, axis: Axes | None) -> tuple[Tensor, Tensor, Tensor]:
    """`x` divided by its largest magnitude along `axis`.

    No gradient passes through the division.

    Args:
        x: Tensor or NumPy array.
        axis: Integer, tuple of integers, or None for all axes. The axes along which the maximum
            is taken.

    Returns:
        The scaled tensor, the divisor, and a boolean tensor: whether the magnitude is zero. The
        latter two have `axis` of size 1. The divisor is 1 for a magnitude of zero, and
        `LARGEST_DIVISOR` for a finite magnitude above it.
    """
    divisor, is_zero = _divisor(_largest_magnitude(x, axis))
    return x / divisor, divisor, is_zero


def _divisor(maximum: Tensor) -> tuple[Tensor, Tensor]:
    ops = namespace(maximum)
    # Comparisons with NaN are false: non-finite values pass through and stay visible.
    is_zero = maximum < SMALLEST_NORMAL
    divisor = ops.where(is_zero, 1.0, maximum)
    is_large = ops.logical_and(divisor > LARGEST_DIVISOR, divisor < float("inf"))
    return ops.where(is_large, LARGEST_DIVISOR, divisor), is_zero


def _largest_magnitude(x: Tensor, axis: Axes | None) -> Tensor:
    ops = namespace(x)
    return ops.max(ops.abs(ops.stop_gradient(x)), axis=axis, keepdims=True)
