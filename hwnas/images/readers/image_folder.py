"""Reader of folders of image files, one folder a class, with Pillow: held, or read when needed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hwnas.images import pixels
from hwnas.images.image_files import (
    as_wanted,
    list_image_files,
    open_image,
    refuse_mixed_sizes,
)
from hwnas.images.listing import entries, list_folder, readable, refuse_unreadable
from hwnas.images.raw import Part, RawData, Seen, folder, from_parts
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError

LINKED = 2  # floors of folders that may be links: parts, and classes in them
SKIP = ", or leave out what cannot be read: data.skip_broken: true"


def read(config: DataConfig) -> RawData:
    """A lone val folder is the test set (ImageNet's layout); beside a test folder, validation."""
    root, seen = folder(config.root, "image_folder"), None
    if config.stream:
        parts, classes = list_image_files(root)
    else:
        parts, classes, seen = _decoded(root, config.image_size, config.skip_broken)
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    return from_parts(parts, classes, seen)


def files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The folder and everything below it."""
    root = folder(config.root, "image_folder")
    return root, _below(root)


def _below(folder: Path, links: int = LINKED) -> Iterator[Path]:
    """Every path below a folder, sorted folder by folder; one folder's are held at a time.

    Args:
        links: how many floors of folders may be links.
    """
    for path in entries(folder):
        yield path
        if path.is_dir() and (links > 0 or not path.is_symlink()):
            yield from _below(path, links - 1)


def _decoded(
    root: Path, image_size: int, skip_broken: bool
) -> tuple[dict[str, Part], tuple[str, ...], Seen]:
    """Every image below root.

    Args:
        root: holds folders of classes, or train, test and val folders that hold them.
        image_size: px; the shorter side is resized to it and the centre cut out. 0: as they are.
        skip_broken: leave out what cannot be read, while every part keeps an image.

    Returns:
        `{part: (images (n, c, h, w) uint8, labels (n,) int64)}` with the parts that are there
        ("train" always), the class names, and what was seen. c is 1 when every image is grey, else
        3.

    Raises:
        ConfigError: what `list_folder` refuses, images that cannot be read, images of several
            sizes.
    """
    parts, classes = list_folder(root)
    files = {part: list(listed) for part, listed in parts.items()}
    decoded: dict[str, list[np.ndarray]] = {part: [] for part in files}
    kept: dict[str, list[tuple[Path, int]]] = {part: [] for part in files}
    errors: list[tuple[Path, ConfigError]] = []
    sizes: Counter[tuple[int, int]] = Counter()
    for part, path, label, image in _opened(files, errors):
        sizes[image.size] += 1
        kept[part].append((path, label))
        cut = pixels.centre(image, image_size, image_size) if image_size else image
        decoded[part].append(np.asarray(cut))
    if not (skip_broken and all(kept.values())):
        n = sum(map(len, files.values()))
        refuse_unreadable(root, n, errors, "" if skip_broken else SKIP)
    refuse_mixed_sizes(
        [path for listed in kept.values() for path, _ in listed],
        [image for images in decoded.values() for image in images],
    )
    grey = sum(image.ndim == 2 for images in decoded.values() for image in images)
    colour = grey < sizes.total()
    parts_of = {
        part: (
            np.stack([as_wanted(image, colour) for image in decoded[part]]),
            np.array([label for _, label in kept[part]], dtype=np.int64),
        )
        for part in files
    }
    skipped = {
        readable(os.path.relpath(path, root)): str(error).removeprefix(f"{path} ")
        for path, error in errors
    }
    return parts_of, classes, Seen(dict(sizes), grey, skipped)


def _opened(
    files: dict[str, list[tuple[Path, int]]], errors: list[tuple[Path, ConfigError]]
) -> Iterator[tuple[str, Path, int, Image.Image]]:
    """Part, path, label and image of every file that can be read; `errors` gets the others."""
    for part, listed in files.items():
        for path, label in listed:
            try:
                image = open_image(path)
            except ConfigError as error:
                errors.append((path, error))
            else:
                yield part, path, label, image
