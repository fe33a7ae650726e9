"""What a weights file says of the conditioning that its weights were saved with.

Conditioned and plain layers share files, and one file computes something else in each. Keras'
plain layers read arrays alone, so that only a conditioned layer can warn of that.
"""

import warnings
from typing import Any

from keras_wcond.conditioners import name_of
from keras_wcond.internals import read_note, write_note

NAME = "keras_wcond"


def note_conditioning(layer: Any, store: Any) -> None:
    """Notes conditioner and gain of a layer in the file that its weights go to."""
    if layer.kernel_conditioner is not None:
        write_note(store, NAME, _conditioning(layer))


def warn_of_other_conditioning(layer: Any, store: Any) -> None:
    """Warns where the weights in a file were saved with another conditioner or gain.

    The warning names no layer, so that Python shows it once for a whole model. A file of plain
    layers has no note.
    """
    saved = read_note(store, NAME)
    if saved is None or saved == _conditioning(layer):
        return
    warnings.warn(
        f"The weights in this file were saved by layers with {saved}, and are loaded into layers "
        f"with {_conditioning(layer)}, which compute another function with them. Load them into "
        "layers with the conditioner and the gain that they were saved with. For layers without "
        "a conditioner, save what `fold()` or `fold_model()` returns.",
        stacklevel=2,
    )


def _conditioning(layer):
    conditioner = layer.kernel_conditioner
    if conditioner is None:
        return "kernel_conditioner=None"
    return f"kernel_conditioner={name_of(conditioner)}, gain={layer.gain}"
