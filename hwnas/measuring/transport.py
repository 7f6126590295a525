"""A started worker as lines in and lines out: how it is reached, never what is said.

The command is what differs between connections; on this machine it is an isolated Python that can
import numpy and the engine and nothing else of what is installed here. Nothing waits for ever:
a worker that is silent, stopped or gone raises DeviceError with how it ended.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from profilers import schema
from profilers.errors import ConfigError, DeviceError
from profilers.schema import LINE_BYTES, Target

SILENCE_S = 30.0  # six heartbeats; a board may be busy loading
CLOSE_S = 5.0  # what a worker gets to end by itself
READ_BYTES = 1 << 16
PACKAGES = ("numpy", "onnxruntime")  # and the folder `<name>.libs` of its wheel, where there is one
ENTRY = "import sys\nfrom profilers.__main__ import main\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same archive whenever it is made


class Connection:
    """A worker process and its pipes."""

    def __init__(self, command: Sequence[str], silence_s: float = SILENCE_S) -> None:
        """Start the worker.

        Args:
            command: what starts it, not seen by any shell.
            silence_s: how long it may say nothing.

        Raises:
            DeviceError: the command cannot be started.
        """
        self._silence_s = silence_s
        self._buffer = bytearray()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the connection
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                start_new_session=True,  # Ctrl-C is for this side, which then ends the worker
            )
        except OSError as error:
            self._words.close()
            raise DeviceError(f"worker cannot be started: {command[0]}: {error}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)

    def send(self, line: bytes) -> None:
        """Send one line.

        Raises:
            DeviceError: it is too long, or the worker does not take it.
        """
        if len(line) > LINE_BYTES:
            raise DeviceError(f"a line of {len(line)} bytes is too long for the worker")
        rest, descriptor = memoryview(line), self._stdin.fileno()
        while rest:
            if not select.select([], [descriptor], [], self._silence_s)[1]:
                raise DeviceError(f"worker has read nothing for {self._silence_s:.0f} s")
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                continue
            except OSError:
                raise DeviceError(self._how_it_ended()) from None

    def receive(self) -> bytes:
        """The next line.

        Raises:
            DeviceError: the worker ended, is silent, or the line is too long.
        """
        scanned, deadline = 0, time.monotonic() + self._silence_s
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
            if wait_s <= 0 or not select.select([self._stdout], [], [], wait_s)[0]:
                raise DeviceError(f"worker has been silent for {self._silence_s:.0f} s")
            piece = os.read(self._stdout.fileno(), READ_BYTES)
            if not piece:
                raise DeviceError(self._how_it_ended())
            self._buffer += piece

    def close(self) -> None:
        """End the worker: it goes when its input closes, and is killed if it does not."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._words.close()

    def kill(self) -> None:
        """End a worker that cannot be trusted to end by itself."""
        self._process.kill()
        self.close()

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            return "worker closed its output"
        reason = f"with exit status {status}"
        if status < 0:
            reason = f"by signal {-status} ({signal.Signals(-status).name})"
            if -status == signal.SIGKILL:
                reason += ", which also ends a process when memory runs out"
        words = self._last_words()
        return f"worker ended {reason}" + (f"; its last words: {words}" if words else "")

    def _last_words(self) -> str:
        self._words.seek(0, os.SEEK_END)
        self._words.seek(max(self._words.tell() - 2000, 0))
        lines = self._words.read().decode("utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def pack_worker(path: Path, plugins: Sequence[str] = ()) -> Path:
    """Write the worker as one file that Python runs; same sources, same bytes.

    Args:
        path: of the archive.
        plugins: Python files of the user's own that a target names; they lie at its root.

    Raises:
        ConfigError: a plug-in cannot be read.
    """
    package = Path(schema.__file__).parent
    files = {f"profilers/{p.relative_to(package).as_posix()}": p for p in package.rglob("*.py")}
    files.update({Path(plugin).name: Path(plugin) for plugin in plugins})
    try:
        content = {name: source.read_bytes() for name, source in files.items()}
    except OSError as error:
        raise ConfigError(f"plug-in {error.filename} cannot be read: {error.strerror}") from None
    content["__main__.py"] = ENTRY.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content[name])
    return path


def local_command(target: Target, folder: Path) -> list[str]:
    """The command of a worker on this machine.

    It imports from a folder of links to the packages an engine needs, so that what is measured
    cannot depend on what else is installed, and the host's own packages cannot slip in.

    Args:
        target: whose plug-ins go along.
        folder: empty, kept until the worker ends.
    """
    packages = folder / "packages"
    packages.mkdir()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for source in (Path(place), Path(place).with_name(f"{name}.libs")):
                if source.is_dir():
                    (packages / source.name).symlink_to(source.resolve())
    archive = pack_worker(folder / "worker.pyz", target.plugins)
    isolated = [sys.executable, "-I", "-S", "-B", str(archive)]
    return [*isolated, "serve", "--packages", str(packages)]
