"""Readers of images and time series: from files (or a user's function) to arrays, numpy only.

Every reader returns a `RawData`. What is split off, normalised or augmented is the business of
tensors.py. No reader ever unpickles: the pickled version of CIFAR is refused with the name of the
other one.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.images.readers.binary_images import Part, read_cifar, read_idx
from hwnas.images.readers.image_files import list_image_files
from hwnas.images.readers.image_folder import read_image_folder
from hwnas.images.readers.series import read_series, series_files
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError
from profilers.plugins import import_object

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package installs it
_FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """Images (n, c, h, w) uint8, files of them (n,) as bytes, or series (n, c, time) float32; and
    labels (n,) int64.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class RawData:
    """What a source holds: training images, and validation and test images where it has its own."""

    train: Labelled
    val: Labelled | None
    test: Labelled | None
    class_names: tuple[str, ...]

    @property
    def streamed(self) -> bool:
        """Whether images are named by their files, not held."""
        return self.train.images.dtype.kind == "S"

    @property
    def serial(self) -> bool:
        """Whether these are time series."""
        return self.train.images.dtype.kind == "f"


def read(config: DataConfig) -> RawData:
    """The checked arrays of a data source.

    Raises:
        ConfigError: a file or folder is missing, truncated or of another kind, there is only one
            class, a label is out of range, a class has no training image, images are not square or
            differ in size, a value of a series is no number.
    """
    data = _READERS[config.kind](config)
    where = config.root or config.kind
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        if part is not None:
            _check_part(part, data, f"{where}: {name}")
    if len(data.class_names) < 2:
        raise ConfigError(
            f"{where}: the only class is {data.class_names[0]!r}, expected at least 2 classes; "
            "add images of another one"
        )
    present = np.bincount(data.train.labels, minlength=len(data.class_names))
    if not present.all():
        empty = data.class_names[int(np.argmin(present))]
        raise ConfigError(f"{where}: class {empty!r} has no training image; add some or remove it")
    return data


def fingerprint_source(config: DataConfig) -> str:
    """Hex sha256 of names, sizes and times of the source files; nothing is decoded.

    Folders and broken links count by name: an empty class folder is not the same data. Digits are
    known by the version of scikit-learn. A factory may return anything at any time, so it is known
    by the fingerprint of what it returns.

    Raises:
        ConfigError: the source does not exist.
    """
    digest = hashlib.sha256(f"{config.kind}\n{config.root}\n".encode())
    if config.kind == "digits":
        digest.update(version("scikit-learn").encode())
        return digest.hexdigest()
    base, files = _source_files(config)
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


def _source_files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The folder of a source and the paths below it, sorted."""
    if config.kind == "npz":
        file = _existing(config.root, "npz")
        return file.parent, [file]
    if config.kind == "series":
        files = series_files(_existing(config.root, "series"))
        return files["train"].parent, files.values()
    root = _idx_root(config) if config.kind == "idx" else _folder(config.root, config.kind)
    return root, _below(root) if config.stream else sorted(root.rglob("*"))


def _below(folder: Path) -> Iterator[Path]:
    """Every path below a folder, sorted folder by folder; one folder's are held at a time."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


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
    low, high, n = int(labels.min()), int(labels.max()), len(data.class_names)
    if low < 0 or high >= n:
        raise ConfigError(
            f"{where}: label {low if low < 0 else high} is out of range; "
            f"expected 0 to {n - 1} for {n} classes"
        )


# ---- paths --------------------------------------------------------------------------------------


def _existing(root: str, kind: str) -> Path:
    path = Path(root)
    if not root or not path.exists():
        raise ConfigError(
            f"data.root {root!r} does not exist; give the file or folder of the {kind} data"
        )
    return path


def _folder(root: str, kind: str) -> Path:
    path = _existing(root, kind)
    if not path.is_dir():
        raise ConfigError(f"data.root {root!r} is a file, expected a folder of {kind} data")
    return path


# ---- digits -------------------------------------------------------------------------------------


