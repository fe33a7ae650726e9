"""Copies of single layers, made from their configs."""

import keras

from keras_wcond.layers.conditioned_layer import ConditionedLayer
from keras_wcond.layers.folding import assign_copy
from keras_wcond.layers.refused_arguments import (
    config_without,
    leave_out_of_config,
    refused_arguments,
)


def copy_of(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same configuration, its weights not yet set."""
    try:
        return type(layer).from_config(layer.get_config())
    except Exception as error:
        refused = refused_arguments(layer)
        if not refused:
            raise _not_copied(layer) from error
    try:
        copy = type(layer).from_config(config_without(layer, refused))
    except Exception as error:
        raise _not_copied(layer) from error
    leave_out_of_config(copy, refused)
    return copy


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
