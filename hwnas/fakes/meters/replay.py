"""Recorded power in place of a sensor, for tests and demonstrations: never a measurement.

The file is a CSV of times (s) and watts. With `clock: worker` its times are those of the worker's
clock, which the runtime `fake` writes with its own (option `power_log`); with `clock: opened` they
count from when the meter was opened, and the recording repeats.

Options: path, clock (worker), rails (columns, comma-separated; default all but the first).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from profilers.energy import recordings
from profilers.energy.meters import REQUIRED, EnergyReading, options
from profilers.energy.sampling import Sensor, Series, energy
from profilers.errors import MeterError
from profilers.plugins import select
from profilers.schema import Target

DEFAULTS = {"path": REQUIRED, "clock": "worker", "rails": ""}


class Replayed:
    """A recording."""

    def __init__(self, given: dict[str, str], now_s: float) -> None:
        """Nothing is read yet: the runtime that writes the file may not have begun.

        Args:
            given: options.
            now_s: when the meter was opened.
        """
        self._path = Path(given["path"])
        self._columns = [name.strip() for name in given["rails"].split(",") if name.strip()]
        repeats = select(given["clock"], ("worker", "opened"), "clock") == "opened"
        self._opened_s = now_s if repeats else None

    def window(self, t0_s: float, t1_s: float) -> EnergyReading:
        """Energy of a window of the recording."""
        try:
            rails, series = recordings.read(self._path, "", self._columns, 1.0)
        except MeterError as error:
            return EnergyReading(None, 0, None, (), False, f"replay: {error}")
        if self._opened_s is not None:
            t0_s, t1_s = t0_s - self._opened_s, t1_s - self._opened_s
            series = repeated(series, t1_s)
        gaps = np.diff(series.t_s)
        period_s = float(gaps.max()) if len(gaps) else 1.0
        return energy(series, t0_s, t1_s, Sensor("replay", rails, "power", period_s, tuple))


def repeated(series: Series, until_s: float) -> Series:
    """A recording one after the other until a time; its first reading is at 0."""
    length_s = float(series.t_s[-1] - series.t_s[0])
    if length_s <= 0:
        return series
    times = math.ceil(until_s / length_s) + 1
    starts = np.repeat(np.arange(times) * length_s, len(series.t_s))
    t_s = starts + np.tile(series.t_s - series.t_s[0], times)
    return Series(t_s, np.tile(series.values, (times, 1)))


@contextlib.contextmanager
def open(target: Target) -> Iterator[Replayed]:
    """A recording as a meter.

    Raises:
        ConfigError: an option cannot be used.
    """
    yield Replayed(options(target, DEFAULTS), time.monotonic())
