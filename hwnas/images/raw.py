"""What readers return: images or series with labels as plain arrays, or names of files."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.tasks import IGNORED
from profilers.errors import ConfigError

Part = tuple[np.ndarray, np.ndarray]  # inputs as in Labelled, and labels


@dataclass(frozen=True)
class Labelled:
    """Images (n, c, h, w) uint8, files of them (n,) as bytes, or series (n, c, time) float32; and
    labels (n,) int64, or masks of the images (n, h, w) uint8 (see `hwnas.tasks.IGNORED`).
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Seen:
    """What a reader of image files saw of them.

    Attributes:
        sizes: how many images have a width and height, px, before they are cut.
        grey: how many are grey.
        skipped: files that cannot be read and were left out, by name, and why.
    """

    sizes: dict[tuple[int, int], int]
    grey: int
    skipped: dict[str, str]


@dataclass(frozen=True)
class RawData:
    """What a source holds: training images, and validation and test images where it has its own;
    of files that were opened, what was seen of them.
    """

    train: Labelled
    val: Labelled | None
    test: Labelled | None
    class_names: tuple[str, ...]
    seen: Seen | None = None

    @property
    def streamed(self) -> bool:
        """Whether images are named by their files, not held."""
        return self.train.images.dtype.kind == "S"

    @property
    def serial(self) -> bool:
        """Whether these are time series."""
        return self.train.images.dtype.kind == "f"


def from_parts(
    parts: dict[str, Part], class_names: tuple[str, ...], seen: Seen | None = None
) -> RawData:
    """Data of parts "train" and where there are any "val" and "test"; classes without names are
    numbered.
    """
    labelled = {name: Labelled(*part) for name, part in parts.items()}
    names = class_names or numbered(labelled["train"].labels)
    return RawData(labelled["train"], labelled.get("val"), labelled.get("test"), names, seen)


def numbered(labels: np.ndarray) -> tuple[str, ...]:
    """Class names where a source has none: its label numbers."""
    known = labels[labels != IGNORED] if labels.ndim > 1 else labels
    return tuple(str(n) for n in range(int(known.max(initial=0)) + 1))


def existing(root: str, kind: str) -> Path:
    """The path that data.root names.

    Raises:
        ConfigError: nothing is there.
    """
    path = Path(root)
    if not root or not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        hint = f"; did you mean {near[0]!r}?" if root and near else ""
        if "$" in root or any(part.startswith("~") for part in path.parts):
            hint = "; ~ and $HOME are not expanded: write the path out"
        raise ConfigError(
            f"data.root {root!r} does not exist{hint}; give the file or folder of the {kind} data"
        )
    return path


def folder(root: str, kind: str) -> Path:
    """The folder that data.root names.

    Raises:
        ConfigError: it is missing, or no folder.
    """
    path = existing(root, kind)
    if not path.is_dir():
        raise ConfigError(f"data.root {root!r} is a file, expected a folder of {kind} data")
    return path


def images_of_each(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(n_classes,) how many images are of each class, or have pixels of it."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=n_classes)
    flat = labels.reshape(len(labels), -1)
    return np.array([(flat == c).any(1).sum() for c in range(n_classes)])


def check_classes(part: Labelled, name: str, class_names: tuple[str, ...]) -> None:
    """Refuse a split in which a class is missing: nothing would be said about that class.

    Args:
        name: of the split, for the message.

    Raises:
        ConfigError: one is.
    """
    missing = np.flatnonzero(images_of_each(part.labels, len(class_names)) == 0)
    if len(missing):
        raise ConfigError(
            f"class {class_names[missing[0]]!r} has no {name} images ({len(missing)} of "
            f"{len(class_names)} classes have none); add some, or leave the class out everywhere"
        )
