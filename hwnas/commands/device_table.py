"""What is picked of a device, as a table: engine, precision, threads, network of each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.commands import console

COLUMNS = (
    "package",
    "best target",
    "network",
    "predicted error",
    "predicted ms",
    "next best target",
)
Row = Mapping[str, Any]


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a line for each row of `picking.device_rows`."""
    lines = [
        (row["package"], way(row["target"]), row["id"], *predicted(row), _next_best(row))
        for row in rows
    ]
    console.print_table(title, COLUMNS, lines)


def way(target: str) -> str:
    """How a target drives its device: its name without the device."""
    return target.partition(".")[2]


def predicted(row: Row) -> tuple[str, str]:
    """Predicted error and latency of what is picked, in words; empty where there is none."""
    error, latency_ms = (row["predicted"].get(name) for name in ("error", "latency_ms"))
    return (
        "" if error is None else f"{error:.2%}",
        "" if latency_ms is None else f"{latency_ms:.4f}",
    )


def _next_best(row: Row) -> str:
    """The best that another target offers, and how much worse it is; `unsure`: the predictions are
    too uncertain to tell the two apart.
    """
    within = [rival for rival in row["rivals"] if "id" in rival]
    if not within:
        return "none within" if row["rivals"] else ""
    rival = within[0]
    by = f" {100 * rival['loss']:+.2f} points" if row["quality"] == "error" else ""
    doubt = ", unsure" if rival["within_uncertainty"] else ""
    return f"{way(rival['target'])}{by}{doubt}"
