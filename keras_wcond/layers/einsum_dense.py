import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.linalg.arrays import Tensor


@register
class ConditionedEinsumDense(KernelConditioning, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with a conditioned kernel.

    `outputs = activation(einsum(equation, inputs, gain · C(kernel)) + bias)`

    The units are the axes of the kernel that the equation has in the output and not in the input:
    `d` and `e` in `"abc,cde->abde"`. An equation without such an axis is refused, since its kernel
    has no rows.

    Examples:
        >>> layer = ConditionedEinsumDense("abc,cde->abde", (None, 2, 3))
        >>> layer(np.ones((1, 7, 5))).shape == (1, 7, 2, 3)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
        >>> print(np.linalg.norm(kernel, axis=0).round(3))
        [[1. 1. 1.]
         [1. 1. 1.]]
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs, training=training)
