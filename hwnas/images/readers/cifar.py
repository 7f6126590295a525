"""Reader of the binary version of CIFAR-10 and CIFAR-100; the pickled one is never read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hwnas.images.raw import Part, RawData, folder, from_parts
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError

_PIXELS = 3 * 32 * 32


def read(config: DataConfig) -> RawData:
    """What a folder of batches holds."""
    return from_parts(*_parts(folder(config.root, "cifar")))


def files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The folder and everything below it."""
    root = folder(config.root, "cifar")
    return root, sorted(root.rglob("*"))


def _parts(root: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Parts and class names (empty without a list of them) of CIFAR-10 or CIFAR-100 (fine labels).

    Format: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".

    Raises:
        ConfigError: not the binary version, or a file is truncated.
    """
    if (root / "data_batch_1.bin").is_file():
        files = [root / f"data_batch_{number}.bin" for number in range(1, 6)]
        test_file, label_bytes = "test_batch.bin", 1
    elif (root / "train.bin").is_file():
        files, test_file, label_bytes = [root / "train.bin"], "test.bin", 2
    else:
        raise ConfigError(
            f"{root} holds neither data_batch_1.bin (CIFAR-10) nor train.bin (CIFAR-100); get the "
            "binary version, the python version is pickles and is never read"
        )
    batches = [_file(path, label_bytes) for path in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return {"train": (images, labels), "test": _file(root / test_file, label_bytes)}, _classes(root)


def _file(path: Path, label_bytes: int) -> Part:
    record = label_bytes + _PIXELS
    data = _read_bytes(path)
    if not data or len(data) % record:
        raise ConfigError(
            f"{path} has {len(data)} bytes, expected a multiple of {record} "
            f"({label_bytes} of labels and {_PIXELS} of pixels); it is truncated"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).copy()
    return images, rows[:, label_bytes - 1].astype(np.int64)


def _classes(root: Path) -> tuple[str, ...]:
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (root / name).is_file():
            return tuple(_read_bytes(root / name).decode("utf-8", "replace").split())
    return ()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
