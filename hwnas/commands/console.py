"""How a run talks: progress and tables for people, plain lines without a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from hwnas.run.context import Progress, Reporter

PLAIN_EVERY_S = 15.0  # seconds between two progress lines without a terminal


def is_terminal() -> bool:
    """Whether standard error shows a person progress bars."""
    return sys.stderr.isatty() and os.environ.get("CI") != "true"


@contextlib.contextmanager
def reporter(quiet: bool) -> Iterator[Reporter]:
    """Where stages report: bars in a terminal, else a line now and then, all on standard error.

    Args:
        quiet: only warnings.
    """
    if quiet:
        yield Reporter(lambda name: lambda share, text: None, lambda text: None, _warn)
    elif is_terminal():
        with _bars() as found:
            yield found
    else:
        yield Reporter(_plain_progress, _line, _warn)


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _warn(text: str) -> None:
    _line(f"warning: {text}")


def _plain_progress(name: str) -> Progress:
    started = last = time.monotonic()
    _line(f"{name}: started")

    def say(share: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if share >= 1:
            _line(f"{name}: done in {now - started:.1f} s")
        elif now - last >= PLAIN_EVERY_S:
            last = now
            _line(f"{name}: {share:.0%}, {text}")

    return say


@contextlib.contextmanager
def _bars() -> Iterator[Reporter]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", style="dim"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bars:

        def progress(name: str) -> Any:
            task = bars.add_task(name, total=1.0, text="")

            def say(share: float, text: str) -> None:
                bars.update(task, completed=min(share, 1.0), text="" if share >= 1 else text)

            return say

        def note(text: str) -> None:
            console.print(text, markup=False, highlight=False)

        def warn(text: str) -> None:
            console.print(f"warning: {text}", style="yellow", markup=False, highlight=False)

        yield Reporter(progress, note, warn)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; plain tab-free text that fits 100 columns where it can."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for n, name in enumerate(columns):
        table.add_column(name, justify="left" if n == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 110
    Console(width=width, highlight=False, markup=False).print(table)
