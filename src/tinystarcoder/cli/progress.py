"""The progress bars of long commands: on standard error, and only where that is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def for_terminal() -> dict[str, Any]:
    """What any of rich's bars takes to be shown there."""
    console = Console(stderr=True)
    return {"console": console, "disable": not console.is_terminal}


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Gives what shows a step's name, and how much of how much is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), **for_terminal()) as bar:
        task = bar.add_task("")
        yield lambda step, done, total: bar.update(
            task, description=step, completed=done, total=total
        )
