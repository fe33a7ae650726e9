import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_wcond.backends import is_autocasting
from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.linalg.arrays import Tensor

# Stands in for a batch size that is not known, since it is the default of `fit()`.
USUAL_BATCH_SIZE = 32
# Scaling a smaller kernel takes less time than calling the operations that avoid it.
SMALLEST_KERNEL = 2**15


@register
class ConditionedDense(KernelConditioning, keras.layers.Dense):
    """`keras.layers.Dense` with a conditioned kernel.

    Use it in place of `Dense` in hidden layers. A classifier's output layer is best left plain:
    unit rows bound its logits.

    `outputs = activation(inputs · gain · C(kernel) + bias)`

    The kernel has shape `(inputs, units)`, with its units on axis -1.

    Examples:
        >>> layer = ConditionedDense(4, activation="relu", gain="auto")
        >>> layer(np.ones((2, 3))).shape == (2, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
        >>> print(np.linalg.norm(kernel, axis=0).round(3))  # √2, for ReLU
        [1.414 1.414 1.414 1.414]
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = self._scaled_product(inputs)
        if outputs is None:
            with self.conditioned_scope():
                return super().call(inputs, training=training)
        return outputs if self.activation is None else self.activation(outputs)

    def _scaled_product(self, inputs: Tensor) -> Tensor | None:
        """The product with the conditioned kernel, if it costs less without forming that."""
        if self.kernel_conditioner is None:
            return None
        (kernel,) = self.kernels
        is_cheaper = is_cheaper_than_kernel(
            inputs.shape, kernel.variable.shape, self.kernel_conditioner.largest_product
        )
        if not is_cheaper or not _is_full_precision(inputs, self.variable_dtype):
            return None
        rows = inputs
        if len(inputs.shape) != 2:
            rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        outputs = kernel.product(rows, self.bias)
        if outputs is None or len(inputs.shape) == 2:
            return outputs
        return ops.reshape(outputs, (*ops.shape(inputs)[:-1], self.units))


def is_cheaper_than_kernel(
    inputs_shape: Sequence[Any], kernel_shape: Sequence[int], largest_product: float
) -> bool:
    """Whether conditioning the product with a kernel costs less than conditioning the kernel.

    Both forms give the same numbers up to rounding. One takes passes over the product, and the
    other takes passes over the kernel.

    Args:
        inputs_shape: Shape `(..., inputs)`. Only integers count. None and the symbols that stand
            for sizes in compiled or exported programs are unknown sizes.
        kernel_shape: Shape `(inputs, units)`.
        largest_product: Float. See `Conditioner`.

    Returns:
        Boolean.
    """
    sizes = (size if isinstance(size, int) else USUAL_BATCH_SIZE for size in inputs_shape[:-1])
    rows = math.prod(sizes)
    is_small = math.prod(kernel_shape) < SMALLEST_KERNEL
    return not is_small and rows <= largest_product * kernel_shape[0]


def _is_full_precision(inputs: Tensor, variable_dtype: str) -> bool:
    """Whether a product is computed in float32 or float64 throughout.

    A scaled product in half precision would be rounded once more, or overflow.

    Args:
        inputs: Tensor, the left factor.
        variable_dtype: The dtype that the kernel is stored in.

    Returns:
        Boolean.
    """
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    is_wide = dtype == variable_dtype and dtype in ("float32", "float64")
    return is_wide and not is_autocasting(inputs)
