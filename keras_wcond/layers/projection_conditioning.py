from typing import Any

import keras

from keras_wcond.internals import sublayers
from keras_wcond.layers.conditioned_layer import ConditionedLayer
from keras_wcond.layers.conditioning_note import note_conditioning, warn_of_other_conditioning
from keras_wcond.layers.einsum_dense import ConditionedEinsumDense
from keras_wcond.layers.folding import folded

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
    """What a conditioned attention layer adds to its Keras layer.

    Every `EinsumDense` that the Keras layer makes for itself, its projections, becomes a
    `ConditionedEinsumDense`. The layer's own code, masks and attention kernels included,
    is left as it is, and LoRA and quantization work on the projections as on any
    `ConditionedEinsumDense`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) is keras.layers.EinsumDense and self.kernel_conditioner is not None:
            value = self._conditioned_projection(value)
        super().__setattr__(name, value)

    @property
    def raw_kernels(self) -> dict[str, Any]:
        """Each projection's kernel by its path, such as `"query/kernel"`."""
        return {
            f"{projection.name}/kernel": projection.raw_kernels["kernel"]
            for projection in self._conditioned_projections()
        }

    @property
    def conditioned_kernels(self) -> dict[str, Any]:
        """Each projection's conditioned kernel by its path, such as `"query/kernel"`."""
        self._require_kernels()
        return {
            f"{projection.name}/kernel": projection.conditioned_kernel
            for projection in self._conditioned_projections()
        }

    @property
    def gain_weights(self) -> list[Any]:
        projections = self._conditioned_projections()
        return [gain for projection in projections for gain in projection.gain_weights]

    def start_gains_anew(self) -> None:
        for projection in self._conditioned_projections():
            projection.start_gains_anew()

    def save_own_variables(self, store: Any) -> None:
        """Saves no weights of its own, but a note of conditioner and gain."""
        note_conditioning(self, store)
        super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Warns, in place of projections that are plain, of weights of conditioned ones."""
        if self.kernel_conditioner is None:
            warn_of_other_conditioning(self, store, has_stored_gain=False)
        super().load_own_variables(store)

    def folds(self) -> list[tuple[Any, Any]]:
        return []  # Its projections, which are conditioned layers, tell theirs.

    def fold(self) -> keras.layers.Layer:
        """The plain Keras layer that computes the same outputs.

        Returns:
            A new, built layer of the Keras class this one extends, with this layer's name
            and configuration, whose projections hold the conditioned kernels. This layer is
            left as it is.
        """
        self._require_built()
        return folded(self)

    def _conditioned_projections(self):
        return [layer for layer in sublayers(self) if isinstance(layer, ConditionedEinsumDense)]

    def _conditioned_projection(self, plain):
        # Not from the config alone: the objects in it may not be registered with Keras.
        objects = {name: getattr(plain, name) for name in _OBJECTS}
        return ConditionedEinsumDense(
            **{**plain.get_config(), **objects, "dtype": plain.dtype_policy},
            kernel_conditioner=self.kernel_conditioner,
            gain=self.gain,
            trainable_gain=self.trainable_gain,
        )
