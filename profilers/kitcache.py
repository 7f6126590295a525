"""What the worker keeps on the device: kits, files on their way into one, and a lock.

All of it lies in one folder of ours, which a marker tells from others (`bootstrap.claim`), in a
cache folder that may hold anything else:

    <cache>/hwnas-worker/.hwnas           the marker
        lock                              held (flock) by the worker that measures; modelled devices
                                          disturb nobody and have one each
        bin/<sha256>.pyz                  workers that were sent (on boards)
        devices/<device>/
            kits/<kit hash>/              kit.json, *.onnx, weights.bin (made here), flat, and what
                                          an engine keeps beside a model
            models/<kit hash>/            kits of single models, which push out no kit of a space
            blobs/<sha256>                files that were sent and belong to no kit yet, and what an
                                          engine keeps beside a model that was only run

Files are addressed by content, so a cut line costs one file and nothing is trusted unchecked. No
link is followed out of the folder, and nothing is removed that does not have a name of ours.
"""

from __future__ import annotations

import os
import re
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional

from profilers import bootstrap, weights
from profilers.errors import ConfigError, DeviceBusyError, FileFormatError
from profilers.locking import hold, no_link
from profilers.protocol import KIT
from profilers.schema import (
    KIT_FORMAT,
    read_json,
    sha256_file,
    write_atomic,
    write_error,
)

