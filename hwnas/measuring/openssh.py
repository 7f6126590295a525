"""OpenSSH as the user configured it: commands that reach a board, and ssh's reason when it is not.

Keys, agents, jump hosts and known hosts are those of the user's own ssh configuration. Nothing here
relaxes the check of host keys, and nothing reaches a shell unquoted: the local side starts ssh
without a shell, the remote side gets words quoted by `shlex`.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from hwnas.measuring.transport import need_pipes
from profilers.errors import ConfigError, DeviceError
from profilers.schema import Target

CONNECT_S = 10  # for the line to stand; ssh's ConnectTimeout
ALIVE_S, ALIVE_COUNT = 5, 6  # a line that is dead for 30 s is given up by ssh itself
FAILED = 255  # exit status with which ssh reports trouble of its own
OUTPUT_BYTES = 4 << 20  # of a command; a board that sends more is not trusted
READ_BYTES = 1 << 16
PYTHON, CACHE = "python3", "~/.cache"  # on the board, where nothing else is said

_USER = r"[A-Za-z0-9._][A-Za-z0-9._+-]{0,63}"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?"
_HOST = rf"(?:{_NAME}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]{{1,60}}(?:%[A-Za-z0-9._-]{{1,15}})?)"
_PLAIN = re.compile(rf"(?:{_USER}@)?{_HOST}")
_URI = re.compile(rf"ssh://(?:{_USER}@)?(?:{_NAME}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_PATH = re.compile(r"[^\x00-\x1f\x7f]{1,1024}")
_KEYS = ("address", "config", "python", "cache")

HINTS = (  # what ssh says, and what to do about it; the first that is found counts
    (
        "HOST IDENTIFICATION HAS CHANGED",
        "the host key is not the known one; if the board was set up anew, remove the old key with "
        "`ssh-keygen -R HOST` and connect once by hand to check the new one",
    ),
    ("Host key verification failed", "connect once by hand with `ssh {address}` and check its key"),
    (
        "Permission denied",
        "let the board know your key with `ssh-copy-id {address}`, or name the user",
    ),
    ("Could not resolve hostname", "check the name, or use the board's IP address"),
    ("Connection refused", "check that the board runs an SSH server on this port"),
    ("No route to host", "check that the board is on and on this network"),
    ("timed out", "check that the board is on and on this network"),
    ("Bad configuration option", "correct the ssh configuration"),
)


@dataclass(frozen=True)
class Ssh:
    """How a board is reached, from `connection: {ssh: …}` of its target file.

    Attributes:
        address: `user@host`, a Host of the ssh configuration, or `ssh://user@host:port`.
        config: ssh configuration to use instead of the user's; empty: the user's.
        python: command of the board's Python, one word.
        cache: folder on the board in which worker and kits have one of their own; empty:
            `~/.cache`.
    """

    address: str
    config: str = ""
    python: str = PYTHON
    cache: str = ""

    @property
    def kept(self) -> str:
        """Folder on the board that is ours (profilers/bootstrap.py)."""
        return f"{(self.cache or CACHE).rstrip('/')}/hwnas-worker"


def of_target(target: Target) -> Ssh | None:
    """How a target is reached over SSH; None where it is not.

    Raises:
        ConfigError: its connection says something that is not allowed.
    """
    if "ssh" not in target.connection:
        return None
    try:
        return parse(target.connection["ssh"])
    except ConfigError as error:
        raise ConfigError(f"target {target.name}: connection: {error}") from None


def parse(given: Any) -> Ssh:
    """The value of `ssh:`, an address or keys and values, checked.

    Raises:
        ConfigError: a key is unknown, or a value is not allowed.
    """
    if isinstance(given, str):
        return Ssh(check_address(given))
    if not isinstance(given, Mapping) or "address" not in given:
        raise ConfigError(f"ssh {given!r} is neither an address nor {{address: user@host, …}}")
    unknown = sorted(str(key) for key in given if key not in _KEYS)
    if unknown:
        raise ConfigError(f"ssh has unknown key {unknown[0]!r} (known: {', '.join(_KEYS)})")
    for key in _KEYS[1:]:
        value = given.get(key, "x")
        if not isinstance(value, str) or not _PATH.fullmatch(value) or value.startswith("-"):
            raise ConfigError(
                f"ssh.{key} {value!r} must be a path without control characters that does not "
                "start with '-'"
            )
    check_address(given["address"])
    return Ssh(**given)


def check_address(address: Any) -> str:
    """An address itself, if ssh can only read it as one.

    Raises:
        ConfigError: it could be read as an option or by a shell, or is no address.
    """
    known = isinstance(address, str) and (_PLAIN.fullmatch(address) or _URI.fullmatch(address))
    if not known:
        raise ConfigError(
            f"address {str(address)[:80]!r} is not allowed; write user@host, a Host of your ssh "
            "configuration, or ssh://user@host:port (letters, digits, '.', '_', '-'; no leading "
            "'-')"
        )
    return str(address)


def ssh_command(address: str, argv: Sequence[str], config: str = "") -> list[str]:
    """The command, for no shell, that runs words on a board.

    Args:
        address: of the board.
        argv: words to run there; each reaches the remote program as it is.
        config: ssh configuration instead of the user's.

    Raises:
        ConfigError: the address or the command is not allowed.
        DeviceError: there is no OpenSSH client here.
    """
    check_address(address)
    if not argv or argv[0].startswith("-"):  # ssh reads options behind the address as well
        raise ConfigError(f"command {list(argv[:1])} on {address} must not start with '-'")
    program = shutil.which("ssh")
    if program is None:
        raise DeviceError("no `ssh` here; install it, for example: apt-get install openssh-client")
    options = ["BatchMode=yes", f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={ALIVE_S}"]
    options += [f"ServerAliveCountMax={ALIVE_COUNT}", "ForwardAgent=no", "ForwardX11=no"]
    named = ["-F", os.path.expanduser(config)] if config else []
    given = [part for option in options for part in ("-o", option)]
    return [program, "-T", *named, *given, "--", address, shlex.join(argv)]


def run_remote(
    address: str,
    argv: Sequence[str],
    config: str = "",
    given: bytes = b"",
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command on a board; its result, whatever its exit status.

    Args:
        address, argv, config: as of `ssh_command`.
        given: their standard input.
        timeout_s: for all of it.

    Raises:
        ConfigError: the address is not allowed.
        DeviceError: the board cannot be reached (with ssh's reason and what to do), takes longer
            than timeout_s, or sends more than OUTPUT_BYTES.
    """
    need_pipes()
    command = ssh_command(address, argv, config)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = _communicate(process, given, timeout_s)
            status = process.wait(timeout_s)
        except (DeviceError, subprocess.TimeoutExpired) as error:
            process.kill()
            what = error if isinstance(error, DeviceError) else f"did not end in {timeout_s:.0f} s"
            raise DeviceError(f"{address}: {what}") from None
    if status == FAILED:
        raise DeviceError(reason(address, err.decode("utf-8", errors="replace")))
    return subprocess.CompletedProcess(command, status, out, err)


