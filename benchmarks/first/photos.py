"""Folders of real images as a phone and an archive would leave them, with every trap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EACH, FEW = 300, 14  # photos of a class
CLASSES = {"boots": 9, "bags": 8, "shirts": 0}  # of Fashion-MNIST
LATIN_1 = "caf\udce9.jpg"


def make(root: Path, quick: bool) -> dict[str, Any]:
    """Write the folder; `photos`: how many can be read, `examples`: files of them to classify."""
    each, rng = (FEW if quick else EACH), np.random.default_rng(0)
    images, labels = _digits() if quick else _fashion()
    for name, label in CLASSES.items():
        chosen = images[np.flatnonzero(labels == label)[:each]]
        for n, pixels in enumerate(chosen):
            _save(pixels, _place(root / name, n), rng, (8, 17) if quick else (64, 161))
    _traps(root)
    examples = [str(root / name / "0003.jpg") for name in CLASSES]
    return {"photos": each * len(CLASSES), "examples": examples}


def _place(folder: Path, n: int) -> Path:
    """Where a photo goes: some in sub-folders, some with other suffixes, one with a name of old."""
    name = f"{n:04}" + (".jfif" if n % 7 == 5 else ".JPG" if n % 7 == 6 else ".jpg")
    if n == 0:
        name = LATIN_1
    return folder / ("summer/beach" if n % 5 == 4 else "") / name


def _save(pixels: np.ndarray, path: Path, rng: np.random.Generator, sides: tuple[int, int]) -> None:
    """One image, enlarged and tinted; every tenth stays grey, every eleventh is turned by EXIF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = tuple(int(side) for side in rng.integers(*sides, 2))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if rng.random() > 0.1:
        light = np.asarray(image, np.float32)[..., None] / 255
        front, back = rng.uniform(120, 255, 3), rng.uniform(0, 90, 3)
        image = Image.fromarray((light * front + (1 - light) * back).astype(np.uint8))
    exif = Image.Exif()
    if rng.random() < 0.1:
        image, exif[0x0112] = image.rotate(90, expand=True), 6
    image.save(path, format="JPEG", quality=90, exif=exif)


def _traps(root: Path) -> None:
    whole = (root / "bags" / "0001.jpg").read_bytes()
    texts = {
        "bags/._0001.jpg": b"\0\5\x16\7", "__MACOSX/bags/._0001.jpg": b"\0\5\x16\7",
        "shirts/Thumbs.db": b"\xd0\xcf", "boots/.DS_Store": b"\0", "desktop.ini": b"[x]",
        "notes.txt": b"taken in May", "boots/live.heic": b"\0", "boots/empty.jpg": b"",
        "bags/cut.jpg": whole[: len(whole) // 2], "shirts/page.jpg": b"<html>not found</html>",
    }  # fmt: skip
    for name, content in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    held = load_digits()
    return np.rint(held.images * (255 / 16)).astype(np.uint8), held.target


def _fashion() -> tuple[np.ndarray, np.ndarray]:
    from hwnas.images.sources import read
    from hwnas.settings.config import DataConfig

    held = read(DataConfig(kind="idx")).train
    return held.images[:, 0], held.labels
