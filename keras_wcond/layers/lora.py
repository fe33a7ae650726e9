"""Low-rank adapters: what is conditioned is the merged kernel, C(W + αAB)."""

from typing import Any

import keras
from keras import ops


def has_lora(owner: keras.layers.Layer) -> bool:
    return bool(getattr(owner, "lora_enabled", False))


def merged(owner: keras.layers.Layer, kernel: keras.Variable) -> Any:
    """The kernel with its layer's low-rank update, or the kernel itself without one."""
    # Under the variable's name, a layer with LoRA has the merged tensor.
    return kernel if _update(owner, kernel) is None else getattr(owner, kernel.name)


def replacements(
    owner: keras.layers.Layer, kernel: keras.Variable, conditioned: Any
) -> list[tuple[Any, Any]]:
    """What to read in place of what, for the layer to multiply by the conditioned kernel."""
    pairs = [(kernel, conditioned)]
    update = _update(owner, kernel)
    if update is not None:
        # The conditioned kernel holds the low-rank update already.
        pairs.append((update, ops.zeros(update.shape, dtype=update.dtype)))
    return pairs


def _update(owner, kernel):
    return getattr(owner, f"lora_{kernel.name}_b", None) if has_lora(owner) else None
