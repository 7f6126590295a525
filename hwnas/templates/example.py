"""Classify images with this package: `python example.py IMAGE [IMAGE ...]` (numpy, onnxruntime,
Pillow).

An image file of any size, or a .npy file of one uint8 image (height, width) or (height, width, 3).
Images are cut and scaled exactly as in the evaluation that manifest.json reports.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime

FOLDER = pathlib.Path(__file__).resolve().parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def cut(image, size, side):
    """The centre of an image whose shorter side was resized (Pillow: bilinear with antialias)."""
    from PIL import Image

    short = min(image.size)
    width, height = (side if s == short else int(side * s / short) for s in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.BILINEAR)
    return image.crop((left, top, left + size, top + size))


def read(path):
    """uint8 image (channels, height, width) at the size of the training images."""
    given = MANIFEST["input"]
    if path.endswith(".npy"):
        pixels = np.load(path, allow_pickle=False)
    else:
        from PIL import Image, ImageOps

        image = ImageOps.exif_transpose(Image.open(path))
        image = image.convert("L" if given["channels"] == 1 else "RGB")
        if given.get("resize_side"):
            image = cut(image, given["size"], given["resize_side"])
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        pixels = np.asarray(image.resize((given["source_size"],) * 2, Image.BILINEAR))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def resize(x, size):
    """Bilinear, pixel centres at half integers, no antialias: (channels, h, w) -> (channels, size,
    size).
    """
    for axis in (1, 2):
        n = x.shape[axis]
        if n == size:
            continue
        position = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, n - 1)
        share = (position - low).reshape([-1 if a == axis else 1 for a in range(3)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def prepare(pixels):
    """Network input (channels, size, size), float32."""
    given = MANIFEST["input"]
    mean, std = (np.array(given[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return resize((pixels / 255 - mean) / std, given["size"]).astype(np.float32)


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
    main(sys.argv[1:])
