from typing import Any

import keras

from keras_wcond.layers.conditioned_layer import register
from keras_wcond.layers.kernel_conditioning import KernelConditioning


@register
class ConditionedDense(KernelConditioning, keras.layers.Dense):
    """`keras.layers.Dense` with a conditioned kernel.

    Use it in place of `Dense` in hidden layers. A classifier's last layer is best left
    plain: unit rows bound its logits.

    `outputs = activation(inputs · gain · C(kernel) + bias)`

    `kernel`, of shape `(inputs, units)`, is the raw trainable weight: regularizers, the
    optimizer and weight files see it, under the plain layer's names. Its units are on
    axis -1.

    Args:
        *args: As of `keras.layers.Dense`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.Dense`.

    Input shape:
        N-D tensor of shape `(batch, ..., inputs)`.

    Output shape:
        N-D tensor of shape `(batch, ..., units)`.

    Example:

    >>> layer = ConditionedDense(4, activation="relu", gain="auto")
    >>> layer(np.ones((2, 3))).shape == (2, 4)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernel)
    >>> print(np.linalg.norm(kernel, axis=0).round(3))  # √2, for ReLU
    [1.414 1.414 1.414 1.414]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        with self.conditioned_scope():
            return super().call(inputs, training=training)
