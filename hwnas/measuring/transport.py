"""A started worker as lines in and lines out: knows the connection, not the messages.

The command is what differs between connections. Nothing waits for ever: a worker that is silent,
stopped or gone raises DeviceError with how it ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from profilers import schema
from profilers.errors import ConfigError, DeviceError, LostDeviceError
from profilers.locking import POSIX
from profilers.schema import BEAT, HEARTBEAT_S, LINE_BYTES

SILENCE_S = 30.0  # six heartbeats; a board may be busy loading
LINE_S = 1800.0  # a line of LINE_BYTES at 600 bytes a second
CLOSE_S = 5.0  # what a worker gets to end by itself
READ_BYTES = 1 << 16
WORDS_BYTES = 1 << 16  # of the end of what a worker writes to its error output
POLL_S = 0.05  # while a worker ends
# A shell, and ssh, tell the signal that ended a command as exit status 128 + its number.
CRASHES = {getattr(signal, f"SIG{name}", None) for name in ("SEGV", "ABRT", "BUS", "ILL", "FPE")}
ENTRY = "import sys\nfrom profilers.__main__ import main\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same archive whenever it is made


class Connection:
    """A worker process and its pipes.

    Attributes:
        sent_bytes, received_bytes: so far.
        beating: whether the other end is told now and then that its host is alive; not before
            it is a worker, which takes that for a line.
    """

    def __init__(
        self,
        command: Sequence[str],
        silence_s: float = SILENCE_S,
        explain: Callable[[int, str], str] = lambda status, words: "",
    ) -> None:
        """Start the worker.

        Args:
            command: what starts it, not seen by any shell.
            silence_s: how long it may say nothing.
            explain: the reason in words where an exit status and error output are not those of
                the worker but of what leads to it; empty where they are.

        Raises:
            DeviceError: the command cannot be started.
        """
        need_pipes()
        self._silence_s, self._explain = silence_s, explain
        self.sent_bytes, self.received_bytes = 0, 0
        self.beating, self._beaten_s = True, time.monotonic()
        self._buffer = bytearray()
        self._words = b""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for this side, which then ends the worker
            )
        except OSError as error:
            raise DeviceError(f"worker cannot be started: {command[0]}: {error}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._stderr, self._talks = self._process.stderr, True
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stderr.fileno(), False)

    def send(self, line: bytes) -> None:
        """Send one line.

        Raises:
            DeviceError: it is too long.
            LostDeviceError: the worker does not take it.
        """
        if len(line) > LINE_BYTES:
            raise DeviceError(f"a line of {len(line)} bytes is too long for the worker")
        self.transfer(line)

    def transfer(self, data: bytes) -> None:
        """Send bytes that are no line: the worker itself, to a board that lacks it.

        Raises:
            LostDeviceError: nobody takes them.
        """
        rest, deadline = memoryview(data), time.monotonic() + self._silence_s
        while rest:
            if time.monotonic() > deadline:
                raise LostDeviceError(f"worker has read nothing for {self._silence_s:.0f} s")
            if self._stdin not in self._ready([], [self._stdin], deadline - time.monotonic()):
                continue
            try:
                count = os.write(self._stdin.fileno(), rest)
            except BlockingIOError:
                continue
            except OSError:
                raise LostDeviceError(self._how_it_ended()) from None
            rest, self.sent_bytes = rest[count:], self.sent_bytes + count
            deadline = time.monotonic() + self._silence_s

    def receive(self) -> bytes:
        """The next line. While it is waited for, the worker hears now and then that its host is
        alive.

        Raises:
            DeviceError: the line is too long.
            LostDeviceError: the worker ended or is silent.
        """
        scanned, begin_s = 0, time.monotonic()
        deadline = begin_s + self._silence_s
        while True:
            end = self._buffer.find(b"\n", scanned)
            if end >= 0:
                line = bytes(self._buffer[: end + 1])
                del self._buffer[: end + 1]
                return line
            scanned = len(self._buffer)
            if scanned > LINE_BYTES:
                raise DeviceError(f"worker sent a line longer than {LINE_BYTES} bytes")
            wait_s = deadline - time.monotonic()
            if wait_s <= 0:
                raise LostDeviceError(f"worker has been silent for {self._silence_s:.0f} s")
            if time.monotonic() - begin_s > LINE_S:
                raise LostDeviceError(f"worker has not finished a line for {LINE_S:.0f} s")
            if self._stdout not in self._ready([self._stdout], [], min(wait_s, HEARTBEAT_S)):
                self._beat()
                continue
            piece = os.read(self._stdout.fileno(), READ_BYTES)
            if not piece:
                raise LostDeviceError(self._how_it_ended())
            self._buffer += piece
            self.received_bytes += len(piece)
            deadline = time.monotonic() + self._silence_s  # a long line on a slow connection
            self._beat()

    def _ready(
        self, sources: Sequence[IO[bytes]], sinks: Sequence[IO[bytes]], wait_s: float
    ) -> list[IO[bytes]]:
        """Those of some pipes that can be read or written within a time. What the worker writes to
        its error output meanwhile is taken, so that it never waits for that; its end is kept.
        """
        words = [self._stderr] if self._talks else []
        readable, writable, _ = select.select([*sources, *words], sinks, [], max(wait_s, 0.0))
        if self._stderr in readable:
            with contextlib.suppress(BlockingIOError):
                piece = os.read(self._stderr.fileno(), READ_BYTES)
                self._talks = bool(piece)
                self._words = (self._words + piece)[-WORDS_BYTES:]
        return [*readable, *writable]

    def _ended(self, wait_s: float) -> int | None:
        """Exit status of the worker, if it ends within a time, after its last words."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            status = self._process.poll()
            heard = self._stderr in self._ready([], [], 0.0 if status is not None else POLL_S)
            if status is not None and not heard:
                return status
        return self._process.poll()

    def _beat(self) -> None:
        """Tell the worker that the host is alive, if it has not heard so for a while."""
        if self.beating and time.monotonic() - self._beaten_s >= HEARTBEAT_S:
            self.transfer(BEAT)
            self._beaten_s = time.monotonic()

    @property
    def crashed(self) -> bool:
        """Whether the worker ended as a program that fails does: by a signal of its own making, or
        with a traceback. Neither a kill nor a connection that was lost is a crash.
        """
        status = self._process.poll()
        if status is None:
            return False
        return status == 1 or -status in CRASHES or status - 128 in CRASHES

    def close(self) -> None:
        """End the worker: it goes when its input closes, and is killed if it does not."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        if self._ended(CLOSE_S) is None:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._stderr.close()

    def kill(self) -> None:
        """End a worker that cannot be trusted to end by itself."""
        self._process.kill()
        self.close()

    def _how_it_ended(self) -> str:
        status = self._ended(CLOSE_S)
        if status is None:
            return "worker closed its output"
        words = self._words.decode("utf-8", errors="replace")
        reason = self._explain(status, words)
        if reason:
            return reason
        lines = [line.strip() for line in words.split("\n") if line.strip()]
        reason = f"with exit status {status}" if status >= 0 else by_signal(-status)
        return f"worker ended {reason}" + (f"; its last line: {lines[-1]}" if lines else "")


def by_signal(number: int) -> str:
    """A signal that ended a process, in words, with what is often behind it."""
    known = {each.value: f" ({each.name})" for each in signal.Signals}
    hints = {
        "SIGKILL": ", which also ends a process when memory runs out",
        "SIGILL": ": it wants instructions that this processor lacks; install another version of "
        "the engine, or of numpy",
    }
    name = known.get(number, "")
    return f"by signal {number}{name}{hints.get(name.strip(' ()'), '')}"


def need_pipes() -> None:
    """Refuse systems on which a process's output cannot be waited for.

    Raises:
        DeviceError: this is one.
    """
    if not POSIX:
        raise DeviceError(
            "devices, this machine too, are driven from Linux and macOS only; search, front and "
            "report work here on files that were made there (on Windows, WSL runs everything)"
        )


def pack_worker(path: Path, plugins: Sequence[str] = ()) -> Path:
    """Write the worker as one file that Python runs; same sources, same bytes.

    Args:
        path: of the archive.
        plugins: Python files of the user's own that a target names; they lie at its root.

    Raises:
        ConfigError: a plug-in cannot be read, or two have one name.
    """
    package = Path(schema.__file__).parent
    files = {f"profilers/{p.relative_to(package).as_posix()}": p for p in package.rglob("*.py")}
    for plugin in map(Path, plugins):
        if files.setdefault(plugin.name, plugin) != plugin:
            raise ConfigError(
                f"plug-ins {files[plugin.name]} and {plugin} have one name; rename one of them"
            )
    try:
        content = {name: source.read_bytes() for name, source in files.items()}
    except OSError as error:
        raise ConfigError(f"plug-in {error.filename} cannot be read: {error.strerror}") from None
    content["__main__.py"] = ENTRY.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content[name])
    return path