def _communicate(
    process: subprocess.Popen[bytes], given: bytes, timeout_s: float
) -> tuple[bytes, bytes]:
    """Output and error output of a process, within time and size."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline, rest = time.monotonic() + timeout_s, memoryview(given)
    out: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        for stream in out:
            selector.register(stream, selectors.EVENT_READ)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while any(stream in (key.fileobj for key in selector.get_map().values()) for stream in out):
            if time.monotonic() > deadline:
                raise DeviceError(f"has not ended after {timeout_s:.0f} s; is it stuck?")
            for key, _ in selector.select(0.5):
                if key.fileobj is process.stdin:
                    rest = _write(process.stdin, rest)
                    if not rest:
                        selector.unregister(process.stdin)
                        with contextlib.suppress(OSError):
                            process.stdin.close()
                    continue
                stream = next(known for known in out if known is key.fileobj)
                piece = os.read(stream.fileno(), READ_BYTES)
                out[stream] += piece
                if not piece:
                    selector.unregister(stream)
                if len(out[stream]) > OUTPUT_BYTES:
                    raise DeviceError(f"sent more than {OUTPUT_BYTES} bytes; not trusted")
    return bytes(out[process.stdout]), bytes(out[process.stderr])


def _write(stream: IO[bytes], rest: memoryview) -> memoryview:
    """What is left after writing some; nothing where nobody reads any more."""
    try:
        return rest[os.write(stream.fileno(), rest[:READ_BYTES]) :] if rest else rest
    except BlockingIOError:
        return rest
    except OSError:
        return rest[:0]


def reason(address: str, words: str) -> str:
    """Why ssh could not reach a board, in one line: its own words and what to do.

    Args:
        address: of the board.
        words: what ssh wrote to its error output.
    """
    lines = [line.strip() for line in words.splitlines() if line.strip(" @\r\n")]
    said = lines[-1] if lines else "ssh gave no reason"
    hint = next((hint for sign, hint in HINTS if sign in words), "try `ssh {address}` by hand")
    return f"{address} cannot be reached: {said}; {hint.format(address=address)}"
