"""A report on the kernels of a model: measures, the predicted effect of methods, and advice."""

import dataclasses
import html
import json
import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_wcond import conditioners
from keras_wcond.arguments import by_either_name, counted
from keras_wcond.conditioners.conditioner import Conditioner, ConditionerLike
from keras_wcond.conditioners.registry import name_of, required
from keras_wcond.diagnostics.data_frames import data_frame
from keras_wcond.diagnostics.measures import measured
from keras_wcond.diagnostics.model_kernels import model_kernels
from keras_wcond.diagnostics.plots import draw_spectra
from keras_wcond.diagnostics.progress import tracked
from keras_wcond.diagnostics.tables import Column, Table, compact, terminal_width

if TYPE_CHECKING:
    from keras_wcond.diagnostics.data_frames import DataFrame
    from keras_wcond.diagnostics.plots import Figure

_Methods = str | dict[str, Any] | Conditioner | type[Conditioner] | Sequence[ConditionerLike]

# The methods that change condition numbers.
METHODS = tuple(name for name, method in conditioners.METHODS.items() if method.changes != "scale")

# The columns of tables: the header, the entry of a row, and whether it is text.
_Columns = tuple[tuple[str, str, bool], ...]
_CONDITION: _Columns = (
    ("κ", "effective_condition_number", False),
    ("raw κ", "raw_effective_condition_number", False),
    ("advice", "advice", True),
)
_MEASURES: _Columns = (
    ("method", "conditioner", True),
    ("matrix", "matrix", False),
    ("rank", "rank", False),
    ("stable rank", "stable_rank", False),
    ("σ_max", "largest_singular_value", False),
    ("row norm spread", "row_norm_spread", False),
)
# They say something only if a kernel is conditioned.
_OF_CONDITIONED = ("raw_effective_condition_number", "conditioner")

# Condition numbers describe kernels, and the comparison of the project ranks methods otherwise.
_NOT_A_SCORE = "A smaller κ does not always train better. The documentation has measured gains."


@dataclasses.dataclass(frozen=True, repr=False)
class ConditioningReport:
    """The measures of every kernel of a model, by `conditioning_report()`.

    `print()` shows them as tables of the terminal's width, and a notebook shows them in HTML.
    Each κ in the tables is the effective condition number, over the numerical rank. Weight
    standardization and Newton's iteration center rows, which takes one rank from a kernel with no
    more columns than rows. The smallest singular value is then a rounding error.

    Attributes:
        records: List of dicts, one per kernel. If a kernel is several matrices, each measure is
            the worst one among them.

            - `path`, `layer`, `shape`: the path of the kernel, the class of its layer, and its
              shape.
            - `matrices`, `rows`, `columns`: the number of matrices and the size of each.
            - `conditioner`: the name of the method that conditions the kernel, or None.
            - `effective_condition_number`, `numerical_rank`, `stable_rank`,
              `largest_singular_value`, `row_norm_spread`, `condition_number`: measures of the
              kernel that the layer multiplies by. The spread is the largest norm of a row
              divided by the smallest. The last one is over all singular values.
            - `raw_effective_condition_number`, `raw_row_norm_spread`, `raw_condition_number`:
              measures of the stored kernel, or with LoRA of the merged one.
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
        width = terminal_width()
        tables = [table.to_text(width) for table in self._tables()]
        notes = [textwrap.fill(note, width) for note in self._notes()]
        return "\n\n".join([*tables, "\n".join(notes)])

    def _repr_html_(self) -> str:
        """The tables for notebooks."""
        tables = [table.to_html() for table in self._tables()]
        notes = [f"<p>{html.escape(note)}</p>" for note in self._notes()]
        # Wide tables are scrolled.
        return "\n".join(['<div style="overflow-x: auto">', *tables, *notes, "</div>"])

    def to_markdown(self) -> str:
        """The same tables in GitHub's Markdown."""
        return "\n\n".join([*(table.to_markdown() for table in self._tables()), *self._notes()])

    def to_dataframe(self) -> "DataFrame":
        """The records as a data frame with a row per kernel. This needs pandas.

        Returns:
            `pandas.DataFrame`, whose columns are the entries of the records.

        Examples:
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="last")])
            >>> frame = conditioning_report(model).to_dataframe()
            >>> frame[["path", "rows", "columns", "numerical_rank"]]
                      path  rows  columns  numerical_rank
            0  last/kernel     4        8               4
        """
        return data_frame(self.records)

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

    def _tables(self) -> list[Table]:
        hidden = () if self._conditioned() else _OF_CONDITIONED
        tables = [
            self._table(title, tuple(column for column in columns if column[1] not in hidden))
            for title, columns in (
                ("Condition of the kernels:", _CONDITION),
                ("Measures of the kernels:", _MEASURES),
            )
        ]
        if self.methods:
            raw = ("raw", "raw_effective_condition_number", False)
            # Headers wrap at spaces.
            predicted = ((name.replace("_", " "), f"with_{name}", False) for name in self.methods)
            title = "Predicted κ of the raw kernels after each method:"
            tables.append(self._table(title, (raw, *predicted)))
        return tables

    def _table(self, title: str, columns: _Columns) -> Table:
        rows = list(self._rows())
        return Table(
            title,
            [
                Column(header, [_cell(row[key]) for row in rows], is_text)
                for header, key, is_text in (("kernel", "path", True), *columns)
            ],
        )

    def _notes(self) -> list[str]:
        return [_NOT_A_SCORE, self._summary()]

    def _conditioned(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["conditioner"]]

    def _summary(self) -> str:
        median = np.median([record["effective_condition_number"] for record in self.records])
        return (
            f"{counted(len(self.records), 'kernel')}, {len(self._conditioned())} conditioned; "
            f"median κ {compact(float(median))}. Every κ is over the numerical rank."
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
        A `ConditioningReport`. `print()` it, or use its `records`, `to_dataframe()`,
        `to_markdown()`, `to_json()` or `plot()`.

    Examples:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="last")])
        >>> report = conditioning_report(model)
        >>> [(record["path"], record["rows"], record["columns"]) for record in report.records]
        [('last/kernel', 4, 8)]
    """
    tried = _by_name(
        by_either_name("kernel_conditioners", kernel_conditioners, METHODS, "methods", methods)
    )
    kernels = model_kernels(model)
    records, spectra = [], {}
    for kernel in tracked(kernels, "Kernels", len(kernels)):
        record, spectra[kernel.path] = measured(kernel, tried)
        records.append(record)
    return ConditioningReport(records, spectra, list(tried))


def _by_name(methods: _Methods) -> dict[str, Conditioner]:
    if isinstance(methods, (str, dict, Conditioner, type)):
        methods = [methods]
    found = [required(method, "conditioning_report") for method in methods]
    return {name_of(conditioner): conditioner for conditioner in found}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return compact(value) if isinstance(value, float) else str(value)


def _json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
