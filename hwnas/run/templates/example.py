"""Classify images with this package: `python example.py IMAGE [IMAGE ...]` (numpy, onnxruntime,
Pillow).

An image file of any size, or a .npy file of one uint8 image (height, width) or (height, width, 3).
Images become inputs as in the evaluation that manifest.json reports.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime
from PIL import Image

from hwnas.images.readers.pixels import centre, network_input, read_image

FOLDER = pathlib.Path(__file__).resolve().parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def read(path):
    """uint8 image (channels, height, width), cut as the images of the evaluation were."""
    given = MANIFEST["input"]
    image = read_array(path) if path.endswith(".npy") else read_image(path)
    image = image.convert("L" if given["channels"] == 1 else "RGB")
    size = given["source_size"]
    pixels = np.asarray(centre(image, given["resize_side"] or size, size))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_array(path):
    """The image of a .npy file."""
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as .npy: {' '.join(str(error).split())}"
        ) from error
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_image or not pixels.size:
        raise ValueError(
            f"{path} holds {pixels.dtype} {pixels.shape}; expected uint8 (height, width) or "
            "(height, width, 3)"
        )
    return Image.fromarray(pixels)


def prepare(pixels):
    """Network input (channels, size, size), float32."""
    given = MANIFEST["input"]
    return network_input(pixels, given["mean"], given["std"], given["size"])


def main(paths):
    """Print the class and its probability for each image."""
    session = onnxruntime.InferenceSession(
        str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    batch = session.get_inputs()[0].shape[0]
    images = np.stack([prepare(read(path)) for path in paths])
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.float32)])
        logits = session.run(None, {"image": padded})[0][: len(part)]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        for n, row in enumerate(odds):
            print(f"{paths[start + n]}: {MANIFEST['classes'][row.argmax()]} ({row.max():.1%})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
