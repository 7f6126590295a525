"""Which files of a folder are images of which class, and which are left out; nothing is opened.

A class is a folder, with all its sub-folders. Files are images by their suffix. What systems and
archives leave behind (hidden files, `._x.jpg`, `__MACOSX`, `Thumbs.db`) is not an image.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from profilers.errors import ConfigError

SUFFIXES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
PARTS = ("train", "test", "val")
_NEARLY_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_JUNK = {"__macosx", "thumbs.db", "desktop.ini"}
NAMED = 10  # files that a message names
BROKEN = 20  # files that cannot be read that a message names
HIDDEN = "hidden, or left behind by macOS or Windows"
OUTSIDE = "in no folder of a class"


class LeftOut(NamedTuple):
    """Files below a folder that are no images of a class: how many, the first names, and how many
    for each reason.
    """

    n: int
    examples: tuple[str, ...]
    why: dict[str, int]


def list_folder(root: Path) -> tuple[dict[str, Iterator[tuple[Path, int]]], tuple[str, ...]]:
    """(file, label) of every image of each part of a folder, and the class names.

    The files of one class at a time are held; the iterators raise what this does.

    Raises:
        ConfigError: no class, a class without images, a class that training lacks, a class whose
            name is not UTF-8, or folders that look like parts under other names.
    """
    folders = _parts(root)
    classes = tuple(folder.name for folder in _class_folders(folders["train"]))
    if len(classes) == 1:
        only = folders["train"] / classes[0]
        deeper = [p for p in entries(only) if p.is_dir() and not _is_junk(p.name)]
        if len(deeper) > 1:
            raise ConfigError(
                f"{root}: the only class is {classes[0]!r}; if the folders below {only} are the "
                "classes, name that folder"
            )
    for name in classes:
        if name.encode(errors="surrogateescape") != name.encode(errors="replace"):
            raise ConfigError(
                f"{folders['train']}: the name of class {readable(name)} is not UTF-8; rename it"
            )
    return {part: _list_images(folder, classes) for part, folder in folders.items()}, classes


def left_out(root: Path) -> LeftOut:
    """The files below a folder that `list_folder` does not name."""
    parts = _parts(root)
    classes = [folder for part in parts.values() for folder in _class_folders(part)]
    inside = [p for folder in classes for p in _files(folder) if not _is_image(p, folder)]
    known, outside = {*classes, *parts.values()}, []
    for folder in {root, *parts.values()}:
        for entry in sorted(set(entries(folder)) - known):
            outside += list(_files(entry)) if entry.is_dir() else [entry]
    reasons = {
        readable(str(path.relative_to(root))): _why_not(path.relative_to(root), is_outside)
        for is_outside, paths in ((False, inside), (True, outside))
        for path in paths
    }
    names = sorted(reasons, key=lambda name: (reasons[name] == HIDDEN, name))
    why = dict(sorted(Counter(reasons.values()).items()))
    return LeftOut(len(names), tuple(names[:NAMED]), why)


def _why_not(path: Path, outside: bool) -> str:
    """Why a file is not an image of a class, by its name below the root."""
    if any(map(_is_junk, path.parts)):
        return HIDDEN
    if outside:
        return OUTSIDE
    suffix = path.suffix.lower()
    return f"no image: {suffix}" if suffix and suffix not in SUFFIXES else "no image"


def readable(name: str) -> str:
    """A name of a file as text that can be written anywhere: bytes that are no UTF-8 as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted.

    Raises:
        ConfigError: it cannot be looked into; names it.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    name = readable(str(error.filename))
    raise ConfigError(f"{name} cannot be read: {error.strerror}") from error


def refuse_unreadable(
    root: Path, n: int, errors: Sequence[tuple[Path, ConfigError]], instead: str = ""
) -> None:
    """Raise one error for all files that cannot be read.

    Args:
        root: of the names.
        n: files in all.
        errors: of each file that cannot be read.
        instead: of mending them.

    Raises:
        ConfigError: there are any; names them.
    """
    if not errors:
        return
    if len(errors) == 1:
        raise ConfigError(f"{errors[0][1]}{instead}")
    names = [readable(os.path.relpath(path, root)) for path, _ in errors[:BROKEN]]
    more = f" and {len(errors) - BROKEN} more" if len(errors) > BROKEN else ""
    raise ConfigError(
        f"{len(errors)} of {n} images cannot be read: {', '.join(names)}{more}, below {root}; "
        f"replace or remove them{instead}. The first: {errors[0][1]}"
    )


def _parts(root: Path) -> dict[str, Path]:
    """The folders of the parts of the data; without one called `train`, all of it is that."""
    found = {name: root / name for name in PARTS if (root / name).is_dir()}
    whole = "train" in found
    for entry in entries(root):
        if entry.name.lower() not in _NEARLY_PARTS or not entry.is_dir():
            continue
        if not whole or entry.name not in found:
            raise ConfigError(
                f"{entry} looks like a part of the data; the parts are called "
                f"{', '.join(PARTS)}, and train must be there: rename it"
            )
    return found if whole else {"train": root}


def _class_folders(folder: Path) -> list[Path]:
    found = [p for p in entries(folder) if p.is_dir() and not _is_junk(p.name)]
    if not found:
        raise ConfigError(
            f"{folder} holds no folders; expected one folder of images for each class"
        )
    return found


def _list_images(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    """(file, label) of every image of the class folders in folder, sorted by name."""
    for class_folder in _class_folders(folder):
        name = class_folder.name
        if name not in classes:
            raise ConfigError(
                f"{class_folder}: class {readable(name)!r} has no training images; "
                f"classes: {', '.join(classes)}"
            )
        images = sorted(p for p in _files(class_folder) if _is_image(p, class_folder))
        if not images:
            raise ConfigError(f"{class_folder} holds no image; known: {', '.join(SUFFIXES)}")
        label = classes.index(name)
        yield from ((path, label) for path in images)


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder; a link to a folder is one: it may lead round in a circle."""
    for base, folders, files in os.walk(folder, onerror=_refuse):
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in (*files, *links):
            yield Path(base, name)


def _is_image(path: Path, folder: Path) -> bool:
    """Whether a file below a class's folder is an image of it."""
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        return False
    return not any(_is_junk(part) for part in path.relative_to(folder).parts)


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK
