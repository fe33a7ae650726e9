from keras_wcond import backends
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.norms import normalized, with_zero_rows_fixed


@register
class ColumnEquilibration(Scaling):
    """Scales every column of the kernel's matrix to unit norm.

    The matrix has one column per input feature. In a convolution, a column is one input channel
    at one position of the window. Use this method in layers whose inputs have very different
    scales, where training has led to columns of very different norms. The 2-norm condition
    number of the result is within a factor √n of the smallest that any scaling of columns can
    reach, where n is the number of columns (van der Sluis 1969).

    `Ŵ = W E,  E = diag(1/‖W e₁‖₂, …, 1/‖W eₙ‖₂)`

    The Frobenius norm of the result is √n, so that the rows of an m × n matrix have a mean
    square norm of n/m. `gain="auto"` divides by this norm. A zero column or row stays zero and
    has a zero gradient. A column with a non-finite entry becomes NaN.

    Args:
        differentiate_multiplier: Boolean. Whether the gradient passes through the norms. With
            `False` they are constants of the gradient. Defaults to `True`.

    Examples:
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

    def scale(self, x: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
        return normalized(
            with_zero_rows_fixed(x, columns),
            axis=rows,
            differentiate_norm=self.differentiate_multiplier,
        )

    def product(
        self,
        inputs: Tensor,
        kernel: Tensor,
        gain: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor | None:
        if not self.differentiate_multiplier:
            return None
        return backends.column_equilibrated_product(inputs, kernel, gain, bias)
