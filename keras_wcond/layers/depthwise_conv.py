import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.linalg.arrays import Tensor


@register
class ConditionedDepthwiseConv1D(KernelConditioning, keras.layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` with a conditioned kernel.

    `outputs = activation(depthwise(inputs, gain · C(kernel)) + bias)`

    The kernel has shape `(size, channels, depth_multiplier)`. Its units are the single filters,
    on axes -2 and -1. Each channel is a matrix of its own, `depth_multiplier` × spatial. Unit rows
    remove the scale of each channel, which is much of what a depthwise layer can learn: compare
    with `gain="kernel_norm"`, `trainable_gain="per_unit"` or the plain layer.

    Examples:
        >>> layer = ConditionedDepthwiseConv1D(3, depth_multiplier=2)
        >>> layer(np.ones((1, 8, 2))).shape == (1, 6, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
        >>> print(np.sqrt(np.square(kernel).sum(axis=0)).round(3))
        [[1. 1.]
         [1. 1.]]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedDepthwiseConv2D(KernelConditioning, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a conditioned kernel.

    `outputs = activation(depthwise(inputs, gain · C(kernel)) + bias)`

    The kernel has shape `(height, width, channels, depth_multiplier)`. Its units are the single
    filters, on axes -2 and -1. Each channel is a matrix of its own, `depth_multiplier` × spatial.
    Unit rows remove the scale of each channel, which is much of what a depthwise layer can learn:
    compare with `gain="kernel_norm"`, `trainable_gain="per_unit"` or the plain layer.

    Examples:
        >>> layer = ConditionedDepthwiseConv2D(3, depth_multiplier=2)
        >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 6, 6, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
        >>> print(np.sqrt(np.square(kernel).sum(axis=(0, 1))).round(3))
        [[1. 1.]
         [1. 1.]]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)
