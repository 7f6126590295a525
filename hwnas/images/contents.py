"""What files hold, by hash: each is read once, and again when its size, times or inode changed.

A change that leaves size, modification time, change time and inode as they were is not seen.
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from profilers.errors import ConfigError
from profilers.schema import write_atomic

BYTES = 16  # of a key and of a digest: no two of a million files share one
READ = 1 << 20


def digests(paths: np.ndarray, base: int, index: Path | None) -> np.ndarray:
    """Hashes of the contents of files (n, 16) uint8.

    Args:
        paths: (n,) bytes.
        base: where the name of a file begins, behind its folder.
        index: file of what is known already, sorted keys and digests (m, 32); it is brought up to
            date. None: every file is read.

    Raises:
        ConfigError: a file cannot be read; names it.
    """
    try:
        return _digests(paths, base, index)
    except OSError as error:
        if error.filename is None:
            raise
        raise ConfigError(
            f"{os.fsdecode(error.filename)} cannot be read: {error.strerror}"
        ) from error


def _digests(paths: np.ndarray, base: int, index: Path | None) -> np.ndarray:
    keys = np.frombuffer(b"".join(_key(path, base) for path in paths.tolist()), np.uint8)
    table = np.concatenate([keys.reshape(-1, BYTES), np.zeros((len(paths), BYTES), np.uint8)], 1)
    known = _load(index)
    place = np.searchsorted(_names(known), _names(table))
    found = np.zeros(len(table), bool)
    inside = place < len(known)
    found[inside] = _names(known)[place[inside]] == _names(table)[inside]
    table[found] = known[place[found]]
    fresh = np.flatnonzero(~found)
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:  # hashing leaves Python's lock
        for row, digest in zip(fresh, threads.map(_content, paths[fresh].tolist()), strict=True):
            table[row, BYTES:] = np.frombuffer(digest, np.uint8)
    if index is not None and (len(fresh) or len(known) != len(table)):
        _save(table[np.argsort(_names(table), kind="stable")], index)
    return table[:, BYTES:]


def _key(path: bytes, base: int) -> bytes:
    """Hash of a file's name and of all that the system says changes with its content."""
    told = os.stat(path)
    state = (told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)
    return hashlib.blake2b(
        b"%s\0%d\0%d\0%d\0%d" % (path[base:], *state), digest_size=BYTES
    ).digest()


def _content(path: bytes) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(READ):
            digest.update(piece)
    return digest.digest()[:BYTES]


def _names(table: np.ndarray) -> np.ndarray:
    """(n,) the keys of a table, which can be sorted and compared."""
    return np.ascontiguousarray(table[:, :BYTES]).view(f"S{BYTES}").ravel()


def _load(index: Path | None) -> np.ndarray:
    """What is known; nothing where there is no index or it is damaged."""
    nothing = np.zeros((0, 2 * BYTES), np.uint8)
    try:
        table = np.load(index, allow_pickle=False) if index else nothing
    except (OSError, ValueError, EOFError):
        return nothing
    whole = isinstance(table, np.ndarray) and table.dtype == np.uint8 and table.ndim == 2
    if not whole or table.shape[1] != 2 * BYTES:
        return nothing
    names = _names(table)
    return table if (names[:-1] <= names[1:]).all() else nothing


def _save(table: np.ndarray, index: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, table)
    write_atomic(index, buffer.getvalue())
