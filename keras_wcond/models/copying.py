"""Copies of single layers, made from their configs."""

import functools
import inspect
from typing import Any

import keras

from keras_wcond.layers.conditioned_layer import ConditionedLayer
from keras_wcond.layers.folding import assign_copy


def copy_of(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same configuration, its weights not yet set."""
    cls, config = type(layer), layer.get_config()
    try:
        return cls.from_config(config)
    except Exception as error:
        accepted = config.keys() & _constructor_arguments(cls)
        if accepted == config.keys():
            raise _not_copied(layer) from error
        return _copy_from_accepted(layer, accepted)


def _copy_from_accepted(layer, accepted):
    # Some layers, such as KerasHub's ViTPatchingAndEmbedding, list values in their config
    # that their own constructor refuses. The copy does not, so that it can be loaded.
    cls = type(layer)
    try:
        copy = cls.from_config(_config_of(layer, accepted))
    except Exception as error:
        raise _not_copied(layer) from error
    copy.get_config = functools.partial(_config_of, copy, accepted)
    return copy


def _config_of(layer, accepted) -> dict[str, Any]:
    config = type(layer).get_config(layer)
    return {name: value for name, value in config.items() if name in accepted}


def _constructor_arguments(cls):
    """The names that the constructors of a class and of its bases take."""
    signatures = (inspect.signature(base.__init__) for base in cls.__mro__)
    return {name for signature in signatures for name in signature.parameters}


def _not_copied(layer):
    return ValueError(
        "Expected layers that can be made again from their config. Received: "
        f"layer.name={layer.name!r} of type {type(layer).__qualname__}, whose "
        "`from_config(get_config())` fails. Implement `get_config()` with the arguments of "
        "its constructor."
    )


def transfer_weights(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Gives a copy, conditioned or not, the weights of the layer; gains start anew."""
    gains = {id(gain) for gain in copy.gain_weights} if isinstance(copy, ConditionedLayer) else ()
    variables = [variable for variable in copy.variables if id(variable) not in gains]
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [tuple(variable.shape) for variable in layer.variables]:
        raise ValueError(
            "Expected layers whose copies have the same weights. Received: "
            f"layer.name={layer.name!r} of type {type(layer).__qualname__}, which made from its "
            f"config has weights of shapes {shapes}. Implement `get_config()` with all arguments "
            "of its constructor."
        )
    for variable, original in zip(variables, layer.variables, strict=True):
        assign_copy(variable, original)
        variable.trainable = original.trainable
    if isinstance(copy, ConditionedLayer):
        copy.start_gains_anew()
