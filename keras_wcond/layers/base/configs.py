"""Configs from which layers can be made again, here and now or from a file."""

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import keras


def config_of(layer: keras.layers.Layer) -> dict[str, Any]:
    """A layer's config, with functions as they are where they could not be made again.

    An activation of a user's own or a lambda is serialized by a name that nothing is
    registered under.
    """
    config = layer.get_config()
    functions = {name: getattr(layer, name, None) for name in config}
    return {
        name: functions[name] if inspect.isfunction(functions[name]) else value
        for name, value in config.items()
    }


def refused_arguments(layer: keras.layers.Layer) -> set[str]:
    """The names in a layer's config that no constructor of its class or bases takes.

    KerasHub's `ViTPatchingAndEmbedding` has some: Keras cannot make it again from its
    config, and so neither loads nor clones a functional model that it is part of.
    """
    constructors = (vars(base).get("__init__") for base in type(layer).__mro__)
    signatures = (inspect.signature(constructor) for constructor in constructors if constructor)
    accepted = {name for signature in signatures for name in signature.parameters}
    return set(layer.get_config()) - accepted


def leave_out_of_config(layer: keras.layers.Layer, names: Iterable[str]) -> None:
    """Has this one layer be saved without some names, so that it can be loaded."""
    layer.get_config = functools.partial(_config_without, layer, frozenset(names))


def _config_without(layer, names):
    config = type(layer).get_config(layer)
    return {name: value for name, value in config.items() if name not in names}
