"""Generated sensors of known energy: files as Linux shows them, a driver's library, a clock."""

import ctypes
import math

import pytest

from profilers.energy import meters, sampling
from profilers.schema import Target

START_S = 100.0


def target(meter, **options):
    return Target("host", "fake", meter=meter, meter_options=options)


def opened(meter, **options):
    return meters.load(meter).open(target(meter, **options))


def power_w(t_s):
    """A load that rises, swings and falls: 4 to 13 W."""
    swing = 2 * math.sin(2 * math.pi * t_s / 0.7)
    return 6 + swing + (5 if 1.0 < t_s - START_S < 2.5 else 0)


def energy_mj(t0_s, t1_s, steps=20_000):
    """Its integral by the midpoint rule."""
    step = (t1_s - t0_s) / steps
    return 1000 * step * sum(power_w(t0_s + (k + 0.5) * step) for k in range(steps))


class Counter:
    """Energy since a start, mJ, that only rises."""

    def __init__(self, mj=0.0):
        self.mj, self.last_s = mj, START_S

    def at(self, now_s):
        if now_s > self.last_s:
            self.mj += energy_mj(self.last_s, now_s, 10)
            self.last_s = now_s
        return self.mj


class ModelledTime:
    """A clock that the test moves; meters read when told, no thread polls."""

    def __init__(self):
        self.now_s = START_S

    def run(self, meter, show, until_s, step_s=0.02):
        """Show the sensor at each step and let the meter read it."""
        for _ in range(round((until_s - self.now_s) / step_s)):
            self.now_s += step_s
            show(self.now_s)
            meter.mark()


@pytest.fixture
def modelled_time(monkeypatch):
    clock = ModelledTime()
    monkeypatch.setattr(sampling.time, "monotonic", lambda: clock.now_s)
    monkeypatch.setattr(sampling.Polled, "_poll", lambda self: None)
    return clock


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


class RaplTree:
    """Two packages with DRAM, and psys, which holds them already; counters wrap."""

    RANGE_UJ = 5_000_000
    SHARES = (("0", 0.5), ("0:0", 0.1), ("1", 0.4), ("2", 1.0))

    def __init__(self, root):
        self.folder = root / "class" / "powercap"
        names = {"0": "package-0", "0:0": "dram", "1": "package-1", "2": "psys"}
        for zone, name in names.items():
            write(self.folder / f"intel-rapl:{zone}" / "name", name)
            write(self.folder / f"intel-rapl:{zone}" / "max_energy_range_uj", self.RANGE_UJ)
        self.counter = Counter(4500.0)
        self.show(START_S)

    def show(self, now_s):
        counted_uj = 1000 * self.counter.at(now_s)
        for zone, share in self.SHARES:
            value = int(counted_uj * share) % self.RANGE_UJ
            write(self.folder / f"intel-rapl:{zone}" / "energy_uj", value)


ORIN_NANO = {
    1: ("VDD_IN", 5000, 1.0),
    2: ("VDD_CPU_GPU_CV", 5000, 0.5),
    3: ("VDD_SOC", 5000, 0.2),
}


class OrinTree:
    """An INA3221 as JetPack 5 and newer show it: VDD_IN carries the other two."""

    def __init__(self, root, rails=None):
        self.folder, self.rails = root / "class" / "hwmon" / "hwmon3", rails or ORIN_NANO
        write(self.folder / "name", "ina3221")
        write(self.folder / "in7_label", "sum of shunt voltages")
        write(self.folder / "in7_input", 900)
        write(self.folder / "curr4_input", 360)
        for n, (label, _, _) in self.rails.items():
            write(self.folder / f"in{n}_label", label)
        self.show(START_S)

    def show(self, now_s):
        for n, (_, millivolts, share) in self.rails.items():
            write(self.folder / f"in{n}_input", millivolts)
            write(self.folder / f"curr{n}_input", round(1e6 * share * power_w(now_s) / millivolts))


class NanoTree:
    """The iio device of JetPack 4; power in mW, or voltage and current."""

    def __init__(self, root, pairs=False):
        driver = root / "bus" / "i2c" / "drivers" / "ina3221x" / "6-0040"
        self.folder, self.pairs = driver / "iio:device0", pairs
        for n, label in enumerate(("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")):
            write(self.folder / f"rail_name_{n}", label)
        self.show(START_S)

    def show(self, now_s):
        for n, share in enumerate((1.0, 0.3, 0.4)):
            milliwatts = round(1000 * share * power_w(now_s))
            if self.pairs:
                write(self.folder / f"in_voltage{n}_input", 5000)
                write(self.folder / f"in_current{n}_input", round(milliwatts / 5))
            else:
                write(self.folder / f"in_power{n}_input", milliwatts)


class Ina226Tree:
    """A chip that computes power itself, in uW."""

    def __init__(self, root):
        self.folder = root / "class" / "hwmon" / "hwmon0"
        write(self.folder / "name", "ina226")
        write(root / "class" / "hwmon" / "hwmon1" / "name", "cpu_thermal")
        self.show(START_S)

    def show(self, now_s):
        write(self.folder / "power1_input", round(1e6 * power_w(now_s)))


class Pmic:
    """A `vcgencmd` that answers as a Raspberry Pi 5 does."""

    def __init__(self, folder):
        self.answer, self.command = folder / "answer.txt", folder / "vcgencmd"
        self.command.write_text(f'#!/bin/sh\n[ "$1" = pmic_read_adc ] && cat {self.answer}\n')
        self.command.chmod(0o755)
        self.show(START_S)

    def show(self, now_s):
        amps = power_w(now_s) / 2
        self.answer.write_text(
            f"     VDD_CORE_A current(7)={amps / 0.9:.8f}A\n"
            f"     3V3_SYS_A current(1)={amps / 3.3:.8f}A\n"
            "     VDD_CORE_V volt(15)=0.90000000V\n"
            "     3V3_SYS_V volt(9)=3.30000000V\n"
            "     EXT5V_V volt(24)=5.10000000V\n"
        )


class Driver:
    """libnvidia-ml with the functions that are used, called as C functions are."""

    def __init__(self, clock, counts=True, limit_w=None):
        self.clock, self.counts, self.open, self.stuck = clock, counts, False, False
        self.limit_w = limit_w
        self.counter = Counter(1e6)
        self.nvmlErrorString = lambda code: self._words(code)

    def nvmlInit_v2(self):
        self.open = True
        return 0

    def nvmlShutdown(self):
        self.open = False
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        if index.value != 0:
            return 6
        handle._obj.value = 1
        return 0

    def nvmlDeviceGetName(self, gpu, text, length):
        text.value = b"Modelled GPU"[: length.value - 1]
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu, value):
        assert isinstance(value._obj, ctypes.c_ulonglong)
        if not self.counts:
            return 3
        counted_mj = self.counter.mj if self.stuck else self.counter.at(self.clock.now_s)
        value._obj.value = int(counted_mj)
        return 0

    def nvmlDeviceGetPowerManagementLimitConstraints(self, gpu, least, most):
        if self.limit_w is None:
            return 3
        least._obj.value, most._obj.value = 1000, 1000 * self.limit_w
        return 0

    def nvmlDeviceGetPowerUsage(self, gpu, value):
        assert isinstance(value._obj, ctypes.c_uint)
        value._obj.value = round(1000 * power_w(self.clock.now_s))
        return 0

    @staticmethod
    def _words(code):
        return {3: b"Not Supported", 6: b"Not Found"}.get(code, b"Unknown Error")
