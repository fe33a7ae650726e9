"""A check that a plain model written by hand corresponds to a conditioned model."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras

from keras_wcond.internals import attribute_of, sublayers
from keras_wcond.kernels.search import holders_within
from keras_wcond.layers import Conditioned
from keras_wcond.layers.base.class_facade import plain_class
from keras_wcond.layers.base.conditioned_layer import (
    ConditionedLayer,
    computes_as_its_plain_class,
    plain_config,
)
from keras_wcond.layers.base.folding import assign_folded_weights, folded_away
from keras_wcond.models.exchange import is_exchangeable

# Arguments that do not change the function of a layer whose weights are set.
_OF_TRAINING = ("initializer", "regularizer", "constraint")
_IGNORED = {"name", "trainable", "dtype", "seed"}


def require_counterpart(model: keras.Model, plain: keras.Model) -> None:
    """Requires that the weights and the layers of two models correspond one by one, in order.

    Args:
        model: The conditioned model.
        plain: The plain model.

    Raises:
        ValueError: The weights differ in names or shapes, or the layers in their arguments.
    """
    _require_one_conditioning(model)
    gone = {id(variable) for variable in folded_away(model)}
    pairs = [pair for pair in _pairs(model, plain) if not _have_graphs(*pair)]
    variables = [v for ours, _ in pairs if ours is not None for v in ours.variables]
    weights = [_described(variable) for variable in variables if id(variable) not in gone]
    plain_weights = [_described(v) for _, twin in pairs if twin is not None for v in twin.variables]
    if weights != plain_weights:
        raise ValueError(
            "Expected `into` to have the weights of `model`, of the same names and shapes, in the "
            f"same order. Received: model={model.name!r}, which without its gains has {weights}, "
            f"and into={plain.name!r} with {plain_weights}."
        )
    own, other = next(_differences(model, plain), (None, None))
    if own is not None:
        raise ValueError(
            "Expected `into` to have the layers of `model`, made in the same order with the same "
            f"arguments. Received: model={model.name!r} with {own}, and into={plain.name!r} with "
            f"{other} in its place."
        )


def transfer_counterpart(model: keras.Model, plain: keras.Model) -> None:
    """Sets the weights and the flags of a model to those that its counterpart computes with.

    Layers correspond in the order of the graphs, if both models have one. A subclass of a
    functional model lists its attributes before its graph, so that its weights have another order
    than those of a general functional model.
    """
    for layer, twin in _pairs(model, plain):
        if not _have_graphs(layer, twin):
            assign_folded_weights(layer, twin)
        elif twin.trainable != layer.trainable:
            twin.trainable = layer.trainable  # Also sets all layers inside it, which come next.


def _pairs(layer: Any, twin: Any) -> Iterator[tuple[Any, Any]]:
    """A layer and its twin, then those inside them if both have graphs. None for missing ones."""
    yield layer, twin
    if _have_graphs(layer, twin):
        for pair in itertools.zip_longest(_without_inputs(layer), _without_inputs(twin)):
            yield from _pairs(*pair)


def _have_graphs(layer: Any, twin: Any) -> bool:
    return is_exchangeable(layer) and is_exchangeable(twin)


def _without_inputs(model: keras.Model) -> list[keras.layers.Layer]:
    return [each for each in model.layers if not isinstance(each, keras.layers.InputLayer)]


def _require_one_conditioning(model: keras.Model) -> None:
    """Raises if a layer is inside a `Conditioned` layer and elsewhere as well."""
    seen: dict[int, list[str]] = {}
    for holders in holders_within(model):
        wrappers = [layer.name for layer in holders[:-1] if isinstance(layer, Conditioned)]
        if seen.setdefault(id(holders[-1]), wrappers) != wrappers:
            raise ValueError(
                "Expected layers of `Conditioned` that are nowhere else, since a plain layer has "
                f"one kernel. Received: model={model.name!r}, whose {holders[-1].name!r} is "
                f"conditioned by {seen[id(holders[-1])] or 'none'} in one place and by "
                f"{wrappers or 'none'} in another."
            )


def _described(variable: keras.Variable) -> str:
    return f"{variable.name} {tuple(variable.shape)}"


def _differences(layer: keras.layers.Layer, twin: keras.layers.Layer) -> Iterator[tuple[str, str]]:
    inside = _without_inputs if _have_graphs(layer, twin) else sublayers
    for original, counterpart in itertools.zip_longest(inside(layer), inside(twin)):
        if original is None or counterpart is None:
            yield _name(original), _name(counterpart)
            return
        names = attribute_of(layer, original), attribute_of(twin, counterpart)
        inner, inner_twin = _unwrapped(original), _unwrapped(counterpart)
        if None not in names and names[0] != names[1]:
            yield f"the layer in `{names[0]}`", f"that in `{names[1]}`"
        elif _has_its_own_call(inner) and type(inner) is not type(inner_twin):
            yield f"the `call` of {type(inner).__qualname__}", type(inner_twin).__qualname__
        elif _is_of_keras(inner) and _is_of_keras(inner_twin):
            ours, theirs = _arguments(inner), _arguments(inner_twin)
            for key in sorted(ours.keys() | theirs.keys()):
                # As text, since a comparison of arrays has no single truth value.
                if repr(ours.get(key)) != repr(theirs.get(key)):
                    yield (
                        f"{key}={ours.get(key)!r} in layer {inner.name!r}",
                        f"{key}={theirs.get(key)!r} in {inner_twin.name!r}",
                    )
        yield from _differences(inner, inner_twin)


def _name(layer: keras.layers.Layer | None) -> str:
    return "no other layer" if layer is None else f"layer {layer.name!r}"


def _has_its_own_call(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, ConditionedLayer) and not computes_as_its_plain_class(type(layer))


def _unwrapped(layer: keras.layers.Layer) -> keras.layers.Layer:
    return layer.layer if isinstance(layer, Conditioned) else layer


def _plain_type(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
    return plain_class(type(layer)) if isinstance(layer, ConditionedLayer) else type(layer)


def _is_of_keras(layer: keras.layers.Layer) -> bool:
    is_model = isinstance(layer, keras.Model)  # The layers of a model are compared next.
    return not is_model and _plain_type(layer).__module__.split(".")[0] == "keras"


def _arguments(layer: keras.layers.Layer) -> dict[str, Any]:
    arguments = {
        name: value
        for name, value in plain_config(layer.get_config()).items()
        # Nested layers, such as the layer in a wrapper, are compared next.
        if not name.endswith(_OF_TRAINING) and name not in _IGNORED and not _is_layer(value)
    }
    return {"class": _plain_type(layer).__name__, **arguments}


def _is_layer(value: Any) -> bool:
    if isinstance(value, dict):
        return "config" in value
    return isinstance(value, (list, tuple)) and any(map(_is_layer, value))
