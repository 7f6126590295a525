"""Temporary folders that do not outlive their process for long: what a killed one left, the next
one removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from profilers.locking import POSIX, lock

HOLDER = ".held"  # file in the folder that its process keeps locked


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A temporary folder `hwnas-<name>-…`, removed with the context.

    Raises:
        OSError: it cannot be made, for example because the disk is full.
    """
    if POSIX:
        _remove_left(name)
    with tempfile.TemporaryDirectory(prefix=f"hwnas-{name}-") as text:
        folder = Path(text)
        if not POSIX:  # an open file cannot be renamed there
            yield folder
            return
        with open(folder / f"{HOLDER}.new", "wb") as holder:
            lock(holder)
            os.rename(holder.name, folder / HOLDER)  # who sees it finds it locked
            yield folder


def _remove_left(name: str) -> None:
    """Remove the folders of processes that were killed: ours, with a lock that nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(f"hwnas-{name}-????????/{HOLDER}"):
        with contextlib.suppress(OSError), open(path, "rb") as holder:
            if os.fstat(holder.fileno()).st_uid == os.getuid():
                lock(holder)
                shutil.rmtree(path.parent, ignore_errors=True)
