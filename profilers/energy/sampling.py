"""Readings of a sensor over time, and the energy of a window of them.

Power sensors (W) are sampled by a thread and integrated by the trapezoid rule on real time stamps;
counters (mJ since some start) are sampled too, so that they are known at both ends of any window
and no wrap-around is missed. What cannot be true (nothing, zeros, a value that never moves, more
power than the device can take) is unknown, with the reason, and never 0.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Callable, Deque, List, NamedTuple, Sequence, Tuple

import numpy as np

from profilers.energy.meters import EnergyReading
from profilers.errors import MeterError

KEPT = 100_000  # readings; half an hour at 50 Hz
GAP_PERIODS = 5.0  # without a reading, after which a window is not covered ...
GAP_SHARE = 0.02  # ... unless the gap is a smaller share of the window than this
NONSENSE_SHARE = 0.02  # of readings that may be zero or negative, and are left out
FROZEN_READINGS = 100  # equal ones in a row, from opening on, after which a sensor is stuck
SPARSE = 2  # readings below which a window says nothing
MOST_W = 10_000.0  # of one rail, where the device does not say what it can take


class Sensor(NamedTuple):
    """What is read.

    Attributes:
        name: of the meter, for messages.
        rails: what each value belongs to.
        kind: `power` (W) or `energy` (mJ, a counter).
        period_s: seconds between readings.
        read: one value for each rail; raises OSError, ValueError or MeterError.
        wrap_mj: value of each rail at which its counter starts again at 0; empty: never.
        most_w: W that each rail can take; above it a reading is wrong, and a counter that fell was
            set to 0 and did not wrap. Empty: MOST_W.
        lag_s: seconds of the past that a reading is the mean of.
    """

    name: str
    rails: Tuple[str, ...]
    kind: str
    period_s: float
    read: Callable[[], Sequence[float]]
    wrap_mj: Tuple[float, ...] = ()
    most_w: Tuple[float, ...] = ()
    lag_s: float = 0.0

    @property
    def bounds_w(self) -> np.ndarray:
        """(rails,) W that each can take."""
        return np.array(self.most_w or (MOST_W,) * len(self.rails))


class Series(NamedTuple):
    """Readings in the order of time: (n,) seconds, (n, rails) values; all that is known of them."""

    t_s: np.ndarray
    values: np.ndarray


class Polled:
    """A sensor that a thread reads until the meter is closed."""

    def __init__(self, sensor: Sensor) -> None:
        """Take the first reading and start.

        Raises:
            MeterError: the sensor cannot be read.
        """
        self._sensor, self.lag_s = sensor, sensor.lag_s
        self._readings: Deque[Tuple[float, Tuple[float, ...]]] = deque(maxlen=KEPT)
        self._failures: Deque[Tuple[float, str]] = deque(maxlen=KEPT)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self.mark()
        if self._failures:
            raise MeterError(f"meter {sensor.name}: {self._failures[0][1]}")
        self._thread = threading.Thread(target=self._poll, name="meter", daemon=True)
        self._thread.start()

    @property
    def period_s(self) -> float:
        """Seconds between readings: as wanted, or as it turned out where reading takes longer."""
        with self._lock:
            times = [t for t, _ in self._readings]
        achieved = float(np.median(np.diff(times))) if len(times) > 2 else 0.0
        return max(self._sensor.period_s, achieved)

    def mark(self) -> None:
        """Take a reading now."""
        with self._reading:  # nobody else waits for a slow sensor
            before = time.monotonic()
            try:
                values = tuple(float(value) for value in self._sensor.read())
            except (OSError, ValueError, MeterError) as error:
                with self._lock:
                    self._failures.append((before, _words(error)))
                return
            with self._lock:
                self._readings.append(((before + time.monotonic()) / 2, values))

    def window(self, t0_s: float, t1_s: float) -> EnergyReading:
        """Energy between two times that have passed."""
        with self._lock:
            readings = list(self._readings)
            failures = [text for t, text in self._failures if t0_s <= t <= t1_s]
        series = Series(
            np.array([t for t, _ in readings]), np.array([values for _, values in readings])
        )
        sensor = self._sensor._replace(period_s=self.period_s)
        found = energy(series, t0_s, t1_s, sensor)
        if not found.complete and failures:
            return found._replace(reason=f"{self._sensor.name}: {failures[-1]}")
        return found

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        due = time.monotonic() + self._sensor.period_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self.mark()
            due = max(due + self._sensor.period_s, time.monotonic())


def _words(error: Exception) -> str:
    """An error as part of a line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def energy(series: Series, t0_s: float, t1_s: float, sensor: Sensor) -> EnergyReading:
    """Energy of a window of readings, or the reason why it is unknown.

    Args:
        series: readings from before the window to after it, as far as there are any.
        t0_s, t1_s: the window.
        sensor: whose readings they are.
    """
    inside = (series.t_s >= t0_s) & (series.t_s <= t1_s)
    n = int(inside.sum())
    reason = _uncovered(series, inside, t0_s, t1_s, sensor)
    if not reason:
        find = _power_energy if sensor.kind == "power" else _counted_energy
        found, reason = find(series, t0_s, t1_s, sensor)
    if reason:
        reason = f"{sensor.name}: {reason}"
        return EnergyReading(None, n, None, sensor.rails, False, reason)
    rail_mj = tuple(float(value) for value in found)
    period_s = (t1_s - t0_s) / max(1, _changes(series.values[inside]))
    return EnergyReading(sum(rail_mj), n, period_s, sensor.rails, True, "", rail_mj)


