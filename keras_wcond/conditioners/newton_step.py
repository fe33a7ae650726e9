import math
from typing import Any

from keras_wcond.arguments import number_between
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.singular_value_method import SingularValueMethod
from keras_wcond.linalg.arrays import Tensor, namespace
from keras_wcond.linalg.gram_iteration import are_tall, bounded, squared_norm, wide
from keras_wcond.linalg.norms import centered, scaled_matrices

# The largest ratio of σ̂ to the scale s. The step maps a singular value √3 s to zero, and √2 s
# to 0.71 s or more.
LARGEST_RATIO = math.sqrt(2.0)


@register
class NewtonStep(SingularValueMethod):
    """Moves singular values a little towards each other, and keeps the kernel's norm.

    This method is meant for stored kernels: a `WeightConditioning` constraint, or the
    `weight_conditioner` of `condition_optimizer`, applies it again and again while the network
    is trained, so that a step has to undo only what the updates have done. The constraint acts
    after every update, which makes all singular values equal in time. With `every=8`,
    `condition_optimizer` leaves kernels more freedom. A step takes two matrix products, none of
    them differentiated there.

    `Ŵ = ‖W‖_F / ‖V‖_F · V,  V = Z + ½ · strength · (Z - Z ZᵀZ / s²)`

    Z is W, without the means of its rows if `center`. s is the root mean square of the singular
    values, `‖Z‖_F / √min(m, n)`, or `σ̂/√2` if that is larger, where σ̂ is an upper bound of
    the largest singular value. No singular value becomes negative, from any start, and steps in
    sequence bring all that are not zero to one value.

    A zero row stays zero and has a zero gradient. With `center`, so does a row of equal entries.
    A matrix with a non-finite entry becomes NaN.

    Args:
        strength: Float above 0 and not above 1. The fraction of a step of Newton's iteration.
            Defaults to `1.0`.
        center: Boolean. Whether to subtract the mean of each row first. Defaults to `False`.
        differentiate_multiplier: Boolean. Whether the gradient passes through the matrix by
            which Z is multiplied. It matters in a layer only, where the step is differentiated.
            Defaults to `False`.

    Examples:
        >>> kernel = np.diag([1.0, 0.5]).astype("float32")
        >>> print(keras.ops.convert_to_numpy(NewtonStep()(kernel)).round(2))
        [[0.82 0.  ]
         [0.   0.76]]

    Reference:

    - Björck and Bowie, *An iterative algorithm for computing the best estimate of an orthogonal
      matrix*, 1971
    """

    works_on_arrays = True
    keeps_norm = True

    def __init__(
        self,
        strength: float = 1.0,
        center: bool = False,
        differentiate_multiplier: bool = False,
    ) -> None:
        super().__init__(center, differentiate_multiplier)
        self.strength = number_between("strength", strength, 0.0, 1.0, includes_upper=True)

    def condition_along(self, matrices: Tensor, column_axis: int) -> Tensor:
        ops = namespace(matrices)
        z, size, is_zero = self.scaled(matrices, column_axis)
        is_tall = are_tall(z, column_axis)
        x = wide(z, is_tall)
        found = bounded(self.multiplier(x), is_zero, 1, by_row_sums=True)
        mean_square = found.squared_norm * ops.square(found.inverse) / x.shape[1]
        is_small = mean_square < 1.0 / LARGEST_RATIO**2
        scale = ops.where(is_small, 1.0 / LARGEST_RATIO**2, mean_square)
        # The step up to a factor, which the norm of the result replaces.
        gram, factor = found.gram
        share = 0.5 * self.strength / (1.0 + 0.5 * self.strength)
        identity = ops.eye(x.shape[1], dtype=x.dtype)
        multiplier = identity - gram * (share / scale * factor)
        moved = z @ multiplier if is_tall else multiplier @ z
        moved = centered(moved, column_axis) if self.center else moved
        # Of a zero matrix both norms are 1, so that the gradient of their ratio is finite.
        one_if_zero = ops.where(is_zero, ops.ones_like(found.squared_norm), 0.0)
        squares = found.squared_norm
        if self.center:
            # Not by the size of Z, which is below the range of the dtype for tiny means.
            kept, size, _ = scaled_matrices(matrices, column_axis)
            squares = squared_norm(kept) + one_if_zero
        ratio = squares / (squared_norm(moved) + one_if_zero)
        # The result has the scale of Z, so that the gradient in `size` is zero.
        return size * self.multiplier(ops.sqrt(ratio)) * moved

    def get_config(self) -> dict[str, Any]:
        return {"strength": self.strength, **super().get_config()}