KIT_FILE, WEIGHTS_FILE, LOCK_FILE = "kit.json", "weights.bin", "lock"
DEVICES, BLOBS, SPACES, MODELS = "devices", "blobs", "kits", "models"
KITS_KEPT = 4  # of each kind, the last used; weights of a large space are some 100 MB
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVICE = rf"{DEVICES}/[A-Za-z0-9_-]+"
_KIT = rf"{_DEVICE}/(?:{SPACES}|{MODELS})/[0-9a-f]{{64}}"
_PROFILE = r"\.profile-[a-z0-9_]{8}"  # folder of a profile that an engine is writing
_IN_KIT = (  # what is written into a kit's folder, and the same on its way there (write_atomic)
    r"(?:kit\.json|weights\.bin|[A-Za-z0-9][A-Za-z0-9._-]*\.(?:onnx|plan|timing)"
    r"|\.[A-Za-z0-9._-]+\.(?:json|bin|plan|timing)\.[a-z0-9_]{8})"
)
_IN_BLOBS = (
    r"(?:[0-9a-f]{64}(?:\.part|\.[0-9a-f]{16}\.plan)?|tensorrt\.[0-9a-f]{16}\.timing"
    r"|\.[0-9a-f.]{81}\.plan\.[a-z0-9_]{8}|\.tensorrt\.[0-9a-f]{16}\.timing\.[a-z0-9_]{8})"
)
_FILES = re.compile(
    rf"{LOCK_FILE}|{_DEVICE}/{LOCK_FILE}|{_DEVICE}/{BLOBS}/{_IN_BLOBS}"
    rf"|{bootstrap.PROGRAMS}/{bootstrap.PROGRAM.pattern}|{_KIT}/{_IN_KIT}"
    rf"|{_KIT}/{_PROFILE}/profile[A-Za-z0-9_.-]*\.json"
)
_FOLDERS = re.compile(
    rf"{bootstrap.PROGRAMS}|{DEVICES}|{_DEVICE}(?:/(?:{BLOBS}|{SPACES}|{MODELS}))?|{_KIT}"
    rf"|{_KIT}/{_PROFILE}"
)


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
            folder: that ours lies in.
            device: its name.
            shared_lock: one lock for every device of this machine: the names may differ, the
                hardware is the same.
        """
        self._device = device
        # resolved: engines refuse weights behind a link
        self.root = Path(folder).resolve() / bootstrap.HOME
        self._folder, self._shared_lock = self.root / DEVICES / device, shared_lock
        self._lock: Optional[BinaryIO] = None

    # ---- the lock ------------------------------------------------------------------------------

    def lock(self, purpose: str) -> None:
        """Keep every other worker from measuring on this device until `unlock`.

        Raises:
            DeviceBusyError: another one holds the lock; the message says who, since when, what for.
        """
        path = (self._own().parent.parent if self._shared_lock else self._own()) / LOCK_FILE
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        words = f"{purpose or 'a campaign'} (process {os.getpid()}, since {since})"
        try:
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
            ConfigError: a file may not be removed, or the folder is not ours.
        """
        self._own()
        freed = _remove(self.root, self.root)
        if os.listdir(self.root) == [bootstrap.MARKER]:
            (self.root / bootstrap.MARKER).unlink()
            self.root.rmdir()
        return freed

    def _own(self, *parts: str) -> Path:
        """A folder of this device, created if missing.

        Raises:
            ConfigError: it cannot be made, or what is there is not ours.
        """
        try:
            path = bootstrap.claim(str(self.root.parent))
            for part in (DEVICES, self._device, *parts):
                path = bootstrap.own(os.path.join(path, part))
        except OSError as error:
            raise write_error(Path(error.filename or self.root), error) from error
        return Path(path)

    # ---- files ---------------------------------------------------------------------------------

    def put(self, sha256: str, offset: int, size: int, data: bytes) -> int:
        """Take the next piece of a file; how many bytes of it are here now.

        Raises:
            FileFormatError: the piece does not follow the last one, or the whole file differs.
            DiskFullError: no space is left.
        """
        part = self._own(BLOBS) / self._blob(sha256).with_suffix(".part").name
        try:
            with open(part, "wb" if offset == 0 else "ab", opener=no_link) as handle:
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
        """Forget every file that belongs to no kit; a cache that was cleaned stays away."""
        if (self._folder / BLOBS).is_dir():
            _remove(self._own(BLOBS), self.root)

    def _blob(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise FileFormatError(f"{sha256[:80]!r} is not a sha256 in hex")
        return self._folder / BLOBS / sha256

    # ---- kits ----------------------------------------------------------------------------------

    def missing(self, kit_hash: str) -> List[str]:
        """sha256 of the files to send before the kit is whole: kit.json first, then its models."""
        folder = self._take_kit_file(kit_hash)
        if folder is None:
            return [kit_hash]
        wanted: List[str] = []
        for item in read_kit(folder)["items"]:
            path, sha256 = folder / item["file"], item["sha256"]
            if _holds(path, sha256):
                continue
            if _holds(self._blob(sha256), sha256):
                _copy(self._blob(sha256), path)
            elif sha256 not in wanted:
                wanted.append(sha256)
        return wanted

    def open(self, kit_hash: str) -> Kit:
        """The kit, its weights made and checked.

        Raises:
            FileFormatError: the weights made here are not those the kit was made for.
            ConfigError: it was not sent.
        """
        folder = self._take_kit_file(kit_hash)
        if folder is None:
            raise ConfigError(f"kit {kit_hash} was not sent")
        kit = read_kit(folder)
        _remove_unfinished(folder, self.root)
        path, table = folder / WEIGHTS_FILE, kit["weights"]
        expected = table["sha256"]
        if table["bytes"] and not _holds(path, expected):
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
        """The kit's folder with kit.json in it; None while that was not sent, or is damaged."""
        blob = self._blob(kit_hash)
        for kind in (SPACES, MODELS):
            if _holds(self._folder / kind / kit_hash / KIT_FILE, kit_hash):
                return self._own(kind, kit_hash)
        if not _holds(blob, kit_hash):
            return None
        kit = read_json(blob, KIT_FORMAT)
        folder = self._own(SPACES if "space" in kit else MODELS, kit_hash)
        write_atomic(folder / KIT_FILE, blob.read_bytes())
        return folder

    def _prune(self, used: Path) -> None:
        """Remove the kits of one kind that were used longest ago."""
        kits = [folder for folder in used.parent.iterdir() if _SHA256.fullmatch(folder.name)]
        marks = [str(folder / KIT_FILE) for folder in kits]
        for old in bootstrap.oldest(str(used / KIT_FILE), marks, KITS_KEPT):
            _remove(Path(old).parent, self.root)


def _remove(folder: Path, root: Path) -> int:
    """Remove files and folders of ours below a folder, and itself where nothing is left; bytes.

    Raises:
        ConfigError: one may not be removed.
    """
    freed = 0
    for place, _, names in os.walk(str(folder), topdown=False):
        inside = Path(place).relative_to(root).as_posix()
        try:
            for path in _ours(Path(place), root, names):
                freed += path.stat().st_size
                path.unlink()
            if _FOLDERS.fullmatch(inside) and not os.listdir(place):
                os.rmdir(place)
        except OSError as error:
            raise write_error(Path(error.filename or place), error) from error
    return freed


def _remove_unfinished(folder: Path, root: Path) -> None:
    """Remove what a worker that was killed was writing into a kit's folder: weights are as large as
    the kit, or larger.
    """
    for path in _ours(folder, root, [name for name in os.listdir(folder) if name[0] == "."]):
        path.unlink()
    for path in folder.glob(".profile-*"):
        _remove(path, root)


def _ours(folder: Path, root: Path, names: List[str]) -> Iterator[Path]:
    """Those of some files of a folder that have a name of ours."""
    for path in (folder / name for name in names):
        if _FILES.fullmatch(path.relative_to(root).as_posix()) and bootstrap.is_file(str(path)):
            yield path


def _holds(path: Path, sha256: str) -> bool:
    """Whether a path is a file, no link, of this content."""
    try:
        return bootstrap.is_file(str(path)) and sha256_file(path) == sha256
    except FileFormatError:  # it cannot be read: a bad disk
        return False


def _copy(blob: Path, path: Path) -> None:
    """Not atomic: a half-written model is found by its hash and sent again."""
    try:
        if path.is_symlink():
            path.unlink()
        shutil.copyfile(blob, path)
    except OSError as error:
        raise write_error(path, error) from error


def read_kit(folder: Path) -> Dict[str, Any]:
    """The folder's kit.json, checked.

    Raises:
        FileFormatError: it is not a kit, or an item's file lies elsewhere.
    """
    path = folder / KIT_FILE
    kit: Dict[str, Any] = read_json(path, KIT_FORMAT)
    wrong = KIT(kit)
    if wrong:
        raise FileFormatError(f"{path}{wrong}")
    return kit
