"""From an image file to its pixels: one way, in the evaluation and in packages.

The example.py of a package holds the text of this file, so it needs Pillow alone, and runs with
Python 3.8.

Source: Resize and CenterCrop of torchvision, as used for the published ImageNet models.
"""

import struct
from pathlib import Path

from PIL import Image

GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
ORIENTATION = 0x0112  # EXIF tag: how the photographed scene lies in the file
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises for files it cannot decode; each comes from one of its format readers.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_image(path: Path) -> Image.Image:
    """The image of a file, turned upright: mode L where it is grey, else RGB; no transparency.

    Raises:
        ValueError: it cannot be read, or has more than 8 bits a channel; names the file.
    """
    try:
        with Image.open(path) as file:
            file.load()
            # Not exif_transpose: it writes all tags anew, and fails where one is odd.
            turn = TURNED.get(file.getexif().get(ORIENTATION, 1))
            image = file.copy() if turn is None else file.transpose(turn)
    except BROKEN as error:
        reason = getattr(error, "strerror", None)  # of the system, not of Pillow
        if reason:
            raise ValueError(f"{path} cannot be read: {reason}") from error
        raise ValueError(
            f"{path} cannot be read as an image: {' '.join(str(error).split())}; "
            "it is truncated or damaged, replace or remove it"
        ) from error
    if image.mode not in GREY + COLOUR:
        raise ValueError(f"{path} has pixel mode {image.mode}; save it with 8 bits a channel")
    image.info.pop("transparency", None)  # Pillow warns where a palette has it; it has no say here
    return image.convert("L" if image.mode in GREY else "RGB")


def centre(
    image: Image.Image,
    side: int,
    size: int,
    how: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """The centre of size x size px, cut out after resizing the shorter side to side px (how:
    bilinear with antialias).
    """
    short = min(image.size)
    width, height = (side if s == short else int(side * s / short) for s in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), how)
    return resized.crop((left, top, left + size, top + size))
