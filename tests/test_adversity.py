"""Campaigns when the host fails them: full disks, clocks that step, rounds that came twice."""

import ast
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from campaigns import World, simulate
from worker_kits import connect, fake_kit, fake_target

from hwnas.measuring import campaign
from hwnas.measuring import kit as kits
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.tables import observations
from profilers import schema
from profilers.errors import DiskFullError
from profilers.schema import append_lines, read_lines

ROOT = Path(__file__).parent.parent
# They tell the date, or align a clock that is not ours.
WALL_CLOCK = {"bootstrap.py", "survey.py", "csv.py"}
FEW = ProfileConfig(budget_s=600, rounds=5, seed=1)


def run(folder):
    return campaign.run_campaign(
        fake_target(), folder / "kit", folder / "out.jsonl", FEW, lambda *_: None, connect
    )


# ---- full disks --------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [0, 1, 3])
def test_a_disk_that_fills_up_ends_the_campaign_and_the_same_command_goes_on(
    tmp_path, monkeypatch, writes
):
    fake_kit(tmp_path / "kit")
    left = [writes]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(schema.os, "fsync", full)
        with pytest.raises(DiskFullError, match=r"out\.jsonl; free some space and run this again"):
            run(tmp_path)
    assert DiskFullError.exit_code == 4
    result = run(tmp_path)
    assert result.stable
    assert result.good == {"a": 5, "b": 5}


WRITER = """
import resource, sys
from pathlib import Path
from profilers.errors import DiskFullError
from profilers.schema import append_lines
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for number in range(100):
        append_lines(Path(sys.argv[1]), [{"number": number, "text": "x" * 50}])
except DiskFullError:
    sys.exit(4)
"""


def test_a_line_cut_by_a_limit_on_file_size_costs_only_itself(tmp_path):
    path = tmp_path / "out.jsonl"
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, check=False)
    assert done.returncode == 4
    assert path.stat().st_size == 1000
    whole, broken = read_lines(path)
    assert [record["number"] for record in whole] == list(range(len(whole)))
    assert broken == [len(whole) + 1]
    append_lines(path, [{"number": -1}])
    assert read_lines(path) == ([*whole, {"number": -1}], broken)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_device_without_space_is_a_full_disk():
    with pytest.raises(DiskFullError):
        append_lines(Path("/dev/full"), [{"a": 1}])


# ---- clocks that step --------------------------------------------------------------------------


def test_a_wall_clock_that_runs_backwards_changes_nothing(tmp_path, monkeypatch):
    fake_kit(tmp_path / "kit")
    now = [4e9]

    def backwards():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    assert run(tmp_path).stable


@pytest.mark.parametrize("folder", ["profilers", "hwnas"])
def test_no_duration_is_taken_from_the_wall_clock(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if path.name not in WALL_CLOCK:
            assert "time.time" not in {
                ast.unparse(n) for n in nodes if isinstance(n, ast.Attribute)
            }


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A kit of `tiny` and the records of a campaign of it."""
    folder = tmp_path_factory.mktemp("kit")
    space = spaces.load("tiny").restricted([8])
    kit = kits.make_kit(space, folder / "kit", 1, ProfileConfig(heldout=30)).kit
    return kit, simulate(kit, World(rounds=6))[1]


def test_a_device_whose_clock_starts_again_gives_the_same_numbers(measured):
    """A reboot: monotonic time begins anew, and times are no part of any statistic."""
    kit, found = measured
    rebooted = [{**record, "t_s": 1e6 - record["t_s"]} for record in found]
    one, other = (observations.observe(kit, records) for records in (found, rebooted))
    assert one.fitted.latency_ms.tolist() == other.fitted.latency_ms.tolist()
    assert one.again_ms.tolist() == other.again_ms.tolist()


# ---- rounds that came twice --------------------------------------------------------------------


def test_rounds_that_came_twice_count_once(tmp_path):
    fake_kit(tmp_path / "kit")
    first = run(tmp_path)
    header, *lines = first.path.read_text().splitlines()
    first.path.write_text("\n".join([header, *lines, *lines]) + "\n")
    again = run(tmp_path)
    assert again.good == first.good
    assert again.device_s == 0
