"""What the worker keeps on the device: kits, files on their way into one, and a lock.

    <cache>/lock                          held (flock) by the worker that measures; modelled devices
                                          disturb nobody and have one each, <cache>/<device>/lock
    <cache>/bin/<sha256>.pyz              workers that were sent (on boards)
    <cache>/<device>/kits/<kit hash>/     kit.json, *.onnx, weights.bin (made here), flat
    <cache>/<device>/blobs/<sha256>       files that were sent and belong to no kit yet

Files are addressed by content, so a cut line costs one file and nothing is trusted unchecked.
"""

from __future__ import annotations

import os
import re
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, NamedTuple, Optional

from profilers import weights
from profilers.errors import ConfigError, DeviceBusyError, FileFormatError
from profilers.protocol import KIT
from profilers.schema import (
    KIT_FORMAT,
    canonical_json,
    hold,
    read_json,
    sha256_file,
    sha256_text,
    write_atomic,
    write_error,
)

KIT_FILE, WEIGHTS_FILE, LOCK_FILE = "kit.json", "weights.bin", "lock"
PROGRAMS = "bin"  # folder of the workers that were sent
KITS_KEPT = 4  # the most recently used; weights of a large space are some 100 MB
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Kit(NamedTuple):
    """A kit that is whole on this device."""

    folder: Path
    items: Dict[str, Dict[str, Any]]

    def models(self, names: List[str]) -> Dict[str, Path]:
        """File of each named item, each once.

        Raises:
            ConfigError: the kit holds no such item.
        """
        strange = [name for name in names if name not in self.items]
        if strange:
            raise ConfigError(f"the kit holds no item {strange[0]!r}")
        return {name: self.folder / self.items[name]["file"] for name in names}


