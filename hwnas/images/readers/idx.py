"""Reader of idx files, the format of MNIST. Checks sizes before it takes memory."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from hwnas.images.raw import Part, RawData, folder, from_parts
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package installs it
_FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
_DEFLATE_RATIO = 1032  # most bytes that one compressed byte can stand for (zlib's documentation)


def read(config: DataConfig) -> RawData:
    """What a folder of idx files holds; class names of Fashion-MNIST are known."""
    root = _root(config)
    return from_parts(_parts(root), _FASHION_CLASSES if root.name == FASHION_MNIST.name else ())


def files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The folder and everything below it."""
    root = _root(config)
    return root, sorted(root.rglob("*"))


def _root(config: DataConfig) -> Path:
    if not config.root and not FASHION_MNIST.is_dir():
        raise ConfigError(
            f"{FASHION_MNIST} does not exist; install Debian's dataset-fashion-mnist or set "
            "data.root to a folder of idx files"
        )
    return folder(config.root or str(FASHION_MNIST), "idx")


def _parts(root: Path) -> dict[str, Part]:
    """Parts "train" and, where its files are there, "test" of a folder of idx files.

    Files: {train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped (.gz) or not. Format: big-endian
    magic 0x000008 and the number of dimensions, then the sizes (http://yann.lecun.com/exdb/mnist).

    Raises:
        ConfigError: a file is missing, truncated, too long or of another kind.
    """
    parts = {"train": _pair(root, "train")}
    if any(root.glob("t10k-*")):
        parts["test"] = _pair(root, "t10k")
    return parts


def _pair(root: Path, prefix: str) -> Part:
    images = _file(_path(root, f"{prefix}-images-idx3-ubyte"), 3)
    labels = _file(_path(root, f"{prefix}-labels-idx1-ubyte"), 1)
    return images[:, None], labels.astype(np.int64)


def _path(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise ConfigError(f"{root} holds neither {name} nor {name}.gz")


def _file(path: Path, dimensions: int) -> np.ndarray:
    """The array of one idx file of unsigned bytes."""
    packed = path.suffix == ".gz"
    try:
        most = path.stat().st_size * (_DEFLATE_RATIO if packed else 1)
        with gzip.open(path, "rb") if packed else open(path, "rb") as handle:
            return _parse(cast(BinaryIO, handle), path, dimensions, most)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}; it is truncated or damaged") from error


def _parse(handle: BinaryIO, path: Path, dimensions: int, most: int) -> np.ndarray:
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
