"""Readers of the binary files that small image data sets come in: idx (MNIST and its kin), CIFAR.

A `Part` is images (n, c, h, w) uint8 and labels (n,) int64. Sizes are checked before memory is
taken; nothing is unpickled.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from profilers.errors import ConfigError

Part = tuple[np.ndarray, np.ndarray]

_CIFAR_PIXELS = 3 * 32 * 32
_DEFLATE_RATIO = 1032  # most bytes that one compressed byte can stand for (zlib's documentation)


def read_idx(root: Path) -> dict[str, Part]:
    """Parts "train" and, where its files are there, "test" of a folder of idx files.

    Files: {train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped (.gz) or not. Format: big-endian
    magic 0x000008 and the number of dimensions, then the sizes (http://yann.lecun.com/exdb/mnist).

    Raises:
        ConfigError: a file is missing, truncated, too long or of another kind.
    """
    parts = {"train": _read_idx_pair(root, "train")}
    if any(root.glob("t10k-*")):
        parts["test"] = _read_idx_pair(root, "t10k")
    return parts


def _read_idx_pair(root: Path, prefix: str) -> Part:
    images = _read_idx_file(_idx_path(root, f"{prefix}-images-idx3-ubyte"), 3)
    labels = _read_idx_file(_idx_path(root, f"{prefix}-labels-idx1-ubyte"), 1)
    return images[:, None], labels.astype(np.int64)


def _idx_path(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise ConfigError(f"{root} holds neither {name} nor {name}.gz")


def _read_idx_file(path: Path, dimensions: int) -> np.ndarray:
    """The array of one idx file of unsigned bytes."""
    packed = path.suffix == ".gz"
    try:
        most = path.stat().st_size * (_DEFLATE_RATIO if packed else 1)
        with gzip.open(path, "rb") if packed else open(path, "rb") as handle:
            return _parse_idx(cast(BinaryIO, handle), path, dimensions, most)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}; it is truncated or damaged") from error


def _parse_idx(handle: BinaryIO, path: Path, dimensions: int, most: int) -> np.ndarray:
    """The array of an open idx file that cannot hold more than `most` bytes."""
    header = handle.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        raise ConfigError(
            f"{path} starts with {header[:4].hex() or 'nothing'}, expected the idx magic "
            f"000008{dimensions:02x} of {dimensions}-dimensional unsigned bytes"
        )
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
    expected = math.prod(shape)
    # One byte more than expected, so that a file that is too long is seen.
    body = handle.read(min(expected, most) + 1)
    if len(body) != expected:
        found = "more" if len(body) > expected else str(len(body))
        raise ConfigError(f"{path} holds {found} bytes of data, its header says {expected}")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()


def read_cifar(root: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Parts and class names (empty without a list of them) of CIFAR-10 or CIFAR-100 (fine labels).

    Format: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".

    Raises:
        ConfigError: not the binary version, or a file is truncated.
    """
    if (root / "data_batch_1.bin").is_file():
        files, test_file, label_bytes = sorted(root.glob("data_batch_*.bin")), "test_batch.bin", 1
    elif (root / "train.bin").is_file():
        files, test_file, label_bytes = [root / "train.bin"], "test.bin", 2
    else:
        raise ConfigError(
            f"{root} holds neither data_batch_1.bin (CIFAR-10) nor train.bin (CIFAR-100); get the "
            "binary version, the python version is pickles and is never read"
        )
    batches = [_read_cifar_file(path, label_bytes) for path in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    parts: dict[str, Part] = {"train": (images, labels)}
    if (root / test_file).is_file():
        parts["test"] = _read_cifar_file(root / test_file, label_bytes)
    return parts, _cifar_classes(root)


def _read_cifar_file(path: Path, label_bytes: int) -> Part:
    record = label_bytes + _CIFAR_PIXELS
    data = _read_bytes(path)
    if not data or len(data) % record:
        raise ConfigError(
            f"{path} has {len(data)} bytes, expected a multiple of {record} "
            f"({label_bytes} of labels and {_CIFAR_PIXELS} of pixels); it is truncated"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).copy()
    return images, rows[:, label_bytes - 1].astype(np.int64)


def _cifar_classes(root: Path) -> tuple[str, ...]:
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (root / name).is_file():
            return tuple(_read_bytes(root / name).decode("utf-8", "replace").split())
    return ()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
