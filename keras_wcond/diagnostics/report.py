"""What the kernels of a model are like, and what each method would make of them."""

import dataclasses
import json
import math
from typing import Any

import keras
import numpy as np
import rich.box
import rich.console
import rich.table

from keras_wcond import conditioners
from keras_wcond.conditioners.registry import name_of, required
from keras_wcond.diagnostics.advice import advice
from keras_wcond.diagnostics.model_kernels import conditioner_of, model_kernels, values
from keras_wcond.diagnostics.plots import draw_spectra
from keras_wcond.diagnostics.progress import tracked
from keras_wcond.diagnostics.spectrum import Spectrum
from keras_wcond.kernels.search import Kernel
from keras_wcond.naming import class_name, counted

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


@dataclasses.dataclass(frozen=True)
class ConditioningReport:
    """What `conditioning_report()` found; `print()` shows it as tables.

    Each κ in the tables is over the numerical rank: weight standardization and Newton's
    iteration center rows, which takes one rank from a kernel with no more columns than rows,
    and the smallest singular value is then a rounding error.

    Attributes:
        records: List of dicts, one per kernel, which make a data frame. `path`, `layer`
            (its class), `shape`, and of the matrix `rows`, `columns` and `matrices`, how
            many there are; `conditioner`, the method or None; `raw_condition_number` and
            `raw_effective_condition_number` of the kernel as it is stored (with LoRA, of the
            merged one), and of that which the layer multiplies by `condition_number`,
            `effective_condition_number` (over the numerical rank), `numerical_rank`,
            `stable_rank`, `largest_singular_value`, and `row_norm_spread`, the largest norm
            of a row over the smallest; `raw_row_norm_spread`; `is_finite`; and
            `with_<method>`, the condition number over the numerical rank that each method
            would leave of the raw kernel. Of several matrices, each is that of the worst.
            `advice` says in words what follows.
        spectra: Dict from path to the singular values, raw and effective, two float64
            arrays of shape `(matrices, min(rows, columns))`.
        methods: The methods that were tried, by name.
    """

    records: list[dict[str, Any]]
    spectra: dict[str, tuple[np.ndarray, np.ndarray]]
    methods: list[str]

    def __str__(self) -> str:
        measures = [[_cell(row[key]) for key in _MEASURES.values()] for row in self._rows()]
        return "\n".join(
            [
                _table(list(_MEASURES), measures),
                "κ of what each method would make of the raw kernel:",
                _table(*self._predictions()),
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
                self._summary(),
            ]
        )

    def to_json(self) -> str:
        """The records as JSON; numbers that it has no word for, such as infinity, as text."""
        return json.dumps(
            [{k: _json(v) for k, v in row.items()} for row in self.records],
            indent=1,
            ensure_ascii=False,
        )

    def plot(self, path: Any = None) -> Any:
        """Draws the raw and the effective spectra, a line per kernel.

        Args:
            path: Where to save the picture, or None.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        return draw_spectra(self.spectra, path)

    def _rows(self):
        for record in self.records:
            matrix = f"{record['rows']} × {record['columns']}"
            stack = f"{record['matrices']} · " if record["matrices"] > 1 else ""
            full_rank = min(record["rows"], record["columns"])
            rank = f"{record['numerical_rank']} of {full_rank}"
            yield {**record, "matrix": stack + matrix, "rank": rank}

    def _predictions(self):
        rows = [
            [
                record["path"],
                _cell(record["raw_effective_condition_number"]),
                *(_cell(record[f"with_{method}"]) for method in self.methods),
            ]
            for record in self.records
        ]
        return ["kernel", "raw", *self.methods], rows

    def _summary(self):
        conditioned = [record for record in self.records if record["conditioner"]]
        median = np.median([record["effective_condition_number"] for record in self.records])
        return (
            f"{counted(len(self.records), 'kernel')}, {len(conditioned)} conditioned; median κ "
            f"{_cell(float(median))}. Every κ is over the numerical rank."
        )


def conditioning_report(model: keras.layers.Layer, methods: Any = METHODS) -> ConditioningReport:
    """Measures every kernel of a model, and what each method would make of it.

    The model is only read. Everything is computed in float64 on the host; ResNet50 takes
    about ten seconds on two cores.

    Args:
        model: A built model or layer, conditioned or not.
        methods: List of conditioners to try: names, configs or instances. By default all
            that change condition numbers. `[]` tries none, and is faster.

    Returns:
        A `ConditioningReport`. `print()` it, or take its `records`, `to_markdown()`,
        `to_json()` or `plot()`.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="last")])
    >>> report = conditioning_report(model)
    >>> [(record["path"], record["rows"], record["columns"]) for record in report.records]
    [('last/kernel', 4, 8)]
    """
    tried = _by_name(methods)
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
    """The largest norm of a row over the smallest, of the matrix where that is largest."""
    norms = np.linalg.norm(matrices, axis=2)
    largest, smallest = norms.max(axis=1), norms.min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(largest == smallest, 1.0, largest / smallest)
    return _largest(np.where(np.isfinite(largest), spread, np.nan))


def _by_name(methods):
    if isinstance(methods, (str, dict, conditioners.Conditioner)):
        methods = [methods]
    found = [required(method, "conditioning_report") for method in methods]
    return {name_of(conditioner): conditioner for conditioner in found}


def _description(kernel: Kernel, matrices):
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


def _left_by(conditioner, matrices, epsilon):
    """The condition number over the numerical rank that a method leaves."""
    is_double = epsilon <= np.finfo("float64").eps
    # What goes over the largest number of float32 is non-finite afterwards, and told as such.
    with np.errstate(all="ignore"):
        matrices = matrices if is_double else matrices.astype("float32")
        conditioned = conditioner.condition_stack(matrices)
    conditioned = keras.ops.convert_to_numpy(conditioned).astype("float64")
    decompose = Spectrum.of_matrices if is_double else Spectrum.by_gram
    return _largest(decompose(conditioned, epsilon).effective_condition_numbers())


def _largest(values):
    return float(np.max(values))


def _table(headers, rows):
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for header in headers:
        is_text = header in ("kernel", "method", "advice")
        table.add_column(header, justify="left" if is_text else "right", no_wrap=not is_text)
    for row in rows:
        table.add_row(*row)
    console = rich.console.Console(width=200, markup=False, highlight=False, no_color=True)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def _markdown(headers, rows):
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value):
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def _json(value):
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
