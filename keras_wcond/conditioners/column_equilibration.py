from typing import Any

from keras_wcond import backends
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.linalg.norms import normalized, with_zero_rows_fixed


@register
class ColumnEquilibration(Scaling):
    """Scales every column of the kernel's matrix, one per input feature, to unit norm.

    For layers whose inputs have very different scales, to which the kernel answered with
    columns of very different norms. Among all scalings of columns it brings the 2-norm
    condition number within a factor √n of the smallest possible, n being the number of
    columns (van der Sluis 1969). In a convolution, a column is one input channel at one
    place of the window.

    `Ŵ = W E,  E = diag(1/‖W e₁‖₂, …, 1/‖W eₙ‖₂)`

    The Frobenius norm becomes √n, so that rows have a mean square norm of n/m where the
    matrix is m × n: `gain="auto"` divides that out. A zero column or row stays zero and has a
    zero gradient; a column with a non-finite entry becomes NaN throughout.

    Example:

    >>> kernel = np.array([[3, 4], [0, 2]], "float32")  # two input features on axis 0
    >>> print(keras.ops.convert_to_numpy(ColumnEquilibration()(kernel)).round(3))
    [[0.6 0.8]
     [0.  1. ]]

    Reference:

    - van der Sluis, *Condition numbers and equilibration of matrices*,
      Numerische Mathematik 14, 1969
    """

    works_on_arrays = True
    changes = "column norms"

    def scale(self, x: Any, rows: tuple[int, ...], columns: tuple[int, ...]) -> Any:
        return normalized(with_zero_rows_fixed(x, columns), axis=rows)

    def product(self, inputs: Any, kernel: Any, gain: Any = None, bias: Any = None) -> Any:
        return backends.column_equilibrated_product(inputs, kernel, gain, bias)
