import math

from keras import ops

from keras_wcond import backends
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.norms import normalized, with_zero_rows_fixed


@register
class FrobeniusNormalization(Scaling):
    """Scales the kernel's matrix as a whole, to rows of unit mean square norm.

    This is the scale-matched baseline. It gives a kernel the scale of row equilibration, and
    leaves the condition number and the ratios of all singular values as they are. If another
    method performs no better than this one, its benefit does not come from conditioning.

    `Ŵ = W √m / ‖W‖_F,  m the number of rows`

    As the last method of a `Sequential` conditioner, it gives the result the scale of row
    equilibration, so that a gain has the same meaning for both. A zero row stays zero and has a
    zero gradient. A matrix with a non-finite entry becomes NaN.

    Args:
        differentiate_multiplier: Boolean. Whether the gradient passes through the norms. With
            `False` they are constants of the gradient. Defaults to `True`.

    Examples:
        >>> kernel = np.diag([3.0, 4.0]).astype("float32")
        >>> print(keras.ops.convert_to_numpy(FrobeniusNormalization()(kernel)).round(3))
        [[0.849 0.   ]
         [0.    1.131]]
    """

    has_unit_rows = True
    works_on_arrays = True
    changes = "scale"

    def scale(self, x: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
        norm = math.sqrt(math.prod(x.shape[axis] for axis in rows))
        return normalized(
            with_zero_rows_fixed(x, columns),
            axis=(*rows, *columns),
            norm=norm,
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
        norm = ops.convert_to_tensor(math.sqrt(kernel.shape[1]), kernel.dtype)
        gain = norm if gain is None else gain * norm
        return backends.equilibrated_product(inputs, kernel, gain, bias, one_norm=True)
