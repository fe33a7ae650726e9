"""Norms that neither overflow nor underflow, with finite gradients at zero."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wcond.linalg.arrays import namespace

SMALLEST_NORMAL = float(np.finfo("float32").tiny)
# Compilers turn division into multiplication by the reciprocal, which has to be normal too.
LARGEST_DIVISOR = 2.0**125
# Between these, a sum of squares in float32 is exact to rounding: what overflowed would be
# above, and what each square lost by underflow is nothing beside the sum.
SQUARES_WITHIN_RANGE = (1e-24, 1e36)
NORMS_WITHIN_RANGE = (1e-12, 1e18)


def normalized(x: Any, axis: Any, norm: float = 1.0) -> Any:
    """`norm · x / ‖x‖₂` along `axis`; zero, with a zero gradient, where `x` is zero.

    The tensor is divided by its largest magnitude first, so that squares stay in range
    for every finite input. No gradient passes through that division: the result does
    not depend on the scale of `x`, so there is none. Vectors whose entries all lie below
    the smallest normal number of float32 (1.2e-38) count as zero.
    """
    ops = namespace(x)
    scaled, _, is_zero = divided_by_maximum(x, axis)
    squares = ops.sum(ops.square(scaled), axis=axis, keepdims=True)
    # Both branches of `where` are differentiated, so the one not taken must be finite.
    reciprocal = norm * ops.rsqrt(ops.where(is_zero, 1.0, squares))
    return scaled * ops.where(is_zero, 0.0, reciprocal)


def inverse_column_norms(kernel: Any, one_norm: bool = False) -> tuple[Any, Any]:
    """Two factors of `1 / ‖kernelⱼ‖₂` for each column j; zero where a column is zero.

    Their product may be out of range where neither is, and the kernel times the one and then the
    other never is. Their gradient in a column that is zero is zero.

    Args:
        kernel: Tensor of shape `(inputs, units)`.
        one_norm: Whether the norm is that of the whole kernel for every column.
    """
    scaled, divisor, is_zero = divided_by_maximum(kernel, axis=None if one_norm else 0)
    squares = ops.sum(ops.square(scaled), axis=None if one_norm else 0, keepdims=True)
    reciprocal = ops.where(is_zero, 0.0, ops.rsqrt(ops.where(is_zero, 1.0, squares)))
    if one_norm:
        reciprocal = ops.where(_largest_magnitude(kernel, axis=0) == 0.0, 0.0, reciprocal)
    inverse = 1.0 / divisor * ops.ones_like(reciprocal)
    return ops.squeeze(reciprocal, 0), ops.squeeze(inverse, 0)


def frobenius_norm(x: Any) -> Any:
    """`√(Σ x²)` over all axes, as a scalar; its gradient at zero is zero."""
    ops = namespace(x)
    scaled, divisor, is_zero = divided_by_maximum(x, axis=None)
    squares = ops.where(is_zero, 1.0, ops.sum(ops.square(scaled), keepdims=True))
    norm = ops.where(is_zero, 0.0, ops.sqrt(squares)) * divisor
    return ops.reshape(norm, ())


def scaled_by_maximum(x: Any, axis: Any) -> tuple[Any, Any]:
    """`x` divided by its largest magnitude along `axis`, and where that is zero.

    No gradient passes through the division: it is for functions that do not depend on the
    scale of `x`.
    """
    scaled, _, is_zero = divided_by_maximum(x, axis)
    return scaled, is_zero


def centered(x: Any, axis: Any = -1) -> Any:
    """`x` without its mean along `axis`; zero where it is constant, up to rounding.

    What is left of a constant vector is the rounding error of its mean, which normalization
    would make as large as any other vector.
    """
    ops = namespace(x)
    # Not by `ops.mean`, which computes float64 in float32 on JAX.
    axes = axis if isinstance(axis, tuple) else (axis,)
    number = math.prod(x.shape[each] for each in axes)
    deviations = x - ops.sum(x, axis=axis, keepdims=True) / number
    deviations = deviations - ops.sum(deviations, axis=axis, keepdims=True) / number
    rounding = 4.0 * float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)
    spread, size = (_largest_magnitude(vector, axis) for vector in (deviations, x))
    return ops.where(spread <= rounding * size, 0.0, deviations)


def with_zero_rows_fixed(matrices: Any, axis: Any = -1) -> Any:
    """The matrices, but with no gradient in rows, which run along `axis`, that are zero.

    For methods that are smooth there: Newton's iteration would multiply such a row by
    1.5 at every step of its own, and one step of training make it the largest of all.
    """
    ops = namespace(matrices)
    is_zero = _largest_magnitude(matrices, axis) == 0.0
    return ops.where(is_zero, ops.stop_gradient(matrices), matrices)


def divided_by_maximum(x: Any, axis: Any) -> tuple[Any, Any, Any]:
    """`x` divided by its largest magnitude along `axis`, that, and where it is zero.

    No gradient passes through the division. Where the magnitude is zero, or too large to
    be divided by, the divisor is another number, that by which `x` was divided.
    """
    ops = namespace(x)
    maximum = _largest_magnitude(x, axis)
    # Comparisons with NaN are false: non-finite values pass through and stay visible.
    is_zero = maximum < SMALLEST_NORMAL
    divisor = ops.where(is_zero, 1.0, maximum)
    is_large = ops.logical_and(divisor > LARGEST_DIVISOR, divisor < float("inf"))
    divisor = ops.where(is_large, LARGEST_DIVISOR, divisor)
    return x / divisor, divisor, is_zero


def _largest_magnitude(x, axis):
    ops = namespace(x)
    return ops.max(ops.abs(ops.stop_gradient(x)), axis=axis, keepdims=True)
