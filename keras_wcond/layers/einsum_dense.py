from typing import Any

import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning


@register
class ConditionedEinsumDense(KernelConditioning, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with a conditioned kernel.

    `outputs = activation(einsum(equation, inputs, gain · C(kernel)) + bias)`

    `kernel` is the raw trainable weight: regularizers, the optimizer and weight files see
    it, under the plain layer's names. Its units are the axes that the equation has in the
    kernel and the output but not in the input; the others are columns. In `"abc,cde->abde"`
    the units are `d` and `e`. An equation without such an axis has nothing to condition.

    Args:
        *args: As of `keras.layers.EinsumDense`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.EinsumDense`.

    Input shape:
        Tensor as the equation says.

    Output shape:
        Tensor as the equation says.

    Example:

    >>> layer = ConditionedEinsumDense("abc,cde->abde", (None, 2, 3))
    >>> layer(np.ones((1, 7, 5))).shape == (1, 7, 2, 3)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.linalg.norm(kernel, axis=0).round(3))
    [[1. 1. 1.]
     [1. 1. 1.]]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        with self.conditioned_scope():
            return super().call(inputs, training=training)
