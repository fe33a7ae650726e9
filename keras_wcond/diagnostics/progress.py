"""A transient progress bar on the terminal. Without a terminal, nothing is shown."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import rich.console
import rich.progress

_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], description: str, total: int) -> Iterator[_Item]:
    """Iterates over `total` items with a progress bar."""
    console = rich.console.Console(stderr=True)
    yield from rich.progress.track(
        items,
        description,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A scope with a bar. It yields the function that advances the bar by one of `total` steps.

    Args:
        description: String before the bar.
        total: Integer, or None for work whose steps are not counted.

    Yields:
        Function without arguments.
    """
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)
