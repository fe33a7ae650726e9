"""How far the outputs of a converted model are from those of the model it was made from."""

from typing import Any

import keras
import numpy as np

# Above what rounding does to the outputs of a deep model in half precision.
_NOTICEABLE = 1e-2


def report_output_change(model: keras.Model, conditioned: keras.Model, inputs: Any) -> str:
    """The relative change of each output, and in how many rows its argmax differs.

    Args:
        model: The model before conversion.
        conditioned: The model after it.
        inputs: One batch of inputs of both, in their structure.
    """
    before, after = _outputs(model, inputs), _outputs(conditioned, inputs)
    names = [f" of {name!r}" for name in model.output_names] if len(before) > 1 else [""]
    lines = [
        f"Output change{name}: {_describe(old, new)}."
        for name, old, new in zip(names, before, after, strict=True)
    ]
    if max(map(_relative_change, before, after)) > _NOTICEABLE:
        lines.append(
            "Fine-tune the model to recover, or keep its function: "
            "kernel_conditioner='row_equilibration', gain='initial_norm', "
            "trainable_gain='per_unit'."
        )
    return "\n".join(lines)


def _outputs(model, inputs):
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(output), np.float64) for output in outputs]


def _describe(before, after):
    text = f"‖new - old‖ / ‖old‖ = {_relative_change(before, after):.2g}"
    if before.ndim < 2 or before.shape[-1] < 2:
        return text
    differing = np.mean(before.argmax(axis=-1) != after.argmax(axis=-1))
    return f"{text}, and the argmax differs in {differing:.1%} of rows"


def _relative_change(before, after):
    return np.linalg.norm(after - before) / max(np.linalg.norm(before), np.finfo(float).tiny)
