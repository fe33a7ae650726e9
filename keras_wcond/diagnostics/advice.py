"""Advice on a kernel in one sentence, derived from its measures."""

from typing import Any

from keras_wcond import conditioners
from keras_wcond.diagnostics.tables import compact

# Up to this condition number no method is named. A method lowers the condition number if it does so
# at least by this factor.
SMALL = 10.0
LOWER = 0.5

# Scalings cost less than the other methods. The advice names the mildest scaling that comes near
# the best one. Weight standardization is not among them, since it lowers the effective condition
# number by taking a singular value from square matrices.
_SCALINGS = ("row norms", "column norms", "row and column norms")
_MILDEST_FIRST = tuple(
    name for name, method in conditioners.METHODS.items() if method.changes in _SCALINGS
)
_STRONGER = tuple(
    name for name, method in conditioners.METHODS.items() if method.changes == "spectrum"
)


def advice(record: dict[str, Any], predicted: dict[str, float]) -> str:
    """A sentence of advice on a kernel.

    Args:
        record: The record of the kernel in a `ConditioningReport`.
        predicted: Dict from the name of each method to the effective condition number that the
            raw kernel would have after it.

    Returns:
        String in lower case, without a full stop.
    """
    if not record["is_finite"]:
        return "not finite: training has diverged"
    if record["largest_singular_value"] == 0.0:
        return "zero: nothing to condition"
    if min(record["rows"], record["columns"]) == 1:
        return "single rows or columns: κ is 1, methods set the scale only"
    if record["conditioner"]:
        return _of_conditioned(record)
    kappa = record["effective_condition_number"]
    rank, full = record["numerical_rank"], min(record["rows"], record["columns"])
    lost = f"rank {rank} of {full}, which no method restores; " if rank < full else ""
    if kappa <= SMALL:
        return f"{lost}κ is small"
    return lost + _of_plain(kappa, record["row_norm_spread"], predicted)


def _of_plain(kappa: float, spread: float, predicted: dict[str, float]) -> str:
    scalings = {name: predicted[name] for name in _MILDEST_FIRST if name in predicted}
    best = min(scalings.values(), default=kappa)
    if best < LOWER * kappa:
        name = next(name for name, left in scalings.items() if left <= best / LOWER)
        return f"{name} lowers κ: {compact(kappa)} → {compact(scalings[name])}"
    rows = "rows have similar norms, scaling leaves κ" if spread < 2.0 else "scaling leaves κ"
    known = {name: predicted[name] for name in _STRONGER if name in predicted}
    strongest = min(known, key=lambda name: known[name], default=None)
    if strongest is None or known[strongest] >= LOWER * kappa:
        return rows
    narrow = f"{strongest} (κ {compact(known[strongest])})"
    return f"{rows}; orthogonal updates by condition_optimizer or {narrow} may help"


def _of_conditioned(record: dict[str, Any]) -> str:
    # Methods that center rows take one rank from a square matrix, so κ itself would be infinite.
    before = record["raw_effective_condition_number"]
    after = record["effective_condition_number"]
    change = f"κ {compact(before)} → {compact(after)}"
    if after < LOWER * before:
        return f"conditioned: {change}"
    if after > before / LOWER:
        return f"made worse: {change}"
    return f"scale only: {change}"
