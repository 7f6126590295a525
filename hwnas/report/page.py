"""The report as a file."""

from __future__ import annotations

from pathlib import Path

from hwnas.report.collect import collect
from hwnas.report.render import render
from profilers.schema import write_atomic


def write_report(folder: Path, out: Path, baselines: Path | None = None) -> None:
    """Write the report of a run folder; what the folder lacks is said in it.

    Args:
        folder: of the run.
        out: the file to write.
        baselines: folder of what `hwnas measure --save` kept, if it is there.

    Raises:
        ConfigError: there is no such folder, or out cannot be written.
    """
    write_atomic(out, render(collect(folder, out, baselines)).encode("utf-8"))
