"""A transient progress bar on the terminal; nothing where there is no terminal."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import rich.console
import rich.progress


def tracked(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
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
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A scope with a bar, and the function that moves the bar on by one of `total` steps."""
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)
