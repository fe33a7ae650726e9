"""The base class of the methods that apply polynomials to singular values."""

import math
from collections.abc import Sequence
from typing import ClassVar

from keras_wcond.conditioners.singular_value_method import SingularValueMethod
from keras_wcond.linalg.arrays import Tensor, namespace
from keras_wcond.linalg.gram_iteration import Scaled, are_tall, bounded, gram, wide
from keras_wcond.linalg.held_constant import held_constant
from keras_wcond.linalg.norms import centered

# Rounding errors of the Gram matrix grow as the multiplier does. Polynomials whose slopes at zero
# multiply to more than this are split, and the Gram matrix is computed from the matrix again.
LARGEST_GROWTH = 8.0
# Inputs that are multiplied by the factors of M one by one contain directions that Z removes: the
# means of rows, and its null space. The factors amplify them by the product of all slopes at zero,
# and their rounding errors remain. Up to this number they stay near those of the kernel itself.
LARGEST_GROWTH_OF_INPUTS = 40.0
# If the ratio of columns to rows is at least this, a further polynomial on the Gram matrix, three
# products of the smaller dimension, costs less than two products with the whole matrix.
FAR_WIDER = 2


class SingularValuePolynomial(SingularValueMethod):
    """Base class of the methods that apply odd polynomials to the singular values of a matrix.

    `C(W) = M(W) Z,  M = q_k(G_k) ⋯ q₁(G₁) / σ̂`

    Z is W, without the means of its rows if `center`. σ̂ is an upper bound of its largest
    singular value, and `G₁ = Z Zᵀ / σ̂²`. The polynomial `q_i` maps a singular value s to
    `s · q_i(s²)`, and `G_{i+1} = q_i(G_i)² G_i`. For a matrix with no more columns than rows,
    M stands on the right, and G is `Zᵀ Z / σ̂²`. All products but the last have the size of the
    smaller dimension.

    A subclass has the property `polynomials`.

    Args:
        center: Boolean. Whether to subtract the mean of each row first.
        differentiate_multiplier: Boolean. Whether the gradient passes through M. Otherwise the
            gradient is that of a product with a constant M, and only the last product is
            differentiated.

    Attributes:
        polynomials: Tuple with a tuple of the coefficients of each `q_i`, in powers of s², lowest
            first, at most 5 of them.
        gram_iterations: Integer. The number of Gram iterations for σ̂.
        by_row_sums: Boolean. Whether row sums may give σ̂.
        keeps_largest: Boolean. Whether the result is multiplied by σ̂ again, without a gradient.
    """

    works_on_arrays = True
    largest_product = 1.0
    gram_iterations: ClassVar[int] = 2
    by_row_sums: ClassVar[bool] = True
    keeps_largest: ClassVar[bool] = False

    @property
    def polynomials(self) -> tuple[tuple[float, ...], ...]:
        raise NotImplementedError(f"{type(self).__name__} must have the property `polynomials`.")

    def condition_along(self, matrices: Tensor, column_axis: int) -> Tensor:
        z, multipliers, moved, is_tall = self.factors(matrices, column_axis)
        if self.differentiate_multiplier:
            z, multipliers = moved, multipliers[-1:]
        for multiplier in multipliers:
            # As in `multipliers()`. Other rounding errors would be amplified by many iterations.
            z = _applied(multiplier, z, is_tall)
        # The multiplication has amplified the rounding errors of the means.
        return centered(z, column_axis) if self.center else z

    def product(
        self,
        inputs: Tensor,
        kernel: Tensor,
        gain: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor | None:
        if math.prod(polynomial[0] for polynomial in self.polynomials) > LARGEST_GROWTH_OF_INPUTS:
            return None
        z, multipliers, _, is_tall = self.factors(kernel[None], column_axis=1)
        for factor in (z, *multipliers) if is_tall else (*reversed(multipliers), z):
            inputs = inputs @ factor[0]
        product = inputs if gain is None else inputs * gain
        return product if bias is None else product + bias

    def factors(
        self, matrices: Tensor, column_axis: int
    ) -> tuple[Tensor, list[Tensor], Tensor, bool]:
        """The factors of the conditioned matrices.

        Args:
            matrices: As of `condition_along()`.
            column_axis: As of `condition_along()`.

        Returns:
            Z divided by its largest magnitude, the factors of M in the order in which they
            multiply, Z multiplied by all of them but the last, and whether they stand on the
            right.
        """
        z, size, is_zero = self.scaled(matrices, column_axis)
        is_tall = are_tall(z, column_axis)
        multipliers, moved, inverse = self.multipliers(self.multiplier(z), is_zero, is_tall)
        if self.keeps_largest:
            bound = size / namespace(z).where(is_zero, 1.0, inverse)
            multipliers[-1] = multipliers[-1] * held_constant(bound)
        return z, multipliers, moved, is_tall

    def multipliers(
        self, z: Tensor, is_zero: Tensor, is_tall: bool
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """The factors of M for matrices whose largest magnitude is about 1.

        Args:
            z: Tensor or array of three axes, the first of which indexes matrices.
            is_zero: Boolean tensor of shape `(matrices, 1, 1)`. Whether a matrix is zero.
            is_tall: Boolean. Whether the factors stand on the right.

        Returns:
            List of square tensors of the size of the smaller dimension, `z` multiplied by all of
            them but the last, and `1 / σ̂` of shape `(matrices, 1, 1)`.
        """
        x = wide(z, is_tall)
        found = bounded(x, is_zero, self.gram_iterations, self.by_row_sums)
        # A constant multiplier is applied to Z once more, in products that are differentiated.
        is_one_by_one = self.differentiate_multiplier and x.shape[2] < FAR_WIDER * x.shape[1]
        multipliers: list[Tensor] = []
        powers = (found.gram, found.gram_squared)
        for group in _groups(self.polynomials, 0.0 if is_one_by_one else LARGEST_GROWTH):
            if multipliers:
                z = _applied(multipliers[-1], z, is_tall)
                powers = (Scaled(gram(wide(z, is_tall)), 1.0), None)
            multipliers.append(_multiplier(group, *powers, 1.0 if multipliers else found.inverse))
        return multipliers, z, found.inverse


def _applied(multiplier: Tensor, z: Tensor, is_tall: bool) -> Tensor:
    """The product of a factor of M and a matrix."""
    # Multipliers are symmetric.
    return z @ multiplier if is_tall else multiplier @ z


def _groups(
    polynomials: Sequence[tuple[float, ...]], largest_growth: float
) -> list[list[tuple[float, ...]]]:
    """The polynomials in groups, the product of whose slopes at zero is bounded."""
    groups: list[list[tuple[float, ...]]] = []
    growth = float("inf")
    for polynomial in polynomials:
        growth *= polynomial[0]
        if growth > largest_growth:
            growth = polynomial[0]
            groups.append([])
        groups[-1].append(polynomial)
    return groups


def _multiplier(
    polynomials: Sequence[tuple[float, ...]],
    gram: Scaled,
    squared: Scaled | None,
    factor: Tensor | float,
) -> Tensor:
    """`factor · q_k(G_k) ⋯ q₁(G₁)`, with as few matrix products as the degrees allow.

    Args:
        polynomials: The coefficients of each polynomial.
        gram: The Gram matrices G₁.
        squared: G₁², or None.
        factor: Tensor of shape `(matrices, 1, 1)`, or a number.

    Returns:
        Tensor or array of shape `(matrices, rows, rows)`.
    """
    product: Tensor = None
    for left, coefficients in zip(range(len(polynomials) - 1, -1, -1), polynomials, strict=True):
        is_linear = len(coefficients) == 2
        if squared is None and not is_linear:
            squared = Scaled(gram.matrix @ gram.matrix, gram.factor * gram.factor)
        if left:
            value = _value(coefficients, gram, squared)
            step = _times_gram(coefficients, value, gram, squared)
            product = value if product is None else value @ product
            gram, squared = Scaled(value @ step, gram.factor), None
        else:
            value = _value([factor * each for each in coefficients], gram, squared)
            product = value if product is None else value @ product
    return product


def _times_gram(
    coefficients: Sequence[float], value: Tensor, gram: Scaled, squared: Scaled | None
) -> Tensor:
    """`q(G) G`, divided by the factor of G, from `q(G)`."""
    if len(coefficients) > 2 or squared is None:
        return value @ gram.matrix
    linear = coefficients[1] * squared.factor / gram.factor
    return coefficients[0] * gram.matrix + linear * squared.matrix


def _value(coefficients: Sequence[Tensor], gram: Scaled, squared: Scaled | None) -> Tensor:
    """`q(G)`, with one matrix product if q is of degree 3 or 4, and none if it is less."""
    c = [*coefficients, 0.0, 0.0][:5]
    identity = namespace(gram.matrix).eye(gram.matrix.shape[1], dtype=gram.matrix.dtype)
    value = c[0] * identity + c[1] * gram.factor * gram.matrix
    if squared is None or len(coefficients) == 2:
        return value
    c2, c3, c4 = (each * squared.factor for each in c[2:])
    if len(coefficients) == 3:
        return value + c2 * squared.matrix
    inner = c2 * identity + c3 * gram.factor * gram.matrix + c4 * squared.factor * squared.matrix
    return value + squared.matrix @ inner
