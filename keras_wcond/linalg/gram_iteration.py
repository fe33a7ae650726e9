"""Gram iteration: an upper bound of the largest singular value, without random numbers."""

import math
from typing import NamedTuple

from keras_wcond.linalg.arrays import Tensor, namespace


def are_tall(matrices: Tensor, column_axis: int = 2) -> bool:
    """Whether the smaller Gram matrix of each matrix A is `Aᵀ A`.

    Args:
        matrices: Tensor of shape `(matrices, rows, columns)`, or of shape
            `(matrices, columns, rows)`.
        column_axis: 2 or 1. The axis along which a row runs. It decides for square matrices, as
            the row sums of `A Aᵀ` and of `Aᵀ A` differ. Kernels mostly hold columns first, and
            square ones are then used as they are. Defaults to `2`.

    Returns:
        Boolean.
    """
    first, second = matrices.shape[1:]
    return bool(first > second or (first == second and column_axis == 2))


def wide(matrices: Tensor, is_tall: bool) -> Tensor:
    """The matrices, transposed if they are tall."""
    return transposed(matrices) if is_tall else matrices


def transposed(matrices: Tensor) -> Tensor:
    """The transpose of each matrix."""
    return namespace(matrices).transpose(matrices, (0, 2, 1))


def gram(matrices: Tensor) -> Tensor:
    """`A Aᵀ` of each matrix A."""
    # Not by Keras' `ops.matmul`, which computes float64 in float32 on PyTorch.
    if matrices.shape[0] > 1:
        return matrices @ transposed(matrices)
    # XLA copies the transpose of a stack, but not that of a matrix.
    matrix = matrices[0]
    return (matrix @ namespace(matrix).transpose(matrix))[None]


def trace(matrices: Tensor) -> Tensor:
    """The trace of each matrix, with shape `(matrices, 1, 1)`."""
    ops = namespace(matrices)
    return ops.sum(ops.diagonal(matrices, axis1=1, axis2=2), axis=1)[:, None, None]


def squared_norm(matrices: Tensor) -> Tensor:
    """`‖A‖_F²` of each matrix A, with shape `(matrices, 1, 1)`."""
    ops = namespace(matrices)
    return ops.sum(ops.square(matrices), axis=(1, 2), keepdims=True)


class Scaled(NamedTuple):
    """The matrices `factor · matrix`, which saves a pass over them.

    Attributes:
        matrix: Tensor of shape `(matrices, rows, columns)`.
        factor: Tensor of shape `(matrices, 1, 1)`.
    """

    matrix: Tensor
    factor: Tensor


class Bounded(NamedTuple):
    """The bounds `σ̂` of the largest singular values of matrices A, and products of `A / σ̂`.

    Attributes:
        inverse: `1 / σ̂` of each matrix, with shape `(matrices, 1, 1)`. Zero for zero matrices.
        squared_norm: `‖A‖_F²` of each matrix, with the same shape. One for zero matrices.
        gram: `X Xᵀ` of `X = A / σ̂`, a by-product of the iteration.
        gram_squared: `(X Xᵀ)²`, or None after a single iteration.
    """

    inverse: Tensor
    squared_norm: Tensor
    gram: Scaled
    gram_squared: Scaled | None


def bounded(
    matrices: Tensor, is_zero: Tensor, iterations: int, by_row_sums: bool = False
) -> Bounded:
    """An upper bound of the largest singular value of each matrix.

    `G ← G Gᵀ` squares the singular values until the largest outweighs the others. The bound is
    `σ̂ = ‖G‖_F^(2^-iterations)`, with `σ_max ≤ σ̂ ≤ σ_max · rank^(2^-(iterations + 1))`.
    With `by_row_sums` it is the smaller of `‖G‖_F` and `‖G‖_∞`, the largest sum of magnitudes in
    a row, which is exact for orthogonal matrices. G is rescaled between two iterations, and the
    scale is kept as a logarithm, so that nothing overflows.

    Args:
        matrices: Tensor of shape `(matrices, rows, columns)` with no more rows than columns,
            whose largest magnitudes are about 1.
        is_zero: Boolean tensor of shape `(matrices, 1, 1)`. Whether a matrix is zero.
        iterations: Positive integer. The number of matrix products.
        by_row_sums: Boolean. Whether row sums may give the bound. Defaults to `False`.

    Returns:
        A `Bounded`.

    Reference:

    - [Delattre et al., 2023](https://arxiv.org/abs/2305.16173)
    """
    ops = namespace(matrices)
    # Added to each sum, this takes fewer operations than a `where` for each.
    one_if_zero = ops.where(is_zero, ops.ones_like(matrices[:, :1, :1]), 0.0)
    product = matrices
    log_scale: Tensor = 0.0
    powers: list[tuple[Tensor, Tensor]] = []
    norms: list[Tensor] = []
    for remaining in range(iterations - 1, -1, -1):
        # No entry is far above 1, so that the product is within range.
        product = gram(product)
        log_scale = 2.0 * log_scale
        # The squared norm of the matrices, without a pass over them.
        norms.append(trace(product) + one_if_zero)
        if remaining:
            log_scale = log_scale + ops.log(norms[-1])
            product = product * (1.0 / norms[-1])
        powers.append((product, log_scale))
    squares = squared_norm(product) + one_if_zero
    if by_row_sums:
        sums = ops.max(ops.sum(ops.abs(product), axis=2, keepdims=True), axis=1, keepdims=True)
        by_sums = ops.square(sums + one_if_zero)
        # Not by Keras' `ops.minimum`, which computes float64 in float32.
        squares = ops.where(by_sums < squares, by_sums, squares)
    log_bound = math.ldexp(0.5, -iterations) * (ops.log(squares) + 2.0 * log_scale)

    # `(X Xᵀ)^(2^index)` from the products of the iteration and their scales.
    first, *others = (
        Scaled(product, ops.exp(log_scale - math.ldexp(2.0, index) * log_bound))
        for index, (product, log_scale) in enumerate(powers[:2])
    )
    inverse = ops.where(is_zero, 0.0, ops.exp(-log_bound))
    return Bounded(inverse, norms[0], first, others[0] if others else None)
