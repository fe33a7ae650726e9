from typing import Any

import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning


@register
class ConditionedDepthwiseConv1D(KernelConditioning, keras.layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` with a conditioned kernel.

    `outputs = activation(depthwise(inputs, gain · C(kernel)) + bias)`

    `kernel`, of shape `(size, channels, depth_multiplier)`, is the raw trainable weight:
    regularizers, the optimizer and weight files see it, under the plain layer's names. Its
    units are the single filters, on axes -2 and -1; each channel is a matrix of its own,
    `depth_multiplier` × spatial. Unit rows take the size of each channel's filter away,
    which is much of what a depthwise layer can learn: compare with `gain="kernel_norm"`,
    `trainable_gain="per_unit"` or the plain layer.

    Args:
        *args: As of `keras.layers.DepthwiseConv1D`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.DepthwiseConv1D`.

    Input shape:
        Tensor of shape `(batch, steps, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, new_steps, channels · depth_multiplier)`,
        or with channels first.

    Example:

    >>> layer = ConditionedDepthwiseConv1D(3, depth_multiplier=2)
    >>> layer(np.ones((1, 8, 2))).shape == (1, 6, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.sqrt(np.square(kernel).sum(axis=0)).round(3))
    [[1. 1.]
     [1. 1.]]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedDepthwiseConv2D(KernelConditioning, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a conditioned kernel.

    `outputs = activation(depthwise(inputs, gain · C(kernel)) + bias)`

    `kernel`, of shape `(height, width, channels, depth_multiplier)`, is the raw trainable
    weight: regularizers, the optimizer and weight files see it, under the plain layer's
    names. Its units are the single filters, on axes -2 and -1; each channel is a matrix of
    its own, `depth_multiplier` × spatial. Unit rows take the size of each channel's filter
    away, which is much of what a depthwise layer can learn: compare with
    `gain="kernel_norm"`, `trainable_gain="per_unit"` or the plain layer.

    Args:
        *args: As of `keras.layers.DepthwiseConv2D`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.DepthwiseConv2D`.

    Input shape:
        Tensor of shape `(batch, height, width, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, new_height, new_width, channels · depth_multiplier)`,
        or with channels first.

    Example:

    >>> layer = ConditionedDepthwiseConv2D(3, depth_multiplier=2)
    >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 6, 6, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.sqrt(np.square(kernel).sum(axis=(0, 1))).round(3))
    [[1. 1.]
     [1. 1.]]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)
