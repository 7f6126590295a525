"""How commands end: a reader that is gone, full disks, signals; and what a killed one leaves."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from test_commands_measure import adder
from worker_kits import files_of, real_kit

from hwnas.measuring.scratch import scratch
from hwnas.run import folder as run_folder
from profilers import kitcache, locking, weights
from profilers.errors import DiskFullError
from profilers.schema import canonical_json, sha256_text

HWNAS = (sys.executable, "-m", "hwnas")
ROOT = Path(__file__).parent.parent
WAIT_S = 60.0
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def hwnas(*words, **streams):
    """A finished command; its output is text."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run([*HWNAS, *words], cwd=ROOT, text=True, check=False, **streams)


@pytest.mark.parametrize("words", [("space", "list"), ("doctor", "--json"), ("--help",)])
def test_a_reader_that_stops_reading_ends_a_command_quietly(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = hwnas(*words, stdout=writing)
    os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""


@FULL
@pytest.mark.parametrize("words", [("space", "list"), ("space", "list", "--json")])
def test_output_that_finds_no_room_is_a_full_disk(words):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = hwnas(*words, stdout=full)
    assert done.returncode == 4
    assert done.stderr.startswith("hwnas: disk full while writing standard output; ")
    assert len(done.stderr.splitlines()) == 1


@FULL
def test_an_error_that_cannot_be_printed_keeps_its_exit_code():
    with open("/dev/full", "w", encoding="ascii") as full:
        assert hwnas("train", "no.yaml", stderr=full).returncode == 2


def test_closed_output_is_no_error():
    command = f"exec {sys.executable} -m hwnas space list >&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# ---- full disks under a lock -------------------------------------------------------------------


class FullFile:
    """A file on a disk without room; locked and emptied it can be."""

    def __init__(self, handle):
        self._handle = handle

    def __getattr__(self, name):
        return getattr(self._handle, name)

    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def full_file(path, mode, **options):
    return FullFile(open(path, mode, **options))


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr(locking, "open", full_file, raising=False)


def test_a_lock_that_finds_no_room_is_a_full_disk_and_is_free_again(tmp_path, full_disk):
    with (
        pytest.raises(DiskFullError, match=r"disk full while writing .*\.lock; free"),
        run_folder.locked(tmp_path / "run"),
    ):
        pass
    cache = kitcache.KitCache(tmp_path / "cache", "pi")
    for _ in range(2):
        with pytest.raises(DiskFullError, match=r"disk full while writing .*/pi/lock; free"):
            cache.lock("a test")


# ---- signals -----------------------------------------------------------------------------------


SLOW = """
import time
from hwnas.fakes.runtimes import fake

class RUNTIME:
    clock, load = staticmethod(fake.clock), staticmethod(fake.load)

    @staticmethod
    def version():
        time.sleep(600)
"""
TARGET = "fake.slow:RUNTIME.fp32.b1.t1"


@pytest.fixture
def start(tmp_path):
    """Starts a command whose worker takes its time; returns the process, and the folder of its
    worker once it is there.
    """
    folder = tmp_path / "tmp"
    (tmp_path / "targets").mkdir()
    folder.mkdir()
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "targets" / f"{TARGET}.yaml").write_text(
        f"device: fake\nruntime: 'slow:RUNTIME'\nplugins: ['{tmp_path}/slow.py']\n"
    )
    adder(tmp_path / "m.onnx", [[1, 8]])
    running = []

    def begin():
        known = set(folder.iterdir())
        running.append(
            subprocess.Popen(
                [*HWNAS, "measure", "m.onnx", "--target", TARGET],
                cwd=tmp_path,
                env={**os.environ, "TMPDIR": str(folder)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and running[-1].poll() is None:
            found = [path.parent for path in folder.glob("hwnas-worker-*/worker.pyz")]
            if set(found) - known:
                return running[-1], (set(found) - known).pop()
            time.sleep(0.01)
        raise AssertionError("no worker was started")

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


def test_what_a_killed_command_left_the_next_one_removes_and_sigterm_leaves_nothing(start):
    first, left = start()
    first.kill()
    first.wait()
    assert left.is_dir()
    second, folder = start()
    assert not left.exists()
    second.terminate()
    _, words = second.communicate()
    assert second.returncode == 128 + signal.SIGTERM
    assert words.splitlines()[-1] == "hwnas: stopped; run the same command again to go on"
    assert not folder.exists()


def test_folders_in_use_or_of_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "hwnas-worker-abcdefgh").mkdir()
    (tmp_path / "hwnas-other").mkdir()
    with scratch("worker") as one, scratch("worker") as two:
        assert one.is_dir()
        assert two.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "hwnas-other",
        "hwnas-worker-abcdefgh",
    ]


def test_weights_that_a_killed_worker_was_making_are_removed(tmp_path, monkeypatch):
    """A worker that is killed leaves all that it wrote; the exception stands in for the kill."""
    kit = real_kit(tmp_path / "kit")
    cache = kitcache.KitCache(tmp_path / "cache", "pi")
    kit_hash = sha256_text(canonical_json(kit))
    put_all(cache, kit, kit_hash, tmp_path / "kit")
    (folder,) = cache.root.glob(f"devices/pi/kits/{kit_hash}")
    with monkeypatch.context() as patch:
        patch.setattr(weights.os, "fsync", killed)
        patch.setattr(weights.os, "unlink", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            cache.open(kit_hash)
    assert list(folder.glob(".weights.bin.*"))
    (folder / ".profile-abcdefgh").mkdir()
    (folder / ".profile-abcdefgh" / "profile_2026-01-01.json").write_text("[")
    cache.open(kit_hash)
    assert list(folder.glob(".*")) == []
    assert (folder / "weights.bin").is_file()


def put_all(cache, kit, kit_hash, folder):
    """Every file of a kit, as a host sends it."""
    for sha256, data in {
        kit_hash: canonical_json(kit).encode(),
        **{sha256: path.read_bytes() for sha256, path in files_of(kit, folder).items()},
    }.items():
        cache.put(sha256, 0, len(data), data)
    assert cache.missing(kit_hash) == []


def killed(descriptor):
    raise KeyboardInterrupt
