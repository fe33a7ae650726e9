from typing import Any

import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning


@register
class ConditionedSeparableConv1D(KernelConditioning, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` with both of its kernels conditioned.

    `outputs = activation(depthwise(inputs, g₁ · C(K₁)) ∗ g₂ · C(K₂) + bias)`

    K₁, `depthwise_kernel`, has shape `(size, channels, depth_multiplier)` and single
    filters on axes -2 and -1 as its units, each channel a matrix of its own. K₂,
    `pointwise_kernel`, has shape `(1, channels · depth_multiplier, filters)` and its units
    on axis -1. Both are the raw trainable weights, under the plain layer's names. Each has
    a gain of its own; `"auto"` is the activation's for K₂ and 1 for K₁, after which no
    activation comes. `conditioned_kernels` holds both by name.

    Args:
        *args: As of `keras.layers.SeparableConv1D`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.SeparableConv1D`.

    Input shape:
        Tensor of shape `(batch, steps, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, new_steps, filters)`, or with channels first.

    Example:

    >>> layer = ConditionedSeparableConv1D(4, 3)
    >>> layer(np.ones((1, 8, 2))).shape == (1, 6, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["pointwise_kernel"])
    >>> print(np.linalg.norm(kernel.reshape(2, 4), axis=0).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    activated_kernel = "pointwise_kernel"

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedSeparableConv2D(KernelConditioning, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with both of its kernels conditioned.

    `outputs = activation(depthwise(inputs, g₁ · C(K₁)) ∗ g₂ · C(K₂) + bias)`

    K₁, `depthwise_kernel`, has shape `(height, width, channels, depth_multiplier)` and
    single filters on axes -2 and -1 as its units, each channel a matrix of its own. K₂,
    `pointwise_kernel`, has shape `(1, 1, channels · depth_multiplier, filters)` and its
    units on axis -1. Both are the raw trainable weights, under the plain layer's names.
    Each has a gain of its own; `"auto"` is the activation's for K₂ and 1 for K₁, after
    which no activation comes. `conditioned_kernels` holds both by name.

    Args:
        *args: As of `keras.layers.SeparableConv2D`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.SeparableConv2D`.

    Input shape:
        Tensor of shape `(batch, height, width, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, new_height, new_width, filters)`, or with channels first.

    Example:

    >>> layer = ConditionedSeparableConv2D(4, 3)
    >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 6, 6, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["pointwise_kernel"])
    >>> print(np.linalg.norm(kernel.reshape(2, 4), axis=0).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    activated_kernel = "pointwise_kernel"

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)
