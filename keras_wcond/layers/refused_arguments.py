"""Layers that list in their config what their own constructor refuses.

KerasHub's `ViTPatchingAndEmbedding` is one: Keras cannot make it again from its config, and
so neither load nor clone a functional model that it is part of.
"""

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import keras


def refused_arguments(layer: keras.layers.Layer) -> set[str]:
    """The names in a layer's config that no constructor of its class or bases takes."""
    constructors = (vars(base).get("__init__") for base in type(layer).__mro__)
    signatures = (inspect.signature(constructor) for constructor in constructors if constructor)
    accepted = {name for signature in signatures for name in signature.parameters}
    return set(layer.get_config()) - accepted


def config_without(layer: keras.layers.Layer, names: Iterable[str]) -> dict[str, Any]:
    config = type(layer).get_config(layer)
    return {name: value for name, value in config.items() if name not in names}


def leave_out_of_config(layer: keras.layers.Layer, names: Iterable[str]) -> None:
    """Has this one layer be saved without some names, so that it can be loaded."""
    layer.get_config = functools.partial(config_without, layer, frozenset(names))
