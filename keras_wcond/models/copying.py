"""Copies of single layers, made from their configs."""

from collections.abc import Sequence

import keras

from keras_wcond.layers.base.conditioned_layer import ConditionedLayer
from keras_wcond.layers.base.configs import (
    config_of,
    leave_out_of_config,
    refused_arguments,
)
from keras_wcond.layers.base.folding import assign_copy, transfer_own_state, transfer_trainable


def copy_of(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same configuration, without the weights."""
    cls = type(layer)
    try:
        return _built_as(layer, cls.from_config(layer.get_config()))
    except Exception as error:
        refused = refused_arguments(layer)
        config = {k: value for k, value in config_of(layer).items() if k not in refused}
        try:
            # Unlike `from_config`, the constructor also takes functions as they are.
            copy = cls(**config)
        except Exception:
            raise _not_copied(layer, error) from error
    _built_as(layer, copy)
    if refused:
        leave_out_of_config(copy, refused)
    return copy


def _built_as(layer: keras.layers.Layer, copy: keras.layers.Layer) -> keras.layers.Layer:
    """Builds a copy as loading a file does, if the layer's class defines how it is built."""
    methods = ("get_build_config", "build_from_config")
    is_own = any(getattr(type(layer), m) is not getattr(keras.layers.Layer, m) for m in methods)
    config = layer.get_build_config() if is_own and layer.built else None
    if config and not copy.built:
        copy.build_from_config(config)
    return copy


def _not_copied(layer: keras.layers.Layer, error: Exception) -> ValueError:
    return ValueError(
        "Expected layers that can be made again from their config. Received: "
        f"layer.name={layer.name!r} of type {type(layer).__qualname__}, whose "
        "`from_config(get_config())` fails. Implement `get_config()` with the arguments of "
        f"its constructor, or see what Keras says: {error}"
    )


def transfer_weights(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Gives a copy the weights of a layer, and its other state in files."""
    _transfer(layer, copy, copy.variables)


def transfer_weights_to_conditioned(layer: keras.layers.Layer, copy: ConditionedLayer) -> None:
    """Gives a conditioned copy the weights of a layer, and resets the gains of the copy."""
    gains = {id(gain) for gain in copy.gain_weights}
    _transfer(layer, copy, [variable for variable in copy.variables if id(variable) not in gains])
    copy.reset_gains()


def _transfer(
    layer: keras.layers.Layer, copy: keras.layers.Layer, variables: Sequence[keras.Variable]
) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [tuple(variable.shape) for variable in layer.variables]:
        raise ValueError(
            "Expected layers whose copies have the same weights. Received: "
            f"layer.name={layer.name!r} of type {type(layer).__qualname__}, which made from its "
            f"config has weights of shapes {shapes}. Implement `get_config()` with all arguments "
            "of its constructor."
        )
    transfer_own_state(layer, copy)
    transfer_trainable(layer, copy)
    for variable, original in zip(variables, layer.variables, strict=True):
        assign_copy(variable, original)
        variable.trainable = original.trainable
