"""The window protocol on a modelled machine, and windows as the host believes them."""

import math

import numpy as np
import pytest

from hwnas.measuring import windows as numbers
from profilers import protocol
from profilers.energy import sampling
from profilers.energy import windows as energy
from profilers.energy.meters import EnergyReading
from profilers.energy.sampling import Sensor, Series
from profilers.errors import MeterError

IDLE_W, RUN_W, RUN_MS = 3.0, 10.0, 4.0


class Machine:
    """A clock, a session that takes power while it runs, and a meter that knows."""

    def __init__(self, period_s=None, reason=""):
        self.now_s, self.trace, self.reason, self.runs = 50.0, [], reason, 0
        if period_s is not None:
            self.period_s = period_s

    def pass_time(self, seconds, watts=IDLE_W):
        self.trace.append((self.now_s, self.now_s + seconds, watts))
        self.now_s += seconds

    def time(self, loops):
        self.runs += loops
        self.pass_time(loops * RUN_MS / 1000, RUN_W)
        return loops * RUN_MS

    def window(self, t0_s, t1_s):
        if self.reason:
            return EnergyReading(None, 0, None, ("x",), False, self.reason)
        parts = [max(0.0, min(b, t1_s) - max(a, t0_s)) * w for a, b, w in self.trace]
        energy_mj = 1000 * sum(parts)
        return EnergyReading(energy_mj, 20, 0.1, ("x",), True, "", (energy_mj,))

    def clock(self):
        return energy.Clock(lambda: self.now_s, self.pass_time)


def measured(machine, least_s=2.0, periods=50.0):
    windows = energy.Windows(machine, machine.clock(), least_s, periods)
    before = windows.rest()
    found = windows.busy(machine)
    return energy.record(before, found, windows.rest())


def test_the_energy_of_a_run_is_gross_and_net_of_rest():
    found = measured(Machine())
    assert found["energy_mj"] == pytest.approx(RUN_W * RUN_MS)
    assert found["net_energy_mj"] == pytest.approx((RUN_W - IDLE_W) * RUN_MS)
    assert found["power_w"] == pytest.approx(RUN_W)
    assert found["idle_w"] == pytest.approx(IDLE_W)
    assert found["run_ms"] == pytest.approx(RUN_MS)
    assert found["rails"] == {"x": pytest.approx(RUN_W * RUN_MS)}
    assert found["loops"] * RUN_MS / 1000 == pytest.approx(found["window_s"])


@pytest.mark.parametrize(
    ("period_s", "least_s", "expected_s"), [(None, 2.0, 2.0), (0.02, 2.0, 2.0), (0.1, 2.0, 5.0)]
)
def test_a_window_takes_so_many_seconds_and_periods_of_the_sensor(period_s, least_s, expected_s):
    found = measured(Machine(period_s), least_s)
    assert expected_s <= found["window_s"] < expected_s + 0.2


def test_the_model_runs_before_its_window_so_that_the_sensor_has_settled():
    machine = Machine(period_s=0.2)
    found = measured(machine)
    assert (machine.runs - found["loops"]) * RUN_MS / 1000 >= 3 * 0.2


def test_unknown_energy_is_an_error_and_never_zero():
    with pytest.raises(MeterError, match="energy is unknown: the sensor is stuck"):
        measured(Machine(reason="the sensor is stuck"))


def test_without_power_at_rest_net_energy_is_unknown():
    machine = Machine()
    unknown = energy.Rest(None, EnergyReading(None, 0, None, (), False, "no reading"))
    found = energy.Windows(machine, machine.clock(), 2.0, 50.0).busy(machine)
    told = energy.record(unknown, found, unknown)
    assert told["energy_mj"] == pytest.approx(RUN_W * RUN_MS)
    assert told["net_energy_mj"] is None
    assert told["idle_w"] is None


# ---- sensors as they are -----------------------------------------------------------------------


class Sensed(Machine):
    """The machine under a sensor that a thread reads: a reading takes time, shows what was a while
    ago or the mean of a past, and comes with a period.
    """

    def __init__(self, read_s=0.0, sensor_s=0.02, tau_s=0.0, counts=False, lag_s=0.0):
        super().__init__()
        self.read_s, self.tau_s, self.counts, self.lag_s = read_s, tau_s, counts, lag_s
        self.sensor = Sensor("modelled", ("x",), "energy" if counts else "power", sensor_s, tuple)
        self.period_s = max(sensor_s, read_s)
        self.due_s, self.shown, self.counted_mj, self.times, self.values = 50.0, IDLE_W, 5e6, [], []

    def pass_time(self, seconds, watts=IDLE_W):
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            step_s = min(self.due_s + self.read_s / 2, end_s) - self.now_s
            super().pass_time(step_s, watts)
            self.counted_mj += 1000 * step_s * watts
            keeps = math.exp(-step_s / self.tau_s) if self.tau_s else 0.0
            self.shown = watts + (self.shown - watts) * keeps
            if self.now_s >= self.due_s + self.read_s / 2 - 1e-9:
                self.take()
                self.due_s = max(self.due_s + self.period_s, self.now_s + self.read_s / 2)

    def take(self):
        self.times.append(self.now_s)
        self.values.append(self.counted_mj if self.counts else self.shown)

    def mark(self):
        """Nothing runs while a reading is waited for."""
        self.due_s = self.now_s
        self.pass_time(self.read_s + 1e-6)

    def window(self, t0_s, t1_s):
        series = Series(np.array(self.times), np.array(self.values)[:, None])
        return sampling.energy(series, t0_s, t1_s, self.sensor._replace(period_s=self.period_s))


@pytest.mark.parametrize("counts", [False, True], ids=["power", "counter"])
@pytest.mark.parametrize(
    ("read_s", "sensor_s"), [(0.02, 0.02), (0.05, 0.02), (0.5, 0.1), (0.001, 0.1), (0.001, 1.0)]
)
def test_a_reading_s_own_time_is_no_run_time_and_both_ends_are_exact(counts, read_s, sensor_s):
    found = measured(Sensed(read_s, sensor_s, counts=counts))
    assert found["run_ms"] == pytest.approx(RUN_MS)
    assert found["power_w"] == pytest.approx(RUN_W, rel=1e-6)
    assert found["energy_mj"] == pytest.approx(RUN_W * RUN_MS, rel=1e-6)
    assert found["idle_w"] == pytest.approx(IDLE_W, rel=1e-6)


def test_a_sensor_that_lags_is_off_by_what_it_has_not_seen_yet_and_no_more():
    tau_s, settled_s, length_s = 0.3, 0.25, 2.0
    unseen = (1 - IDLE_W / RUN_W) * tau_s / length_s * math.exp(-settled_s / tau_s)
    off = measured(Sensed(tau_s=tau_s))["energy_mj"] / (RUN_W * RUN_MS) - 1
    assert -unseen <= off < -unseen / 2
    known = measured(Sensed(tau_s=tau_s, lag_s=8 * tau_s))  # waited for where the meter says it
    assert known["energy_mj"] == pytest.approx(RUN_W * RUN_MS, rel=1e-3)


# ---- on the host -------------------------------------------------------------------------------


def window(**changes):
    base = measured(Machine()) | {"item": "net", "role": "heldout", "order": 0, "t_s": 1.0}
    return base | changes


def said(**changes):
    """What is wrong with a window that a worker sends."""
    record = {"type": "record", "seq": 1, "re": 1, "record": window(**changes)}
    return protocol.wrong_reply(record, "energy", 1)


def test_a_whole_window_is_believed():
    assert said() == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"energy_mj": 0.0},
        {"energy_mj": float("nan")},
        {"energy_mj": "5"},
        {"window_s": None},
        {"rails": []},
        {"rails": {"x": "much"}},
        {"energy_mj": 10**400},
        {"samples": 0},
        {"profile": []},
        {"ms": 1.0},
        {"id": ["k", "a", 0, "net"]},
        {"probe": {"words": "x" * 20_000}},
    ],
)
def test_a_window_that_is_not_whole_is_refused(changes):
    assert said(**changes)


def test_windows_are_told_by_their_median_and_spread():
    found = numbers.summary([window(energy_mj=mj) for mj in (10.0, 11.0, 30.0)])
    assert found["energy_mj"] == 11.0
    assert found["energy_spread"] == pytest.approx(1.4826 / 11)
    assert found["windows"] == 3
    assert found["net_energy_mj"] == pytest.approx((RUN_W - IDLE_W) * RUN_MS)
