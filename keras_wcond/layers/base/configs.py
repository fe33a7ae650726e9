"""Configs from which layers can be made again, in this process or from a file."""

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import keras


def config_of(layer: keras.layers.Layer) -> dict[str, Any]:
    """A layer's config, with functions as they are in place of their names.

    Keras serializes a user's own activation, or a lambda, as a name that nothing is registered
    under.

    Args:
        layer: A layer.

    Returns:
        Dict of arguments for `from_config()`, for use in this process only.
    """
    config = layer.get_config()
    functions = {name: getattr(layer, name, None) for name in config}
    return {
        name: functions[name] if inspect.isfunction(functions[name]) else value
        for name, value in config.items()
    }


def refused_arguments(layer: keras.layers.Layer) -> set[str]:
    """The names in a layer's config that no constructor of its class or bases takes.

    KerasHub's `ViTPatchingAndEmbedding` has such names. Keras cannot make it again from its
    config, and so neither loads nor clones a functional model that contains it.

    Args:
        layer: A layer.

    Returns:
        Set of names, empty for most layers.
    """
    constructors = (vars(base).get("__init__") for base in type(layer).__mro__)
    signatures = (inspect.signature(constructor) for constructor in constructors if constructor)
    accepted = {name for signature in signatures for name in signature.parameters}
    return set(layer.get_config()) - accepted


def leave_out_of_config(layer: keras.layers.Layer, names: Iterable[str]) -> None:
    """Leaves some names out of this layer's config, so that it can be loaded from a file."""
    layer.get_config = functools.partial(_config_without, layer, frozenset(names))


def _config_without(layer: keras.layers.Layer, names: frozenset[str]) -> dict[str, Any]:
    config = type(layer).get_config(layer)
    return {name: value for name, value in config.items() if name not in names}
