"""Energy of a model: windows of back-to-back runs between windows of rest, on an open meter.

A window takes at least so many seconds and so many periods of the sensor. Before each one the
device settles, because sensors average over what came before. The model runs before its window, in
it and after it without a pause, until the sensor has been read on both sides: a reading takes time
itself, and what lies between two readings is known only where both are of the same load. Energy of
one run is that of the window over its runs, gross; net of what the device takes at rest, before and
after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

from profilers.energy.meters import EnergyReading, Meter
from profilers.errors import MeterError
from profilers.open_models import calibrate
from profilers.runtimes import Session

SETTLE_S, SETTLE_PERIODS = 0.25, 3.0  # whichever is longer, before a window
CHUNK_MS = 100.0  # runs that are started together; a window ends with one of them
REST_SHARE = 0.5  # of a window, that a window of rest takes
AFTER_PERIODS = 2.0  # that a model runs on after its window: the sensor is read once at least


class Clock(NamedTuple):
    """The worker's clock, and how it lets time pass."""

    now_s: Callable[[], float]
    sleep: Callable[[float], None]


class Rest(NamedTuple):
    """The device at rest: W, None where unknown, and the reading."""

    power_w: Optional[float]
    reading: EnergyReading


class Windows:
    """Windows on one open meter."""

    def __init__(
        self,
        meter: Meter,
        clock: Clock,
        least_s: float,
        periods: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is measured yet.

        Args:
            meter: open.
            clock: that its windows go by.
            least_s: shortest window, seconds.
            periods: shortest window in periods of the sensor.
            check: called between runs; raises when nobody waits for the result any more.
        """
        self._meter, self._clock, self._check = meter, clock, check
        self._least_s, self._periods = least_s, periods

    @property
    def length_s(self) -> float:
        """Seconds of a window."""
        return max(self._least_s, self._periods * self._period_s)

    @property
    def _period_s(self) -> float:
        told: Optional[float] = getattr(self._meter, "period_s", None)
        return told or 0.0

    @property
    def _settle_s(self) -> float:
        lag_s: float = getattr(self._meter, "lag_s", 0.0)
        return max(min(SETTLE_S, self._least_s), SETTLE_PERIODS * self._period_s, lag_s)

    def rest(self) -> Rest:
        """Power while nothing runs."""
        self._clock.sleep(self._settle_s)
        begin_s = self._clock.now_s()
        left_s = REST_SHARE * self.length_s
        while left_s > 0:
            self._check()
            step_s = min(left_s, 1.0)
            self._clock.sleep(step_s)
            left_s -= step_s
        end_s = self._clock.now_s()
        self._mark()
        reading = self._meter.window(begin_s, end_s)
        energy_mj = reading.energy_mj
        return Rest(None if energy_mj is None else energy_mj / 1000 / (end_s - begin_s), reading)

    def busy(self, session: Session) -> Dict[str, Any]:
        """One window of a model: `loops`, `window_s`, `run_ms`, and the reading under `reading`.

        Args:
            session: just loaded; it is run until it is steady first.
        """
        plan = calibrate(session)
        chunk = max(1, int(CHUNK_MS / plan.ms))
        self._run_for(session, chunk, self._settle_s)
        length_s, after_s = self.length_s, AFTER_PERIODS * self._period_s
        begin_s = self._clock.now_s()
        loops = self._run_for(session, chunk, length_s)
        end_s = self._clock.now_s()
        self._run_for(session, chunk, after_s)
        self._mark()
        return {
            "loops": loops,
            "window_s": round(end_s - begin_s, 6),
            "run_ms": round(1000 * (end_s - begin_s) / loops, 7),
            "reading": self._meter.window(begin_s, end_s),
        }

    def _run_for(self, session: Session, chunk: int, least_s: float) -> int:
        begin_s, loops = self._clock.now_s(), 0
        while not loops or self._clock.now_s() - begin_s < least_s:
            self._check()
            session.time(chunk)
            loops += chunk
        return loops

    def _mark(self) -> None:
        """Let a meter that polls take a reading."""
        mark = getattr(self._meter, "mark", None)
        if mark is not None:
            mark()


def of_models(
    windows: Windows, models: Mapping[str, Path], load: Callable[[Path], Session]
) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Name and `record` of each model, one after the other, with rest before, between and after.

    Raises:
        MeterError: the energy of one is unknown.
    """
    before = windows.rest()
    for name, path in models.items():
        session = load(path)
        try:
            found = windows.busy(session)
        finally:
            session.close()
        after = windows.rest()
        yield name, record(before, found, after)
        before = after


def record(before: Rest, found: Dict[str, Any], after: Rest) -> Dict[str, Any]:
    """What is kept of one window (docs/formats.md, "Measurements").

    Raises:
        MeterError: its energy is unknown.
    """
    reading: EnergyReading = found["reading"]
    if reading.energy_mj is None:
        raise MeterError(f"energy is unknown: {reading.reason}")
    known = [rest.power_w for rest in (before, after) if rest.power_w is not None]
    idle_w = sum(known) / len(known) if known else None
    loops, window_s = found["loops"], found["window_s"]
    net_mj = None if idle_w is None else (reading.energy_mj - 1000 * idle_w * window_s) / loops
    return {
        "loops": loops,
        "window_s": window_s,
        "run_ms": found["run_ms"],
        "energy_mj": reading.energy_mj / loops,
        "net_energy_mj": net_mj,
        "power_w": reading.energy_mj / 1000 / window_s,
        "idle_w": idle_w,
        "idle_before_w": before.power_w,
        "idle_after_w": after.power_w,
        "rails": {reading.rails[i]: mj / loops for i, mj in enumerate(reading.rail_mj)},
        "samples": reading.samples,
        "period_s": reading.period_s,
    }
