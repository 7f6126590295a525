"""What a folder of images holds, before there are settings: classes, sizes, colours, files that
cannot be read. Every image is opened; while there is time, decoded too, which finds truncated ones.
"""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hwnas.images import pixels
from hwnas.images.listing import LeftOut, left_out, list_folder, readable
from hwnas.images.raw import Seen, folder
from profilers.errors import ConfigError

DECODE_S = 30.0  # time to decode files; the headers of all others are read
LEAST = 3  # images of a class: one each to train on, for search and to test


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        classes: images of each class that can be read, all parts together.
        parts: images of each part that can be read: train, and test and val where they are there.
        seen: sizes, how many are grey, what cannot be read.
        left_out: files that are no images of a class.
    """

    classes: dict[str, int]
    parts: dict[str, int]
    seen: Seen
    left_out: LeftOut

    @property
    def n(self) -> int:
        """Images that can be read."""
        return sum(self.classes.values())

    @property
    def side(self) -> int:
        """Median of the images' shorter sides, px."""
        sides = Counter[int]()
        for (width, height), n in self.seen.sizes.items():
            sides[min(width, height)] += n
        shorter = sorted(sides.elements())
        return shorter[len(shorter) // 2]


def survey(root: str) -> Survey:
    """What a folder of images holds.

    Raises:
        ConfigError: no folder, none of classes, fewer than two classes, or a class with too few
            images to train on, search with and test; whatever `list_folder` refuses.
    """
    place = folder(root, "image_folder")
    listed, classes = list_folder(place)
    files = [(part, p, label) for part, found in listed.items() for p, label in found]
    look = functools.partial(_look, until_s=time.monotonic() + DECODE_S)
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:  # decoding leaves Python's lock
        looks = list(threads.map(look, (path for _, path, _ in files)))
    sizes, parts = Counter[tuple[int, int]](), Counter[str]()
    by_class, skipped, grey = Counter[int](), {}, 0
    for (part, path, label), (size, is_grey, why) in zip(files, looks, strict=True):
        if why:
            skipped[readable(os.path.relpath(path, place))] = why
            continue
        grey += is_grey
        sizes[size] += 1
        parts[part] += 1
        by_class[label] += 1
    counts = {name: by_class[label] for label, name in enumerate(classes)}
    _refuse_few(root, counts, len(listed), skipped)
    return Survey(counts, dict(parts), Seen(dict(sizes), grey, skipped), left_out(place))


def _look(path: Path, until_s: float) -> tuple[tuple[int, int], bool, str]:
    """Width and height, px; whether it is grey; why it cannot be read, or empty."""
    try:
        if time.monotonic() < until_s:
            image = pixels.read_image(path)
        else:
            with Image.open(path) as image:  # its header
                pass
    except pixels.BROKEN as error:
        return (0, 0), False, " ".join(str(error).removeprefix(f"{path} ").split())
    return image.size, image.mode in pixels.GREY, ""


def _refuse_few(root: str, counts: dict[str, int], parts: int, skipped: dict[str, str]) -> None:
    if len(counts) < 2:
        raise ConfigError(
            f"{root}: the only class is {next(iter(counts))!r}, expected at least 2 classes, a "
            "folder of images each; add images of another one"
        )
    least = LEAST + 1 - parts
    few = {name: n for name, n in counts.items() if n < max(1, least)}
    if few:
        told = ", ".join(f"{name!r} ({n})" for name, n in list(few.items())[:10])
        broken = (
            f"; {len(skipped)} file(s) cannot be read: {next(iter(skipped))}" if skipped else ""
        )
        raise ConfigError(
            f"{root}: {len(few)} of {len(counts)} classes have fewer than {least} images that can "
            f"be read: {told}{broken}; add images or remove these folders"
        )
