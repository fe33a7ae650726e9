"""Copies of functional and Sequential models in which layers are exchanged for others."""

from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_wcond.internals import origin
from keras_wcond.kernels.search import all_layers

Exchange = Callable[[keras.layers.Layer], keras.layers.Layer]
# The models around a layer, from the outermost inwards.
Above = tuple[keras.Model, ...]


def is_exchangeable(layer: Any) -> bool:
    """Whether Keras knows the graph of a model, and runs the model by that graph alone."""
    has_graph = isinstance(layer, (keras.Sequential, keras.Function))
    return isinstance(layer, keras.Model) and has_graph and _is_of_keras(type(layer), "call")


def require_exchangeable(model: Any) -> None:
    """Requires a built functional or Sequential model.

    Args:
        model: An argument of the user.

    Raises:
        ValueError: It is another model. If it is not built, or not a model, the error comes from
            `require_built_model()`.
    """
    require_model(model)
    if not is_exchangeable(model):
        raise ValueError(
            "Expected a functional or Sequential model, whose layers can be exchanged. Received: "
            f"model={model.name!r} of type {type(model).__qualname__}, which has a `call` of its "
            "own. To condition it, write its layers as `Conditioned(layer)`, or as the "
            "conditioned classes, in its constructor. To fold it, make a plain model of the same "
            "layers, such as one with `kernel_conditioner=None`, and call "
            "`fold_model(model, into=plain_model)`."
        )
    require_built_model(model)


def require_model(model: Any, name: str = "model") -> None:
    """Raises a TypeError for anything but a Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a Keras model. Received: {name}={model!r} (of type {type(model).__name__}). "
            "A single layer is conditioned by `Conditioned(layer)`, and folded by its `fold()`."
        )


def require_built_model(model: Any, name: str = "model") -> None:
    """Raises for anything but a Keras model, and for a model that is not built."""
    require_model(model, name)
    if not model.built:
        raise ValueError(
            f"Expected a built model, which has weights. Received: {name}={model.name!r}, which "
            "is not built yet. Give it a `keras.Input`, or call it on data, first."
        )


def graph_layers(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, Above]]:
    """Each layer of a model's graph and of the models nested in it, with the models above."""
    yield from _graph_layers(model, (), set())


def _graph_layers(
    model: keras.Model, above: Above, seen: set[int]
) -> Iterator[tuple[keras.layers.Layer, Above]]:
    for layer in model.layers:
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        if is_exchangeable(layer):
            yield from _graph_layers(layer, (*above, model), seen)
        else:
            yield layer, (*above, model)


def require_separate_layers(model: keras.Model) -> None:
    """Raises if two layers of the graph contain one layer, which copies would not share."""
    holders: dict[int, keras.layers.Layer] = {}
    for layer, _ in graph_layers(model):
        for inner in all_layers(layer):
            holder = holders.setdefault(id(inner), layer)
            if holder is not layer:
                raise ValueError(
                    "Expected layers that hold no layer in common. Received: "
                    f"model={model.name!r}, of whose layers {holder.name!r} and {layer.name!r} "
                    f"both hold {inner.name!r}, so that copies of them would not share its "
                    "weights. Write this model with conditioned layers, or `Conditioned`, itself."
                )


def with_exchanged_layers(model: keras.Model, exchange: Exchange) -> keras.Model:
    """A new, uncompiled model with the graph of a model and other layers in it.

    Args:
        model: A built functional or Sequential model, which is left as it is.
        exchange: Function that takes a layer and returns the new layer. It is called once for
            each layer, also for layers of nested models and for layers that are shared.

    Returns:
        A `keras.Sequential` or functional model. Layers that are shared stay shared.
    """
    require_separate_layers(model)
    exchanged: dict[int, Any] = {}

    def once(operation: keras.Operation) -> Any:
        if id(operation) not in exchanged:
            exchanged[id(operation)] = new(operation)
        return exchanged[id(operation)]

    def new(operation: keras.Operation) -> Any:
        if is_exchangeable(operation):
            return _rebuilt(operation, once)
        if isinstance(operation, keras.layers.Layer):
            return exchange(operation)
        # An operation such as an addition, which keeps a list of its calls.
        return type(operation).from_config(operation.get_config())

    rebuilt = _rebuilt(model, once)
    # Freezing a model freezes all layers inside it, so nested models are set later.
    for original, copy in [
        (model, rebuilt),
        *((m, exchanged[id(m)]) for m in _nested_models(model)),
    ]:
        if copy.trainable != original.trainable:
            copy.trainable = original.trainable
    return rebuilt


def _nested_models(model: keras.Model) -> Iterator[keras.Model]:
    for layer in model.layers:
        if is_exchangeable(layer):
            yield layer
            yield from _nested_models(layer)


def input_structure(model: keras.Model) -> Any:
    """The symbolic inputs of a model, in the structure in which it takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _rebuilt(model: keras.Model, exchange: Callable[[keras.Operation], Any]) -> keras.Model:
    cls = type(model)
    inputs = keras.tree.map_structure(_new_input, input_structure(model))
    if isinstance(model, keras.Sequential):
        layers = [inputs, *map(exchange, model.layers)]
        sequential = cls if _is_of_keras(cls, "__init__") else keras.Sequential
        return sequential(layers, name=model.name)
    # This is another model of the same graph, since Keras would clone the compilation as well.
    graph = keras.Model(model.input, model.output, name=model.name)
    copy = keras.models.clone_model(graph, input_tensors=inputs, clone_function=exchange)
    if cls is type(copy) or not _is_of_keras(cls, "__init__"):
        return copy
    return cls(copy.input, copy.output, name=model.name)


def _new_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    layer, _ = origin(tensor)
    if isinstance(layer, keras.layers.InputLayer):
        return type(layer).from_config(layer.get_config()).output
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)


def _is_of_keras(cls: type, method: str) -> bool:
    """Whether a class inherits a method from Keras, and not from a user's subclass."""
    definer = next(base for base in cls.__mro__ if method in vars(base))
    return definer.__module__.split(".")[0] == "keras"
