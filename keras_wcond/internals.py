"""What Keras has no public way for: the one module that reaches into its private parts."""

import functools
from typing import Any

import keras

__all__ = [
    "attribute_of",
    "forget_variable",
    "full_precision",
    "get_stateless_scope",
    "is_rematerialized",
    "loss_as_compiled",
    "mask_of",
    "origin",
    "own_variables",
    "read_note",
    "sublayers",
    "without_numbers",
    "write_note",
]

# Under mixed precision `variable.value` is already rounded to the compute dtype. Norms
# need the full value.
from keras.src.backend import AutocastScope, get_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.trainers.compile_utils import CompileLoss

# The modules of Keras and Python that write names of classes for people to read.
MODULES_THAT_SHOW_NAMES = frozenset(
    {
        "keras.src.layers.layer",
        "keras.src.ops.operation",
        "keras.src.utils.model_visualization",
        "keras.src.utils.summary_utils",
        "pydoc",
    }
)
# A scope in which variables are read in the dtype they are stored in.
full_precision = functools.partial(AutocastScope, None)


def is_rematerialized(layer: keras.layers.Layer) -> bool:
    """Whether a layer was made in a `keras.RematScope`, which Keras tells nobody else."""
    return layer._remat_mode is not None


def forget_variable(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Takes a variable out of a built layer, which Keras offers for attributes only."""
    layer._untrack_variable(variable)


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer holds directly, in the order in which Keras lists their weights."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def attribute_of(holder: keras.layers.Layer, layer: keras.layers.Layer) -> str | None:
    """The attribute under which a layer holds another, or None where it is in a list.

    On PyTorch, layers are modules, which have a place of their own.
    """
    attributes = {**vars(holder), **vars(holder).get("_modules", {})}
    return next((name for name, value in attributes.items() if value is layer), None)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a layer itself, in the order of their positions in a file."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def write_note(store: Any, name: str, text: str) -> None:
    """Notes something about a layer in a weights file, beside its arrays.

    What Keras hands to `save_own_variables` writes arrays only, each of which it counts as a
    variable when it loads. An attribute of the layer's group in the HDF5 file is not counted.
    """
    attributes = _attributes(store)
    if attributes is not None:
        attributes[name] = text


def read_note(store: Any, name: str) -> str | None:
    """What was noted about a layer in a weights file, or None."""
    attributes = _attributes(store)
    return None if attributes is None else attributes.get(name)


def _attributes(store):
    # A dictionary, where nothing was saved, and in what is no HDF5 file, has none.
    return getattr(getattr(store, "_h5_entry_group", None), "attrs", None)


def origin(tensor: keras.KerasTensor) -> tuple[Any, list[keras.KerasTensor]]:
    """The operation whose output a symbolic tensor is, and the tensors it was called on.

    A layer that was called on symbolic tensors tells its inputs publicly, but not which of
    its calls a tensor comes from, and a model in place of a layer tells its own inputs.
    """
    history = tensor._keras_history
    operation = history.operation
    return operation, operation._inbound_nodes[history.node_index].input_tensors


def without_numbers(argument: Any) -> Any:
    """A symbolic tensor in place of a tensor or an array; anything else as it is."""
    if not hasattr(argument, "shape") or not hasattr(argument, "dtype"):
        return argument
    return keras.KerasTensor(argument.shape, keras.backend.standardize_dtype(argument.dtype))


def mask_of(tensor: Any) -> Any:
    """The mask that Keras hung on a tensor, which losses heed, or None."""
    return get_keras_mask(tensor)


def loss_as_compiled(loss: Any) -> Any:
    """A loss of any kind that `compile()` takes, as the function that `fit()` makes of it.

    What `keras.losses.get` returns neither brings targets to the shape of the outputs nor
    heeds masks.
    """
    return CompileLoss(loss)
