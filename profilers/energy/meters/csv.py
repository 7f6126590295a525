"""An external meter that writes a CSV file, read after each window and aligned with the clock.

Times in the file are seconds since 1970 or ISO 8601 (`clock: epoch`), or seconds of this
machine's monotonic clock (`clock: monotonic`); `offset_s` is added to them: how far the meter's
clock is behind this machine's. A file that does not reach the end of a window yet is waited for.

Options: path, unit (W, mW; J, mJ, Wh for a counter), time (column; default the first), rails
(columns, comma-separated; default all others), clock (epoch), offset_s (0), wait_s (5), period_s
(seconds between lines; by default as the file has it).
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Dict, Iterator, Tuple

import numpy as np

from profilers.energy import recordings
from profilers.energy.meters import REQUIRED, EnergyReading, number, options
from profilers.energy.sampling import Sensor, Series, energy
from profilers.errors import ConfigError, MeterError
from profilers.plugins import select
from profilers.schema import Target

DEFAULTS = {
    "path": REQUIRED,
    "unit": "W",
    "time": "",
    "rails": "",
    "clock": "epoch",
    "offset_s": "0",
    "wait_s": "5",
    "period_s": "",
}
WAIT_STEP_S = 0.1


class Recorded:
    """The file of a meter that goes on writing."""

    def __init__(self, given: Dict[str, str]) -> None:
        """Read the file once; `period_s` is what lies between its lines.

        Raises:
            MeterError, ConfigError: as `recordings.read`.
        """
        self._path = Path(given["path"])
        self._kind, self._scale = recordings.UNITS[select(given["unit"], recordings.UNITS, "unit")]
        self._time = given["time"]
        self._columns = [name.strip() for name in given["rails"].split(",") if name.strip()]
        self._wait_s = number(given, "wait_s")
        self._shift_s = _offset(given)
        if select(given["clock"], ("epoch", "monotonic"), "clock") == "epoch":
            self._shift_s += time.monotonic() - time.time()
        times = self._read()[1].t_s
        usual = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        self.period_s = number(given, "period_s", 1e-6) if given["period_s"] else usual

    def window(self, t0_s: float, t1_s: float) -> EnergyReading:
        """Energy of a window that has passed, as soon as the file holds its end."""
        end_s = time.monotonic() + self._wait_s
        while True:
            try:
                rails, series = self._read()
            except MeterError as error:
                return EnergyReading(None, 0, None, (), False, str(error))
            if series.t_s[-1] >= t1_s or time.monotonic() >= end_s:
                sensor = Sensor("csv", rails, self._kind, self.period_s, tuple)
                return energy(series, t0_s, t1_s, sensor)
            time.sleep(WAIT_STEP_S)

    def _read(self) -> Tuple[Tuple[str, ...], Series]:
        try:
            rails, series = recordings.read(self._path, self._time, self._columns, self._scale)
        except MeterError as error:
            raise MeterError(f"meter csv: {error}") from None
        return rails, Series(series.t_s + self._shift_s, series.values)


def _offset(given: Dict[str, str]) -> float:
    try:
        return float(given["offset_s"])
    except ValueError:
        raise ConfigError(f"meter option offset_s {given['offset_s']!r} is not a number") from None


@contextlib.contextmanager
def open(target: Target) -> Iterator[Recorded]:
    """The readings of a file.

    Raises:
        MeterError: the file is missing or holds no readings.
        ConfigError: an option cannot be used.
    """
    yield Recorded(options(target, DEFAULTS))
