import math

import numpy as np

from keras_wcond import backends
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.norms import normalized


@register
class RowEquilibration(Scaling):
    """Scales every row of the kernel's matrix to unit norm.

    The matrix has one row per output unit. This is the method of Saratchandran et al. The
    2-norm condition number of the result is within a factor √m of the smallest that any scaling
    of rows can reach, where m is the number of rows (van der Sluis 1969). Rows drawn from the
    same distribution already have nearly equal norms. In that case the method changes the scale
    of the kernel and leaves its condition number as it was.

    `Ŵ = E W,  E = diag(1/‖W₁‖₂, …, 1/‖Wₘ‖₂)`

    The gradient of a row is orthogonal to the row and inversely proportional to its norm.
    A zero row stays zero and has a zero gradient. A row with a non-finite entry becomes NaN.

    Args:
        differentiate_multiplier: Boolean. Whether the gradient passes through the norms. With
            `False` they are constants of the gradient. Defaults to `True`.

    Examples:
        >>> kernel = np.array([[3, 0], [4, 2]], "float32")  # two units on axis -1
        >>> print(keras.ops.convert_to_numpy(RowEquilibration()(kernel)).round(3))
        [[0.6 0. ]
         [0.8 1. ]]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    - van der Sluis, *Condition numbers and equilibration of matrices*,
      Numerische Mathematik 14, 1969
    """

    has_unit_rows = True
    works_on_arrays = True
    changes = "row norms"
    is_by_row = True

    def scale(self, x: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
        is_plain = self.differentiate_multiplier and not isinstance(x, np.ndarray)
        if not is_plain or columns[-1] > rows[0]:
            return normalized(x, columns, differentiate_norm=self.differentiate_multiplier)
        # Units are on the last axes, so that the kernel is a matrix without a transpose.
        return backends.equilibrated(x, math.prod(x.shape[rows[0] :]))

    def product(
        self,
        inputs: Tensor,
        kernel: Tensor,
        gain: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor | None:
        if not self.differentiate_multiplier:
            return None
        return backends.equilibrated_product(inputs, kernel, gain, bias)
