"""What runs first on a board: takes the worker over standard input, keeps it by content, starts it.

It is sent as text (so that nothing has to be installed), by `hwnas.measuring.board`. Standard
library only, and no syntax that Python 3.4 cannot read: a Python that is too old shall say so.
Protocol: docs/formats.md, "Worker".
"""

import hashlib
import importlib.util
import json
import os
import runpy
import sys
import time

FLOOR = (3, 8)
KEPT = 4  # workers of the last versions; another host may be using one of them
SIGNAL = 128  # added to the number of the signal that ended the worker, as shells do


def say(kind: str, **fields: object) -> None:
    """Tell the host."""
    fields.update(type=kind, seq=0)
    os.write(1, (json.dumps(fields) + "\n").encode("utf-8"))


def refuse(code: str, text: str) -> None:
    """Tell the host why there will be no worker, and end."""
    say("error", re=0, code=code, text=text)
    sys.exit(4)


def start(cache: str, name: str, size: int) -> int:
    """Run the worker of a sha256 as a child; the exit status of this process.

    A child, because ssh does not tell which signal ended a command: this process stays to tell.

    Args:
        cache: folder of workers and kits; empty: the default.
        name: sha256 of the worker, hex.
        size: of the worker, bytes.
    """
    check()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.expanduser(cache) or os.path.join(base, "hwnas", "worker")
    path = os.path.join(folder, "bin", name + ".pyz")
    try:
        there = os.path.isfile(path) and digest(path) == name
        say("board", missing=not there, time_s=time.time(), cache=folder)
        if there:
            os.utime(path)
        else:
            keep(path, receive(size), name)
    except OSError as error:
        words = "{}: {}; free some space, or name another folder as ssh.cache".format(
            folder, error.strerror or error
        )
        refuse("DiskFullError" if error.errno == 28 else "ConfigError", "board: " + words)
    child = os.fork()
    if not child:
        sys.argv = [path, "serve", "--cache", folder]
        runpy.run_path(path, run_name="__main__")
        sys.exit(0)
    os.close(0)
    os.close(1)  # the host sees the end of the worker, not of this process
    _, status = os.waitpid(child, 0)
    return SIGNAL + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def check() -> None:
    """Refuse a Python that is too old or has no numpy, with what to do."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < FLOOR:
        refuse(
            "DeviceError",
            "Python {} ({}) is too old, 3.8 or newer is needed; install one and name it as "
            "ssh.python".format(version, sys.executable),
        )
    if importlib.util.find_spec("numpy") is None:
        refuse(
            "RuntimeMissingError",
            "Python {} ({}) has no numpy; install it there: {} -m pip install numpy "
            "onnxruntime".format(version, sys.executable, sys.executable),
        )


def digest(path: str) -> str:
    """Hex sha256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.sha256(handle.read()).hexdigest()


def receive(size: int) -> bytes:
    """So many bytes of standard input, and not one more."""
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(0)  # the host is gone
        data += piece
    return data


def keep(path: str, data: bytes, name: str) -> None:
    """Write the worker, whole or not at all, and forget the oldest ones."""
    if hashlib.sha256(data).hexdigest() != name:
        refuse("DeviceError", "the worker was damaged on the way")
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, exist_ok=True)
    temporary = "{}.{}".format(path, os.getpid())
    with open(temporary, "wb") as handle:
        handle.write(data)
    os.rename(temporary, path)
    kept = [os.path.join(folder, each) for each in os.listdir(folder)]
    for old in sorted(kept, key=os.path.getmtime)[:-KEPT]:
        os.unlink(old)
