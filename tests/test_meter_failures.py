"""Sensors that fail as real ones do: for a moment, for good, or for everybody but root."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from meter_trees import (
    START_S,
    Driver,
    OrinTree,
    Pmic,
    RaplTree,
    energy_mj,
    modelled_time,
    opened,
)

from profilers.energy.meters import hwmon, nvml
from profilers.errors import MeterError

__all__ = ["modelled_time"]  # a fixture

WINDOW = (START_S + 0.5, START_S + 3.5)
READ_ERROR = "/proc/self/mem"  # a file that opens, and whose first byte cannot be read: EIO
# nvmlReturn_t, and what nvmlErrorString says of each
NOT_SUPPORTED, GPU_IS_LOST, VERSION_MISMATCH, UNKNOWN = 3, 15, 18, 999
WORDS = {
    NOT_SUPPORTED: b"Not Supported",
    GPU_IS_LOST: b"GPU is lost",
    VERSION_MISMATCH: b"Driver/library version mismatch",
    UNKNOWN: b"Unknown Error",
}


class FailingDriver(Driver):
    """A driver of which functions return an error when told to.

    `fails` holds, by function, a predicate of the number of the call.
    """

    def __init__(self, clock, **options):
        super().__init__(clock, **options)
        self.fails, self.calls = {}, {}
        self.nvmlErrorString = lambda code: WORDS[code]

    def __getattribute__(self, name):
        call = object.__getattribute__(self, name)
        if not name.startswith("nvml") or name == "nvmlErrorString":
            return call

        def counted(*arguments):
            number = self.calls[name] = self.calls.get(name, 0) + 1
            code, when = self.fails.get(name, (0, lambda n: False))
            return code if when(number) else call(*arguments)

        return counted


@pytest.fixture
def driver(modelled_time, monkeypatch):
    """Of a card that counts its energy."""
    found = FailingDriver(modelled_time)
    monkeypatch.setattr(nvml, "load_library", lambda name: found)
    return found


COUNTER, POWER = "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"


def window_of(meter, clock, show=lambda now_s: None):
    clock.run(meter, show, WINDOW[1] + 0.2, 0.05)
    return meter.window(*WINDOW)


def assert_whole(found):
    assert found.complete, found.reason
    assert found.energy_mj == pytest.approx(energy_mj(*WINDOW), rel=0.02)


def assert_unknown(found, reason):
    assert (found.energy_mj, found.complete) == (None, False)
    assert found.reason == reason


def test_a_reading_that_nvml_refuses_now_and_then_costs_no_energy(driver, modelled_time):
    driver.fails[COUNTER] = UNKNOWN, lambda n: n > 5 and n % 4 == 0
    with opened("nvml") as meter:
        assert_whole(window_of(meter, modelled_time))


@pytest.mark.parametrize("update_s", [0.02, 0.1])
def test_a_counter_that_nvml_updates_rarely_costs_no_energy(modelled_time, monkeypatch, update_s):
    """Documented as 20 ms to 100 ms, by the card; it is read every 50 ms."""

    class Coarse(Driver):
        def nvmlDeviceGetTotalEnergyConsumption(self, gpu, value):
            now_s = self.clock.now_s
            counted = self.counter.at(START_S + (now_s - START_S) // update_s * update_s)
            value._obj.value = int(counted)
            return 0

    monkeypatch.setattr(nvml, "load_library", lambda name: Coarse(modelled_time))
    with opened("nvml") as meter:
        found = window_of(meter, modelled_time)
    assert_whole(found)
    assert found.period_s == pytest.approx(max(update_s, 0.05), rel=0.2)


def test_a_gpu_that_is_lost_is_unknown_energy_and_the_driver_is_closed(driver, modelled_time):
    driver.fails[COUNTER] = GPU_IS_LOST, lambda n: n > 30
    with opened("nvml") as meter:
        assert_unknown(window_of(meter, modelled_time), f"nvml: {COUNTER}: GPU is lost")
    assert not driver.open


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ({"nvmlInit_v2": VERSION_MISMATCH}, "nvmlInit_v2: Driver/library version mismatch"),
        ({COUNTER: UNKNOWN}, f"{COUNTER}: Unknown Error"),
        ({COUNTER: NOT_SUPPORTED, POWER: NOT_SUPPORTED}, f"{POWER}: Not Supported"),
        ({COUNTER: NOT_SUPPORTED, POWER: GPU_IS_LOST}, f"{POWER}: GPU is lost"),
    ],
)
def test_what_the_driver_refuses_is_told_once_and_leaves_it_closed(driver, fails, reason):
    driver.fails = {name: (code, lambda n: True) for name, code in fails.items()}
    with pytest.raises(MeterError) as caught:
        opened("nvml").__enter__()
    assert str(caught.value) == f"meter nvml: {reason}"
    assert not driver.open


def test_a_driver_older_than_a_function_says_which(modelled_time, monkeypatch):
    class Old(Driver):
        def __getattribute__(self, name):
            if name == COUNTER:
                raise AttributeError(f"undefined symbol: {name}")
            return object.__getattribute__(self, name)

    monkeypatch.setattr(nvml, "load_library", lambda name: Old(modelled_time))
    with opened("nvml") as meter:  # power will do
        assert_whole(window_of(meter, modelled_time))
    with pytest.raises(MeterError, match="this GPU does not count its energy; use source: power"):
        opened("nvml", source="counter").__enter__()


def test_a_board_sensor_that_is_busy_now_and_then_costs_no_energy(
    tmp_path, modelled_time, monkeypatch
):
    tree, read, calls = OrinTree(tmp_path), hwmon.numbers, []

    def sometimes_busy(paths):
        calls.append(paths)
        if len(calls) > 5 and len(calls) % 4 == 0:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), paths[0])
        return read(paths)

    monkeypatch.setattr(hwmon, "numbers", sometimes_busy)
    with opened("hwmon", root=str(tmp_path)) as meter:
        assert_whole(window_of(meter, modelled_time, tree.show))


def test_a_board_sensor_whose_bus_fails_is_named(tmp_path, modelled_time):
    tree = OrinTree(tmp_path)
    current = tree.folder / "curr1_input"
    with opened("hwmon", root=str(tmp_path)) as meter:
        modelled_time.run(meter, tree.show, START_S + 1, 0.05)
        current.unlink()
        current.symlink_to(READ_ERROR)
        found = window_of(meter, modelled_time)
    assert_unknown(found, f"hwmon: {current}: Input/output error")
    with pytest.raises(MeterError) as caught:
        opened("hwmon", root=str(tmp_path)).__enter__()
    assert str(caught.value) == f"meter hwmon: {current}: Input/output error"


@pytest.mark.parametrize("text", ["", "N/A", "5 W"])
def test_a_sensor_that_gives_no_number_is_named(tmp_path, modelled_time, text):
    tree = OrinTree(tmp_path)
    (tree.folder / "curr1_input").write_text(text)
    with pytest.raises(MeterError) as caught:
        opened("hwmon", root=str(tmp_path)).__enter__()
    assert f"curr1_input holds {text!r}, which is not a number" in str(caught.value)


def test_counters_that_go_with_their_driver_are_named(tmp_path, modelled_time):
    tree = RaplTree(tmp_path)
    with opened("rapl", root=str(tmp_path)) as meter:
        modelled_time.run(meter, tree.show, START_S + 1, 0.05)
        shutil.rmtree(tree.folder)
        found = window_of(meter, modelled_time)
    counter = tree.folder / "intel-rapl:0" / "energy_uj"
    assert_unknown(found, f"rapl: {counter}: No such file or directory")


def test_counters_that_root_alone_may_read_say_the_command_that_gives_them():
    """With real permissions, which only root can set up: a process that gives up root."""
    if os.getuid() != 0:
        pytest.skip("needs root, to be somebody else")
    root = Path(tempfile.mkdtemp())
    try:
        root.chmod(0o755)
        RaplTree(root)
        for counter in root.glob("class/powercap/*/energy_uj"):
            counter.chmod(0o400)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.setuid(65534)
            try:
                opened("rapl", root=str(root)).__enter__()
            except MeterError as error:
                os.write(writer, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            assert "sudo chmod a+r" in answer.read()
    finally:
        shutil.rmtree(root)


def test_a_firmware_that_fails_now_and_then_costs_no_energy(tmp_path, modelled_time):
    """`vcgencmd` ends with 255 while the mailbox is busy."""
    pmic, calls = Pmic(tmp_path), tmp_path / "calls"
    pmic.command.write_text(
        f"#!/bin/sh\necho x >>{calls}\n"
        f'[ $(($(wc -l <{calls}) % 4)) -eq 3 ] && echo "VCHI initialization failed" && exit 255\n'
        f"cat {pmic.answer}\n"
    )
    with opened("pi5-pmic", command=str(pmic.command)) as meter:
        assert_whole(window_of(meter, modelled_time, pmic.show))


def test_a_firmware_that_stops_answering_is_named(tmp_path, modelled_time):
    pmic = Pmic(tmp_path)
    with opened("pi5-pmic", command=str(pmic.command)) as meter:
        modelled_time.run(meter, pmic.show, START_S + 1, 0.05)
        pmic.answer.write_text('error=1 error_msg="Command not registered"\n')
        found = window_of(meter, modelled_time)
    assert_unknown(found, "pi5-pmic: rail VDD_CORE is gone")
