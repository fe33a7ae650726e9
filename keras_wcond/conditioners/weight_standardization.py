from typing import Any

from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.linalg.norms import centered, normalized, scaled_by_maximum


@register
class WeightStandardization(Scaling):
    """Gives every row of the kernel's matrix, one per output unit, zero mean and unit norm.

    The scaled form of weight standardization: each row has the standard deviation 1/√n,
    and so the norm 1. It is row equilibration of the rows without their means. Meant for
    convolutions before a nonlinearity, whose inputs have means that are not zero.

    `Ŵᵢ = (Wᵢ - μᵢ) / (σᵢ √n),  μᵢ and σᵢ the mean and the standard deviation of row i`

    As every row is orthogonal to (1, …, 1), a matrix with at least as many rows as columns
    loses one rank, and its condition number is infinite: read the
    `effective_condition_number()` there. A row whose entries are equal, up to rounding,
    becomes zero and has a zero gradient, in particular a row of one entry; a row with a
    non-finite entry becomes NaN throughout.

    Example:

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

    def scale(self, x: Any, rows: tuple[int, ...], columns: tuple[int, ...]) -> Any:
        # The result does not depend on the scale of a row: no gradient is lost by this.
        scaled, _ = scaled_by_maximum(x, columns)
        return normalized(centered(scaled, columns), columns)
