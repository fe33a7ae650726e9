"""Access to private parts of Keras, where it has no public way. No other module has any."""

import functools
from collections.abc import Callable, MutableMapping
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
    "position_of",
    "read_note",
    "share_weight_decay",
    "sublayers",
    "updating_one_by_one",
    "without_numbers",
    "write_note",
]

# `AutocastScope`: under mixed precision `variable.value` is already rounded to the compute dtype,
# and norms need the full value. `get_keras_mask`: a mask is an attribute of its tensor only.
from keras.src.backend import AutocastScope, get_keras_mask

# A body that is rematerialized has to know which substitution it runs in.
from keras.src.backend.common.stateless_scope import get_stateless_scope

# `keras.losses.get` neither reshapes targets nor applies masks, as `fit()` does.
from keras.src.trainers.compile_utils import CompileLoss

from keras_wcond.linalg.arrays import Tensor

# The modules of Keras and Python that show the names of classes to users.
MODULES_THAT_SHOW_NAMES = frozenset(
    {
        "keras.src.layers.layer",
        "keras.src.ops.operation",
        "keras.src.utils.model_visualization",
        "keras.src.utils.summary_utils",
        "pydoc",
    }
)
# A scope in which a variable is read in the dtype in which it is stored.
full_precision = functools.partial(AutocastScope, None)


def is_rematerialized(layer: keras.layers.Layer) -> bool:
    """Whether a layer was created in a `keras.RematScope`."""
    return layer._remat_mode is not None


def forget_variable(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Removes a variable from the variables of a built layer."""
    layer._untrack_variable(variable)


def position_of(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """The position of a variable among those that an optimizer is built for."""
    # On TensorFlow, an update step is given the backend's own variable.
    position: int = optimizer._get_variable_index(variable)
    return position


def share_weight_decay(
    optimizer: keras.optimizers.Optimizer, other: keras.optimizers.Optimizer
) -> None:
    """Leaves the variables out of weight decay that another optimizer leaves out."""
    # Keras keeps them beside the config.
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(other, name):
            setattr(optimizer, name, getattr(other, name))


def updating_one_by_one(optimizer_class: Any) -> Any:
    """The optimizer class that updates each variable by itself, and is the same otherwise."""
    # On PyTorch, Keras replaces some of its classes by others, which update all at once.
    if optimizer_class.__module__.startswith("keras.src.backend."):
        return getattr(keras.optimizers, optimizer_class.__name__)
    return optimizer_class


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The direct sublayers of a layer, in the order in which Keras lists their weights."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def attribute_of(holder: keras.layers.Layer, layer: keras.layers.Layer) -> str | None:
    """The name of the attribute of a layer that is a given sublayer.

    Args:
        holder: The outer layer.
        layer: The sublayer.

    Returns:
        String, or None if the sublayer is not an attribute, but in a list, for example.
    """
    # On PyTorch, layers are modules, which keep their sublayers in a dict of their own.
    attributes = {**vars(holder), **vars(holder).get("_modules", {})}
    return next((name for name, value in attributes.items() if value is layer), None)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a layer without those of sublayers, in the order of a weights file."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def write_note(store: Any, name: str, text: str) -> None:
    """Writes a note about a layer into a weights file.

    The store that Keras passes to `save_own_variables` takes arrays only, and on loading Keras
    counts each array as a variable. The note is an attribute of the layer's group in the HDF5
    file, which Keras does not count.

    Args:
        store: The store that Keras passes to `save_own_variables`.
        name: String. The name of the note.
        text: String. The note.
    """
    attributes = _attributes(store)
    if attributes is not None:
        attributes[name] = text


def read_note(store: Any, name: str) -> str | None:
    """The note about a layer in a weights file, or None if there is none."""
    attributes = _attributes(store)
    return None if attributes is None else attributes.get(name)


def _attributes(store: Any) -> MutableMapping[str, str] | None:
    # A store is a plain dict if nothing was saved, and has no HDF5 group in other file formats.
    return getattr(getattr(store, "_h5_entry_group", None), "attrs", None)


def origin(tensor: keras.KerasTensor) -> tuple[Any, list[keras.KerasTensor]]:
    """The operation that created a symbolic tensor.

    The public `layer.input` does not distinguish between several calls of a layer, and for a
    model used as a layer it gives the model's own inputs.

    Args:
        tensor: A symbolic tensor.

    Returns:
        The operation, and the list of the symbolic tensors that it was called on.
    """
    history = tensor._keras_history
    operation = history.operation
    return operation, operation._inbound_nodes[history.node_index].input_tensors


def without_numbers(argument: Any) -> Any:
    """A symbolic tensor for a tensor or an array, and the argument itself for anything else."""
    if not hasattr(argument, "shape") or not hasattr(argument, "dtype"):
        return argument
    return keras.KerasTensor(argument.shape, keras.backend.standardize_dtype(argument.dtype))


def mask_of(tensor: Tensor) -> Tensor | None:
    """The mask that Keras attached to a tensor, which losses apply, or None."""
    return get_keras_mask(tensor)


def loss_as_compiled(loss: Any) -> Callable[..., Tensor]:
    """The function that `fit()` makes of a loss.

    The function gives the targets the shape of the outputs and applies masks. The result of
    `keras.losses.get()` does neither.

    Args:
        loss: Any loss that `compile()` accepts.

    Returns:
        Function of targets, outputs and sample weights, which returns a scalar.
    """
    function: Callable[..., Tensor] = CompileLoss(loss)
    return function
