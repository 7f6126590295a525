"""The HTML report of a run: one file that opens anywhere, drawn in the browser from plain data."""

from __future__ import annotations

from pathlib import Path

from hwnas.report.collect import collect
from hwnas.report.render import render
from profilers.schema import write_atomic

__all__ = ["collect", "render", "write_report"]


def write_report(folder: Path, out: Path) -> None:
    """Write the report of a run folder; what the folder lacks is said in it.

    Raises:
        ConfigError: there is no such folder, or out cannot be written.
    """
    write_atomic(out, render(collect(folder, out)).encode("utf-8"))
