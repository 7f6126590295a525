"""How this package reads an image, with Pillow."""

import numpy as np
from PIL import Image

from hwnas.images.pixels import centre, read_image


def read(path, given):
    """FILE is an image of any size, or a .npy file of one uint8 image (height, width) or
    (height, width, 3); of networks of other channels a .npy file (size, size, channels).
    """
    if given["channels"] not in (1, 3):
        return read_channels(path, given)
    image = read_array(path) if path.endswith(".npy") else read_image(path)
    image = image.convert("L" if given["channels"] == 1 else "RGB")
    size = given["source_size"]
    pixels = np.asarray(centre(image, given["resize_side"] or size, size))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_channels(path, given):
    """The pixels of a .npy file, (channels, size, size), that are taken as they are."""
    wanted = (given["source_size"], given["source_size"], given["channels"])
    if not path.endswith(".npy"):
        raise ValueError(
            f"{path}: the network reads {given['channels']} channels; give a .npy file"
        )
    pixels = load_array(path)
    if pixels.dtype != np.uint8 or pixels.shape != wanted:
        raise ValueError(f"{path} holds {pixels.dtype} {pixels.shape}; expected uint8 {wanted}")
    return pixels.transpose(2, 0, 1)


def read_array(path):
    """The image of a .npy file."""
    pixels = load_array(path)
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_image or not pixels.size:
        raise ValueError(
            f"{path} holds {pixels.dtype} {pixels.shape}; expected uint8 (height, width) or "
            "(height, width, 3)"
        )
    return Image.fromarray(pixels)


def load_array(path):
    """What a .npy file holds; never a pickle."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as .npy: {' '.join(str(error).split())}"
        ) from error