def _uncovered(series: Series, inside: np.ndarray, t0_s: float, t1_s: float, sensor: Sensor) -> str:
    """Why readings do not cover a window; empty if they do."""
    if t1_s <= t0_s:
        return f"the window of {t1_s - t0_s:g} s is empty"
    if not len(series.t_s):
        return "there are no readings"
    allowed = max(GAP_PERIODS * sensor.period_s, GAP_SHARE * (t1_s - t0_s))
    first = max(0, int(np.searchsorted(series.t_s, t0_s, "right")) - 1)
    last = min(len(series.t_s), int(np.searchsorted(series.t_s, t1_s, "left")) + 1)
    near = series.t_s[first:last]
    edges = np.concatenate(([t0_s], np.clip(near, t0_s, t1_s), [t1_s]))
    gap = float(np.diff(edges).max())
    if gap > allowed or int(inside.sum()) < SPARSE:
        return f"{inside.sum()} readings, none for {gap:.3g} s of a window of {t1_s - t0_s:.3g} s"
    return ""


def _changes(values: np.ndarray) -> int:
    """How often a (n, rails) reading differs from the one before."""
    return int((np.diff(values, axis=0) != 0).any(axis=1).sum())


def _power_energy(
    series: Series, t0_s: float, t1_s: float, sensor: Sensor
) -> Tuple[np.ndarray, str]:
    """(rails,) mJ of power readings, or why it is unknown."""
    total = series.values.sum(axis=1)
    inside = (series.t_s >= t0_s) & (series.t_s <= t1_s)
    if len(total) >= FROZEN_READINGS and (series.values == series.values[0]).all():
        return np.zeros(0), f"all {len(total)} readings are {total[0]:g} W: the sensor is stuck"
    sound = np.isfinite(total) & (total > 0) & (series.values <= sensor.bounds_w).all(axis=1)
    wrong = int((inside & ~sound).sum())
    if wrong > NONSENSE_SHARE * inside.sum():
        most_w = sensor.bounds_w.max()
        told = f"{wrong} of {inside.sum()} readings are zero or negative, or above {most_w:g} W"
        return np.zeros(0), told
    return integrate(Series(series.t_s[sound], series.values[sound]), t0_s, t1_s), ""


