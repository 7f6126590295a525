"""Files that one process alone has locked, on Linux, macOS and Windows; a killed holder lets go."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import BinaryIO, Optional, Tuple

POSIX = importlib.util.find_spec("fcntl") is not None  # Linux and macOS; Windows has msvcrt instead
FAR = 1 << 30  # Windows keeps others from reading what is locked: a byte behind all that is written


def no_link(path: str, flags: int) -> int:
    """Opens a file, or fails where a link is in its place (for `open`)."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)


def lock(handle: BinaryIO) -> None:
    """Lock an open file until it is closed.

    Raises:
        BlockingIOError: another process has it.
        OSError: this file system has no locks.
    """
    if not POSIX:
        _lock_on_windows(handle)
        return
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_on_windows(handle: BinaryIO) -> None:
    import msvcrt

    handle.seek(FAR)
    try:
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except PermissionError as error:
        raise BlockingIOError(error.errno, "is locked") from None


def hold(path: Path, words: str) -> Tuple[Optional[BinaryIO], str]:
    """A file that this process alone has locked, until it is closed; (None, what the holder says of
    itself) where another process has.

    Args:
        path: of the file; it stays when it is closed, because others may wait for it.
        words: what this process says of itself.

    Raises:
        OSError: it cannot be written.
    """
    handle = open(  # noqa: SIM115 -- held as long as the lock
        path, "ab+", buffering=0, opener=no_link
    )
    try:
        lock(handle)
        handle.seek(0)
        handle.truncate(0)
        handle.write(words.encode("utf-8"))
    except BlockingIOError:
        handle.seek(0)
        with handle:
            return None, handle.read().decode("utf-8", errors="replace").strip()
    except OSError:
        handle.close()
        raise
    return handle, words
