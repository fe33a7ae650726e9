"""The difference between the outputs of a converted model and of the original model."""

from typing import Any

import keras
import numpy as np

# Above the effect of rounding on the outputs of a deep model in half precision.
_NOTICEABLE = 1e-2


def report_output_change(model: keras.Model, conditioned: keras.Model, inputs: Any) -> str:
    """The relative change of each output, and the share of samples whose argmax differs.

    Args:
        model: The model before conversion.
        conditioned: The model after conversion.
        inputs: One batch of inputs, in the structure that both models take.

    Returns:
        Lines of text, one per output, and advice if the outputs change by 1 % or more.
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
            "Fine-tune the model to recover. Methods that only scale rows, such as "
            "'row_equilibration', keep the function with gain='initial_norm', "
            "trainable_gain='per_unit'."
        )
    return "\n".join(lines)


def _outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    with keras.StatelessScope():  # Drops updates of variables, such as recurrent states.
        outputs = keras.tree.flatten(model(inputs, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(output), np.float64) for output in outputs]


def _finite(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The samples whose numbers are all finite, before and after."""
    kept = np.array([np.isfinite(old).all() for old in before], bool)
    kept &= np.array([np.isfinite(new).all() for new in after], bool)
    return before[kept], after[kept]


def _describe(before: np.ndarray, after: np.ndarray) -> str:
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


def _relative_change(before: np.ndarray, after: np.ndarray) -> float:
    if len(before) == 0:
        return np.inf
    norm = max(np.linalg.norm(before), np.finfo(float).tiny)
    return float(np.linalg.norm(after - before) / norm)
