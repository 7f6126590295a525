"""From pixels or a series to the input of a network: one way, in the evaluation and in packages.

The example.py of a package holds the text of this file, so it needs numpy alone, and runs with
Python 3.8.
"""

import numpy as np


def network_input(values: np.ndarray, mean: np.ndarray, std: np.ndarray, size: int) -> np.ndarray:
    """Input of a network (channels, size, size) or (channels, size), float32: normalised, resized.

    As hwnas computes it, in float32: linear along each axis, samples at half integers, no
    antialias.

    Args:
        values: (channels, height, width) uint8, scaled to [0, 1] first, or (channels, time) float.
        mean: (channels,), of the scaled pixels or of the series.
        std: (channels,), likewise.
        size: px, or steps.
    """
    shape = (-1,) + (1,) * (values.ndim - 1)
    scaled = values.astype(np.float32)
    if values.dtype == np.uint8:
        scaled = scaled / np.float32(255)
    x = scaled - np.array(mean, np.float32).reshape(shape)
    x = x / np.array(std, np.float32).reshape(shape)
    for axis in range(x.ndim - 1, 0, -1):
        n = x.shape[axis]
        if n == size:
            continue
        step, half = np.float32(n) / np.float32(size), np.float32(0.5)
        position = np.maximum((np.arange(size, dtype=np.float32) + half) * step - half, 0)
        low = np.minimum(position.astype(int), n - 1)
        share = np.minimum(position - low.astype(np.float32), 1)
        share = share.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        high = np.minimum(low + 1, n - 1)
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def fit_length(series: np.ndarray, length: int) -> np.ndarray:
    """(channels, length) of a series (channels, time): its first steps, or padded with its last."""
    missing = max(0, length - series.shape[1])
    return np.pad(series[:, :length], ((0, 0), (0, missing)), "edge")
