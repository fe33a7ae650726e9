"""Folding: from conditioned layers to plain Keras layers with the same outputs."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_wcond.internals import forget_variable, sublayers
from keras_wcond.kernels.search import all_layers
from keras_wcond.layers.base.class_facade import plain_class
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import (
    ConditionedLayer,
    computes_as_its_plain_class,
    plain_config,
)
from keras_wcond.layers.base.configs import config_of
from keras_wcond.layers.base.survey import conditioned_layers
from keras_wcond.linalg.arrays import Tensor


def folded(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The plain, built layer with the same outputs as a conditioned layer."""
    plain = plain_twin(layer)
    if not plain.built:
        plain.build_from_config(layer.get_build_config())
    assign_folded_weights(layer, plain)
    return plain


def plain_twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same configuration without conditioning and without the weights."""
    if isinstance(layer, ConditionedLayer) and not _is_conditioned_wrapper(layer):
        _require_plain_call(layer)
        return plain_class(type(layer)).from_config(plain_config(config_of(layer)))
    config = keras.saving.serialize_keras_object(layer)
    # Classes need not be registered with Keras to be used in this process.
    classes = {type(inner) for inner in all_layers(layer)}
    known = {keras.saving.get_registered_name(cls): cls for cls in classes}
    # The config comes from this process, so the code in it can be trusted.
    return keras.saving.deserialize_keras_object(
        _plain(config), custom_objects=known, safe_mode=False
    )


def assign_folded_weights(layer: keras.layers.Layer, plain: keras.layers.Layer) -> None:
    """Sets the weights of a built plain twin to the values that a layer computes with."""
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
    """Copies the state that layers keep beside their config and the values of their variables.

    A `Normalization` layer computes with numbers that it derives when its variables are loaded.
    A lookup layer has its vocabulary in a file. A stateful recurrent layer has its state in
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


