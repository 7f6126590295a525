"""Reader of folders of image files, one folder a class, with Pillow: held, or read when needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from hwnas.images import pixels
from hwnas.images.image_files import list_image_files, open_image
from hwnas.images.listing import entries, list_folder, refuse_unreadable
from hwnas.images.raw import Part, RawData, folder, from_parts
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError


def read(config: DataConfig) -> RawData:
    """A lone val folder is the test set (ImageNet's layout); beside a test folder, validation."""
    root = folder(config.root, "image_folder")
    parts, classes = list_image_files(root) if config.stream else _decoded(root, config.image_size)
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    return from_parts(parts, classes)


def files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The folder and everything below it; streamed ones are listed folder by folder."""
    root = folder(config.root, "image_folder")
    return root, _below(root) if config.stream else sorted(root.rglob("*"))


def _below(folder: Path) -> Iterator[Path]:
    """Every path below a folder, sorted folder by folder; one folder's are held at a time."""
    for path in entries(folder):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def _decoded(root: Path, image_size: int) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Every image below root.

    Args:
        root: holds folders of classes, or train, test and val folders that hold them.
        image_size: px; the shorter side is resized to it and the centre cut out. 0: as they are.

    Returns:
        `{part: (images (n, c, h, w) uint8, labels (n,) int64)}` with the parts that are there
        ("train" always), and the class names. c is 1 when every image is grey, else 3.

    Raises:
        ConfigError: what `list_folder` refuses, images that cannot be read, images of several
            sizes.
    """
    parts, classes = list_folder(root)
    files = {part: list(listed) for part, listed in parts.items()}
    decoded: dict[str, list[np.ndarray]] = {part: [] for part in files}
    errors = []
    for part, listed in files.items():
        for path, _ in listed:
            try:
                decoded[part].append(_decode(path, image_size))
            except ConfigError as error:
                errors.append((path, error))
    refuse_unreadable(root, sum(map(len, files.values())), errors)
    _refuse_mixed_sizes(
        [path for listed in files.values() for path, _ in listed],
        [image for images in decoded.values() for image in images],
    )
    colour = any(image.ndim == 3 for images in decoded.values() for image in images)
    return {
        part: (
            np.stack([_channels_first(image, colour) for image in decoded[part]]),
            np.array([label for _, label in files[part]], dtype=np.int64),
        )
        for part in files
    }, classes


def _decode(path: Path, image_size: int) -> np.ndarray:
    """(h, w) uint8 of a grey image, (h, w, 3) of a coloured one, turned upright."""
    image = open_image(path)
    return np.asarray(pixels.centre(image, image_size, image_size) if image_size else image)


def _refuse_mixed_sizes(paths: list[Path], images: list[np.ndarray]) -> None:
    first = images[0].shape[:2]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != first:
            raise ConfigError(
                f"{path} is {image.shape[1]}x{image.shape[0]} px, {paths[0]} is "
                f"{first[1]}x{first[0]} px; set data.image_size to cut all to one size"
            )


def _channels_first(image: np.ndarray, colour: bool) -> np.ndarray:
    """(c, h, w) of a decoded image; grey becomes three equal channels in coloured data."""
    if image.ndim == 3:
        return image.transpose(2, 0, 1)
    return np.repeat(image[None], 3 if colour else 1, axis=0)
