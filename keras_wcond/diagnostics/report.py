"""A report on the kernels of a model: measures, the predicted effect of methods, and advice."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import rich.box
import rich.console
import rich.table

from keras_wcond import conditioners
from keras_wcond.arguments import by_either_name
from keras_wcond.conditioners.conditioner import Conditioner, ConditionerLike
from keras_wcond.conditioners.registry import name_of, required
from keras_wcond.diagnostics.advice import advice
from keras_wcond.diagnostics.model_kernels import conditioner_of, model_kernels, values
from keras_wcond.diagnostics.plots import draw_spectra
from keras_wcond.diagnostics.progress import tracked
from keras_wcond.diagnostics.spectrum import Spectrum
from keras_wcond.kernels.search import Kernel
from keras_wcond.naming import class_name, counted

if TYPE_CHECKING:
    from keras_wcond.diagnostics.plots import Figure

_Methods = str | dict[str, Any] | Conditioner | type[Conditioner] | Sequence[ConditionerLike]

# The methods that change condition numbers.
METHODS = tuple(name for name, method in conditioners.METHODS.items() if method.changes != "scale")

_MEASURES = {
    "kernel": "path",
    "matrix": "matrix",
    "method": "conditioner",
    "raw κ": "raw_effective_condition_number",
    "κ": "effective_condition_number",
    "rank": "rank",
    "stable rank": "stable_rank",
    "σ_max": "largest_singular_value",
    "rows, max/min": "row_norm_spread",
    "advice": "advice",
}


# Condition numbers describe kernels, and the comparison of the project ranks methods otherwise.
_NOT_A_SCORE = (
    "A smaller κ does not always train better. Choose a method, in the documentation, has measured "
    "gains."
)


@dataclasses.dataclass(frozen=True, repr=False)
class ConditioningReport:
    """The measures of every kernel of a model, by `conditioning_report()`.

    `print()` shows them as tables. Each κ in the tables is the effective condition number, over
    the numerical rank. Weight standardization and Newton's iteration center rows, which takes one
    rank from a kernel with no more columns than rows. The smallest singular value is then a
    rounding error.

    Attributes:
        records: List of dicts, one per kernel, which make a data frame. For a kernel that is
            several matrices, each measure is that of the worst matrix.

            - `path`, `layer`, `shape`: the path of the kernel, the class of its layer, and its
              shape.
            - `matrices`, `rows`, `columns`: the number of matrices and the size of each.
            - `conditioner`: the name of the method that conditions the kernel, or None.
            - `raw_condition_number`, `raw_effective_condition_number`, `raw_row_norm_spread`:
              measures of the stored kernel, or with LoRA of the merged one.
            - `condition_number`, `effective_condition_number`, `numerical_rank`, `stable_rank`,
              `largest_singular_value`, `row_norm_spread`: measures of the kernel that the layer
              multiplies by. The spread is the largest norm of a row divided by the smallest.
            - `is_finite`: boolean.
            - `with_<method>`: the effective condition number that the raw kernel would have
              after each method.
            - `advice`: a sentence.
        spectra: Dict from path to the raw and the effective singular values, two float64
            arrays of shape `(matrices, min(rows, columns))`.
        methods: List of the names of the methods that were tried.
    """

    records: list[dict[str, Any]]
    spectra: dict[str, tuple[np.ndarray, np.ndarray]]
    methods: list[str]

    def __repr__(self) -> str:
        return f"<ConditioningReport: {self._summary()}>"

    def __str__(self) -> str:
        measures = [[_cell(row[key]) for key in _MEASURES.values()] for row in self._rows()]
        return "\n".join(
            [
                _table(list(_MEASURES), measures),
                "κ of what each method would make of the raw kernel:",
                _table(*self._predictions()),
                _NOT_A_SCORE,
                self._summary(),
            ]
        )

    def to_markdown(self) -> str:
        """The same tables in GitHub's Markdown."""
        measures = [[_cell(row[key]) for key in _MEASURES.values()] for row in self._rows()]
        return "\n\n".join(
            [
                _markdown(list(_MEASURES), measures),
                "κ of what each method would make of the raw kernel:",
                _markdown(*self._predictions()),
                _NOT_A_SCORE,
                self._summary(),
            ]
        )

    def to_json(self) -> str:
        """The records as JSON, with NaN and infinity as strings, which JSON lacks as numbers."""
        return json.dumps(
            [{k: _json(v) for k, v in row.items()} for row in self.records],
            indent=1,
            ensure_ascii=False,
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws the raw and the effective spectra, with a line per kernel. This needs Matplotlib.

        Args:
            path: File to save the picture to, or None. Defaults to None.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        return draw_spectra(self.spectra, path)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for record in self.records:
            matrix = f"{record['rows']} × {record['columns']}"
            stack = f"{record['matrices']} · " if record["matrices"] > 1 else ""
            full_rank = min(record["rows"], record["columns"])
            rank = f"{record['numerical_rank']} of {full_rank}"
            yield {**record, "matrix": stack + matrix, "rank": rank}

    def _predictions(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                record["path"],
                _cell(record["raw_effective_condition_number"]),
                *(_cell(record[f"with_{method}"]) for method in self.methods),
            ]
            for record in self.records
        ]
        return ["kernel", "raw", *self.methods], rows

    def _summary(self) -> str:
        conditioned = [record for record in self.records if record["conditioner"]]
        median = np.median([record["effective_condition_number"] for record in self.records])
        return (
            f"{counted(len(self.records), 'kernel')}, {len(conditioned)} conditioned; median κ "
            f"{_cell(float(median))}. Every κ is over the numerical rank."
        )


