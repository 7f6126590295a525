"""Meters that read recorded power: external ones that write files, and replays."""

import time

import numpy as np
import pytest
from meter_trees import START_S, Counter, energy_mj, opened, power_w

from profilers.energy import recordings
from profilers.errors import ConfigError, MeterError

WINDOW = (START_S + 0.5, START_S + 3.5)


def record(path, times, watts, header="time,watts"):
    lines = [f"{t!r},{w!r}" for t, w in zip(times, watts, strict=True)]
    path.write_text("\n".join([header, *lines]) + "\n")


@pytest.mark.parametrize("clock", ["epoch", "monotonic"])
def test_a_csv_file_is_aligned_by_its_offset(tmp_path, clock):
    behind_s = 37.5
    shift_s = time.time() - time.monotonic() if clock == "epoch" else 0.0
    times = np.arange(START_S - 1, START_S + 5, 0.01)
    path = tmp_path / "meter.csv"
    record(path, (times + shift_s - behind_s).tolist(), [power_w(t) for t in times])
    options = {"path": str(path), "clock": clock, "offset_s": str(behind_s)}
    with opened("csv", **options) as meter:
        found = meter.window(*WINDOW)
    assert found.complete, found.reason
    assert found.energy_mj == pytest.approx(energy_mj(*WINDOW), rel=0.02)
    assert found.rails == ("watts",)


def test_a_csv_file_of_times_in_words_and_counted_energy(tmp_path):
    path, begin_s = tmp_path / "meter.csv", 1_700_000_000.0
    lines, counter = ["when,Wh,note"], Counter()
    for k in range(60):
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begin_s + k // 10))
        counted = counter.at(START_S + k / 10) / 3.6e6
        lines.append(f"{when}.{k % 10}00+00:00,{counted!r},x")
    path.write_text("\n".join([*lines, "2023-11-1"]))  # the last line is not whole yet
    options = {"path": str(path), "unit": "Wh", "rails": "Wh", "clock": "monotonic"}
    with opened("csv", **options, offset_s=str(START_S - begin_s)) as meter:
        found = meter.window(*WINDOW)
    assert found.energy_mj == pytest.approx(energy_mj(*WINDOW), rel=0.02)


def test_a_csv_file_that_ends_too_early_leaves_energy_unknown(tmp_path):
    path = tmp_path / "meter.csv"
    record(path, [START_S, START_S + 1, START_S + 1.1], [1.0, 2.0, 1.0])
    with opened("csv", path=str(path), clock="monotonic", wait_s="0", period_s="0.1") as meter:
        found = meter.window(*WINDOW)
    assert found.energy_mj is None
    assert "none for 2.4 s of a window of 3 s" in found.reason


def test_a_csv_file_is_refused_with_what_it_lacks(tmp_path):
    with pytest.raises(MeterError, match="No such file"):
        opened("csv", path=str(tmp_path / "none.csv")).__enter__()
    path = tmp_path / "meter.csv"
    path.write_text("time,watts\nx,y\n")
    with pytest.raises(MeterError, match="holds no line with a time and watts"):
        opened("csv", path=str(path)).__enter__()
    record(path, [0.0], [1.0])
    with pytest.raises(ConfigError, match="unknown column 'wats'; did you mean 'watts'"):
        opened("csv", path=str(path), rails="wats").__enter__()
    with pytest.raises(ConfigError, match="meter csv needs its option 'path'"):
        opened("csv").__enter__()


def test_a_replay_gives_what_was_recorded(tmp_path):
    path = tmp_path / "power.csv"
    times = np.arange(START_S, START_S + 4, 0.01)
    record(path, times.tolist(), [power_w(t) for t in times])
    with opened("replay", path=str(path)) as meter:
        found = meter.window(*WINDOW)
    assert found.energy_mj == pytest.approx(energy_mj(*WINDOW), rel=0.02)


def test_a_replay_from_its_opening_repeats(tmp_path):
    path = tmp_path / "power.csv"
    record(path, [7.0, 8.0, 8.0, 9.0], [2.0, 2.0, 4.0, 4.0])
    now_s = time.monotonic()
    with opened("replay", path=str(path), clock="opened") as meter:
        found = meter.window(now_s + 10, now_s + 20)
    assert found.energy_mj == pytest.approx(30_000, rel=0.02)


def test_times_are_numbers_or_iso_8601():
    assert recordings.seconds("12.5") == 12.5
    assert recordings.seconds("1970-01-01T00:00:10Z") == 10.0
    with pytest.raises(ValueError, match="never"):
        recordings.seconds("never")
