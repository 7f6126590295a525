"""Reader of scikit-learn's handwritten digits."""

from __future__ import annotations

from importlib import metadata

import numpy as np

from hwnas.images.raw import Labelled, RawData
from hwnas.settings.config import DataConfig


def read(config: DataConfig) -> RawData:
    """1,797 digits of 8x8 px, values 0-16 scaled to 0-255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    return RawData(Labelled(images, labels), None, None, tuple(str(n) for n in range(10)))


def version() -> str:
    """They change with the package only."""
    return metadata.version("scikit-learn")
