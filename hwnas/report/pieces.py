"""Pieces of the report's HTML: metrics in words, tables, escaped text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Shown(NamedTuple):
    """How a metric is shown: its label, its unit, and the factor from its stored unit to that."""

    label: str
    unit: str
    scale: float


METRICS = {
    "error": Shown("predicted error", "%", 100),
    "latency_ms": Shown("latency", "ms", 1),
    "energy_mj": Shown("energy", "mJ", 1),
    "macs": Shown("MACs", "million", 1e-6),
    "params": Shown("parameters", "thousand", 1e-3),
    "weight_bytes": Shown("weights", "kB", 1e-3),
    "peak_activation_bytes": Shown("peak activations", "kB", 1e-3),
}
LARGER = {"thousand": "million", "million": "billion", "kB": "MB"}  # from 1000 on
_UNKNOWN = Shown("", "", 1)


def number(value: float, most: int = 6) -> str:
    """Three significant digits, at most `most` decimals, like `short` in charts.js."""
    size = 2 if value == 0 else math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, min(most, 2 - size))}f}"


def percent(share: float) -> str:
    """A share as text like `4.20%`."""
    return f"{number(100 * share, 2)}%"


def shown(metric: str, value: float) -> str:
    """The value of a metric in its unit."""
    if metric == "error":
        return percent(value)
    known = METRICS.get(metric, _UNKNOWN)
    scaled, unit = value * known.scale, known.unit
    if scaled >= 1000 and unit in LARGER:
        scaled, unit = scaled / 1000, LARGER[unit]
    return f"{number(scaled)}\u00a0{unit}".strip()


def size(value: float) -> str:
    """Bytes of a file."""
    return shown("weight_bytes", value)


def prose(text: str) -> str:
    """Escaped text, with `commands` as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def label(metric: str) -> str:
    """The name of a metric for people."""
    return METRICS[metric].label if metric in METRICS else metric


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], first_number: int) -> str:
    """An HTML table of escaped cells; columns from first_number on are numbers."""
    classes = ["" if n < first_number else ' class="n"' for n in range(len(heads))]
    head = "".join(
        f"<th scope=col{c}>{escape(h)}</th>" for c, h in zip(classes, heads, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f"<td{c}>{v}</td>" for c, v in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def code(text: str) -> str:
    """Escaped text as code."""
    return f"<code>{escape(text)}</code>"
