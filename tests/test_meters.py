"""Meters: energy of generated sensors within 2 %, and the reason where it cannot be known."""

import math
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from meter_trees import (
    START_S,
    Counter,
    Driver,
    Ina226Tree,
    NanoTree,
    OrinTree,
    Pmic,
    RaplTree,
    energy_mj,
    modelled_time,
    opened,
    power_w,
    target,
    write,
)

from profilers import bounded
from profilers.energy import meters, sampling
from profilers.energy.meters import nvml, pi5_pmic
from profilers.energy.sampling import Sensor, Series
from profilers.errors import ConfigError, MeterError

__all__ = ["modelled_time"]  # a fixture

WINDOW = (START_S + 0.5, START_S + 3.5)


def check_window(meter, clock, show, rails, step_s=0.05):
    """The energy of a window is that of the sensor, and says what it rests on."""
    clock.run(meter, show, WINDOW[1] + 0.2, step_s)
    found = meter.window(*WINDOW)
    assert found.complete, found.reason
    assert found.rails == rails
    assert found.energy_mj == pytest.approx(energy_mj(*WINDOW), rel=0.02)
    assert sum(found.rail_mj) == pytest.approx(found.energy_mj)
    assert found.samples == pytest.approx(3 / step_s, abs=2)
    assert found.period_s == pytest.approx(step_s, rel=0.2)


def test_rapl_sums_packages_and_memory_and_goes_on_where_counters_wrap(tmp_path, modelled_time):
    tree = RaplTree(tmp_path)
    with opened("rapl", root=str(tmp_path)) as meter:
        check_window(meter, modelled_time, tree.show, ("package-0", "dram-0", "package-1"))


def test_rapl_meters_the_rails_it_is_told_to(tmp_path, modelled_time):
    tree = RaplTree(tmp_path)
    with opened("rapl", root=str(tmp_path), rails="psys") as meter:
        check_window(meter, modelled_time, tree.show, ("psys",))
    with pytest.raises(ConfigError, match="unknown rail 'psis'; did you mean 'psys'"):
        opened("rapl", root=str(tmp_path), rails="psis").__enter__()


