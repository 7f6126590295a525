"""Reader of folders `images` and `masks`: a PNG of each image's name says the class of each pixel.

They lie below the root, or below its folders train, test and val. Classes have the names in the
lines of `classes.txt`, or numbers. 255 is no class: such pixels count nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from hwnas.images import pixels
from hwnas.images.image_files import as_wanted, open_image, refuse_mixed_sizes
from hwnas.images.listing import PARTS, SUFFIXES, entries
from hwnas.images.raw import Part, RawData, Seen, folder, from_parts
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError

INDEXED = ("1", "L", "P")  # modes of Pillow whose values are numbers of classes
NAMES = "classes.txt"


def read(config: DataConfig) -> RawData:
    """A lone val folder is the test set; beside a test folder, validation.

    Raises:
        ConfigError: an image without a mask, or of another size; a file that cannot be read; images
            of several sizes.
    """
    root = folder(config.root, "mask_folder")
    pairs = {name: _pairs(place) for name, place in _parts(root).items()}
    opened = {
        part: [_opened(image, mask, config.image_size) for image, mask in found]
        for part, found in pairs.items()
    }
    everything = [pair for part in opened.values() for pair in part]
    refuse_mixed_sizes(
        [image for found in pairs.values() for image, _ in found],
        [image for image, _, _ in everything],
    )
    sizes = Counter(size for _, _, size in everything)
    grey = sum(image.ndim == 2 for image, _, _ in everything)
    parts: dict[str, Part] = {
        part: (
            np.stack([as_wanted(image, grey < len(everything)) for image, _, _ in found]),
            np.stack([mask for _, mask, _ in found]),
        )
        for part, found in opened.items()
    }
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    return from_parts(parts, _class_names(root / NAMES), Seen(dict(sizes), grey, {}))


def _class_names(path: Path) -> tuple[str, ...]:
    """Names of classes, a line each; none where there is no such file.

    Raises:
        ConfigError: it is no UTF-8 text.
    """
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    return tuple(line.strip() for line in lines if line.strip())


def files(config: DataConfig) -> tuple[Path, Iterable[Path]]:
    """The folder, and the files that are read."""
    root = folder(config.root, "mask_folder")
    found = [path for place in _parts(root).values() for pair in _pairs(place) for path in pair]
    return root, [*found, root / NAMES]


def _parts(root: Path) -> dict[str, Path]:
    return {p: root / p for p in PARTS if (root / p / "images").is_dir()} or {"train": root}


def _pairs(place: Path) -> list[tuple[Path, Path]]:
    """Each image of a part and its mask.

    Raises:
        ConfigError: a folder is missing or empty; one of them is without the other.
    """
    for name in ("images", "masks"):
        if not (place / name).is_dir():
            raise ConfigError(
                f"{place} has no folder {name!r}; expected images/NAME.jpg and masks/NAME.png"
            )
    images, masks = _by_name(place / "images", SUFFIXES), _by_name(place / "masks", {".png"})
    alone = sorted(images.keys() ^ masks.keys())
    if alone or not images:
        what = f"{alone[0]!r} and {len(alone) - 1} more" if alone else "all"
        raise ConfigError(
            f"{place}: images and masks do not go together ({what}); each image needs a mask of "
            "its name as PNG, each mask an image"
        )
    return [(images[name], masks[name]) for name in sorted(images)]


def _by_name(place: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """Files of a folder by their names without suffix.

    Raises:
        ConfigError: two have the same.
    """
    found: dict[str, Path] = {}
    for path in entries(place):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if (other := found.setdefault(path.stem, path)) != path:
            raise ConfigError(
                f"{place}: {other.name} and {path.name} have one name, so one mask would be for "
                "both; rename one and its mask"
            )
    return found


def _opened(image: Path, mask: Path, side: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Pixels of an image, classes of its pixels, both cut to a side (0: as they are), and its
    width and height.
    """
    found, given = open_image(image), _classes(mask)
    if found.size != given.size:
        raise ConfigError(
            f"{mask} is {given.width}x{given.height} px, its image {found.width}x{found.height}; "
            "write it at the size of the image"
        )
    if not side:
        return np.asarray(found), np.asarray(given), found.size
    nearest = Image.Resampling.NEAREST
    cut = (pixels.centre(found, side, side), pixels.centre(given, side, side, nearest))
    return np.asarray(cut[0]), np.asarray(cut[1]), found.size


def _classes(path: Path) -> Image.Image:
    """A mask, one byte a pixel."""
    try:
        with Image.open(path) as file:
            file.load()
            values = np.asarray(file) if file.mode in INDEXED else None
    except pixels.BROKEN as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if values is None:
        raise ConfigError(
            f"{path} holds colours or more than 8 bits a pixel (mode {file.mode}); save the number "
            "of each pixel's class, as a grey PNG or one with a palette"
        )
    return Image.fromarray(values.astype(np.uint8))
