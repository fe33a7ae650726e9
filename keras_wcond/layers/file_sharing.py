"""How a conditioned layer and the plain layer it extends read each other's files."""

from typing import Any, TypeVar

import keras

from keras_wcond.naming import snake_case

_GAIN_ENTRY = "gain"
_PACKAGE = "keras_wcond"


_Class = TypeVar("_Class", bound=type)


def register(cls: _Class) -> _Class:
    """Registers a conditioned layer with Keras, and has it share files with the plain one.

    Keras addresses the weights in a file by the names of classes (`layers/dense_1/vars`),
    so layers share files only if their classes have the same `__name__`. The class keeps
    its own name for imports and for Keras' registry, and in the names of its layers.
    """
    keras.saving.register_keras_serializable(package=_PACKAGE, name=cls.__name__)(cls)
    cls.__name__ = plain_class(cls).__name__
    return cls


def plain_class(cls: type) -> Any:
    """The Keras layer that a conditioned layer extends."""
    return next(base for base in cls.__mro__ if not issubclass(base, FileSharing))


def is_our_own(cls: type) -> bool:
    """Whether a class is one of the package's, and not a user's subclass of one."""
    return keras.saving.get_registered_name(cls).startswith(f"{_PACKAGE}>")


def computes_as_its_plain_class(cls: Any) -> bool:
    """Whether a conditioned layer, or a user's subclass of one, left its `call` alone."""
    own = next(base for base in cls.__mro__ if is_our_own(base))
    return cls.call is own.call


def automatic_name(class_name: str) -> str:
    """A name for a layer by Keras' own count: conditioned_dense, conditioned_dense_1, …"""
    name = snake_case(class_name)
    used = keras.backend.get_uid(name) - 1
    return f"{name}_{used}" if used else name


class FileSharing(keras.layers.Layer):
    """Saves and loads the raw kernel as the plain layer does, and a gain beside it."""

    gain_weight: Any = None

    def save_own_variables(self, store: Any) -> None:
        """Stores the raw kernel as the plain layer does, and a gain that is a weight last."""
        super().save_own_variables(store)
        if self.gain_weight is not None:
            store[_GAIN_ENTRY] = self.gain_weight

    def load_own_variables(self, store: Any) -> None:
        """Loads weights of this layer or of the plain one.

        A plain layer's file says nothing of a gain: one that is a weight then starts anew
        from the loaded kernel.
        """
        entries = {key: store[key] for key in store.keys()}  # noqa: SIM118 (no dict)
        self._check_shapes(entries)
        if self.gain_weight is not None:
            # Keras compares the number of entries with that of the layer's variables.
            entries.setdefault(_GAIN_ENTRY, None)
        super().load_own_variables(entries)
        if self.gain_weight is not None:
            value = entries[_GAIN_ENTRY]
            if value is None:
                value = self._initial_gain(self.gain_weight.shape, self.gain_weight.dtype)
            self.gain_weight.assign(value)

    @property
    def _kernel_variable(self):
        # `self.kernel` is a tensor, not the variable, once LoRA is enabled.
        return next(variable for variable in self.variables if variable.name == "kernel")

    def _check_shapes(self, entries):
        if not self.built or self.quantization_mode is not None:
            return
        expected = {"0": self._kernel_variable, "1": self.bias, _GAIN_ENTRY: self.gain_weight}
        for key, variable in expected.items():
            received = entries.get(key)
            if variable is None or received is None or received.shape == variable.shape:
                continue
            raise ValueError(
                f"Expected weights of shape {tuple(variable.shape)} for the {variable.name} of "
                f"layer {self.name!r}. Received: shape={tuple(received.shape)}. No weight was "
                "changed. Build the layer for the inputs and units the file was saved with, or "
                "pass `skip_mismatch=True` to `load_weights()` to leave this layer out."
            )
