"""Images read from their files when they are needed, at the resolution that is wanted.

For folders that do not fit in memory. Evaluation: the shorter side is resized to
ceil(resolution x 256 / 224) px, then the centre is cut out. Training: a random part is cut out and
resized, colours and side are changed at random. Both as for the published ImageNet models.

Source: Resize, CenterCrop, RandomResizedCrop and ColorJitter of torchvision as used in
    ofa/imagenet_classification/data_providers/imagenet.py of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageEnhance

from hwnas.images import pixels
from hwnas.images.listing import list_folder, refuse_unreadable
from hwnas.images.pixels import centre
from hwnas.images.raw import Part
from profilers.cpus import affinity
from profilers.errors import ConfigError

BILINEAR = Image.Resampling.BILINEAR
SCALE = (0.08, 1.0)  # share of the area that a random part has
RATIO = (3 / 4, 4 / 3)  # width over height of it
ATTEMPTS = 10  # to draw a part that fits into the image
BRIGHTNESS, SATURATION = 32 / 255, 0.5  # largest change at random

Item = TypeVar("Item")


def list_image_files(root: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Files (n,) as bytes and labels (n,) of each part of a folder, and the class names.

    Bytes, as the system names files: a text takes four times the memory.

    Raises:
        ConfigError: what `list_folder` refuses.
    """
    found, classes = list_folder(root)
    parts = {}
    for part, listed in found.items():
        paths, labels = [], []
        for path, label in listed:
            paths.append(os.fsencode(path))
            labels.append(label)
        parts[part] = (np.array(paths), np.array(labels, dtype=np.int64))
    return parts, classes


def open_image(path: Path) -> Image.Image:
    """`pixels.read_image`.

    Raises:
        ConfigError: the file cannot be read, or has more than 8 bits a channel; names it.
    """
    try:
        return pixels.read_image(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def resized_side(resolution: int) -> int:
    """The shorter side that an image is resized to before its centre is cut out, px."""
    return math.ceil(resolution * 256 / 224)


def centre_crops(paths: Sequence[bytes], resolution: int) -> np.ndarray:
    """(n, 3, resolution, resolution) uint8 of image files, as in evaluation.

    Raises:
        ConfigError: files cannot be read; names them.
    """
    return _decoded(functools.partial(_centre_crop, resolution=resolution), paths)


def check(root: Path, paths: Sequence[bytes]) -> None:
    """Decode every file once.

    Raises:
        ConfigError: files cannot be read; names them all.
    """

    def tried(path: bytes) -> ConfigError | None:
        try:
            open_image(Path(os.fsdecode(path)))
        except ConfigError as error:
            return error
        return None

    found = zip(paths, _threads().map(tried, paths), strict=True)
    errors = [(Path(os.fsdecode(path)), error) for path, error in found if error]
    refuse_unreadable(root, len(paths), errors)


def random_crops(paths: Sequence[bytes], resolution: int, seeds: Sequence[int]) -> np.ndarray:
    """(n, 3, resolution, resolution) uint8 of image files, as in training; equal seeds give equal
    images.

    Raises:
        ConfigError: files cannot be read; names them.
    """
    crop = functools.partial(_random_crop, resolution=resolution)
    return _decoded(crop, paths, seeds)


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items; the next one is being made while the caller works with one."""
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, source, end)
            yield item  # type: ignore[misc]


def refuse_mixed_sizes(paths: Sequence[Path], images: Sequence[np.ndarray]) -> None:
    """Refuse images (h, w) or (h, w, 3) that cannot lie in one array.

    Raises:
        ConfigError: two are of different sizes; names their files.
    """
    first = images[0].shape[:2]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != first:
            raise ConfigError(
                f"{path} is {image.shape[1]}x{image.shape[0]} px, {paths[0]} is "
                f"{first[1]}x{first[0]} px; set data.image_size to cut all to one size"
            )


def as_wanted(image: np.ndarray, colour: bool) -> np.ndarray:
    """(c, h, w) of a decoded image; grey becomes three equal channels in coloured data."""
    if image.ndim == 3:
        return image.transpose(2, 0, 1)
    return np.repeat(image[None], 3 if colour else 1, axis=0)


# ---- one image ----------------------------------------------------------------------------------


def _decoded(
    make: Callable[..., np.ndarray], paths: Sequence[bytes], *others: Sequence[object]
) -> np.ndarray:
    """What is made of each file (and of what else belongs to it), on top of each other."""

    def tried(*given: object) -> np.ndarray | ConfigError:
        try:
            return make(*given)
        except ConfigError as error:
            return error

    found = list(_threads().map(tried, paths, *others))
    files = [Path(os.fsdecode(path)) for path in paths]
    errors = [(p, e) for p, e in zip(files, found, strict=True) if isinstance(e, ConfigError)]
    refuse_unreadable(Path(os.path.commonpath(files)), len(found), errors)
    return np.stack([image for image in found if isinstance(image, np.ndarray)])


@functools.lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Decoding leaves Python's lock, so threads share the cores."""
    return ThreadPoolExecutor(len(affinity()), thread_name_prefix="decode")


def _centre_crop(path: bytes, resolution: int) -> np.ndarray:
    return _channels_first(centre(_rgb(path), resized_side(resolution), resolution))


def _random_crop(path: bytes, seed: int, resolution: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = _rgb(path)
    cut = image.resize((resolution, resolution), BILINEAR, box=random_box(image.size, rng))
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    cut = ImageEnhance.Brightness(cut).enhance(rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS))
    cut = ImageEnhance.Color(cut).enhance(rng.uniform(1 - SATURATION, 1 + SATURATION))
    return _channels_first(cut)


def random_box(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part of an image; the centre where none fits.

    Args:
        size: width and height, px.
        rng: source of chance.
    """
    width, height = size
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * RATIO[1])))
    h = min(height, max(1, round(width / RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _rgb(path: bytes) -> Image.Image:
    image = open_image(Path(os.fsdecode(path)))
    return image if image.mode == "RGB" else image.convert("RGB")


def _channels_first(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)
