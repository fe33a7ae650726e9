import math
from typing import Any

from keras import ops

from keras_wcond import backends
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.linalg.norms import normalized, with_zero_rows_fixed


@register
class FrobeniusNormalization(Scaling):
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
    works_on_arrays = True
    changes = "scale"

    def scale(self, x: Any, rows: tuple[int, ...], columns: tuple[int, ...]) -> Any:
        norm = math.sqrt(math.prod(x.shape[axis] for axis in rows))
        return normalized(with_zero_rows_fixed(x, columns), axis=(*rows, *columns), norm=norm)

    def product(self, inputs: Any, kernel: Any, gain: Any = None, bias: Any = None) -> Any:
        norm = ops.convert_to_tensor(math.sqrt(kernel.shape[1]), kernel.dtype)
        gain = norm if gain is None else gain * norm
        return backends.equilibrated_product(inputs, kernel, gain, bias, one_norm=True)
