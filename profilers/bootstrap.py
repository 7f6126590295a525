"""What runs first on a board: takes the worker over standard input, keeps it by content, starts it.

It is sent as text (so that nothing has to be installed), by `hwnas.measuring.connections.ssh`.
Standard library only, and no syntax that Python 3.4 cannot read: a Python that is too old shall say
so. Protocol: docs/formats.md, "Worker".
"""

import errno
import hashlib
import importlib.util
import json
import os
import re
import runpy
import sys
import time

FLOOR = (3, 8)
KEPT = 4  # workers of the last versions; another host may be using one of them
SIGNAL = 128  # added to the number of the signal that ended the worker, as shells do
HOME = "hwnas-worker"  # our folder in a cache folder, which may hold things of others
MARKER, MARK = ".hwnas", "hwnas-worker-1\n"  # the file that says that the folder is ours
PROGRAMS = "bin"
PROGRAM = re.compile(r"[0-9a-f]{64}\.pyz(\.[0-9]+)?")  # the second ones were cut while written
STEP_S = 10  # between two uses; some file systems keep times to two seconds


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
        cache: folder that ours lies in; empty: the default.
        name: sha256 of the worker, hex.
        size: of the worker, bytes.
    """
    check()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    cache = os.path.realpath(os.path.expanduser(cache) or base)
    try:
        home = claim(cache)
        path = os.path.join(own(os.path.join(home, PROGRAMS)), name + ".pyz")
        there = is_file(path) and digest(path) == name
        say("board", missing=not there, time_s=time.time())
        if not there:
            keep(path, receive(size), name)
        forget(path)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        words = "{}: {}; {}name another folder as ssh.cache".format(
            error.filename or cache, error.strerror or error, "free some space, or " * full
        )
        refuse("DiskFullError" if full else "ConfigError", "board: " + words)
    child = os.fork()
    if not child:
        sys.argv = [path, "serve", "--cache", cache]
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
    """Exactly n bytes of standard input."""
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(0)  # the host is gone
        data += piece
    return data


def keep(path: str, data: bytes, name: str) -> None:
    """Write the worker, whole or not at all."""
    if hashlib.sha256(data).hexdigest() != name:
        refuse("DeviceError", "the worker was damaged on the way")
    temporary = "{}.{}".format(path, os.getpid())
    if os.path.lexists(temporary):
        os.unlink(temporary)
    try:
        with open(temporary, "xb") as handle:
            handle.write(data)
        os.rename(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def forget(path: str) -> None:
    """Note that a worker is used now, and remove those of ours that were used longest ago."""
    folder = os.path.dirname(path)
    names = [name for name in os.listdir(folder) if PROGRAM.fullmatch(name)]
    for old in oldest(path, [os.path.join(folder, name) for name in names], KEPT):
        if is_file(old):
            try:
                os.unlink(old)
            except FileNotFoundError:  # another one has just done so
                continue


# ---- our folder, for the worker as well (profilers/kitcache.py) --------------------------------


def claim(cache: str) -> str:
    """Our folder in a cache folder, made and marked where it is not there; its path.

    Raises:
        OSError: it cannot be made, or what is there is not ours.
    """
    home = own(os.path.join(cache, HOME))
    marker = os.path.join(home, MARKER)
    if not os.listdir(home):
        with open(marker, "w") as handle:
            handle.write(MARK)
    if not is_file(marker):
        raise OSError(errno.EEXIST, "is not ours (it lacks the file {})".format(MARKER), home)
    return home


def own(path: str) -> str:
    """A folder of ours, created if missing; its path.

    Raises:
        OSError: it cannot be made, or a link or a file is in its place, which leads elsewhere.
    """
    if os.path.islink(path):
        raise OSError(errno.ENOTDIR, "is a link where a folder of ours should be", path)
    os.makedirs(path, exist_ok=True)
    return path


def is_file(path: str) -> bool:
    """Whether a path is a file and no link to one."""
    return os.path.isfile(path) and not os.path.islink(path)


def oldest(used: str, paths: "list[str]", kept: int) -> "list[str]":
    """Those of some files or folders that were used longest ago, all but as many as are kept.

    Times of change count uses here, one step each: a board's clock may stand still, or jump.

    Args:
        used: the one that is used now.
        paths: all of them.
        kept: how many may stay.
    """
    times = {}
    for path in paths:
        try:
            times[path] = os.lstat(path).st_mtime
        except OSError:  # another worker has just removed it
            continue
    others = sorted((path for path in times if path != used), key=lambda path: times[path])
    if others:
        latest = times[others[-1]] + STEP_S
        os.utime(used, (latest, latest))
    return others[: max(len(others) + 1 - kept, 0)]
