import math
from typing import Any

import keras
from keras import ops

from keras_wcond import backends
from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.kernels import KernelLayout
from keras_wcond.norms import normalized, with_zero_rows_fixed


@keras.saving.register_keras_serializable(package="keras_wcond")
class FrobeniusNormalization(Conditioner):
    """Scales the kernel's matrix as a whole, to rows of unit mean square norm.

    The control that separates scale from conditioning: it sets the scale that row
    equilibration sets, and leaves the condition number and the ratios of all singular
    values as they are. A method that does no better than this one does not win by its
    conditioning.

    `Ŵ = W √m / ‖W‖_F,  m the number of rows`

    After another method, in a `Sequential` conditioner, it gives that method's result the
    scale of row equilibration, so that a gain means the same for both. A zero row stays
    zero and has a zero gradient.

    Example:

    >>> kernel = np.diag([3.0, 4.0]).astype("float32")
    >>> print(keras.ops.convert_to_numpy(FrobeniusNormalization()(kernel)).round(3))
    [[0.849 0.   ]
     [0.    1.131]]
    """

    has_unit_rows = True

    def condition(self, matrices: Any) -> Any:
        return _normalized(matrices, rows=matrices.shape[1], row_axis=-1, axis=(1, 2))

    def condition_kernel(self, kernel: Any, layout: KernelLayout) -> Any:
        if not layout.is_one_matrix:
            return super().condition_kernel(kernel, layout)
        rows = math.prod(layout.units(kernel.shape))
        return _normalized(kernel, rows, layout.column_axes(kernel.shape), axis=None)

    def product(self, inputs: Any, kernel: Any, gain: Any = None, bias: Any = None) -> Any:
        if not backends.has_equilibrated():
            return None
        norm = ops.convert_to_tensor(math.sqrt(kernel.shape[1]), kernel.dtype)
        gain = norm if gain is None else gain * norm
        return backends.equilibrated_product(inputs, kernel, gain, bias, one_norm=True)


def _normalized(x, rows, row_axis, axis):
    return normalized(with_zero_rows_fixed(x, row_axis), axis, norm=math.sqrt(rows))
