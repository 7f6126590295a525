"""What differs between two tables, or between an environment then and now. Nothing is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hwnas.tables.about import describe
from hwnas.tables.table import CostTable

ABOUT = (
    *("target", "space", "geometry", "resolutions", "marks", "verdict", "noise", "error"),
    "bend",
)
# Readings of the moment, other at every probe; the fingerprint stands for all other facts.
PASSING = (
    *("fingerprint", "clock_mhz", "gpu_clock_mhz", "temperature_c", "load_average"),
    "memory_free_bytes",
)
# What a device is, whatever runs on it: where one of these is another, so is the device.
IDENTITY = ("device", "board", "cpu", "cpu_id", "machine")


def difference(a: CostTable, b: CostTable, most: int = 10) -> dict[str, Any]:
    """What differs between two tables.

    Args:
        a, b: tables, maybe of different targets or spaces.
        most: how many of the ops that differ most to list.

    Returns:
        about, environment: lists of [name, in a, in b]; rows: common, only_a, only_b, and of b
        over a median_ratio, largest_ratio, smallest_ratio (None without common rows); ops: those
        that differ most, as key, a_ms, b_ms, ratio (None where a is 0).
    """
    told = [{**describe(table), "geometry": table.geometry} for table in (a, b)]
    about = [[name, told[0][name], told[1][name]] for name in ABOUT]
    rows = [_op(key, a.row(key), b.row(key)) for key in a.rows if key in b.rows]
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    return {
        "about": [entry for entry in about if entry[1] != entry[2]],
        "environment": changed(a.environment, b.environment),
        "rows": {
            "common": len(rows),
            "only_a": len(a.rows) - len(rows),
            "only_b": len(b.rows) - len(rows),
            "median_ratio": float(np.median(ratios)) if ratios else None,
            "largest_ratio": max(ratios, default=None),
            "smallest_ratio": min(ratios, default=None),
        },
        "ops": sorted(rows, key=lambda row: (-_octaves(row), row["key"]))[:most],
    }


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[list[Any]]:
    """[name, then, now] of every fact of an environment that differs; passing states left out."""
    names = [name for name in {**then, **now} if name not in PASSING]
    pairs = [[name, then.get(name), now.get(name)] for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def another_device(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[list[Any]]:
    """[name, then, now] of every fact that shows two environments to be of different devices;
    what one of them does not know shows nothing.
    """
    names = IDENTITY if then.get("tf32") is None else (*IDENTITY, "gpu")  # known on a GPU only
    pairs = [[name, then.get(name), now.get(name)] for name in names]
    return [pair for pair in pairs if None not in pair and pair[1] != pair[2]]


def _op(key: str, a_ms: float, b_ms: float) -> dict[str, Any]:
    return {"key": key, "a_ms": a_ms, "b_ms": b_ms, "ratio": b_ms / a_ms if a_ms else None}


def _octaves(row: Mapping[str, Any]) -> float:
    """How far a ratio is from 1, either way; infinite where one of the two is 0."""
    if row["a_ms"] == row["b_ms"]:
        return 0.0
    return abs(math.log2(row["ratio"])) if row["ratio"] else math.inf