def test_rapl_without_permission_says_the_command_that_gives_it(tmp_path, monkeypatch):
    RaplTree(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may read everything
    with pytest.raises(MeterError, match=r"sudo chmod a\+r .*/intel-rapl:\*/energy_uj"):
        opened("rapl", root=str(tmp_path)).__enter__()


def test_rapl_without_counters_says_where_they_would_be(tmp_path):
    with pytest.raises(MeterError, match="class/powercap holds no intel-rapl zones"):
        opened("rapl", root=str(tmp_path)).__enter__()


def test_hwmon_takes_the_rail_that_carries_the_module(tmp_path, modelled_time):
    tree = OrinTree(tmp_path)
    with opened("hwmon", root=str(tmp_path)) as meter:
        check_window(meter, modelled_time, tree.show, ("VDD_IN",))


def test_hwmon_sums_rails_where_none_carries_the_module(tmp_path, modelled_time):
    rails = {1: ("VDD_GPU_SOC", 800, 0.5), 2: ("NC", 0, 0), 3: ("VIN_SYS_5V0", 5000, 0.5)}
    tree = OrinTree(tmp_path, {n: rail for n, rail in rails.items() if rail[1]})
    write(tree.folder / "in2_label", "NC")
    write(tree.folder / "in2_input", 0)
    write(tree.folder / "curr2_input", 0)
    with opened("hwmon", root=str(tmp_path)) as meter:
        check_window(meter, modelled_time, tree.show, ("VDD_GPU_SOC", "VIN_SYS_5V0"))


@pytest.mark.parametrize("pairs", [False, True], ids=["power", "voltage and current"])
def test_hwmon_reads_the_layout_of_jetpack_4(tmp_path, modelled_time, pairs):
    tree = NanoTree(tmp_path, pairs)
    with opened("hwmon", root=str(tmp_path)) as meter:
        check_window(meter, modelled_time, tree.show, ("POM_5V_IN",))


def test_hwmon_reads_chips_that_compute_power_themselves(tmp_path, modelled_time):
    tree = Ina226Tree(tmp_path)
    with opened("hwmon", root=str(tmp_path)) as meter:
        check_window(meter, modelled_time, tree.show, ("ina226-1",))


def test_hwmon_without_a_sensor_says_where_it_looked(tmp_path):
    with pytest.raises(MeterError, match="no chip 'ina'… with rails under"):
        opened("hwmon", root=str(tmp_path)).__enter__()


def test_the_pmic_pairs_currents_with_voltages(tmp_path, modelled_time):
    pmic = Pmic(tmp_path)
    with opened("pi5-pmic", command=str(pmic.command)) as meter:
        check_window(meter, modelled_time, pmic.show, ("VDD_CORE", "3V3_SYS"))


def test_pmic_lines_without_a_partner_are_no_rail():
    text = "  VDD_CORE_A current(7)=2.0A\n  VDD_CORE_V volt(15)=0.5V\n EXT5V_V volt(24)=5.1V\n"
    assert pi5_pmic.rails_in(text) == {"VDD_CORE": 1.0}


def test_a_pmic_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(MeterError, match=r"cannot be started.*needs a Raspberry Pi 5"):
        opened("pi5-pmic", command=str(tmp_path / "none")).__enter__()


@pytest.mark.parametrize("counts", [True, False], ids=["counter", "power"])
def test_nvml_takes_the_energy_counter_or_else_power(modelled_time, monkeypatch, counts):
    driver = Driver(modelled_time, counts)
    monkeypatch.setattr(nvml, "load_library", lambda name: driver)
    with opened("nvml") as meter:
        assert driver.open
        check_window(meter, modelled_time, lambda now_s: None, ("Modelled GPU",))
    assert not driver.open


def test_nvml_says_what_the_driver_says(modelled_time, monkeypatch):
    monkeypatch.setattr(nvml, "load_library", lambda name: Driver(modelled_time))
    with pytest.raises(MeterError, match="nvmlDeviceGetHandleByIndex_v2: Not Found"):
        opened("nvml", index="3").__enter__()
    monkeypatch.setattr(nvml, "load_library", lambda name: Driver(modelled_time, counts=False))
    with pytest.raises(MeterError, match="does not count its energy; use source: power"):
        opened("nvml", source="counter").__enter__()


def test_nvml_without_a_driver_says_so():
    with pytest.raises(
        MeterError, match=r"libnone\.so cannot be loaded.*install the NVIDIA driver"
    ):
        opened("nvml", library="libnone.so").__enter__()


LIBRARY = """
#include <string.h>
static unsigned long long counted = 5000000000ULL;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **gpu) {
  *gpu = (void *)0x7fff12345678ULL;
  return index == 1 ? 0 : 2;
}
int nvmlDeviceGetName(void *gpu, char *name, unsigned int length) {
  strncpy(name, gpu == (void *)0x7fff12345678ULL ? "Compiled GPU" : "?", length);
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *mj) {
  *mj = gpu == (void *)0x7fff12345678ULL ? (counted += 100) : 0;
  return 0;
}
const char *nvmlErrorString(int code) { return code == 2 ? "Invalid Argument" : "?"; }
"""


def test_nvml_calls_a_compiled_library_as_its_header_says(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    source, library = tmp_path / "nvml.c", tmp_path / "libnvml.so"
    source.write_text(LIBRARY)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    with opened("nvml", library=str(library), index="1", period_s="60") as meter:
        begin_s = time.monotonic()
        meter.mark()
        time.sleep(0.01)
        meter.mark()
        found = meter.window(begin_s, time.monotonic())
    assert found.rails == ("Compiled GPU",)
    assert 0 < found.energy_mj <= 200  # between two of three readings, each 100 mJ more, of 64 bits
    with pytest.raises(MeterError, match="nvmlDeviceGetHandleByIndex_v2: Invalid Argument"):
        opened("nvml", library=str(library)).__enter__()


def test_a_counter_that_does_not_move_is_unknown_energy(modelled_time, monkeypatch):
    driver = Driver(modelled_time)
    monkeypatch.setattr(nvml, "load_library", lambda name: driver)
    with opened("nvml") as meter:
        driver.stuck = True
        modelled_time.run(meter, lambda now_s: None, WINDOW[1])
        found = meter.window(*WINDOW)
    assert found.energy_mj is None
    assert not found.complete
    assert found.reason == "nvml: the counter did not move in 3 s"


@pytest.mark.parametrize(("unit", "factor"), [("W", 1), ("mW", 1000)])
def test_a_command_prints_power(tmp_path, modelled_time, unit, factor):
    answer = tmp_path / "watts"

    def show(now_s):
        answer.write_text(f"power: {factor * power_w(now_s)} {unit}\n")

    show(START_S)
    with opened("command", command=f"cat {answer}", unit=unit, rail="plug") as meter:
        check_window(meter, modelled_time, show, ("plug",))


def test_a_command_prints_energy_so_far(tmp_path, modelled_time):
    answer, counter = tmp_path / "joules", Counter()

    def show(now_s):
        answer.write_text(f"{counter.at(now_s) / 1000}\n")

    show(START_S)
    with opened("command", command=f"cat {answer}", unit="J") as meter:
        check_window(meter, modelled_time, show, ("command",))


def test_a_command_sees_no_shell_and_is_bounded(tmp_path):
    python = sys.executable
    with pytest.raises(MeterError, match="printed no number"):
        opened("command", command="echo $(echo 5) none; echo x").__enter__()
    with pytest.raises(MeterError, match="ended with status 1"):
        bounded.output(["false"], 5)
    with pytest.raises(MeterError, match="printed more than 65536 bytes"):
        bounded.output([python, "-c", "while True: print('9' * 1000)"], 30)
    with pytest.raises(MeterError, match=r"printed nothing more for 0\.2 s"):
        bounded.output([python, "-c", "import time; time.sleep(60)"], 0.2)
    with pytest.raises(ConfigError, match="meter command is empty"):
        opened("command", command=" ").__enter__()


# ---- what cannot be true -----------------------------------------------------------------------


def series_of(values, step_s=0.02):
    table = np.asarray(values, dtype=float).reshape(len(values), -1)
    return Series(START_S + step_s * np.arange(len(table)), table)


POWER = Sensor("board", ("IN",), "power", 0.02, tuple)
COUNTER = Sensor("board", ("IN",), "energy", 0.02, tuple)


def unknown(series, sensor, t0_s=START_S, t1_s=START_S + 1):
    found = sampling.energy(series, t0_s, t1_s, sensor)
    assert found.energy_mj is None
    assert not found.complete
    return found.reason


def test_power_that_is_zero_negative_or_stuck_is_unknown():
    swing = [5 + math.sin(k) for k in range(200)]
    assert "zero or negative" in unknown(series_of([0.0] * 60), POWER)
    assert "zero or negative" in unknown(
        series_of([w if k % 9 else -1 for k, w in enumerate(swing)]), POWER
    )
    assert "all 200 readings are 5 W: the sensor is stuck" in unknown(series_of([5.0] * 200), POWER)
    small = sampling.energy(series_of([w / 20 for w in swing]), START_S, START_S + 1, POWER)
    assert small.energy_mj == pytest.approx(250, rel=0.05)  # a board of a quarter of a watt
    glitch = series_of([w if k != 20 else 0.0 for k, w in enumerate(swing)])
    assert sampling.energy(glitch, START_S, START_S + 1, POWER).energy_mj == pytest.approx(
        5000, rel=0.05
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_counter_that_gives_no_number_is_unknown(value):
    counted = [400.0 * k for k in range(60)]
    told = unknown(series_of([*counted[:30], value, *counted[31:]]), COUNTER)
    assert told == "board: the counter gives no number"


def test_a_counter_that_was_set_to_0_did_not_wrap():
    sensor = COUNTER._replace(wrap_mj=(262_000.0 * 1000,), most_w=(200.0,))
    counted = [1e6 + 400.0 * k for k in range(40)]  # 20 W
    reset = series_of([*counted, *(400.0 * k for k in range(40))])
    wrapped = series_of(
        [v if v < 1.01e6 else v - 1.01e6 for v in [1e6 + 400.0 * k for k in range(80)]]
    )
    told = unknown(reset, sensor)
    assert re.search(
        r"the counter was set to 0, else it told \S+ W of IN, which can take 200 W", told
    )
    # before and after it the counter is whole, whatever it did between
    for t0_s in (START_S, START_S + 0.85):
        found = sampling.energy(reset, t0_s, t0_s + 0.7, sensor)
        assert found.energy_mj == pytest.approx(20 * 700)
    found = sampling.energy(wrapped, START_S, START_S + 1, sensor._replace(wrap_mj=(1.01e6,)))
    assert found.energy_mj == pytest.approx(20 * 1000)


def test_more_power_than_a_device_can_take_is_no_reading():
    jumped = series_of([400.0 * k + (1e6 if k > 30 else 0) for k in range(60)])
    assert "the counter jumped by" in unknown(jumped, COUNTER)
    swing = [5 + math.sin(k) + (65_000 if k % 20 == 7 else 0) for k in range(60)]
    assert "3 of 51 readings are zero or negative, or above 10000 W" in unknown(
        series_of(swing), POWER
    )
    once = series_of([w if w < 100 or k == 7 else 5.0 for k, w in enumerate(swing)])
    assert sampling.energy(once, START_S, START_S + 1, POWER).energy_mj == pytest.approx(
        5000, rel=0.05
    )


def test_rapl_and_nvml_know_what_their_devices_can_take(tmp_path, modelled_time, monkeypatch):
    tree = RaplTree(tmp_path)
    write(tree.folder / "intel-rapl:0" / "max_energy_range_uj", 262_000_000)
    write(tree.folder / "intel-rapl:0" / "constraint_0_power_limit_uw", 45_000_000)
    write(tree.folder / "intel-rapl:0" / "constraint_1_max_power_uw", 60_000_000)
    write(tree.folder / "intel-rapl:1" / "constraint_0_max_power_uw", 0)
    with opened("rapl", root=str(tmp_path), rails="package-0,package-1") as meter:
        write(tree.folder / "intel-rapl:0" / "energy_uj", 2_000_000)
        modelled_time.run(meter, lambda now_s: None, START_S + 0.2)
        write(tree.folder / "intel-rapl:0" / "energy_uj", 1_000_000)  # 261 J, had it wrapped
        modelled_time.run(meter, lambda now_s: None, START_S + 0.4)
        told = meter.window(START_S + 0.05, START_S + 0.35).reason
    assert "the counter was set to 0" in told
    assert "of package-0, which can take 120 W" in told
    monkeypatch.setattr(nvml, "load_library", lambda name: Driver(modelled_time, limit_w=300))
    with opened("nvml") as meter:
        assert meter._sensor.most_w == (600.0,)


def test_a_slow_sensor_keeps_nobody_else_waiting(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def read():
        if begun.is_set():
            go_on.wait(10)
        begun.set()
        return [5.0]

    meter = sampling.Polled(Sensor("slow", ("IN",), "power", 0.001, read))
    begun.wait(10)
    assert meter.period_s == 0.001  # told while a reading is on its way
    go_on.set()
    meter.close()


def test_readings_that_fail_meanwhile_disturb_no_window():
    """The thread that reads adds one while those before it are looked through."""
    meter = sampling.Polled(Sensor("flaky", ("IN",), "power", 60.0, lambda: [5.0]))
    meter._sensor = meter._sensor._replace(read=lambda: [float("wrong")])
    added, adding = [], threading.Thread(target=meter.mark)

    class Late(float):
        def __le__(self, other):  # compared when a window looks through the failures
            if not added:
                added.append(adding.start())
                adding.join(0.1)
            return super().__le__(other)

    for _ in range(3):
        meter.mark()
    assert "could not convert" in meter.window(Late(-1e9), 1e12).reason
    adding.join()
    meter.close()
    assert len(meter._failures) == 4


def test_a_counter_that_goes_backwards_or_stands_is_unknown():
    assert "went backwards" in unknown(series_of([100 - k for k in range(60)]), COUNTER)
    assert "did not move" in unknown(series_of([100] * 60), COUNTER)


def test_readings_that_do_not_cover_the_window_are_no_energy():
    series = series_of([5 + math.sin(k) for k in range(40)])
    assert "none for 0.22 s" in unknown(series, POWER)
    assert "is empty" in unknown(series, POWER, START_S + 1, START_S + 1)
    assert "no readings" in unknown(Series(np.zeros(0), np.zeros((0, 1))), POWER)


def test_a_sensor_that_vanishes_is_named(tmp_path, modelled_time):
    tree = OrinTree(tmp_path)
    with opened("hwmon", root=str(tmp_path)) as meter:
        modelled_time.run(meter, tree.show, START_S + 1)
        (tree.folder / "curr1_input").unlink()
        modelled_time.run(meter, lambda now_s: None, WINDOW[1])
        found = meter.window(*WINDOW)
    assert found.energy_mj is None
    assert "curr1_input: No such file or directory" in found.reason


def test_a_sensor_is_polled_in_the_background(tmp_path):
    tree = OrinTree(tmp_path)
    with opened("hwmon", root=str(tmp_path), period_s="0.005") as meter:
        begin_s = time.monotonic()
        for k in range(20):
            tree.show(START_S + k)
            time.sleep(0.01)
        meter.mark()
        found = meter.window(begin_s, time.monotonic())
    assert found.samples > 2
    assert meter.period_s >= 0.005


# ---- options -----------------------------------------------------------------------------------


def test_every_meter_can_be_named_and_an_unknown_one_is_refused():
    expected = {"none", "nvml", "rapl", "hwmon", "pi5-pmic", "csv", "command", "replay"}
    assert set(meters.names()) == expected
    assert all(callable(meters.load(name).open) for name in expected)
    with pytest.raises(ConfigError, match="unknown meter 'rappl'; did you mean 'rapl'"):
        meters.load("rappl")


def test_options_are_refused_by_name():
    with pytest.raises(
        ConfigError, match="unknown option of meter rapl 'rot'; did you mean 'root'"
    ):
        opened("rapl", rot="/sys").__enter__()
    with pytest.raises(ConfigError, match=r"period_s = 'often' is not a number from 0\.001"):
        meters.number(
            meters.options(target("rapl", period_s="often"), {"period_s": "1"}), "period_s", 0.001
        )
