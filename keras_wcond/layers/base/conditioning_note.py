"""Notes in weights files on the conditioning that the weights were saved with.

Conditioned and plain layers share files, and the weights of one file compute different functions
in the two. Plain Keras layers read arrays only, so only a conditioned layer can warn of that.
"""

import re
import warnings
from typing import Any

from keras_wcond.conditioners import Sequential
from keras_wcond.conditioners.registry import name_of
from keras_wcond.internals import read_note, write_note
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer

NAME = "keras_wcond"


def note_conditioning(layer: ConditionedLayer, store: Any) -> None:
    """Notes the conditioner and the gain of a layer in the file that its weights go to.

    A layer that never had a conditioner writes the file of a plain layer, without a note.
    """
    if layer.kernel_conditioner is not None or layer.is_folded:
        write_note(store, NAME, _conditioning(layer, bool(layer.gain_weights)))


def warn_of_other_conditioning(layer: ConditionedLayer, store: Any, has_stored_gain: bool) -> None:
    """Warns where the weights in a file were saved with another conditioner or gain.

    The warning names no layer, so that Python shows it once for a whole model. A file of plain
    layers has no note.

    Args:
        layer: The layer that is loaded.
        store: The mapping that Keras passes to `load_own_variables`.
        has_stored_gain: Whether the file has the gain, if the gain is a weight.
    """
    saved = read_note(store, NAME)
    if saved is None:
        return
    own = _conditioning(layer, bool(layer.gain_weights) and has_stored_gain)
    if saved == own:
        return
    warnings.warn(
        f"The weights in this file were saved by layers with {saved}, and are loaded into layers "
        f"with {own}, which compute another function with them. Load them into "
        "layers with the conditioner and the gain that they were saved with. For layers without "
        "a conditioner, save what `fold()` or `fold_model()` returns.",
        stacklevel=2,
    )


def _conditioning(layer: ConditionedLayer, is_gain_stored: bool) -> str:
    conditioner = layer.kernel_conditioner
    if conditioner is None:
        return "kernel_conditioner=None"
    # A gain that is a weight is in the file, whatever it started at.
    is_stored = is_gain_stored and layer.gain not in ("auto", "kernel_norm")
    while isinstance(conditioner, Sequential) and len(conditioner.conditioners) == 1:
        (conditioner,) = conditioner.conditioners
    # Functions print their addresses, which differ between processes. HDF5 takes up to 64 KB,
    # which a user's arrays may exceed.
    name = re.sub(" at 0x[0-9a-f]+", "", name_of(conditioner))[:10_000]
    return f"kernel_conditioner={name}, gain={'a weight' if is_stored else layer.gain}"
