import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.linalg.arrays import Tensor


@register
class ConditionedConv1D(KernelConditioning, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a conditioned kernel.

    `outputs = activation(inputs ∗ gain · C(kernel) + bias)`

    The kernel has shape `(size, channels / groups, filters)`. Its units are the filters, on
    axis -1. Each group is a matrix of its own, filters × (spatial · input channels).

    Examples:
        >>> layer = ConditionedConv1D(4, 3, padding="same")
        >>> layer(np.ones((1, 8, 2))).shape == (1, 8, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
        >>> print(np.linalg.norm(kernel.reshape(-1, 4), axis=0).round(3))
        [1. 1. 1. 1.]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv2D(KernelConditioning, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a conditioned kernel.

    `outputs = activation(inputs ∗ gain · C(kernel) + bias)`

    The kernel has shape `(height, width, channels / groups, filters)`. Its units are the filters,
    on axis -1. Each group is a matrix of its own, filters × (spatial · input channels).

    Examples:
        >>> layer = ConditionedConv2D(4, 3, padding="same")
        >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 8, 8, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
        >>> print(np.linalg.norm(kernel.reshape(-1, 4), axis=0).round(3))
        [1. 1. 1. 1.]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv3D(KernelConditioning, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with a conditioned kernel.

    `outputs = activation(inputs ∗ gain · C(kernel) + bias)`

    The kernel has shape `(depth, height, width, channels / groups, filters)`. Its units are the
    filters, on axis -1. Each group is a matrix of its own, filters × (spatial · input channels).

    Examples:
        >>> layer = ConditionedConv3D(4, 3, padding="same")
        >>> layer(np.ones((1, 4, 4, 4, 2))).shape == (1, 4, 4, 4, 4)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
        >>> print(np.linalg.norm(kernel.reshape(-1, 4), axis=0).round(3))
        [1. 1. 1. 1.]
    """

    def call(self, inputs: Tensor) -> Tensor:
        with self.conditioned_scope():
            return super().call(inputs)
