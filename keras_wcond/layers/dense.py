import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_wcond.backends import is_autocasting
from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning

# An unknown size of a batch counts as that of `fit()` by default.
USUAL_BATCH_SIZE = 32
# A smaller kernel is scaled in less time than it takes to call the operations that spare it.
SMALLEST_KERNEL = 2**15
# In kernels: up to this size its fewer passes take less time, by measurement.
LARGEST_PRODUCT = 2


@register
class ConditionedDense(KernelConditioning, keras.layers.Dense):
    """`keras.layers.Dense` with a conditioned kernel.

    Use it in place of `Dense` in hidden layers. A classifier's output layer is best left plain:
    unit rows bound its logits.

    `outputs = activation(inputs · gain · C(kernel) + bias)`

    The kernel has shape `(inputs, units)`, with its units on axis -1.

    Example:

    >>> layer = ConditionedDense(4, activation="relu", gain="auto")
    >>> layer(np.ones((2, 3))).shape == (2, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.linalg.norm(kernel, axis=0).round(3))  # √2, for ReLU
    [1.414 1.414 1.414 1.414]
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = self._scaled_product(inputs)
        if outputs is None:
            with self.conditioned_scope():
                return super().call(inputs, training=training)
        return outputs if self.activation is None else self.activation(outputs)

    def _scaled_product(self, inputs):
        """The product with the conditioned kernel, if it costs less without forming that."""
        if self.kernel_conditioner is None:
            return None
        (kernel,) = self.kernels
        is_cheaper = is_cheaper_than_kernel(inputs.shape, kernel.variable.shape)
        if not is_cheaper or not _is_full_precision(inputs, self.variable_dtype):
            return None
        rows = inputs
        if len(inputs.shape) != 2:
            rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        outputs = kernel.product(rows, self.bias)
        if outputs is None or len(inputs.shape) == 2:
            return outputs
        return ops.reshape(outputs, (*ops.shape(inputs)[:-1], self.units))


def is_cheaper_than_kernel(inputs_shape: Sequence[Any], kernel_shape: Sequence[int]) -> bool:
    """Whether scaling the product with a `(inputs, units)` kernel costs less than scaling that.

    Only static sizes decide: those that a program is compiled or exported for as symbols count as
    unknown. Both forms give the same numbers, but for rounding: this one costs passes over the
    product, the other one more passes over the kernel.
    """
    sizes = (size if isinstance(size, int) else USUAL_BATCH_SIZE for size in inputs_shape[:-1])
    rows = math.prod(sizes)
    is_small = math.prod(kernel_shape) < SMALLEST_KERNEL
    return not is_small and rows <= LARGEST_PRODUCT * kernel_shape[0]


def _is_full_precision(inputs, variable_dtype):
    """Whether a product with the raw kernel holds what one with the conditioned kernel does.

    Half precision would round once more, or have too small a range.
    """
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    is_wide = dtype == variable_dtype and dtype in ("float32", "float64")
    return is_wide and not is_autocasting(inputs)