def _counted_energy(
    series: Series, t0_s: float, t1_s: float, sensor: Sensor
) -> Tuple[np.ndarray, str]:
    """(rails,) mJ between two counts, or why it is unknown.

    Only readings of the window and next to it count. A counter is a staircase: what lies between
    two of its steps is on a straight line from the first reading of one to that of the next.
    """
    moved = (np.diff(series.values, axis=0) != 0).any(axis=1)
    steps = np.flatnonzero(np.concatenate(([True], moved)))
    first = max(0, int(np.searchsorted(series.t_s[steps], t0_s, "right")) - 1)
    last = int(np.searchsorted(series.t_s[steps], t1_s, "left"))
    near = steps[first : last + 1]
    t_s, counted = series.t_s[near], unwrapped(series.values[near], sensor.wrap_mj)
    if not np.isfinite(counted).all():
        return np.zeros(0), "the counter gives no number"
    reason = _impossible(t_s, counted, series.values[near], sensor)
    if reason:
        return np.zeros(0), reason
    found = _at(t_s, counted, t1_s) - _at(t_s, counted, t0_s)
    if found.sum() <= 0:
        return found, f"the counter did not move in {t1_s - t0_s:.3g} s"
    return found, ""


def _impossible(t_s: np.ndarray, counted: np.ndarray, read: np.ndarray, sensor: Sensor) -> str:
    """Why steps of a counter cannot be what was taken; empty if they can.

    Args:
        t_s: (n,) seconds.
        counted: (n, rails) mJ, unwrapped; read: as they were read.
        sensor: whose they are.
    """
    risen_mj = np.diff(counted, axis=0)
    if (risen_mj < 0).any():
        return "the counter went backwards"
    # a reading may come a period late, so that a step of two seems to be one of one
    power_w = risen_mj / 1000 / (np.diff(t_s) + sensor.period_s)[:, None]
    over = np.argwhere(power_w > sensor.bounds_w)
    if not len(over):
        return ""
    step, rail = over[0]
    told = f"{power_w[step, rail]:.4g} W of {sensor.rails[rail]}"
    most = f"which can take {sensor.bounds_w[rail]:g} W"
    fell = read[step + 1, rail] < read[step, rail]
    return f"the counter {'was set to 0, else it told' if fell else 'jumped by'} {told}, {most}"


def integrate(series: Series, t0_s: float, t1_s: float) -> np.ndarray:
    """(rails,) mJ: trapezoids between power readings (W), straight lines to both ends."""
    inside = (series.t_s > t0_s) & (series.t_s < t1_s)
    ends = [_at(series.t_s, series.values, t)[None] for t in (t0_s, t1_s)]
    times = np.concatenate(([t0_s], series.t_s[inside], [t1_s]))
    watts = np.concatenate((ends[0], series.values[inside], ends[1]))
    joules = (np.diff(times)[:, None] * (watts[1:] + watts[:-1]) / 2).sum(axis=0)
    return np.asarray(1000 * joules)


def _at(t_s: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:
    """(rails,) values at a time, on the straight line between two readings."""
    return np.array([np.interp(t, t_s, column) for column in values.T])


def unwrapped(values: np.ndarray, wrap_mj: Sequence[float]) -> np.ndarray:
    """(n, rails) counts that go on where a counter started again at 0."""
    if not len(wrap_mj):
        return values
    falls = np.vstack([np.zeros((1, values.shape[1])), np.diff(values, axis=0) < 0])
    return np.asarray(values + np.cumsum(falls, axis=0) * np.asarray(wrap_mj))


def file_text(path: str) -> str:
    """What a sensor's file says, empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def numbers(paths: Sequence[str]) -> List[float]:
    """The numbers of some sensor files.

    Raises:
        OSError: one cannot be read.
        ValueError: one holds no number.
    """
    found = []
    for path in paths:
        try:
            with open(path, encoding="ascii", errors="replace") as handle:
                text = handle.read().strip()
        except OSError as error:  # one of reading names no file
            raise OSError(error.errno, error.strerror, path) from None
        try:
            found.append(float(text))
        except ValueError:
            raise ValueError(f"{path} holds {text[:40]!r}, which is not a number") from None
    return found
