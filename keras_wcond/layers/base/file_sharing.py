"""Weights files that a conditioned layer and the plain layer it extends share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_wcond.internals import own_variables
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer
from keras_wcond.layers.base.conditioning_note import note_conditioning, warn_of_other_conditioning


class FileSharing(ConditionedLayer):
    """Saves and loads the raw kernels as the plain layer does, and gains beside them.

    Keras stores a layer's variables under their positions. Gains are stored under their names
    instead, so that the positions of the other variables stay the same.
    """

    def save_own_variables(self, store: Any) -> None:
        """Stores the raw kernels as the plain layer does, and gains that are weights last."""
        note_conditioning(self, store)
        entries: dict[str, Any] = {}
        super().save_own_variables(entries)
        gains = {id(gain) for gain in self.gain_weights}
        for key, value in entries.items():
            if id(value) not in gains:
                store[key] = value
        for gain in self.gain_weights:
            store[gain.name] = gain

    def load_own_variables(self, store: Any) -> None:
        """Loads weights of this layer or of the plain one.

        A file of the plain layer has no gain. A gain that is a weight is then reinitialized
        from the loaded kernel.
        """
        entries = {key: store[key] for key in store.keys()}  # noqa: SIM118 (no dict)
        has_gain = all(gain.name in entries for gain in self.gain_weights)
        warn_of_other_conditioning(self, store, has_stored_gain=has_gain)
        self._check_shapes(entries)
        stored = {gain.name: entries.pop(gain.name, None) for gain in self.gain_weights}
        super().load_own_variables({**entries, **self._entries_for_gains(entries)})
        self.reset_gains()
        for gain in self.gain_weights:
            if stored[gain.name] is not None:
                gain.assign(stored[gain.name])

    def _entries_for_gains(self, entries: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Entries for the gains, so that Keras finds as many entries as it has variables."""
        positions = {id(variable): str(i) for i, variable in enumerate(own_variables(self))}
        keys = {id(gain): positions[id(gain)] for gain in self.gain_weights}
        return {
            # A file may have another variable at that position, such as a bias that this layer
            # lacks. It then has one entry too many, which Keras refuses.
            gain.name if keys[id(gain)] in entries else keys[id(gain)]: gain.numpy()
            for gain in self.gain_weights
        }

    def _check_shapes(self, entries: Mapping[str, Any]) -> None:
        if not self.built or self.quantization_mode is not None:
            return
        bias = getattr(self, "bias", None)
        plain = enumerate([*self.raw_kernels.values(), *([] if bias is None else [bias])])
        expected = [(str(i), variable) for i, variable in plain]
        expected += [(gain.name, gain) for gain in self.gain_weights]
        for key, variable in expected:
            received = entries.get(key)
            if received is None or tuple(received.shape) == tuple(variable.shape):
                continue
            raise ValueError(
                f"Expected weights of shape {tuple(variable.shape)} for the {variable.name} of "
                f"layer {self.name!r}. Received: shape={tuple(received.shape)}. No weight was "
                "changed. Build the layer for the inputs and units the file was saved with, or "
                "pass `skip_mismatch=True` to `load_weights()` to leave this layer out."
            )