class KitCache:
    """The cache folder; one worker at a time writes into it, the one that holds the lock."""

    def __init__(self, folder: Path, device: str, shared_lock: bool = False) -> None:
        """The cache of one device.

        Args:
            folder: of all devices.
            device: its name.
            shared_lock: one lock for every device of this machine: the names may differ, the
                hardware is the same.
        """
        self._device = device
        self.root = Path(folder).resolve()  # engines refuse weights behind a link
        self._folder = self.root / device
        self._lock_path = (self.root if shared_lock else self._folder) / LOCK_FILE
        self._lock: Optional[BinaryIO] = None

    # ---- the lock ------------------------------------------------------------------------------

    def lock(self, purpose: str) -> None:
        """Keep every other worker from measuring on this device until `unlock`.

        Raises:
            DeviceBusyError: another one holds the lock; the message says who, since when, what for.
        """
        path = self._lock_path
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        words = f"{purpose or 'a campaign'} (process {os.getpid()}, since {since})"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock, holder = hold(path, words)
        except OSError as error:
            raise write_error(path, error) from error
        if self._lock is None:
            raise DeviceBusyError(
                f"device {self._device} is in use by {holder or 'another worker'}; wait for it, or "
                "set profile.wait_s"
            )

    def unlock(self) -> None:
        """Let others measure."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def clean(self) -> int:
        """Remove what workers keep here, and nothing else; bytes that this freed.

        Raises:
            ConfigError: a file may not be removed.
        """
        kept = [path for path in self.root.glob("*") if path.name == PROGRAMS or _is_cache(path)]
        files = [file for folder in kept for file in folder.rglob("*") if file.is_file()]
        freed = sum(file.stat().st_size for file in files)
        try:
            for folder in kept:
                shutil.rmtree(folder)
            (self.root / LOCK_FILE).unlink(missing_ok=True)
            if not any(self.root.iterdir()):
                self.root.rmdir()
        except OSError as error:
            raise write_error(self.root, error) from error
        return freed

    # ---- files ---------------------------------------------------------------------------------

    def put(self, sha256: str, offset: int, size: int, data: bytes) -> int:
        """Take the next piece of a file; how many bytes of it are here now.

        Raises:
            FileFormatError: the piece does not follow the last one, or the whole file differs.
            DiskFullError: no space is left.
        """
        part = self._blob(sha256).with_suffix(".part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb" if offset == 0 else "ab") as handle:
                if handle.tell() != offset:
                    raise FileFormatError(
                        f"piece at byte {offset} does not follow byte {handle.tell()} of {sha256}"
                    )
                handle.write(data)
        except OSError as error:
            raise write_error(part, error) from error
        have = offset + len(data)
        if have >= size:
            self._finish(part, sha256)
        return have

    def _finish(self, part: Path, sha256: str) -> None:
        found = sha256_file(part)
        if found != sha256:
            part.unlink()
            raise FileFormatError(f"file {sha256} arrived as {found}; it was damaged on the way")
        os.replace(part, self._blob(sha256))

    def blob(self, sha256: str) -> Path:
        """A file that was put.

        Raises:
            ConfigError: it is not here.
        """
        path = self._blob(sha256)
        if not path.is_file():
            raise ConfigError(f"file {sha256} was not sent")
        return path

    def drop_blobs(self) -> None:
        """Forget every file that belongs to no kit."""
        shutil.rmtree(self._folder / "blobs", ignore_errors=True)

    def _blob(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise FileFormatError(f"{sha256[:80]!r} is not a sha256 in hex")
        return self._folder / "blobs" / sha256

    # ---- kits ----------------------------------------------------------------------------------

    def missing(self, kit_hash: str) -> List[str]:
        """sha256 of the files to send before the kit is whole: kit.json first, then its models."""
        folder = self._take_kit_file(kit_hash)
        if folder is None:
            return [kit_hash]
        wanted: List[str] = []
        for item in _read(folder)["items"]:
            path, sha256 = folder / item["file"], item["sha256"]
            if path.is_file() and sha256_file(path) == sha256:
                continue
            if self._blob(sha256).is_file():
                _copy(self._blob(sha256), path)
            elif sha256 not in wanted:
                wanted.append(sha256)
        return wanted

    def open(self, kit_hash: str) -> Kit:
        """The kit, its weights made and checked.

        Raises:
            FileFormatError: the weights made here are not those the kit was made for.
        """
        folder = self._folder / "kits" / kit_hash
        kit = _read(folder)
        _remove_unfinished(folder)
        path, table = folder / WEIGHTS_FILE, kit["weights"]
        expected = table["sha256"]
        if table["bytes"] and not (path.is_file() and sha256_file(path) == expected):
            found = weights.generate(path, table, kit["seed"])
            if found != expected:
                path.unlink()
                raise FileFormatError(
                    f"weights made on the device have sha256 {found}, the kit says {expected}; "
                    "the kit was made by another version or edited"
                )
        self.drop_blobs()
        self._prune(folder)
        return Kit(folder, {item["name"]: item for item in kit["items"]})

    def _take_kit_file(self, kit_hash: str) -> Optional[Path]:
        """The kit's folder with kit.json in it; None while that was not sent."""
        blob, folder = self._blob(kit_hash), self._folder / "kits" / kit_hash
        path = folder / KIT_FILE
        if path.is_file() and sha256_text(canonical_json(read_json(path))) == kit_hash:
            return folder
        if not blob.is_file():
            return None
        write_atomic(path, blob.read_bytes())
        return folder

    def _prune(self, used: Path) -> None:
        os.utime(used)
        kits = sorted(used.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in kits[KITS_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def _remove_unfinished(folder: Path) -> None:
    """Remove what a worker that was killed was writing: weights are as large as a kit, or more."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_cache(path: Path) -> bool:
    """Whether a folder is one that a device's cache made, by what is in it."""
    known = {"kits", "blobs", LOCK_FILE}
    found = {child.name for child in path.iterdir()} if path.is_dir() else set()
    return bool(found) and found <= known


def _copy(blob: Path, path: Path) -> None:
    """Not atomic: a half-written model is found by its hash and sent again."""
    try:
        shutil.copyfile(blob, path)
    except OSError as error:
        raise write_error(path, error) from error


def _read(folder: Path) -> Dict[str, Any]:
    """The folder's kit.json, checked.

    Raises:
        FileFormatError: it is no kit, or an item's file lies elsewhere.
    """
    path = folder / KIT_FILE
    kit: Dict[str, Any] = read_json(path, KIT_FORMAT)
    wrong = KIT(kit)
    if wrong:
        raise FileFormatError(f"{path}{wrong}")
    return kit
