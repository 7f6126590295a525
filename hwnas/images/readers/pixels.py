"""From an image file to the input of a network: one way, in the evaluation and in packages.

The example.py of a package holds the text of this file, so it needs numpy and Pillow alone, and
runs with Python 3.8.

Source: Resize and CenterCrop of torchvision, as used for the published ImageNet models.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
# What Pillow raises for files it cannot decode; each comes from one of its format readers.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_image(path: Path) -> Image.Image:
    """The image of a file, turned upright: mode L where it is grey, else RGB; no transparency.

    Raises:
        ValueError: it cannot be read, or has more than 8 bits a channel; names the file.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
    except _BROKEN as error:
        reason = getattr(error, "strerror", None)  # of the system, not of Pillow
        if reason:
            raise ValueError(f"{path} cannot be read: {reason}") from error
        raise ValueError(
            f"{path} cannot be read as an image: {' '.join(str(error).split())}; "
            "it is truncated or damaged, replace or remove it"
        ) from error
    if image.mode not in _GREY + _COLOUR:
        raise ValueError(f"{path} has pixel mode {image.mode}; save it with 8 bits a channel")
    image.info.pop("transparency", None)  # Pillow warns where a palette has it; it has no say here
    return image.convert("L" if image.mode in _GREY else "RGB")


def centre(image: Image.Image, side: int, size: int) -> Image.Image:
    """The centre of size x size px, cut out after resizing the shorter side to side px (bilinear
    with antialias).
    """
    short = min(image.size)
    width, height = (side if s == short else int(side * s / short) for s in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def network_input(pixels: np.ndarray, mean: np.ndarray, std: np.ndarray, size: int) -> np.ndarray:
    """Input of a network (channels, size, size) float32: scaled to [0, 1], normalised, resized.

    As hwnas computes it, in float32: bilinear, pixel centres at half integers, no antialias.

    Args:
        pixels: (channels, height, width) uint8.
        mean: (channels,), in [0, 1].
        std: (channels,), likewise.
        size: px.
    """
    shape = (-1, 1, 1)
    scaled = pixels.astype(np.float32) / np.float32(255)
    x = scaled - np.array(mean, np.float32).reshape(shape)
    x = x / np.array(std, np.float32).reshape(shape)
    for axis in (2, 1):
        n = x.shape[axis]
        if n == size:
            continue
        step, half = np.float32(n) / np.float32(size), np.float32(0.5)
        position = np.maximum((np.arange(size, dtype=np.float32) + half) * step - half, 0)
        low = np.minimum(position.astype(int), n - 1)
        share = np.minimum(position - low.astype(np.float32), 1)
        share = share.reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, n - 1)
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x
