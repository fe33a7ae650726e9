import keras

from keras_wcond.layers.conditioned_layer import register
from keras_wcond.layers.projection_conditioning import ProjectionConditioning


@register
class ConditionedMultiHeadAttention(ProjectionConditioning, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` with conditioned projections.

    `outputs = W_o · concat(softmax(W_q x (W_k z)ᵀ / √key_dim) W_v z)`

    Each W, of the query, the key, the value and the output, is `gain · C(kernel)` plus its
    bias. `kernel` is the raw trainable weight of that projection, under the plain layer's
    names: regularizers, the optimizer and weight files see it. The units of the first
    three, of shape `(inputs, heads, size)`, are every head's every feature on axes 1 and 2;
    those of the output, of shape `(heads, size, outputs)`, are its last axis. Masks, causal
    attention, flash attention and attention scores are Keras' own.

    Args:
        *args: As of `keras.layers.MultiHeadAttention`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`. One per
            projection; `"auto"` is 1, since no activation follows a projection, and that of
            the sigmoid for the projection of a gate.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.MultiHeadAttention`.

    Input shape:
        `query` of shape `(batch, targets, inputs)`, `value` and optionally `key` of shape
        `(batch, sources, inputs)`.

    Output shape:
        Tensor of shape `(batch, targets, outputs)`, with `outputs` as the query's last axis
        unless `output_shape` is given.

    Example:

    >>> layer = ConditionedMultiHeadAttention(num_heads=2, key_dim=3)
    >>> x = np.ones((1, 7, 5))
    >>> layer(x, x, use_causal_mask=True).shape == (1, 7, 5)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["query/kernel"])
    >>> print(np.linalg.norm(kernel, axis=0).round(3))
    [[1. 1. 1.]
     [1. 1. 1.]]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """


@register
class ConditionedGroupQueryAttention(ProjectionConditioning, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` with conditioned projections.

    As `ConditionedMultiHeadAttention`, where several heads of the query share a key and a
    value.

    Args:
        *args: As of `keras.layers.GroupQueryAttention`.
        kernel_conditioner: None, a name, a config or an instance of a conditioner, by
            default `"row_equilibration"`. None is exactly the plain layer.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`. One per
            projection; `"auto"` is 1, since no activation follows a projection, and that of
            the sigmoid for the projection of a gate.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these three mean.
        **kwargs: As of `keras.layers.GroupQueryAttention`.

    Input shape:
        `query` of shape `(batch, targets, inputs)`, `value` and optionally `key` of shape
        `(batch, sources, inputs)`.

    Output shape:
        Tensor of shape `(batch, targets, inputs)`.

    Example:

    >>> layer = ConditionedGroupQueryAttention(
    ...     head_dim=3, num_query_heads=4, num_key_value_heads=2
    ... )
    >>> x = np.ones((1, 7, 5))
    >>> layer(x, x).shape == (1, 7, 5)
    True
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["key/kernel"])
    >>> print(np.linalg.norm(kernel, axis=0).round(3))
    [[1. 1. 1.]
     [1. 1. 1.]]

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """
