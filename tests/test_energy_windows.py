"""The window protocol on a modelled machine, and windows as the host believes them."""

import pytest

from hwnas.measuring import windows as numbers
from profilers import energy
from profilers.errors import DeviceError, MeterError
from profilers.meters import EnergyReading

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


# ---- on the host -------------------------------------------------------------------------------


def window(**changes):
    base = measured(Machine()) | {"item": "net", "role": "heldout", "order": 0, "t_s": 1.0}
    return base | changes


def test_a_whole_window_is_believed():
    numbers.check_windows([window()], {"net": "heldout"})


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
        {"item": "other"},
        {"role": "covering"},
        {"probe": {"words": "x" * 20_000}},
    ],
)
def test_a_window_that_is_not_whole_is_refused(changes):
    with pytest.raises(DeviceError, match="worker sent"):
        numbers.check_windows([window(**changes)], {"net": "heldout"})


def test_windows_are_told_by_their_median_and_spread():
    found = numbers.summary([window(energy_mj=mj) for mj in (10.0, 11.0, 30.0)])
    assert found["energy_mj"] == 11.0
    assert found["energy_spread"] == pytest.approx(1.4826 / 11)
    assert found["windows"] == 3
    assert found["net_energy_mj"] == pytest.approx((RUN_W - IDLE_W) * RUN_MS)