def _transfer_store(original: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    store: dict[str, Any] = {}
    original.save_own_variables(store)
    twin.load_own_variables(
        {key: keras.ops.convert_to_numpy(value) for key, value in store.items()}
    )


def transfer_trainable(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Freezes the layers of a copy that are frozen in the original, before the variables."""
    if _is_conditioned_wrapper(copy) and not layer.trainable:
        copy.trainable = False
    # A layer inside a frozen wrapper is frozen as well, whatever its own flag.
    frozen = {
        id(each.layer)
        for each in all_layers(layer)
        if _is_conditioned_wrapper(each) and not each.trainable
    }
    for original, twin in corresponding_layers(layer, copy):
        trainable = original.trainable and id(original) not in frozen
        if twin.trainable != trainable:
            twin.trainable = trainable  # Also sets all layers inside it, which are visited next.


def corresponding_layers(
    layer: keras.layers.Layer, copy: keras.layers.Layer
) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Pairs of layers in a layer and in its copy. Either may be wrapped in `Conditioned`."""
    if _is_conditioned_wrapper(layer) and not _is_conditioned_wrapper(copy):
        yield from corresponding_layers(layer.layer, copy)
    elif _is_conditioned_wrapper(copy) and not _is_conditioned_wrapper(layer):
        yield from corresponding_layers(layer, copy.layer)
    else:
        yield layer, copy
        # A layer that makes others for itself may have more of them than its unbuilt copy.
        for original, twin in zip(sublayers(layer), sublayers(copy), strict=False):
            yield from corresponding_layers(original, twin)


def _are_quantized(layer: keras.layers.Layer, plain: keras.layers.Layer) -> bool:
    """Whether a layer of a conditioned class and its plain twin are both quantized."""
    is_class = isinstance(layer, ConditionedLayer) and not _is_conditioned_wrapper(layer)
    return is_class and None not in (layer.quantization_mode, plain.quantization_mode)


def _require_plain_call(layer: ConditionedLayer) -> None:
    if not computes_as_its_plain_class(type(layer)):
        raise ValueError(
            "Expected a layer whose `call` is that of the conditioned layer it extends, "
            "since only such a layer has a plain one to fold into. Received: "
            f"layer.name={layer.name!r} of type {type(layer).__qualname__}, which has a "
            "`call` of its own. Move what it adds to a layer around it."
        )


def _is_conditioned_wrapper(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, ConditionedLayer) and isinstance(layer, keras.layers.Wrapper)


def _no_correspondence(layer: keras.layers.Layer, left: Sequence[str]) -> str:
    received = f"Received: layer.name={layer.name!r} of type {type(layer).__qualname__}"
    quantized = [i.name for i in all_layers(layer) if i.quantization_mode is not None]
    if quantized:
        return (
            f"Expected a layer that is folded before it is quantized. {received}, with the "
            f"quantized layers {quantized} inside. Fold first, then quantize the plain layer."
        )
    holds = f" and holds conditioned layers of its own: {left}" if left else ""
    return (
        "Expected a layer whose config contains the layers it holds, or that holds no "
        f"conditioned ones. {received}, whose plain twin does not correspond to it{holds}. Write "
        "it with plain layers and wrap it in `Conditioned`."
    )


def assign_copy(variable: keras.Variable, value: keras.Variable | Tensor) -> None:
    """Assigns a copy of a value.

    On JAX two variables would otherwise share one array, and training either model releases
    the memory of that array.
    """
    variable.assign(keras.ops.convert_to_numpy(value))


@contextlib.contextmanager
def folded_in_place(kernels: Sequence[ConditionedKernel]) -> Iterator[None]:
    """A scope in which kernels are folded. They stay folded unless the scope raises."""
    pairs = [pair for kernel in kernels for pair in kernel.replacements(kernel.folded())]
    originals = [(variable, variable.numpy()) for variable, _ in pairs]
    _assign(pairs)
    try:
        yield
    except Exception:
        _assign(originals)
        raise


@contextlib.contextmanager
def folded_for_good(layer: ConditionedLayer) -> Iterator[None]:
    """A scope in which a layer's own kernels are folded. It conditions nothing afterwards."""
    kernels = layer._kernels
    with folded_in_place(kernels):
        yield
    for kernel in kernels:
        if kernel.gain_weight is not None:
            forget_variable(layer, kernel.gain_weight)
    layer._kernels = ()
    layer.gain, layer.trainable_gain, layer.kernel_conditioner = 1.0, None, None


def _assign(pairs: Iterable[tuple[keras.Variable, Tensor]]) -> None:
    for variable, value in pairs:
        variable.assign(value)


def folded_away(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that the plain twin lacks: gains and merged adapters."""
    return [
        variable
        for inner in conditioned_layers(layer)
        for kernel in inner.kernels
        for variable in (kernel.gain_weight, *_merged_adapters(inner, kernel))
        if variable is not None
    ]


def _merged_adapters(
    layer: ConditionedLayer, kernel: ConditionedKernel
) -> tuple[keras.Variable, ...]:
    # A wrapped layer keeps its adapters, since they are in its config.
    return () if _is_conditioned_wrapper(layer) else kernel.adapters


def _folds(layer: keras.layers.Layer) -> list[tuple[keras.Variable, tuple[Tensor, bool]]]:
    """The variables of the plain twin in its order, with their values and trainability there."""
    away = {id(variable) for variable in folded_away(layer)}
    folds: dict[int, tuple[Tensor, bool]] = {}
    for inner in conditioned_layers(layer):
        for kernel in inner.kernels:
            if id(kernel.variable) in folds:
                continue  # An attention layer and its projection have the same kernel.
            # Adapters freeze the kernel that they are merged into.
            trainable = kernel.variable.trainable or bool(_merged_adapters(inner, kernel))
            folds[id(kernel.variable)] = kernel.folded(), trainable
            for adapter in kernel.adapters[1:]:  # The kernel contains the update already.
                folds[id(adapter)] = np.zeros(adapter.shape), adapter.trainable
    return [
        (variable, folds.get(id(variable), (variable, variable.trainable)))
        for variable in layer.variables
        if id(variable) not in away
    ]


def _plain(config: Any) -> Any:
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


def _exported_name(cls: type) -> str:
    """The name a class has in `keras.layers`, which may differ from its `__name__`."""
    exported: dict[str, Any] = vars(keras.layers)
    return next(name for name, value in exported.items() if value is cls)
