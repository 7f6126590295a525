"""Processes of this machine that measure subnets, each one network at a time.

Each maps the same file of weights and images, so that memory holds them once. A process that ends
while it measures a network, for example where memory runs out, is replaced by a new one, which
measures that network again. Processes end with the one that started them, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from hwnas.measuring.scratch import scratch
from hwnas.measuring.transport import by_signal
from hwnas.networks.space import Architecture
from hwnas.supernet.evaluation import Evaluator, Tally, unpacked
from profilers.errors import DeviceError, HwnasError
from profilers.schema import write_atomic

TRIES = 2  # processes that may end while they measure a network


@contextlib.contextmanager
def processes(evaluator: Evaluator, most: int, threads: int) -> Iterator[Processes]:
    """Processes that measure subnets; they are there from the first network on, and end with the
    context.

    Args:
        evaluator: supernet and images.
        most: how many processes.
        threads: of each.
    """
    with scratch("evaluator") as folder:
        found = Processes(evaluator, folder / "evaluator.pt", most, threads)
        try:
            yield found
        finally:
            found.close()


@dataclass(eq=False)
class _Worker:
    """A process, the line to it, and what it measures."""

    process: SpawnProcess
    line: connection.Connection
    task: tuple[Architecture, Tally] | None = None


class Processes:
    """A `Farm` of processes; see `processes`."""

    def __init__(self, evaluator: Evaluator, packed: Path, most: int, threads: int) -> None:
        self._evaluator, self._packed = evaluator, packed
        self._most, self._threads = most, threads
        self._workers: dict[int, _Worker] = {}
        self._ended = Counter[Architecture]()

    @property
    def room(self) -> bool:
        """As of `Farm`."""
        return len(self._busy()) < self._most

    def send(self, arch: Architecture, tally: Tally) -> None:
        """As of `Farm`."""
        number = next(n for n in range(self._most) if n not in self._busy())
        idle = self._workers.get(number)
        if idle is not None and not idle.process.is_alive():
            self._end(number)  # for reasons that are not this network's
        worker = self._workers.get(number) or self._start(number)
        worker.task = arch, tally
        with contextlib.suppress(OSError):  # it just ended, as `receive` will see
            worker.line.send((arch.to_json(), str(tally.path), tally.key))

    def receive(self) -> tuple[Architecture, float]:
        """As of `Farm`.

        Raises:
            HwnasError: as of `Evaluator.measure`.
        """
        while True:
            number, worker = next(self._ready())
            assert worker.task is not None  # it is busy
            try:
                answer = worker.line.recv()
            except (EOFError, OSError):
                self._again(number, *worker.task)
                continue
            arch, worker.task = worker.task[0], None
            if isinstance(answer, HwnasError):
                raise answer
            return arch, float(answer)

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.process.kill()
        for number in list(self._workers):
            self._end(number)

    def _busy(self) -> dict[int, _Worker]:
        return {n: worker for n, worker in self._workers.items() if worker.task}

    def _ready(self) -> Iterator[tuple[int, _Worker]]:
        """Busy workers that have something to say, or ended; waits until there is one."""
        busy = self._busy()
        said = connection.wait([worker.line for worker in busy.values()])
        return ((n, worker) for n, worker in busy.items() if worker.line in said)

    def _start(self, number: int) -> _Worker:
        if not self._packed.exists():
            write_atomic(self._packed, self._evaluator.packed())
        ours, theirs = get_context("spawn").Pipe()
        given = (theirs, self._packed, self._threads, number)
        process = get_context("spawn").Process(target=_serve, args=given, daemon=True)
        with _deaf():
            process.start()
            self._workers[number] = _Worker(process, ours)
        theirs.close()
        return self._workers[number]

    def _end(self, number: int) -> int:
        """Wait for a worker's end; its exit code, as of `Process`."""
        worker = self._workers.pop(number)
        worker.line.close()
        worker.process.join()
        code = worker.process.exitcode
        worker.process.close()
        return code or 0

    def _again(self, number: int, arch: Architecture, tally: Tally) -> None:
        """Have a network measured again whose worker ended.

        Raises:
            DeviceError: that was not the first one.
        """
        code = self._end(number)
        self._ended[arch] += 1
        if self._ended[arch] == TRIES:
            reason = f"with exit status {code}" if code >= 0 else by_signal(-code)
            raise DeviceError(
                f"network {arch.id} was not measured: {TRIES} processes ended while they measured "
                f"it, the last {reason}; lower accuracy.workers where memory is short, then run "
                "the same command again to go on"
            )
        self.send(arch, tally)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C, which is for this one."""
    resource_tracker.ensure_running()  # starting it would end the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(line: connection.Connection, packed: Path, threads: int, number: int) -> None:
    """Measure what comes along the line, until it is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["LOCAL_RANK"] = str(number)  # GPUs take turns
    torch.set_num_threads(threads)
    evaluator = unpacked(packed)
    with contextlib.suppress(EOFError):
        while True:
            arch, path, key = line.recv()
            try:
                tally = Tally(Path(path), key)
                line.send(evaluator.measure(evaluator.supernet.space.from_json(arch), tally))
            except HwnasError as error:
                line.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
