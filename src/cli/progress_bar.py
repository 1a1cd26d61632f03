"""The progress bar of a command that trains nothing, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def show_progress(title: str, total: int, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Shows how far long work has come, on a terminal alone; yields what moves it on by one.

    Args:
        title: What is counted.
        total: The count of all of it.
        shown: Whether this process shows it.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    disabled = not (shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=disabled) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda: progress.advance(bar)
