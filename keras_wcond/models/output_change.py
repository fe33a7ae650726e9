"""How far the outputs of a converted model are from those of the model it was made from."""

from typing import Any

import keras
import numpy as np

# Above what rounding does to the outputs of a deep model in half precision.
_NOTICEABLE = 1e-2


def report_output_change(model: keras.Model, conditioned: keras.Model, inputs: Any) -> str:
    """The relative change of each output, and in how many samples its argmax differs.

    Args:
        model: The model before conversion.
        conditioned: The model after it.
        inputs: One batch of inputs of both, in their structure.
    """
    before, after = _outputs(model, inputs), _outputs(conditioned, inputs)
    pairs = list(zip(before, after, strict=True))
    names = [f" of {name!r}" for name in model.output_names] if len(before) > 1 else [""]
    lines = [
        f"Output change{name}: {_describe(old, new)}."
        for name, (old, new) in zip(names, pairs, strict=True)
    ]
    if not all(_relative_change(*_finite(*pair)) < _NOTICEABLE for pair in pairs):
        lines.append(
            "Fine-tune the model to recover. The one method that can keep its function is row "
            "equilibration with gain='initial_norm', trainable_gain='per_unit'."
        )
    return "\n".join(lines)


def _outputs(model, inputs):
    with keras.StatelessScope():  # Which drops what the call updates, such as recurrent states.
        outputs = keras.tree.flatten(model(inputs, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(output), np.float64) for output in outputs]


def _finite(before, after):
    """The samples of which all numbers are finite, before and after."""
    kept = np.array([np.isfinite(old).all() for old in before], bool)
    kept &= np.array([np.isfinite(new).all() for new in after], bool)
    return before[kept], after[kept]


def _describe(before, after):
    old, new = _finite(before, after)
    lost = len(before) - len(old)
    not_finite = f"not finite in {lost} of {len(before)} samples" if lost else ""
    if len(old) == 0:
        return not_finite or "no samples"
    text = f"‖new - old‖ / ‖old‖ = {_relative_change(old, new):.2g}"
    if old.ndim > 1 and old.shape[-1] > 1:
        differing = np.mean(old.argmax(axis=-1) != new.argmax(axis=-1))
        text += f", and the argmax differs in {differing:.1%} of samples"
    return f"{text}; {not_finite}" if not_finite else text


def _relative_change(before, after):
    if len(before) == 0:
        return np.inf
    return np.linalg.norm(after - before) / max(np.linalg.norm(before), np.finfo(float).tiny)
