from typing import Any

import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning


@register
class ConditionedConv1DTranspose(KernelConditioning, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` with a conditioned kernel.

    `outputs = activation(inputs ∗ᵀ gain · C(kernel) + bias)`

    `kernel`, of shape `(size, filters, channels)`, is the raw trainable weight:
    regularizers, the optimizer and weight files see it, under the plain layer's names. Its
    units are the filters, which a transposed convolution keeps on axis -2; the kernel is
    one matrix, filters × (spatial · input channels).

    Args:
        *args: As of `keras.layers.Conv1DTranspose`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.Conv1DTranspose`.

    Input shape:
        Tensor of shape `(batch, steps, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, new_steps, filters)`, or with channels first.

    Example:

    >>> layer = ConditionedConv1DTranspose(4, 3, strides=2, padding="same")
    >>> layer(np.ones((1, 8, 2))).shape == (1, 16, 4)
    True
    >>> kernel = np.square(keras.ops.convert_to_numpy(layer.conditioned_kernel))
    >>> print(np.sqrt(kernel.sum(axis=(0, -1))).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv2DTranspose(KernelConditioning, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with a conditioned kernel.

    `outputs = activation(inputs ∗ᵀ gain · C(kernel) + bias)`

    `kernel`, of shape `(height, width, filters, channels)`, is the raw trainable weight:
    regularizers, the optimizer and weight files see it, under the plain layer's names. Its
    units are the filters, which a transposed convolution keeps on axis -2; the kernel is
    one matrix, filters × (spatial · input channels).

    Args:
        *args: As of `keras.layers.Conv2DTranspose`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.Conv2DTranspose`.

    Input shape:
        Tensor of shape `(batch, height, width, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, new_height, new_width, filters)`, or with channels first.

    Example:

    >>> layer = ConditionedConv2DTranspose(4, 3, strides=2, padding="same")
    >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 16, 16, 4)
    True
    >>> kernel = np.square(keras.ops.convert_to_numpy(layer.conditioned_kernel))
    >>> print(np.sqrt(kernel.sum(axis=(0, 1, -1))).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv3DTranspose(KernelConditioning, keras.layers.Conv3DTranspose):
    """`keras.layers.Conv3DTranspose` with a conditioned kernel.

    `outputs = activation(inputs ∗ᵀ gain · C(kernel) + bias)`

    `kernel`, of shape `(depth, height, width, filters, channels)`, is the raw trainable
    weight: regularizers, the optimizer and weight files see it, under the plain layer's
    names. Its units are the filters, which a transposed convolution keeps on axis -2; the
    kernel is one matrix, filters × (spatial · input channels).

    Args:
        *args: As of `keras.layers.Conv3DTranspose`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.Conv3DTranspose`.

    Input shape:
        Tensor of shape `(batch, depth, height, width, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, new_depth, new_height, new_width, filters)`, or with
        channels first.

    Example:

    >>> layer = ConditionedConv3DTranspose(4, 3, strides=2, padding="same")
    >>> layer(np.ones((1, 4, 4, 4, 2))).shape == (1, 8, 8, 8, 4)
    True
    >>> kernel = np.square(keras.ops.convert_to_numpy(layer.conditioned_kernel))
    >>> print(np.sqrt(kernel.sum(axis=(0, 1, 2, -1))).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)
