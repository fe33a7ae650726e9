import math
from typing import Any

import keras

from keras_wcond import backends
from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.kernels import KernelLayout
from keras_wcond.norms import normalized


@keras.saving.register_keras_serializable(package="keras_wcond")
class RowEquilibration(Conditioner):
    """Scales every row of the kernel's matrix, one per output unit, to unit norm.

    The method of the paper. Among all scalings of rows it brings the 2-norm condition
    number within a factor √m of the smallest possible, m being the number of rows (van
    der Sluis 1969). Rows drawn alike already have nearly equal norms: for them it changes
    the scale of the kernel and leaves its condition number as it was.

    `Ŵ = E W,  E = diag(1/‖W₁‖₂, …, 1/‖Wₘ‖₂)`

    The gradient of a row is orthogonal to the row and inversely proportional to its norm.
    A zero row stays zero and has a zero gradient; a row with a non-finite entry becomes
    NaN throughout.

    Example:

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

    def condition(self, matrices: Any) -> Any:
        return normalized(matrices, axis=-1)

    def condition_kernel(self, kernel: Any, layout: KernelLayout) -> Any:
        shape = tuple(kernel.shape)
        columns = layout.column_axes(shape)
        if not backends.has_equilibrated() or columns != tuple(range(len(columns))):
            return normalized(kernel, axis=columns)
        # Units are on the last axes: seen as a matrix, the kernel stays where it lies.
        return backends.equilibrated(kernel, math.prod(shape[len(columns) :]))

    def product(self, inputs: Any, kernel: Any, gain: Any = None, bias: Any = None) -> Any:
        if not backends.has_equilibrated():
            return None
        return backends.equilibrated_product(inputs, kernel, gain, bias)
