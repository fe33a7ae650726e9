"""What all conditioned layers have in common: their arguments, their names, their classes."""

from typing import Any, TypeVar

import keras

from keras_wcond import conditioners
from keras_wcond.gains import Gain, TrainableGain, standardize_gain, standardize_trainable_gain
from keras_wcond.layers.base.conditioned_kernel import HoldsKernels
from keras_wcond.naming import snake_case

_PACKAGE = "keras_wcond"
_Class = TypeVar("_Class", bound=type)


class ConditionedLayer(HoldsKernels, keras.layers.Layer):
    """A Keras layer that conditions kernels, with the arguments that say how.

    Args:
        *args: The positional arguments of the Keras layer.
        kernel_conditioner: None, a name, a config or an instance of a conditioner. None
            is exactly the plain Keras layer, whatever the gain.
        gain: What the conditioned kernel is multiplied by. A positive number; `"auto"`
            for `1/√E[φ(z)²]`, z ~ N(0, 1), of the activation φ the layer is created with
            (ReLU √2), which multiplies rows of unit mean square norm: results of methods
            with other rows are scaled to that first; `"initial_norm"` for the number that
            keeps the Frobenius norm the kernel had when it was initialized, a non-trainable
            weight (with `trainable_gain="per_unit"`, the norm of each row); `"kernel_norm"`
            for `‖W‖_F / ‖C(W)‖_F` at every step, with gradient, so that the scale stays the
            raw kernel's and only the spectrum is conditioned.
        trainable_gain: None, `"scalar"` for one trainable factor, or `"per_unit"` for one
            per output unit, a weight that starts at the gain (for `"kernel_norm"`, one
            that starts at 1 and multiplies it). `"per_unit"` makes row equilibration into
            weight normalization, and can undo the conditioning.
        **kwargs: The keyword arguments of the Keras layer.
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
    layers = (base for base in cls.__mro__ if issubclass(base, keras.layers.Layer))
    return next(base for base in layers if not issubclass(base, ConditionedLayer))


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
