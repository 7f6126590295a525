"""The picks of a device as a table: engine, precision, threads, network of each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.commands import console

COLUMNS = ("package", "best target", "network", "error", "ms")
NEXT = ("next best target", "worse by")
Row = Mapping[str, Any]


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a line for each row of `picking.device_rows`."""
    metered = any("energy_mj" in row["predicted"] for row in rows)
    lines = []
    for row in rows:
        energy_mj = row["predicted"].get("energy_mj")
        energy = ["" if energy_mj is None else f"{energy_mj:.4g}"] if metered else []
        told = (row["package"], way(row), row["id"], *predicted(row))
        lines.append((*told, *energy, *_next_best(row)))
    heads = (*COLUMNS, "mJ") if metered else COLUMNS
    console.print_table(title, (*heads, *NEXT), lines)


def way(row: Row) -> str:
    """How a target drives its device, in words."""
    level = "" if row["optimisation"] == "all" else f" {row['optimisation']}"
    spin = " spin" if row.get("spinning") else ""
    return f"{row['runtime']} {row['precision']} t{row['threads']}{level}{spin}"


def predicted(row: Row) -> tuple[str, str]:
    """Predicted error and latency of what is picked, in words; empty where there is none."""
    error, latency_ms = (row["predicted"].get(name) for name in ("error", "latency_ms"))
    return (
        "" if error is None else f"{error:.2%}",
        "" if latency_ms is None else f"{latency_ms:.4f}",
    )


def _next_best(row: Row) -> tuple[str, str]:
    """The best that another target offers, and how much worse it is; `unsure`: the predictions are
    too uncertain to tell the two apart.
    """
    within = [rival for rival in row["rivals"] if "id" in rival]
    if not within:
        return "none within" if row["rivals"] else "", ""
    rival = within[0]
    by = f"{100 * rival['loss']:.2f} points" if row["quality"] == "error" else ""
    doubt = "unsure" if rival["within_uncertainty"] else ""
    return way(rival), ", ".join(filter(None, (by, doubt)))
