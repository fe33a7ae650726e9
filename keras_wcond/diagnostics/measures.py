"""The measures of one kernel, and the predicted effect of each method on it."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_wcond.arguments import class_name
from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.conditioners.registry import name_of
from keras_wcond.diagnostics.advice import advice
from keras_wcond.diagnostics.model_kernels import conditioner_of, values
from keras_wcond.diagnostics.spectrum import Spectrum
from keras_wcond.kernels.search import Kernel


def measured(
    kernel: Kernel, tried: Mapping[str, Conditioner]
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """The record of a kernel in a `ConditioningReport`, and its raw and effective spectra.

    Args:
        kernel: A kernel of a built model.
        tried: Dict from the names of the methods to predict to their conditioners.

    Returns:
        Dict, and two float64 arrays of shape `(matrices, min(rows, columns))`.
    """
    found = values(kernel)
    matrices, conditioned, epsilon = found.raw, found.effective, found.epsilon
    before = after = Spectrum.of_matrices(matrices, epsilon)
    if conditioned is not matrices:
        after = Spectrum.of_matrices(conditioned, epsilon)
    record = {
        **_description(kernel, matrices),
        # Those over all singular values, which may be a rounding error, are the last ones.
        "effective_condition_number": _largest(after.effective_condition_numbers()),
        "raw_effective_condition_number": _largest(before.effective_condition_numbers()),
        "numerical_rank": int(after.numerical_ranks().min()),
        "stable_rank": float(after.stable_ranks().min()),
        "largest_singular_value": _largest(after.values),
        "row_norm_spread": row_norm_spread(conditioned),
        "raw_row_norm_spread": row_norm_spread(matrices),
        "condition_number": _largest(after.condition_numbers()),
        "raw_condition_number": _largest(before.condition_numbers()),
        "is_finite": bool(np.isfinite(after.values).all()),
    }
    predicted = {
        name: _left_by(conditioner, matrices, epsilon) for name, conditioner in tried.items()
    }
    record["advice"] = advice(record, predicted)
    record |= {f"with_{name}": value for name, value in predicted.items()}
    return record, (before.values, after.values)


def row_norm_spread(matrices: np.ndarray) -> float:
    """The largest norm of a row divided by the smallest, the maximum over matrices."""
    norms = np.linalg.norm(matrices, axis=2)
    largest, smallest = norms.max(axis=1), norms.min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(largest == smallest, 1.0, largest / smallest)
    return _largest(np.where(np.isfinite(largest), spread, np.nan))


def _description(kernel: Kernel, matrices: np.ndarray) -> dict[str, Any]:
    conditioner = conditioner_of(kernel)
    return {
        "path": kernel.path,
        "layer": class_name(kernel.owner),
        "shape": tuple(kernel.variable.shape),
        "matrices": matrices.shape[0],
        "rows": matrices.shape[1],
        "columns": matrices.shape[2],
        "conditioner": None if conditioner is None else name_of(conditioner),
    }


def _left_by(conditioner: Conditioner, matrices: np.ndarray, epsilon: float) -> float:
    """The effective condition number after a method."""
    is_double = epsilon <= np.finfo("float64").eps
    # Entries beyond the range of float32 become infinite, and are reported as such.
    with np.errstate(all="ignore"):
        matrices = matrices if is_double else matrices.astype("float32")
        conditioned = conditioner.condition_stack(matrices)
    conditioned = keras.ops.convert_to_numpy(conditioned).astype("float64")
    decompose = Spectrum.of_matrices if is_double else Spectrum.by_gram
    return _largest(decompose(conditioned, epsilon).effective_condition_numbers())


def _largest(values: np.ndarray) -> float:
    return float(np.max(values))
