"""A worker on a board: the way there is OpenSSH, the worker is sent where the board lacks it.

One ssh command for each session: the board's Python reads a small program from its standard input
(profilers/bootstrap.py), which says whether the worker is in the board's cache, takes it if it is
not, and becomes its parent. Nothing is installed; the cache folder is named by the worker.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hwnas.measuring import openssh, replies, transport
from hwnas.measuring.openssh import Ssh
from hwnas.measuring.scratch import scratch
from hwnas.measuring.transport import Connection
from hwnas.settings import fakes
from profilers import protocol, schema
from profilers.errors import ConfigError, DeviceError
from profilers.schema import Target

COMES_BACK = True  # a board may be rebooting, a line may stand again
# Reads one line byte by byte, so that what follows it stays for the worker.
LOADER = "import sys;exec(eval(sys.stdin.buffer.raw.readline()))"
CLOCK_FROM = datetime(2024, 1, 1, tzinfo=timezone.utc)  # no board is older than this program


def queue(target: Target) -> str:
    """One queue for each board, whatever the device's name and engine."""
    way = _way(target)
    return f"{way.address} {way.config} {way.cache}"


def published(connection: Mapping[str, Any]) -> dict[str, Any]:
    """What may be published of a connection: not its address."""
    rest = {name: value for name, value in connection.items() if name != "ssh"}
    return {**rest, "kind": "ssh"}


def kept(target: Target) -> str:
    """The folder that worker and kit stay in."""
    way = _way(target)
    return f"{way.kept} on {way.address}"


def _way(target: Target) -> Ssh:
    way = openssh.of_target(target)
    if way is None:
        raise ConfigError(f"target {target.name}: connection lacks the address, ssh: user@host")
    return way


@contextlib.contextmanager
def open(target: Target) -> Iterator[Connection]:
    """A connection to a worker that runs on a board.

    Args:
        target: whose plug-ins go along.

    Raises:
        ConfigError: the way is not allowed, a plug-in cannot be read, or the cache folder cannot be
            written.
        LostDeviceError: the board cannot be reached, or was lost meanwhile.
        DeviceError: it is reached and no worker can run there, with the reason.
    """
    fakes.refuse(target)
    way, archive = _way(target), _archive(target)
    name = hashlib.sha256(archive).hexdigest()
    command = openssh.ssh_command(way.address, [way.python, "-u", "-c", LOADER], way.config)
    connection = Connection(
        command,
        explain=lambda status, words: (
            openssh.reason(way.address, words) if status == openssh.FAILED else ""
        ),
    )
    connection.beating = False
    try:
        connection.send(_program(way.cache, name, len(archive)))
        if _first_words(connection.receive(), way)["missing"]:
            connection.transfer(archive)
        connection.beating = True
    except BaseException:  # whatever it was: nobody is waited for
        connection.kill()
        raise
    yield connection


def _archive(target: Target) -> bytes:
    with scratch("worker") as folder:
        return transport.pack_worker(folder / "worker.pyz", target.plugins).read_bytes()


def _program(cache: str, name: str, size: int) -> bytes:
    """The line that the loader runs: the text of a text, so that no byte of it is a line's end."""
    source = Path(schema.__file__).with_name("bootstrap.py").read_text(encoding="utf-8")
    return ascii(f"{source}\n\nsys.exit(start({cache!r}, {name!r}, {size}))\n").encode() + b"\n"


def _first_words(line: bytes, way: Ssh) -> dict[str, Any]:
    """What the board said first, checked.

    Raises:
        HwnasError: it refuses to run a worker.
        DeviceError: what came is not from the bootstrap, or its clock is wrong.
    """
    found: dict[str, Any] = protocol.parse(line)
    if not protocol.REFUSAL(found):
        refusal = replies.error_from_fields(found)
        raise type(refusal)(f"{way.address}: {refusal}")
    if protocol.BOARD(found):
        raise DeviceError(
            f"{way.address} answers {line[:60]!r} instead of starting the worker; what its login "
            "shell prints must not reach standard output (see ~/.bashrc there)"
        )
    if not found["time_s"] >= CLOCK_FROM.timestamp():
        raise DeviceError(
            f"{way.address}: its clock is before {CLOCK_FROM:%Y-%m-%d}; set it there: "
            "sudo timedatectl set-ntp true"
        )
    return found