def conditioning_report(
    model: keras.layers.Layer,
    kernel_conditioners: _Methods = METHODS,
    methods: _Methods | None = None,
) -> ConditioningReport:
    """Measures every kernel of a model, and predicts the effect of each method on it.

    The model is not changed. All measures are computed in float64 on the host. ResNet50 takes
    about ten seconds on two cores.

    A model that is not built is a `ValueError`, and so is a model without kernels or the name of
    an unknown method. Anything but a Keras layer is a `TypeError`.

    Args:
        model: A built model or layer, conditioned or not.
        kernel_conditioners: List of conditioners to try, each a name, a config, an instance, a
            class, or a list of these that are applied one after the other. `[]` tries none, and
            is faster. Defaults to all methods that change condition numbers.
        methods: Another name of `kernel_conditioners`, which earlier versions took. Defaults to
            None.

    Returns:
        A `ConditioningReport`. `print()` it, or use its `records`, `to_markdown()`, `to_json()`
        or `plot()`.

    Examples:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="last")])
        >>> report = conditioning_report(model)
        >>> [(record["path"], record["rows"], record["columns"]) for record in report.records]
        [('last/kernel', 4, 8)]
    """
    tried = _by_name(
        by_either_name("kernel_conditioners", kernel_conditioners, METHODS, "methods", methods)
    )
    records, spectra = [], {}
    kernels = model_kernels(model)
    for kernel in tracked(kernels, "Kernels", len(kernels)):
        found = values(kernel)
        matrices, conditioned, epsilon = found.raw, found.effective, found.epsilon
        before = after = Spectrum.of_matrices(matrices, epsilon)
        if conditioned is not matrices:
            after = Spectrum.of_matrices(conditioned, epsilon)
        spectra[kernel.path] = (before.values, after.values)
        record = {
            **_description(kernel, matrices),
            "raw_condition_number": _largest(before.condition_numbers()),
            "raw_effective_condition_number": _largest(before.effective_condition_numbers()),
            "raw_row_norm_spread": row_norm_spread(matrices),
            "condition_number": _largest(after.condition_numbers()),
            "effective_condition_number": _largest(after.effective_condition_numbers()),
            "numerical_rank": int(after.numerical_ranks().min()),
            "stable_rank": float(after.stable_ranks().min()),
            "largest_singular_value": _largest(after.values),
            "row_norm_spread": row_norm_spread(conditioned),
            "is_finite": bool(np.isfinite(after.values).all()),
        }
        predicted = {
            name: _left_by(conditioner, matrices, epsilon) for name, conditioner in tried.items()
        }
        record["advice"] = advice(record, predicted)
        record |= {f"with_{name}": value for name, value in predicted.items()}
        records.append(record)
    return ConditioningReport(records, spectra, list(tried))


def row_norm_spread(matrices: np.ndarray) -> float:
    """The largest norm of a row divided by the smallest, the maximum over matrices."""
    norms = np.linalg.norm(matrices, axis=2)
    largest, smallest = norms.max(axis=1), norms.min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(largest == smallest, 1.0, largest / smallest)
    return _largest(np.where(np.isfinite(largest), spread, np.nan))


def _by_name(methods: _Methods) -> dict[str, Conditioner]:
    if isinstance(methods, (str, dict, Conditioner, type)):
        methods = [methods]
    found = [required(method, "conditioning_report") for method in methods]
    return {name_of(conditioner): conditioner for conditioner in found}


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


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for header in headers:
        is_text = header in ("kernel", "method", "advice")
        table.add_column(header, justify="left" if is_text else "right", no_wrap=not is_text)
    for row in rows:
        table.add_row(*row)
    console = rich.console.Console(width=240, markup=False, highlight=False, no_color=True)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def _json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
