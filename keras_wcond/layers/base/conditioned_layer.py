"""The base class of all conditioned layers, and the registration of its subclasses."""

from typing import Any, TypeVar

import keras

from keras_wcond import conditioners
from keras_wcond.arguments import snake_case
from keras_wcond.conditioners.conditioner import ConditionerLike
from keras_wcond.gains import Gain, TrainableGain
from keras_wcond.layers.base.class_facade import (
    ConditionedType,
    document,
    keyword_arguments,
    plain_class,
)
from keras_wcond.layers.base.conditioned_kernel import HoldsKernels

_PACKAGE = "keras_wcond"
_Class = TypeVar("_Class", bound=type)


class ConditionedLayer(HoldsKernels, keras.layers.Layer, metaclass=ConditionedType):
    """Base class of the layers that condition kernels.

    `isinstance(layer, ConditionedLayer)` finds these layers in a model. Each subclass extends a
    Keras layer.

    Args:
        <arguments of conditioning>
        **kwargs: Keyword arguments of the Keras layer.

    An unknown method is a `ValueError`, and so are a gain that is not positive and an unknown
    word. A conditioner or a gain of another type is a `TypeError`.

    Attributes:
        raw_kernels: Dict from the path of each kernel within the layer to its variable.
        conditioned_kernels: Dict from the same paths to `gain · C(kernel)`, tensors of the
            kernels' shapes in the compute dtype.
        gain_weights: List of the gains that are weights.

    The first two raise an `AttributeError` before the layer is built.

    """

    def __init__(
        self,
        *args: Any,
        kernel_conditioner: ConditionerLike = "row_equilibration",
        gain: Gain = 1.0,
        trainable_gain: TrainableGain = None,
        **kwargs: Any,
    ):
        if kwargs.get("name") is None and is_our_own(type(self)):
            kwargs["name"] = automatic_name(type(self).__qualname__.rpartition(".")[2])
        super().__init__(*args, **kwargs)
        self.trainable_gain = trainable_gain
        self.gain = gain
        self.kernel_conditioner = conditioners.get(kernel_conditioner)
        # Set by `FoldConditioning`. A file of such a layer says so.
        self.is_folded = False

    def fold(self) -> keras.layers.Layer:
        """The plain Keras layer that computes the same outputs."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement `fold()`.")

    def fold_in_place(self) -> None:
        """Sets the kernels to the conditioned ones, gains included, and ends the conditioning."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement `fold_in_place()`.")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_conditioner": conditioners.serialize(self.kernel_conditioner),
            "gain": self.gain,
            "trainable_gain": self.trainable_gain,
        }


ConditionedLayer._arguments = keyword_arguments(ConditionedLayer.__init__)
document(ConditionedLayer)


def register(cls: _Class) -> _Class:
    """Registers a conditioned layer with Keras under its own name, and lets it share files.

    It shares files with the plain layer through the plain layer's `__name__`. Imports, Keras'
    registry, the names of layers and printed names use the name of the conditioned class.

    Args:
        cls: The conditioned class.

    Returns:
        The class itself.
    """
    keras.saving.register_keras_serializable(package=_PACKAGE, name=cls.__name__)(cls)
    cls.__name__ = plain_class(cls).__name__
    document(cls)
    return cls


def register_wrapper(cls: _Class) -> _Class:
    """Registers a conditioned layer that wraps others, and so shares no files, with Keras."""
    document(cls)
    keras.saving.register_keras_serializable(package=_PACKAGE)(cls)
    return cls


def is_our_own(cls: type) -> bool:
    """Whether a class is one of the package's, and not a user's subclass of one."""
    name: str = keras.saving.get_registered_name(cls)
    return name.startswith(f"{_PACKAGE}>")


def computes_as_its_plain_class(cls: type[keras.layers.Layer]) -> bool:
    """Whether a conditioned layer, or a user's subclass of one, left its `call` alone."""
    own: Any = next(base for base in cls.__mro__ if is_our_own(base))
    return cls.call is own.call


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """A conditioned layer's config without the arguments that the plain layer lacks."""
    dropped = {"kernel_conditioner", "gain", "trainable_gain", "lora_rank", "lora_alpha"}
    return {name: value for name, value in config.items() if name not in dropped}


def automatic_name(class_name: str) -> str:
    """A name for a layer by Keras' own count: conditioned_dense, conditioned_dense_1, …"""
    name = snake_case(class_name)
    used = keras.backend.get_uid(name) - 1
    return f"{name}_{used}" if used else name
