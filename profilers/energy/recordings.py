"""Recorded readings: a CSV file with a time and power or energy in its columns.

The first line names the columns. Lines that cannot be read are left out: a meter that still writes
has half a line at the end.
"""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from profilers.energy.sampling import Series
from profilers.errors import MeterError
from profilers.plugins import select

# What a unit is: power (W) or energy so far (mJ), and the factor to get there.
UNITS: Dict[str, Tuple[str, float]] = {
    "W": ("power", 1.0),
    "mW": ("power", 1e-3),
    "J": ("energy", 1e3),
    "mJ": ("energy", 1.0),
    "Wh": ("energy", 3.6e6),
}
MOST_BYTES = 256 << 20


def read(
    path: Path, time_column: str, columns: Sequence[str], scale: float
) -> Tuple[Tuple[str, ...], Series]:
    """Names of the rails and the readings of a file, in the order of time.

    Args:
        path: of the CSV file.
        time_column: seconds, or ISO 8601 times; empty: the first column.
        columns: of the rails; empty: all others.
        scale: from the file's unit.

    Raises:
        MeterError: the file is missing, too large, or holds no readings.
        ConfigError: a column is not there.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise MeterError(f"{path} is larger than {MOST_BYTES >> 20} MiB; record less at once")
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as handle:
            rows = list(csv.reader(handle))
    except OSError as error:
        raise MeterError(f"{path}: {error.strerror or error}") from None
    except csv.Error as error:
        raise MeterError(f"{path} is no CSV file: {error}") from None
    if not rows:
        raise MeterError(f"{path} is empty; its first line names the columns")
    header = [name.strip() for name in rows[0]]
    time_name = select(time_column, header, "column") if time_column else header[0]
    rails = [select(name, header, "column") for name in columns]
    rails = rails or [name for name in header if name != time_name]
    places = [header.index(name) for name in (time_name, *rails)]
    found = [values for values in (_values(row, places, scale) for row in rows[1:]) if values]
    if not found or not rails:
        raise MeterError(f"{path} holds no line with a time and {', '.join(rails) or 'a rail'}")
    table = np.array(found)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return tuple(rails), Series(table[:, 0], table[:, 1:])


def _values(row: Sequence[str], places: Sequence[int], scale: float) -> Optional[List[float]]:
    """Time and rails of a line; None if it cannot be read."""
    if len(row) <= max(places):
        return None
    try:
        values = [seconds(row[places[0]])] + [scale * float(row[place]) for place in places[1:]]
    except (ValueError, OverflowError):
        return None
    return values if np.isfinite(values).all() else None


def seconds(text: str) -> float:
    """Seconds of a number, or since 1970 of an ISO 8601 time (local where it names no zone).

    Raises:
        ValueError: it is neither.
    """
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
