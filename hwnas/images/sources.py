"""Data from files (or a user's function) to checked arrays by the reader of its kind, numpy only.

A reader is a file of `readers/`: `read(config)` gives a `RawData`, `files(config)` the folder and
the paths that it is known by (or `version()` where it reads none of the user's). What is split off,
normalised or augmented is the business of tensors.py. No reader ever unpickles.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.images import readers
from hwnas.images.raw import Labelled, RawData, images_of_each
from hwnas.settings.config import DataConfig
from hwnas.tasks import IGNORED
from profilers.errors import ConfigError
from profilers.plugins import load_part


def _reader(config: DataConfig) -> Any:
    name = config.kind.replace("_", "-")
    return load_part(name, readers.__name__, readers.__path__, "data.kind")


def read(config: DataConfig) -> RawData:
    """The checked arrays of a data source.

    Raises:
        ConfigError: a file or folder is missing, truncated or of another kind, there is only one
            class, a label is out of range, a class has no training image, images are not square or
            differ in size, a value of a series is not a number.
    """
    data: RawData = _reader(config).read(config)
    where = config.root or config.kind
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        if part is not None:
            _check_part(part, data, f"{where}: {name}")
    if len(data.class_names) < 2:
        raise ConfigError(
            f"{where}: the only class is {data.class_names[0]!r}, expected at least 2 classes; "
            "add images of another one"
        )
    present = images_of_each(data.train.labels, len(data.class_names))
    if not present.all():
        empty = data.class_names[int(np.argmin(present))]
        raise ConfigError(f"{where}: class {empty!r} has no training image; add some or remove it")
    return data


def fingerprint_source(config: DataConfig) -> str:
    """Hex sha256 of names, sizes and times of the source files; nothing is decoded.

    Folders and broken links count by name: an empty class folder is not the same data. A reader of
    no files of the user's is known by the version of what it reads. A factory may return anything
    at any time, so it is known by the fingerprint of what it returns.

    Raises:
        ConfigError: the source does not exist.
    """
    digest = hashlib.sha256(f"{config.kind}\n{config.root}\n".encode())
    reader = _reader(config)
    if not hasattr(reader, "files"):
        digest.update(reader.version().encode())
        return digest.hexdigest()
    base, files = reader.files(config)
    for path in files:
        name = path.as_posix()[len(base.as_posix().rstrip("/")) + 1 :]
        digest.update(f"{name}\0{_state(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _state(path: Path) -> str:
    """Size, times and inode of a file, asked for once: there may be a million."""
    try:
        found = path.stat()
    except OSError:
        return "broken"
    if stat.S_ISDIR(found.st_mode):
        return "folder"
    told = f"{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\0{found.st_ino}"
    return told if stat.S_ISREG(found.st_mode) else "broken"


def _check_part(part: Labelled, data: RawData, where: str) -> None:
    """Refuse images or labels that a network of this data could not take."""
    images, labels = part.images, part.labels
    if len(images) != len(labels) or not len(images):
        raise ConfigError(
            f"{where}: {len(images)} images and {len(labels)} labels; "
            "expected as many, and at least one"
        )
    if not data.streamed:
        _check_pixels(images, data, where)
    _check_labels(labels, data, where)


def _check_pixels(images: np.ndarray, data: RawData, where: str) -> None:
    shape, expected = images.shape[1:], data.train.images.shape[1:]
    if not data.serial and shape[-1] != shape[-2]:
        raise ConfigError(
            f"{where}: images are {shape[-1]}x{shape[-2]} px, the spaces take square ones; cut or "
            "pad them (data.image_size does it for an image_folder)"
        )
    if shape != expected:
        raise ConfigError(f"{where} has {_words(shape)}, training has {_words(expected)}")
    if data.serial and not (finite := np.isfinite(images).all(axis=(1, 2))).all():
        raise ConfigError(
            f"{where}: series {int(np.argmin(finite))} holds a value that is missing or not finite "
            "in float32; fill it in or remove the series"
        )


def _words(shape: tuple[int, ...]) -> str:
    """The size of one image or series."""
    size = f"{shape[1]} steps" if len(shape) == 2 else f"{shape[2]}x{shape[1]} px"
    return f"{shape[0]} channels of {size}"


def _check_labels(labels: np.ndarray, data: RawData, where: str) -> None:
    known, n = labels, len(data.class_names)
    if labels.ndim > 1:
        known = labels[labels != IGNORED]
    low, high = int(known.min(initial=0)), int(known.max(initial=0))
    if low < 0 or high >= n:
        raise ConfigError(
            f"{where}: label {low if low < 0 else high} is out of range; "
            f"expected 0 to {n - 1} for {n} classes"
        )
