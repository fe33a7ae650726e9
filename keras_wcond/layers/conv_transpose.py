import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.linalg.arrays import Tensor


@register
class ConditionedConv1DTranspose(KernelConditioning, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` with a conditioned kernel.

    `outputs = activation(inputs ∗ᵀ gain · C(kernel) + bias)`

    The kernel has shape `(size, filters, channels)`. Its units are the filters, which a
    transposed convolution keeps on axis -2. It is one matrix, filters × (spatial · input channels).

    Examples:
        >>> layer = ConditionedConv1DTranspose(4, 3, strides=2, padding="same")
        >>> layer(np.ones((1, 8, 2))).shape == (1, 16, 4)
        True
        >>> kernel = np.square(keras.ops.convert_to_numpy(layer.conditioned_kernel))
        >>> print(np.sqrt(kernel.sum(axis=(0, -1))).round(3))
        [1. 1. 1. 1.]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv2DTranspose(KernelConditioning, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with a conditioned kernel.

    `outputs = activation(inputs ∗ᵀ gain · C(kernel) + bias)`

    The kernel has shape `(height, width, filters, channels)`. Its units are the filters, which a
    transposed convolution keeps on axis -2. It is one matrix, filters × (spatial · input channels).

    Examples:
        >>> layer = ConditionedConv2DTranspose(4, 3, strides=2, padding="same")
        >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 16, 16, 4)
        True
        >>> kernel = np.square(keras.ops.convert_to_numpy(layer.conditioned_kernel))
        >>> print(np.sqrt(kernel.sum(axis=(0, 1, -1))).round(3))
        [1. 1. 1. 1.]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv3DTranspose(KernelConditioning, keras.layers.Conv3DTranspose):
    """`keras.layers.Conv3DTranspose` with a conditioned kernel.

    `outputs = activation(inputs ∗ᵀ gain · C(kernel) + bias)`

    The kernel has shape `(depth, height, width, filters, channels)`. Its units are the filters,
    which a transposed convolution keeps on axis -2. It is one matrix, filters × (spatial · input
    channels).

    Examples:
        >>> layer = ConditionedConv3DTranspose(4, 3, strides=2, padding="same")
        >>> layer(np.ones((1, 4, 4, 4, 2))).shape == (1, 8, 8, 8, 4)
        True
        >>> kernel = np.square(keras.ops.convert_to_numpy(layer.conditioned_kernel))
        >>> print(np.sqrt(kernel.sum(axis=(0, 1, 2, -1))).round(3))
        [1. 1. 1. 1.]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)
