"""From layers with conditioned layers inside to plain Keras layers that compute the same."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_wcond.internals import sublayers
from keras_wcond.kernels.search import all_layers
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import (
    ConditionedLayer,
    computes_as_its_plain_class,
    plain_class,
    plain_config,
)
from keras_wcond.layers.base.configs import config_of
from keras_wcond.layers.base.survey import conditioned_layers


def folded(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The plain, built layer that computes what a layer of conditioned kernels computes."""
    plain = plain_twin(layer)
    if not plain.built:
        plain.build_from_config(layer.get_build_config())
    assign_folded_weights(layer, plain)
    return plain


def plain_twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer of the same configuration without conditioning, its weights not yet set."""
    if isinstance(layer, ConditionedLayer) and not _is_conditioned_wrapper(layer):
        _require_plain_call(layer)
        return plain_class(type(layer)).from_config(plain_config(config_of(layer)))
    config = keras.saving.serialize_keras_object(layer)
    # Classes need not be registered with Keras to be used here and now.
    classes = {type(inner) for inner in all_layers(layer)}
    known = {keras.saving.get_registered_name(cls): cls for cls in classes}
    # The config is of this process, so that the code in it is no stranger's.
    return keras.saving.deserialize_keras_object(
        _plain(config), custom_objects=known, safe_mode=False
    )


def assign_folded_weights(layer: keras.layers.Layer, plain: keras.layers.Layer) -> None:
    """Sets the weights of the plain twin, once built, to those a layer computes with."""
    left = [inner.name for inner in conditioned_layers(plain)]
    stored = [pair for pair in corresponding_layers(layer, plain) if _are_quantized(*pair)]
    in_store = {id(variable) for pair in stored for each in pair for variable in each.variables}
    values = [fold for variable, fold in _folds(layer) if id(variable) not in in_store]
    variables = [variable for variable in plain.variables if id(variable) not in in_store]
    shapes = [tuple(value.shape) for value, _ in values]
    if left or shapes != [tuple(variable.shape) for variable in variables]:
        raise ValueError(_no_correspondence(layer, left))
    transfer_own_state(layer, plain)
    transfer_trainable(layer, plain)
    for quantized, twin in stored:
        _transfer_store(quantized, twin)
    for variable, (value, trainable) in zip(variables, values, strict=True):
        assign_copy(variable, value)
        variable.trainable = trainable


def transfer_own_state(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Gives a copy what layers keep beside their config and the values of their variables.

    A `Normalization` computes with numbers that it derives when its variables are loaded, a
    lookup layer has its vocabulary in a file, and a stateful recurrent layer its state in
    variables that Keras does not list.
    """
    for original, twin in corresponding_layers(layer, copy):
        # Conditioned layers derive nothing, and their kernels may become others.
        is_conditioned = isinstance(original, ConditionedLayer) or isinstance(
            twin, ConditionedLayer
        )
        loads = type(original).load_own_variables is not keras.layers.Layer.load_own_variables
        if loads and not is_conditioned:
            _transfer_store(original, twin)
        if hasattr(original, "save_assets") and hasattr(twin, "load_assets"):
            with tempfile.TemporaryDirectory() as folder:
                original.save_assets(folder)
                twin.load_assets(folder)
        if isinstance(original, keras.layers.RNN) and original.stateful and twin.built:
            states = keras.tree.flatten(original.states), keras.tree.flatten(twin.states)
            for state, copied in zip(*states, strict=True):
                assign_copy(copied, state)


def _transfer_store(original, twin):
    store: dict[str, Any] = {}
    original.save_own_variables(store)
    twin.load_own_variables(
        {key: keras.ops.convert_to_numpy(value) for key, value in store.items()}
    )


