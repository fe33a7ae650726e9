"""Gram iteration: an upper bound of the largest singular value, without random numbers."""

import dataclasses
import math
from typing import Any

from keras_wcond.linalg.arrays import namespace


def wide(matrices: Any) -> tuple[Any, bool]:
    """The matrices, transposed if they are tall, and whether they were."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    return (transposed(matrices) if is_tall else matrices), is_tall


def transposed(matrices: Any) -> Any:
    return namespace(matrices).transpose(matrices, (0, 2, 1))


def gram(matrices: Any) -> Any:
    """`A Aᵀ` of each matrix A."""
    # By the operator: `ops.matmul` of Keras computes float64 in float32 on PyTorch.
    return matrices @ transposed(matrices)


@dataclasses.dataclass(frozen=True)
class Bounded:
    """Matrices A, the inverse of a bound of each one's largest singular value, and products.

    Attributes:
        inverse: `1 / σ̂` of each matrix, with shape `(matrices, 1, 1)`; zero for zero matrices.
        gram: `X Xᵀ` of `X = A / σ̂`, as the iteration comes by it.
        gram_squared: `(X Xᵀ)²`, or None after a single iteration.
    """

    inverse: Any
    gram: Any
    gram_squared: Any


def bounded(matrices: Any, is_zero: Any, iterations: int) -> Bounded:
    """A bound of the largest singular value of each matrix.

    `G ← G Gᵀ` squares the singular values until the largest outweighs the others, so that
    `σ̂ = ‖G‖_F^(2^-iterations)`, with `σ_max ≤ σ̂ ≤ σ_max · rank^(2^-(iterations + 1))`.
    G is rescaled on the way, and the scale kept as a logarithm, so that nothing overflows.

    Args:
        matrices: Tensor of shape `(matrices, rows, columns)` with no more rows than columns,
            whose largest magnitudes are about 1.
        is_zero: Boolean tensor of shape `(matrices, 1, 1)`: which of them are zero.
        iterations: Positive integer. As many products are taken.

    Reference:

    - [Delattre et al., 2023](https://arxiv.org/abs/2305.16173)
    """
    ops = namespace(matrices)
    # What is added once takes fewer operations than a choice for each sum.
    one_if_zero = ops.where(is_zero, ops.ones_like(matrices[:, :1, :1]), 0.0)

    def squared_norm(product):
        return ops.sum(ops.square(product), axis=(1, 2), keepdims=True) + one_if_zero

    product, log_scale, grams = matrices, 0.0, []
    for _ in range(iterations):
        squares = squared_norm(product)
        log_scale = 2.0 * log_scale + ops.log(squares)
        # The smaller of the two to scale, and within range unscaled: no entry is far above 1.
        product = gram(product) * (1.0 / squares)
        grams.append((product, log_scale))
    log_squares = ops.log(squared_norm(product)) + 2.0 * log_scale
    log_bound = math.ldexp(0.5, -iterations) * log_squares

    def power(index):
        """Of the Gram matrix of A / σ̂: by what the iteration has, and how that is scaled."""
        if index >= len(grams):
            return None
        product, log_scale = grams[index]
        return product * ops.exp(log_scale - math.ldexp(2.0, index) * log_bound)

    inverse = ops.where(is_zero, 0.0, ops.exp(-log_bound))
    return Bounded(inverse, power(0), power(1))
