"""How long a device is waited for: one that was lost may come back, one that is in use gets free.

A lost line is tried again after growing pauses, because a board may be rebooting, each time for as
long as the settings say. What was measured is in the log, so nothing is lost but the round that was
cut. A worker on this machine that ends is no lost line: it is reported at once; one whose device
failed is followed by another one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NoReturn, TypeVar

from hwnas.measuring import client, connections
from hwnas.measuring.client import RemoteWorker
from hwnas.settings.config import ProfileConfig
from profilers.errors import (
    DeviceBusyError,
    DeviceError,
    DeviceFaultError,
    EngineCrashError,
    LostDeviceError,
)
from profilers.schema import Target

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
BUSY_PAUSE_S = 1.0
ENDING_S = 12.0  # a worker whose host was killed may take so long to end (channel.GRACE_S)
NEVER_SEEN_S = 10.0  # for a device that has not answered yet: more likely it is not there at all
AGAIN = "run the same command again to go on"
IN_VAIN = 4  # times a worker may be lost without a round in between: it is not the line then

Connect = Callable[[Target, str], AbstractContextManager[RemoteWorker]]
Found = TypeVar("Found")


class Retry:
    """How long a device is waited for each time it is lost or in use, during a piece of work."""

    def __init__(
        self,
        target: Target,
        settings: ProfileConfig,
        tell: Callable[[str], None] = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """All of it.

        Args:
            target: the device; only one that is reached over SSH is waited for when it is lost.
            settings: reconnect_s and wait_s, seconds.
            tell: called with what is waited for.
            sleep, now_s: the clock.
        """
        self._lost_s = settings.reconnect_s if connections.of(target).COMES_BACK else 0.0
        self._busy_s = self._busy_left_s = max(settings.wait_s, ENDING_S)
        self._tell, self._sleep, self._now_s = tell, sleep, now_s
        self._since_s: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._in_vain, self._done, self._seen = 0, 0, False

    def connecting(self, connect: Connect) -> Connect:
        """`connect` that tries again."""

        @contextlib.contextmanager
        def start(target: Target, purpose: str) -> Iterator[RemoteWorker]:
            with contextlib.ExitStack() as stack:
                yield self._connected(stack, connect, target, purpose)

        return start

    def through(
        self,
        connect: Connect,
        target: Target,
        purpose: str,
        work: Callable[[RemoteWorker], Found],
        done: Callable[[], int] = lambda: 0,
    ) -> Found:
        """What some work gives, which is done again where the device was lost.

        Args:
            connect: starts a worker, as `connecting` returns it.
            target, purpose: for it.
            work: goes on where it stopped, if it can.
            done: how much of the work is done.
        """
        while True:
            try:
                with connect(target, purpose) as worker:
                    return work(worker)
            except LostDeviceError as error:
                self.lost(error, done())
            except EngineCrashError as error:
                if error.code != DeviceFaultError.__name__:
                    raise
                self.lost(DeviceFaultError(str(error)), done())

    def lost(self, error: LostDeviceError, done: int) -> None:
        """Wait before the work goes on with another worker.

        Args:
            error: how the worker was lost.
            done: how much of the work is done, in any unit that grows.

        Raises:
            LostDeviceError: that was too often without anything done in between, or waiting ended.
        """
        self._in_vain = self._in_vain + 1 if done == self._done else 1
        self._done = done
        if self._in_vain >= IN_VAIN:
            self._give_up(error)
        if not isinstance(error, DeviceFaultError):  # another worker is all that it needs
            self._wait_for_line(error)

    def _connected(
        self, stack: contextlib.ExitStack, connect: Connect, target: Target, purpose: str
    ) -> RemoteWorker:
        while True:
            try:
                worker = stack.enter_context(connect(target, purpose))
            except LostDeviceError as error:
                self._wait_for_line(error)
            except DeviceBusyError as error:
                self._wait_for_turn(error)
            else:
                self._since_s, self._pause_s, self._seen = None, FIRST_PAUSE_S, True
                self._busy_left_s = self._busy_s
                return worker

    def _wait_for_line(self, error: LostDeviceError) -> None:
        now_s = self._now_s()
        self._since_s = now_s if self._since_s is None else self._since_s
        whole_s = self._lost_s if self._seen else min(self._lost_s, NEVER_SEEN_S)
        left_s = whole_s - (now_s - self._since_s)
        if left_s < self._pause_s:
            self._give_up(error)
        self._tell(f"{error}; trying again for {left_s:.0f} s")
        self._sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _wait_for_turn(self, error: DeviceBusyError) -> None:
        """Another campaign's end, or that of our own worker, at the other end of a line that was
        cut.
        """
        if self._since_s is not None and self._lost_s > self._now_s() - self._since_s:
            self._tell(f"{error}; it may be the worker that was lost")
        elif self._busy_left_s < BUSY_PAUSE_S:
            raise error
        else:
            self._busy_left_s -= BUSY_PAUSE_S
            self._tell(f"{error}; waiting for {self._busy_left_s:.0f} s more")
        self._sleep(BUSY_PAUSE_S)

    def _give_up(self, error: DeviceError) -> NoReturn:
        text = str(error)
        raise LostDeviceError(text if text.endswith(AGAIN) else f"{text}; {AGAIN}") from None


def persistently(
    target: Target,
    purpose: str,
    work: Callable[[RemoteWorker], Found],
    settings: ProfileConfig | None = None,
    done: Callable[[], int] = lambda: 0,
) -> Found:
    """What some work on a device gives, which is done again where the device was lost.

    Args:
        target, purpose: as of `client.connect`.
        work: goes on where it stopped, if it can.
        settings: reconnect_s and wait_s; the defaults if None.
        done: how much of the work is done.

    Raises:
        LostDeviceError: waiting ended.
    """
    retry = Retry(target, settings or ProfileConfig())
    return retry.through(retry.connecting(client.connect), target, purpose, work, done)
