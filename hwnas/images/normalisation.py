"""Mean and standard deviation of each channel that images or series are normalised by."""

from __future__ import annotations

import numpy as np

from hwnas.images.raw import Labelled, RawData
from hwnas.settings.data_config import DataConfig
from profilers.errors import ConfigError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of each channel
LEAST = 1 / 255  # deviation of pixels, of [0, 1]: images of one colour have none


def normalisation(
    raw: RawData, train: Labelled, config: DataConfig
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel.

    Raises:
        ConfigError: the settings name other channels.
    """
    if isinstance(config.normalise, tuple):
        channels = len(IMAGENET[0]) if raw.streamed else train.images.shape[1]
        if len(config.normalise[0]) != channels:
            raise ConfigError(
                f"normalise names {len(config.normalise[0])} channels, the data have {channels}"
            )
        return config.normalise
    if raw.serial:
        return _series_statistics(train.images)
    if not raw.streamed and config.normalise != "imagenet":
        return _channel_statistics(train.images)
    if not raw.streamed and train.images.shape[1] != len(IMAGENET[0]):
        raise ConfigError(
            "normalise: imagenet needs images of 3 channels, these have "
            f"{train.images.shape[1]}; use normalise: data"
        )
    return IMAGENET


def _channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (n, c, h, w) uint8, in [0, 1].

    Counted in whole numbers, so the result does not depend on the order of summing.
    """
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), 1024):  # bincount widens to 8 bytes a pixel: in pieces
        for channel in range(images.shape[1]):
            pixels = images[start : start + 1024, channel].ravel()
            counts[channel] += np.bincount(pixels, minlength=256)
    levels = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    variance = counts @ levels**2 / total - mean**2
    std = np.maximum(np.sqrt(np.maximum(variance, 0)), LEAST)
    return tuple(mean.tolist()), tuple(std.tolist())


def _series_statistics(series: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (n, c, time) float32; 1 for one that does not
    change by more than float32 can tell.
    """
    mean = series.mean(axis=(0, 2), dtype=np.float64)
    std = series.std(axis=(0, 2), dtype=np.float64)
    changes = std > np.finfo(np.float32).eps * np.abs(mean)
    return tuple(mean.tolist()), tuple(np.where(changes, std, 1.0).tolist())