def transfer_trainable(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Freezes in a copy the layers that are frozen; variables come last, and by themselves."""
    if _is_conditioned_wrapper(copy) and not layer.trainable:
        copy.trainable = False
    # What a frozen wrapper holds is frozen as well, whatever its own flag.
    frozen = {
        id(each.layer)
        for each in all_layers(layer)
        if _is_conditioned_wrapper(each) and not each.trainable
    }
    for original, twin in corresponding_layers(layer, copy):
        trainable = original.trainable and id(original) not in frozen
        if twin.trainable != trainable:
            twin.trainable = trainable  # And all layers inside it, which come next.


def corresponding_layers(
    layer: keras.layers.Layer, copy: keras.layers.Layer
) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Each layer in a layer with that in a copy, where one may be wrapped in `Conditioned`."""
    if _is_conditioned_wrapper(layer) and not _is_conditioned_wrapper(copy):
        yield from corresponding_layers(layer.layer, copy)
    elif _is_conditioned_wrapper(copy) and not _is_conditioned_wrapper(layer):
        yield from corresponding_layers(layer, copy.layer)
    else:
        yield layer, copy
        # A layer that makes others for itself may have more of them than its copy has yet.
        for original, twin in zip(sublayers(layer), sublayers(copy), strict=False):
            yield from corresponding_layers(original, twin)


def _are_quantized(layer, plain):
    """Whether a conditioned class was quantized, which folds it, and so is its plain twin."""
    is_class = isinstance(layer, ConditionedLayer) and not _is_conditioned_wrapper(layer)
    return is_class and None not in (layer.quantization_mode, plain.quantization_mode)


def _require_plain_call(layer):
    if not computes_as_its_plain_class(type(layer)):
        raise ValueError(
            "Expected a layer whose `call` is that of the conditioned layer it extends, "
            "since only such a layer has a plain one to fold into. Received: "
            f"layer.name={layer.name!r} of type {type(layer).__qualname__}, which has a "
            "`call` of its own. Move what it adds to a layer around it."
        )


def _is_conditioned_wrapper(layer):
    return isinstance(layer, ConditionedLayer) and isinstance(layer, keras.layers.Wrapper)


def _no_correspondence(layer, left):
    received = f"Received: layer.name={layer.name!r} of type {type(layer).__qualname__}"
    quantized = [i.name for i in all_layers(layer) if i.quantization_mode is not None]
    if quantized:
        return (
            f"Expected a layer that is folded before it is quantized. {received}, with the "
            f"quantized layers {quantized} inside. Fold first, then quantize the plain layer."
        )
    holds = f" and holds conditioned layers of its own: {left}" if left else ""
    return (
        "Expected a layer that tells of the layers it holds in its config, or holds no "
        f"conditioned ones. {received}, whose plain twin does not correspond to it{holds}. Write "
        "it with plain layers and wrap it in `Conditioned`."
    )


def assign_copy(variable: keras.Variable, value: Any) -> None:
    """Assigns a value that lives on without its source.

    On JAX two variables would otherwise hold one array, and training either model gives
    that array's memory away.
    """
    variable.assign(keras.ops.convert_to_numpy(value))


@contextlib.contextmanager
def folded_in_place(kernels: Sequence[ConditionedKernel]) -> Iterator[None]:
    """A scope whose kernels are folded for good, or restored if it raises."""
    pairs = [pair for kernel in kernels for pair in kernel.replacements(kernel.folded())]
    originals = [(variable, variable.numpy()) for variable, _ in pairs]
    _assign(pairs)
    try:
        yield
    except Exception:
        _assign(originals)
        raise


def _assign(pairs):
    for variable, value in pairs:
        variable.assign(value)


def folded_away(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that the plain twin does not have: gains, and adapters that are merged."""
    return [
        variable
        for inner in conditioned_layers(layer)
        for kernel in inner.kernels
        for variable in (kernel.gain_weight, *_merged_adapters(inner, kernel))
        if variable is not None
    ]


def _merged_adapters(layer, kernel):
    # Those of a wrapped layer stay, as its config says.
    return () if _is_conditioned_wrapper(layer) else kernel.adapters


def _folds(layer):
    """Each variable that the plain twin has, in its order, with value and trainability there."""
    away = {id(variable) for variable in folded_away(layer)}
    folds = {}
    for inner in conditioned_layers(layer):
        for kernel in inner.kernels:
            if id(kernel.variable) in folds:
                continue  # That of an attention layer, and of its projection.
            # Adapters freeze the kernel that they are merged into.
            trainable = kernel.variable.trainable or bool(_merged_adapters(inner, kernel))
            folds[id(kernel.variable)] = kernel.folded(), trainable
            for adapter in kernel.adapters[1:]:  # Its update is in the kernel already.
                folds[id(adapter)] = np.zeros(adapter.shape), adapter.trainable
    return [
        (variable, folds.get(id(variable), (variable, variable.trainable)))
        for variable in layer.variables
        if id(variable) not in away
    ]


def _plain(config):
    """A serialized object without the conditioning of any layer in it."""
    if isinstance(config, (list, tuple)):
        return type(config)(_plain(item) for item in config)
    if not isinstance(config, dict):
        return config
    config = {key: _plain(value) for key, value in config.items()}
    cls = keras.saving.get_registered_object(config.get("registered_name") or "")
    if not isinstance(cls, type) or not issubclass(cls, ConditionedLayer):
        return config
    if not computes_as_its_plain_class(cls):
        return config
    if issubclass(cls, keras.layers.Wrapper):
        wrapped = config["config"]["layer"]
        trainable = config["config"]["trainable"] and wrapped["config"].get("trainable", True)
        return {**wrapped, "config": {**wrapped["config"], "trainable": trainable}}
    return {
        **config,
        "module": "keras.layers",
        "class_name": _exported_name(plain_class(cls)),
        "registered_name": None,
        "config": plain_config(config["config"]),
    }


def _exported_name(cls):
    """The name a class has in `keras.layers`, which may differ from its `__name__`."""
    return next(name for name, value in vars(keras.layers).items() if value is cls)
