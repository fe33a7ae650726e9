"""What all conditioned layers have in common: their arguments, their names, their classes."""

from typing import Any, TypeVar

import keras

from keras_wcond import conditioners
from keras_wcond.gains import Gain, TrainableGain, standardize_gain, standardize_trainable_gain
from keras_wcond.layers.base.class_facade import (
    ConditionedType,
    document,
    keyword_arguments,
    plain_class,
)
from keras_wcond.layers.base.conditioned_kernel import HoldsKernels
from keras_wcond.naming import snake_case

_PACKAGE = "keras_wcond"
_Class = TypeVar("_Class", bound=type)


class ConditionedLayer(HoldsKernels, keras.layers.Layer, metaclass=ConditionedType):
    """A Keras layer that conditions kernels: the base class of all such layers.

    Its classes are constructed with the arguments of the Keras layer that they extend, then
    `kernel_conditioner`, `gain` and `trainable_gain`.
    """

    def __init__(
        self,
        *args: Any,
        kernel_conditioner: Any = "row_equilibration",
        gain: Gain = 1.0,
        trainable_gain: TrainableGain = None,
        **kwargs: Any,
    ):
        if kwargs.get("name") is None and is_our_own(type(self)):
            kwargs["name"] = automatic_name(type(self).__qualname__)
        super().__init__(*args, **kwargs)
        self.kernel_conditioner = conditioners.get(kernel_conditioner)
        self.gain = standardize_gain(gain)
        self.trainable_gain = standardize_trainable_gain(trainable_gain)

    def fold(self) -> keras.layers.Layer:
        """The plain Keras layer that computes the same outputs."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_conditioner": conditioners.serialize(self.kernel_conditioner),
            "gain": self.gain,
            "trainable_gain": self.trainable_gain,
        }


ConditionedLayer._arguments = keyword_arguments(ConditionedLayer.__init__)


def register(cls: _Class) -> _Class:
    """Registers a conditioned layer with Keras, and has it share files with the plain one.

    The class keeps its own name for imports, for Keras' registry, for people who read it, and in
    the names of its layers.
    """
    keras.saving.register_keras_serializable(package=_PACKAGE, name=cls.__name__)(cls)
    cls.__name__ = plain_class(cls).__name__
    document(cls)
    return cls


def register_wrapper(cls: _Class) -> _Class:
    """Registers a conditioned layer that is no other layer's class, under its own name."""
    document(cls)
    return keras.saving.register_keras_serializable(package=_PACKAGE)(cls)


def is_our_own(cls: type) -> bool:
    """Whether a class is one of the package's, and not a user's subclass of one."""
    return keras.saving.get_registered_name(cls).startswith(f"{_PACKAGE}>")


def computes_as_its_plain_class(cls: Any) -> bool:
    """Whether a conditioned layer, or a user's subclass of one, left its `call` alone."""
    own = next(base for base in cls.__mro__ if is_our_own(base))
    return cls.call is own.call


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """A conditioned layer's config without what the folded, plain layer does not have."""
    dropped = {"kernel_conditioner", "gain", "trainable_gain", "lora_rank", "lora_alpha"}
    return {name: value for name, value in config.items() if name not in dropped}


def automatic_name(class_name: str) -> str:
    """A name for a layer by Keras' own count: conditioned_dense, conditioned_dense_1, …"""
    name = snake_case(class_name)
    used = keras.backend.get_uid(name) - 1
    return f"{name}_{used}" if used else name
