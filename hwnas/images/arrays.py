"""Data of named arrays: of an .npz file, or of a function of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwnas.images.raw import Labelled, RawData, numbered
from profilers.errors import ConfigError

NAMES = (
    "train_images", "train_series", "train_labels",
    "test_images", "test_series", "test_labels",
    "class_names",
)  # fmt: skip


def from_arrays(arrays: Mapping[str, Any], where: str) -> RawData:
    """Data of named arrays.

    Args:
        arrays: train_images (n, h, w) or (n, h, w, c) uint8, or train_series (n, time) or
            (n, channels, time) floats; train_labels (n,) integers, or masks (n, h, w) of images,
            uint8; where there are any the same for test, and class_names.
        where: their source, for messages.

    Raises:
        ConfigError: an array is missing, unknown, or of another shape or type.
    """
    unknown = sorted(set(arrays) - set(NAMES))
    if unknown:
        raise ConfigError(f"{where}: unknown array {unknown[0]!r}; known: {', '.join(NAMES)}")
    train = _labelled(arrays, "train", where)
    if train is None:
        raise ConfigError(f"{where}: train_images (or train_series) and train_labels are missing")
    names = arrays.get("class_names", ())
    classes = tuple(str(name) for name in np.asarray(names).ravel()) or numbered(train.labels)
    return RawData(train, None, _labelled(arrays, "test", where), classes)


def _labelled(arrays: Mapping[str, Any], part: str, where: str) -> Labelled | None:
    given = [name for name in NAMES if name.startswith(part) and name in arrays]
    if not given:
        return None
    if len(given) != 2 or given[1] != f"{part}_labels":
        raise ConfigError(
            f"{where}: {' and '.join(given)} given; expected {part}_labels with {part}_images or "
            f"{part}_series"
        )
    inputs, labels = (np.asarray(arrays[name]) for name in given)
    is_mask = labels.dtype == np.uint8 and labels.shape == inputs.shape[:3]
    if not is_mask and (labels.dtype.kind not in "iu" or labels.ndim != 1):
        raise ConfigError(
            f"{where}: {part}_labels is {labels.dtype} of shape {labels.shape}, "
            "expected integers (n,), or masks of the images, uint8 (n, h, w)"
        )
    take = _series if given[0].endswith("series") else _channels_first
    labels = np.ascontiguousarray(labels) if is_mask else labels.astype("i8")
    return Labelled(np.ascontiguousarray(take(inputs, f"{where}: {given[0]}")), labels)


def _channels_first(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ConfigError(
            f"{where} is {images.dtype} of shape {images.shape}, "
            "expected uint8 (n, h, w) or (n, h, w, c)"
        )
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _series(series: np.ndarray, where: str) -> np.ndarray:
    if series.dtype.kind != "f" or series.ndim not in (2, 3) or not all(series.shape[1:]):
        raise ConfigError(
            f"{where} is {series.dtype} of shape {series.shape}, "
            "expected floats (n, time) or (n, channels, time)"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite: refused later
        return (series[:, None] if series.ndim == 2 else series).astype(np.float32)
