"""Tables as text of the terminal's width, as Markdown and as HTML."""

import dataclasses
import html
import math
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence

import rich.box
import rich.cells
import rich.console
import rich.table

# The width of text that is not written to a terminal, and the narrowest width that is used.
WIDTH = 120
NARROWEST = 40
# The width in which a wrapped text is still easy to read.
_WRAPPED = 30
# A header of this many characters does not wrap.
_SHORT = 7
# The space between two columns.
_GAP = 2


def terminal_width() -> int:
    """The number of columns of the terminal, or of the environment variable `COLUMNS`."""
    return max(NARROWEST, shutil.get_terminal_size((WIDTH, 24)).columns)


def compact(value: float) -> str:
    """A number with three significant digits, or two if it is very large or very small."""
    if not math.isfinite(value):
        return str(value)
    magnitude = abs(value)
    if magnitude < 1e-3 and magnitude > 0.0:
        return f"{value:.1e}"
    # The limits are those of the rounded numbers.
    if magnitude < 99.95:
        return f"{value:#.3g}"
    return f"{value:,.0f}" if magnitude < 99_999.5 else f"{value:.1e}"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        header: String.
        cells: List of strings, one per row.
        is_text: Boolean. Text is on the left and wraps, numbers are on the right and do not.
            Defaults to False.
    """

    header: str
    cells: Sequence[str]
    is_text: bool = False

    def width(self) -> int:
        """The smallest number of characters in which the column is easy to read."""
        is_short = len(self.header) <= _SHORT
        lines = [self.header] if is_short else self.header.split()
        longest = _longest(self.cells)
        return max(_longest(lines), min(longest, _WRAPPED) if self.is_text else longest)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of columns, the first of which has the names of the rows.

    Args:
        title: String.
        columns: List of at least two columns with equally many cells.
    """

    title: str
    columns: Sequence[Column]

    def to_text(self, width: int) -> str:
        """The table in lines of at most `width` characters.

        If the columns do not fit beside each other, they become several tables, each of which
        repeats the first column.

        Args:
            width: Integer, the number of characters in a line.

        Returns:
            String.
        """
        first, *others = self.columns
        limit = min(max(_WRAPPED, width // 3), width // 2)
        paths = [_folded(path, limit) for path in first.cells]
        left = width - min(_longest(paths), limit) - _GAP
        tables = [
            _text([Column(first.header, paths, is_text=True), *group], left, width)
            for group in _beside_each_other(others, left)
        ]
        return "\n\n".join([textwrap.fill(self.title, width), *tables])

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown."""
        rules = ["---" if column.is_text else "---:" for column in self.columns]
        rows = [[column.header for column in self.columns], rules, *self._rows()]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        return f"{self.title}\n\n" + "\n".join(lines)

    def to_html(self) -> str:
        """The table in HTML without colors, which suits light and dark pages."""
        header = "".join(_html("th", c.header, c.is_text) for c in self.columns)
        rows = (
            "".join(_html("td", cell, c.is_text) for cell, c in zip(row, self.columns, strict=True))
            for row in self._rows()
        )
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f"<p>{html.escape(self.title)}</p>\n<table>\n<thead><tr>{header}</tr></thead>\n"
            f"<tbody>\n{body}\n</tbody>\n</table>"
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        return zip(*(column.cells for column in self.columns), strict=True)


def _longest(cells: Sequence[str]) -> int:
    """The width of the longest line of any cell."""
    lines = (line for cell in cells for line in cell.split("\n"))
    return max(map(rich.cells.cell_len, lines), default=0)


def _folded(path: str, width: int) -> str:
    """A path of names in lines of at most `width` characters, if its names are not longer."""
    lines = [""]
    for part in re.findall(r"[^/]*/|[^/]+", path):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _beside_each_other(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in as few groups as fit into a width, of about the same width."""
    groups = _filled(columns, width)
    for narrower in range(width - 1, 0, -1):
        fewer = _filled(columns, narrower)
        if len(fewer) > len(groups):
            break
        groups = fewer
    return groups


def _filled(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in groups, each of as many as fit into a width, and at least one."""
    groups: list[list[Column]] = []
    left = 0
    for column in columns:
        left -= column.width() + _GAP
        if left < 0 or not groups:
            left = width - column.width() - _GAP
            groups.append([])
        groups[-1].append(column)
    return groups


def _text(columns: Sequence[Column], left: int, width: int) -> str:
    """One table, the columns of which fit into `left` characters beside the first column."""
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0)
    )
    for column in columns:
        is_first = column is columns[0]
        # The other texts share what is left.
        fixed = None if column.is_text else min(column.width(), left)
        table.add_column(
            column.header,
            justify="left" if column.is_text else "right",
            overflow="fold",
            width=width - _GAP - left if is_first else fixed,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    console = rich.console.Console(width=width, markup=False, highlight=False, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def _html(tag: str, text: str, is_text: bool) -> str:
    # Notebooks align all cells to the right. Without a least width, advice has a word per line.
    style = "text-align: left; white-space: normal" if is_text else "text-align: right"
    if len(text) > 2 * _WRAPPED:
        style += f"; min-width: {_WRAPPED}ch"
    return f'<{tag} style="{style}">{html.escape(text)}</{tag}>'
