"""Gram iteration: an upper bound of the largest singular value, without random numbers."""

import dataclasses
import math

from keras_wcond.linalg.arrays import Tensor, namespace


def wide(matrices: Tensor) -> tuple[Tensor, bool]:
    """The matrices, transposed if they are tall, and whether they were."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    return (transposed(matrices) if is_tall else matrices), is_tall


def transposed(matrices: Tensor) -> Tensor:
    """The transpose of each matrix."""
    return namespace(matrices).transpose(matrices, (0, 2, 1))


def gram(matrices: Tensor) -> Tensor:
    """`A Aᵀ` of each matrix A."""
    # Not by Keras' `ops.matmul`, which computes float64 in float32 on PyTorch.
    return matrices @ transposed(matrices)


@dataclasses.dataclass(frozen=True)
class Bounded:
    """The bounds `σ̂` of the largest singular values of matrices A, and products of `A / σ̂`.

    Attributes:
        inverse: `1 / σ̂` of each matrix, with shape `(matrices, 1, 1)`. Zero for zero matrices.
        squared_norm: `‖A‖_F²` of each matrix, with the same shape. One for zero matrices.
        gram: `X Xᵀ` of `X = A / σ̂`, a by-product of the iteration.
        gram_squared: `(X Xᵀ)²`, or None after a single iteration.
    """

    inverse: Tensor
    squared_norm: Tensor
    gram: Tensor
    gram_squared: Tensor | None


def bounded(
    matrices: Tensor, is_zero: Tensor, iterations: int, by_row_sums: bool = False
) -> Bounded:
    """An upper bound of the largest singular value of each matrix.

    `G ← G Gᵀ` squares the singular values until the largest outweighs the others. The bound is
    `σ̂ = ‖G‖_F^(2^-iterations)`, with `σ_max ≤ σ̂ ≤ σ_max · rank^(2^-(iterations + 1))`.
    With `by_row_sums` it is the smaller of `‖G‖_F` and `‖G‖_∞`, the largest sum of magnitudes in
    a row, which is exact for orthogonal matrices. G is rescaled in each iteration, and the scale
    is kept as a logarithm, so that nothing overflows.

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

    def squared_norm(product: Tensor) -> Tensor:
        return ops.sum(ops.square(product), axis=(1, 2), keepdims=True) + one_if_zero

    product = matrices
    identity = ops.eye(matrices.shape[1], dtype=matrices.dtype)
    log_scale: Tensor = 0.0
    grams: list[tuple[Tensor, Tensor]] = []
    norms: list[Tensor] = []
    for _ in range(iterations):
        # No entry is far above 1, so that the product is within range.
        product = gram(product)
        # The trace is the squared norm of the matrices, without a pass over them.
        norms.append(ops.sum(product * identity, axis=(1, 2), keepdims=True) + one_if_zero)
        log_scale = 2.0 * log_scale + ops.log(norms[-1])
        product = product * (1.0 / norms[-1])
        grams.append((product, log_scale))
    squares = squared_norm(product)
    if by_row_sums:
        sums = ops.max(ops.sum(ops.abs(product), axis=2, keepdims=True), axis=1, keepdims=True)
        by_sums = ops.square(sums + one_if_zero)
        # Not by Keras' `ops.minimum`, which computes float64 in float32.
        squares = ops.where(by_sums < squares, by_sums, squares)
    log_bound = math.ldexp(0.5, -iterations) * (ops.log(squares) + 2.0 * log_scale)

    def power(index: int) -> Tensor | None:
        """`(X Xᵀ)^(2^index)` from the products of the iteration and their scales."""
        if index >= len(grams):
            return None
        product, log_scale = grams[index]
        return product * ops.exp(log_scale - math.ldexp(2.0, index) * log_bound)

    inverse = ops.where(is_zero, 0.0, ops.exp(-log_bound))
    return Bounded(inverse, norms[0], power(0), power(1))