def _read_digits(config: DataConfig) -> RawData:
    """scikit-learn's 1,797 digits of 8x8 px, values 0-16 scaled to 0-255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    return RawData(Labelled(images, labels), None, None, tuple(str(n) for n in range(10)))


# ---- files of known layout ----------------------------------------------------------------------


def _idx_root(config: DataConfig) -> Path:
    if not config.root and not FASHION_MNIST.is_dir():
        raise ConfigError(
            f"{FASHION_MNIST} does not exist; install Debian's dataset-fashion-mnist or set "
            "data.root to a folder of idx files"
        )
    return _folder(config.root or str(FASHION_MNIST), "idx")


def _read_idx(config: DataConfig) -> RawData:
    root = _idx_root(config)
    return _raw(read_idx(root), _FASHION_CLASSES if root.name == FASHION_MNIST.name else ())


def _read_cifar(config: DataConfig) -> RawData:
    return _raw(*read_cifar(_folder(config.root, "cifar")))


def _read_image_folder(config: DataConfig) -> RawData:
    """A lone val folder is the test set (ImageNet's layout); beside a test folder, validation."""
    root = _folder(config.root, "image_folder")
    if config.stream:
        parts, classes = list_image_files(root)
    else:
        parts, classes = read_image_folder(root, config.image_size)
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    return _raw(parts, classes)


def _raw(parts: dict[str, Part], class_names: tuple[str, ...]) -> RawData:
    labelled = {name: Labelled(*part) for name, part in parts.items()}
    names = class_names or _numbered(labelled["train"].labels)
    return RawData(labelled["train"], labelled.get("val"), labelled.get("test"), names)


def _numbered(labels: np.ndarray) -> tuple[str, ...]:
    """Class names where a source has none: its label numbers."""
    return tuple(str(n) for n in range(int(labels.max(initial=0)) + 1))


def _read_series(config: DataConfig) -> RawData:
    return _raw(*read_series(_existing(config.root, "series"), config.series_length))


# ---- arrays: npz and factory --------------------------------------------------------------------

_ARRAYS = (
    "train_images", "train_series", "train_labels",
    "test_images", "test_series", "test_labels",
    "class_names",
)  # fmt: skip


def _read_npz(config: DataConfig) -> RawData:
    """An .npz file of the arrays of `from_arrays`; object arrays (pickles) are refused."""
    path = _existing(config.root, "npz")
    try:
        # np.load leaves the file open when it is no archive: close it here.
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS if name in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError,
            TypeError) as error:  # fmt: skip
        raise ConfigError(
            f"{path} cannot be read as .npz of plain arrays: {_npz_reason(error)}"
        ) from error
    return from_arrays(arrays, str(path))


def _npz_reason(error: Exception) -> str:
    """What numpy found, but never its advice to load pickles: they may run any code."""
    text = " ".join(str(error).split())
    if "pickle" not in text:
        return text
    return (
        "it is no archive of arrays, or one of them holds Python objects; write numbers and texts "
        "with numpy.savez"
    )


def _read_factory(config: DataConfig) -> RawData:
    """The arrays that the user's own `module:function` returns."""
    function = import_object(config.root, "data factory")
    if not callable(function):
        raise ConfigError(f"data factory {config.root!r} is not a function")
    arrays = function()
    if not isinstance(arrays, Mapping):
        raise ConfigError(
            f"data factory {config.root!r} returned a {type(arrays).__name__}, "
            f"expected a dict of {', '.join(_ARRAYS)}"
        )
    return from_arrays(arrays, f"data factory {config.root!r}")


def from_arrays(arrays: Mapping[str, Any], where: str) -> RawData:
    """Data of named arrays.

    Args:
        arrays: train_images (n, h, w) or (n, h, w, c) uint8, or train_series (n, time) or
            (n, channels, time) floats; train_labels (n,) integers, and where there are any the
            same for test, and class_names.
        where: their source, for messages.

    Raises:
        ConfigError: an array is missing, unknown, or of another shape or type.
    """
    unknown = sorted(set(arrays) - set(_ARRAYS))
    if unknown:
        raise ConfigError(f"{where}: unknown array {unknown[0]!r}; known: {', '.join(_ARRAYS)}")
    train = _labelled(arrays, "train", where)
    if train is None:
        raise ConfigError(f"{where}: train_images (or train_series) and train_labels are missing")
    names = arrays.get("class_names", ())
    classes = tuple(str(name) for name in np.asarray(names).ravel()) or _numbered(train.labels)
    return RawData(train, None, _labelled(arrays, "test", where), classes)


def _labelled(arrays: Mapping[str, Any], part: str, where: str) -> Labelled | None:
    given = [name for name in _ARRAYS if name.startswith(part) and name in arrays]
    if not given:
        return None
    if len(given) != 2 or given[1] != f"{part}_labels":
        raise ConfigError(
            f"{where}: {' and '.join(given)} given; expected {part}_labels with {part}_images or "
            f"{part}_series"
        )
    inputs, labels = (np.asarray(arrays[name]) for name in given)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ConfigError(
            f"{where}: {part}_labels is {labels.dtype} of shape {labels.shape}, "
            "expected integers (n,)"
        )
    take = _series if given[0].endswith("series") else _channels_first
    return Labelled(np.ascontiguousarray(take(inputs, f"{where}: {given[0]}")), labels.astype("i8"))


def _channels_first(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ConfigError(
            f"{where} is {images.dtype} of shape {images.shape}, "
            "expected uint8 (n, h, w) or (n, h, w, c)"
        )
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _series(series: np.ndarray, where: str) -> np.ndarray:
    if series.dtype.kind != "f" or series.ndim not in (2, 3) or not all(series.shape[1:]):
        raise ConfigError(
            f"{where} is {series.dtype} of shape {series.shape}, "
            "expected floats (n, time) or (n, channels, time)"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite: refused later
        return (series[:, None] if series.ndim == 2 else series).astype(np.float32)


_READERS = {
    "digits": _read_digits,
    "idx": _read_idx,
    "image_folder": _read_image_folder,
    "cifar": _read_cifar,
    "npz": _read_npz,
    "series": _read_series,
    "factory": _read_factory,
}
