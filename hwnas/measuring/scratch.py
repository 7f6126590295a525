"""Temporary folders that do not outlive their process for long: what a killed one left, the next
one removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

HOLDER = ".held"  # file in the folder that its process keeps locked


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A temporary folder `hwnas-<name>-…`, removed with the context.

    Raises:
        OSError: it cannot be made, for example because the disk is full.
    """
    _remove_left(name)
    with tempfile.TemporaryDirectory(prefix=f"hwnas-{name}-") as text:
        folder = Path(text)
        with open(folder / f"{HOLDER}.new", "wb") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            os.rename(holder.name, folder / HOLDER)  # who sees it finds it locked
            yield folder


def _remove_left(name: str) -> None:
    """Remove the folders of processes that were killed: ours, with a lock that nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(f"hwnas-{name}-????????/{HOLDER}"):
        with contextlib.suppress(OSError), open(path, "rb") as holder:
            if os.fstat(holder.fileno()).st_uid == os.getuid():
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
