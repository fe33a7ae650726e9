"""A bar on the terminal while something takes long; nothing where there is no terminal."""

from collections.abc import Iterable, Iterator
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
