"""How long a device is waited for: anew each time it is lost, on a clock of the test's own."""

import contextlib
import queue
import sys
import threading
from types import SimpleNamespace

import pytest

from hwnas.measuring import transport
from hwnas.measuring.retry import IN_VAIN, Retry
from hwnas.settings.config import ProfileConfig
from profilers import channel
from profilers.errors import (
    DeviceBusyError,
    DeviceFaultError,
    EngineCrashError,
    LostDeviceError,
)
from profilers.schema import BEAT, Target

BOARD = Target("pi", "fake", connection={"ssh": "pi@board"})
HERE = Target("fake", "fake")


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def sleep(self, seconds):
        self.now_s += seconds


class Board:
    """A board that answers while its clock is outside every outage."""

    def __init__(self, clock, outages, error):
        self.clock, self.outages, self.error = clock, outages, error

    @contextlib.contextmanager
    def connect(self, target, purpose):
        if any(start <= self.clock.now_s < stop for start, stop in self.outages):
            raise self.error
        yield self


def retrying(target, clock, **settings):
    chosen = ProfileConfig(**settings)
    return Retry(target, chosen, sleep=clock.sleep, now_s=lambda: clock.now_s)


def rounds(waiting, clock, board, number, round_s=50.0):
    """Rounds of a campaign, each of which notices an outage when it begins."""
    done = []

    def work(worker):
        while len(done) < number:
            if any(start <= clock.now_s < stop for start, stop in board.outages):
                raise board.error
            clock.sleep(round_s)
            done.append(clock.now_s)
        return len(done)

    connect = waiting.connecting(board.connect)
    return waiting.through(connect, BOARD, "", work, lambda: len(done))


def test_each_outage_is_waited_for_as_long_as_the_settings_say():
    clock = Clock()
    outages = [(start, start + 80) for start in range(100, 1000, 150)]
    board = Board(clock, outages, LostDeviceError("the line was cut"))
    assert rounds(retrying(BOARD, clock, reconnect_s=100), clock, board, 20) == 20
    clock = Clock()
    board = Board(clock, [(100, 100 + 140)], LostDeviceError("the line was cut"))
    with pytest.raises(LostDeviceError, match=r"run the same command again to go on$"):
        rounds(retrying(BOARD, clock, reconnect_s=100), clock, board, 20)


def test_each_turn_is_waited_for_as_long_as_the_settings_say():
    clock = Clock()
    board = Board(clock, [(0, 50), (100, 150), (200, 250)], DeviceBusyError("in use"))
    waiting = retrying(HERE, clock, wait_s=60)
    start = waiting.connecting(board.connect)
    for _ in range(3):
        with start(HERE, ""):
            clock.sleep(50)
    clock.now_s, board.outages = 1000.0, [(1000, 1070)]
    with pytest.raises(DeviceBusyError), start(HERE, ""):
        pass


@pytest.mark.parametrize("error", [
    DeviceFaultError("CUDA error 700"),
    EngineCrashError("CUDA error 700; busy", "m", code="DeviceFaultError"),
])  # fmt: skip
def test_a_device_that_failed_gets_another_worker_at_once_and_not_for_ever(error):
    clock, tries = Clock(), []

    def work(worker):
        tries.append(0)
        if len(tries) < IN_VAIN:
            raise error
        return "done"

    board = Board(clock, [], None)
    assert retrying(HERE, clock).through(board.connect, HERE, "", work) == "done"
    assert clock.now_s == 0
    with pytest.raises(LostDeviceError, match="CUDA error 700"):
        retrying(HERE, clock).through(board.connect, HERE, "", lambda worker: fail(error))


def fail(error):
    raise error


# ---- bytes that arrive are a sign of life ------------------------------------------------------


def test_a_long_line_on_a_slow_connection_is_no_silence(monkeypatch):
    now_s = [0.0]

    def ticking():
        now_s[0] += 1.0
        return now_s[0]

    source = "print('x' * 1_000_000, flush=True); input()"
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=ticking))
    connection = transport.Connection([sys.executable, "-c", source], silence_s=20.0)
    connection.beating = False
    try:
        assert len(connection.receive()) == 1_000_001
        assert now_s[0] > 2 * 20.0
    finally:
        connection.kill()


class Trickle:
    """An input that gives the pieces of the test; `give` returns when one was taken."""

    def __init__(self):
        self._pieces, self._asked = queue.Queue(), threading.Semaphore(0)

    def read1(self, size):
        self._asked.release()
        return self._pieces.get()

    def give(self, piece):
        self._asked.acquire()
        self._pieces.put(piece)
        self._asked.acquire()
        self._asked.release()


class Harmless(channel.Channel):
    """A channel whose threads, which outlive a test, never end the process."""

    def _end(self):
        self.host_gone.set()


def test_the_worker_does_not_take_a_long_line_for_a_host_that_is_gone(monkeypatch):
    now_s = [1.0]
    monkeypatch.setattr(channel, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    source = Trickle()
    here = Harmless(source, SimpleNamespace(write=len, flush=lambda: None), 0.01)
    source.give(BEAT)
    for piece in (b'{"type": "probe",', b' "seq"', b": 1", b"}"):
        now_s[0] += 50.0
        source.give(piece)
        assert not here.host_gone.wait(0.05)
    source.give(b"\n" + BEAT[:5])
    assert here.receive() == {"type": "probe", "seq": 1}
    now_s[0] += 61.0
    assert here.host_gone.wait(60)


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_a_line_that_is_too_long_is_refused(ending):
    source = Trickle()
    here = Harmless(source, SimpleNamespace(write=len, flush=lambda: None), 1.0)
    for _ in range(16):
        source.give(b"x" * (1 << 16))
    threading.Thread(target=source.give, args=(b"x" + ending,), daemon=True).start()
    with pytest.raises(channel.FileFormatError, match="longer than"):
        here.receive()
    if not ending:
        assert here.host_gone.wait(60)
