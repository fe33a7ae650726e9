from typing import Any

import keras

from keras_wcond.layers.base.conditioned_layer import register
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning


@register
class ConditionedConv1D(KernelConditioning, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a conditioned kernel.

    `outputs = activation(inputs ∗ gain · C(kernel) + bias)`

    `kernel`, of shape `(size, channels / groups, filters)`, is the raw trainable
    weight: regularizers, the optimizer and weight files see it, under the plain layer's
    names. Its units are the filters on axis -1; each group is a matrix of its own, filters
    × (spatial · input channels).

    Args:
        *args: As of `keras.layers.Conv1D`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.Conv1D`.

    Input shape:
        Tensor of shape `(batch, steps, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, steps, filters)`, or with channels first.

    Example:

    >>> layer = ConditionedConv1D(4, 3, padding="same")
    >>> layer(np.ones((1, 8, 2))).shape == (1, 8, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.linalg.norm(kernel.reshape(-1, 4), axis=0).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv2D(KernelConditioning, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a conditioned kernel.

    `outputs = activation(inputs ∗ gain · C(kernel) + bias)`

    `kernel`, of shape `(height, width, channels / groups, filters)`, is the raw trainable
    weight: regularizers, the optimizer and weight files see it, under the plain layer's
    names. Its units are the filters on axis -1; each group is a matrix of its own, filters
    × (spatial · input channels).

    Args:
        *args: As of `keras.layers.Conv2D`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.Conv2D`.

    Input shape:
        Tensor of shape `(batch, height, width, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, height, width, filters)`, or with channels first.

    Example:

    >>> layer = ConditionedConv2D(4, 3, padding="same")
    >>> layer(np.ones((1, 8, 8, 2))).shape == (1, 8, 8, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.linalg.norm(kernel.reshape(-1, 4), axis=0).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)


@register
class ConditionedConv3D(KernelConditioning, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with a conditioned kernel.

    `outputs = activation(inputs ∗ gain · C(kernel) + bias)`

    `kernel`, of shape `(*size, channels / groups, filters)`, is the raw trainable
    weight: regularizers, the optimizer and weight files see it, under the plain layer's
    names. Its units are the filters on axis -1; each group is a matrix of its own, filters
    × (spatial · input channels).

    Args:
        *args: As of `keras.layers.Conv3D`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.Conv3D`.

    Input shape:
        Tensor of shape `(batch, *space, channels)`, or with channels first.

    Output shape:
        Tensor of shape `(batch, *space, filters)`, or with channels first.

    Example:

    >>> layer = ConditionedConv3D(4, 3, padding="same")
    >>> layer(np.ones((1, 4, 4, 4, 2))).shape == (1, 4, 4, 4, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.linalg.norm(kernel.reshape(-1, 4), axis=0).round(3))
    [1. 1. 1. 1.]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any) -> Any:
        with self.conditioned_scope():
            return super().call(inputs)
