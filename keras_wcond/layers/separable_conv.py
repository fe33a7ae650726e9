import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.linalg.arrays import Tensor


@register
class ConditionedSeparableConv1D(KernelConditioning, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` with both of its kernels conditioned.

    `outputs = activation(depthwise(inputs, g₁ · C(K₁)) ∗ g₂ · C(K₂) + bias)`

    K₁, `depthwise_kernel`, has shape `(size, channels, depth_multiplier)`. Its units are the
    single filters, on axes -2 and -1, and each channel is a matrix of its own. K₂,
    `pointwise_kernel`, has shape `(1, channels · depth_multiplier, filters)`, with its units on
    axis -1. Each has a gain of its own. `"auto"` is 1 for K₁, since no activation follows it.

    Examples:
        >>> layer = ConditionedSeparableConv1D(4, 3)
        >>> layer(np.ones((1, 8, 2))).shape == (1, 6, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["pointwise_kernel"])
        >>> print(np.linalg.norm(kernel.reshape(2, 4), axis=0).round(3))
        [1. 1. 1. 1.]
    """

    activated_kernel = "pointwise_kernel"

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedSeparableConv2D(KernelConditioning, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with both of its kernels conditioned.

    `outputs = activation(depthwise(inputs, g₁ · C(K₁)) ∗ g₂ · C(K₂) + bias)`

    K₁, `depthwise_kernel`, has shape `(height, width, channels, depth_multiplier)`. Its units are
    the single filters, on axes -2 and -1, and each channel is a matrix of its own. K₂,
    `pointwise_kernel`, has shape `(1, 1, channels · depth_multiplier, filters)`, with its units on
    axis -1. Each has a gain of its own. `"auto"` is 1 for K₁, since no activation follows it.

    Examples:
        >>> layer = ConditionedSeparableConv2D(4, 3)
        >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 6, 6, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["pointwise_kernel"])
        >>> print(np.linalg.norm(kernel.reshape(2, 4), axis=0).round(3))
        [1. 1. 1. 1.]
    """

    activated_kernel = "pointwise_kernel"

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)
