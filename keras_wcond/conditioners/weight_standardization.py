from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.norms import centered, normalized, scaled_by_maximum


@register
class WeightStandardization(Scaling):
    """Gives every row of the kernel's matrix zero mean and unit norm.

    The matrix has one row per output unit. This is the scaled form of weight standardization:
    each row has the standard deviation 1/√n, and so the norm 1. It equals row equilibration of
    the rows without their means. Use it in convolutions before a nonlinearity, if their inputs
    have non-zero means.

    `Ŵᵢ = (Wᵢ - μᵢ) / (σᵢ √n),  μᵢ and σᵢ the mean and the standard deviation of row i`

    Every row of the result is orthogonal to (1, …, 1). The rank of a matrix with at least as
    many rows as columns thus decreases by one, and its condition number is infinite. Read the
    `effective_condition_number()` in that case. A row whose entries are equal up to rounding
    becomes zero and has a zero gradient, as does every row of one entry. A row with a
    non-finite entry becomes NaN.

    Args:
        differentiate_multiplier: Boolean. Whether the gradient passes through the norms. With
            `False` they are constants of the gradient. Defaults to `True`.

    Examples:
        >>> kernel = np.array([[1, 5], [3, 5]], "float32")  # two units on axis -1
        >>> print(keras.ops.convert_to_numpy(WeightStandardization()(kernel)).round(3))
        [[-0.707  0.   ]
         [ 0.707  0.   ]]

    Reference:

    - [Qiao et al., 2019](https://arxiv.org/abs/1903.10520)
    - [Brock et al., 2021](https://arxiv.org/abs/2101.08692), with the scale used here
    """

    has_unit_rows = True
    works_on_arrays = True
    changes = "row means and norms"
    is_by_row = True

    def scale(self, x: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
        # The result does not depend on the scale of a row, so that no gradient is lost here.
        scaled, _ = scaled_by_maximum(x, columns)
        return normalized(
            centered(scaled, columns), columns, differentiate_norm=self.differentiate_multiplier
        )
