from typing import Any

import keras

from keras_wcond.internals import sublayers
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer, register
from keras_wcond.layers.base.conditioning_note import (
    note_conditioning,
    warn_of_other_conditioning,
)
from keras_wcond.layers.base.folding import folded, folded_for_good
from keras_wcond.layers.einsum_dense import ConditionedEinsumDense

_OBJECTS = (
    "activation",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


class ProjectionConditioning(ConditionedLayer):
    """Base class of the conditioned attention layers.

    The projections, which are the `EinsumDense` layers that the Keras layer makes for itself,
    become `ConditionedEinsumDense` layers. The layer's own code is left as it is, masks and
    attention kernels included. LoRA and quantization work on the projections as on any
    `ConditionedEinsumDense`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) is keras.layers.EinsumDense and self.kernel_conditioner is not None:
            value = self._conditioned_projection(value)
        super().__setattr__(name, value)

    @property
    def kernels(self) -> tuple[ConditionedKernel, ...]:
        """The projections' kernels, with paths such as `"query/kernel"`. Empty before `build()`."""
        return tuple(
            kernel.at(f"{layer.name}/{kernel.path}")
            for layer in sublayers(self)
            if isinstance(layer, ConditionedEinsumDense)
            for kernel in layer.kernels
        )

    def save_own_variables(self, store: Any) -> None:
        """Saves a note of conditioner and gain. The layer has no weights of its own."""
        note_conditioning(self, store)
        super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Warns if a layer with plain projections loads the weights of conditioned ones."""
        if self.kernel_conditioner is None:
            warn_of_other_conditioning(self, store, has_stored_gain=False)
        super().load_own_variables(store)

    def fold(self) -> keras.layers.Layer:
        """The plain Keras layer that computes the same outputs.

        Returns:
            A new, built layer of the Keras class this one extends, with this layer's name
            and configuration, whose projections hold the conditioned kernels. This layer is
            left as it is.
        """
        self._require_built()
        return folded(self)

    def fold_in_place(self) -> None:
        """Ends the conditioning. The projections hold the kernels, and are folded before."""
        with folded_for_good(self):
            pass

    def _renew_reparametrizations(self) -> None:
        for layer in sublayers(self):
            if isinstance(layer, ConditionedEinsumDense):
                layer.gain = self.gain
                layer.kernel_conditioner = self.kernel_conditioner

    def _conditioned_projection(self, plain: keras.layers.EinsumDense) -> ConditionedEinsumDense:
        # The config alone is not enough, since the objects in it may not be registered with Keras.
        objects = {name: getattr(plain, name) for name in _OBJECTS}
        return ConditionedEinsumDense(
            **{**plain.get_config(), **objects, "dtype": plain.dtype_policy},
            kernel_conditioner=self.kernel_conditioner,
            gain=self.gain,
            trainable_gain=self.trainable_gain,
        )


@register
class ConditionedMultiHeadAttention(ProjectionConditioning, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` with conditioned projections.

    `outputs = W_o · concat(softmax(W_q x (W_k z)ᵀ / √key_dim) W_v z)`

    Each W, of the query, the key, the value and the output, is `gain · C(kernel)`, with a bias
    added to its product. The kernels of the first three have shape `(inputs, heads, size)`, with
    their units on axes 1 and 2. That of the output has shape `(heads, size, outputs)`, with its
    units on the last axis. Each has a gain of its own. `"auto"` is 1, since no activation follows a
    projection. Masks, causal attention, flash attention and attention scores are Keras' own.

    Examples:
        >>> layer = ConditionedMultiHeadAttention(num_heads=2, key_dim=3)
        >>> x = np.ones((1, 7, 5))
        >>> layer(x, x, use_causal_mask=True).shape == (1, 7, 5)
        True
        >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["query/kernel"])
        >>> print(np.linalg.norm(kernel, axis=0).round(3))
        [[1. 1. 1.]
         [1. 1. 1.]]
    """


@register
class ConditionedGroupQueryAttention(ProjectionConditioning, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` with conditioned projections.

    As `ConditionedMultiHeadAttention`, with several heads of the query to each key and value.
    `"auto"` is the gain of the sigmoid for the projection of a gate.

    Examples:
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
    """
