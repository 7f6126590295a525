"""Data for training: splits, normalisation, resizing and augmentation as torch tensors.

Images stay uint8 in memory until a batch is prepared, or in their files until they are needed; time
series are float32. A resolution is px of an image, or steps that a series is resampled to.
Search and the accuracy predictor see the validation split only; the test split is for what is
exported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from hwnas.images import contents
from hwnas.images.image_files import ahead, centre_crops, random_crops
from hwnas.images.normalisation import normalisation
from hwnas.images.raw import Labelled, RawData, Seen, check_classes
from hwnas.images.sources import fingerprint_source, read
from hwnas.settings.config import DataConfig
from hwnas.tasks import IGNORED, Task
from hwnas.tasks.classification import TASK
from profilers.errors import ConfigError

__all__ = [
    "AnySplit",
    "Dataset",
    "FileSplit",
    "Split",
    "ahead",
    "augment",
    "augmented",
    "batches",
    "compute_device",
    "fingerprint_source",
    "load",
    "prepare",
    "wait_for_device",
]

# How images become inputs (docs/formats.md, "Package").
STORED, STREAMED, SERIES = "stored", "imagenet", "series"


@dataclass(frozen=True)
class Split:
    """Images (n, c, h, w) uint8, or series (n, c, time) float32, and labels (n,) int64 or masks
    (n, h, w) uint8.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: torch.Tensor) -> Split:
        """The images of an index."""
        return Split(self.images[index], self.labels[index])

    def pixels(self, start: int, stop: int, resolution: int) -> torch.Tensor:
        """(n, c, h, w) uint8 images, or series, at their stored size."""
        return self.images[start:stop]


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Files of images (n,) as bytes and labels (n,) int64."""

    paths: np.ndarray
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: torch.Tensor) -> FileSplit:
        """The files of an index."""
        return FileSplit(self.paths[index.numpy()], self.labels[index])

    def pixels(self, start: int, stop: int, resolution: int) -> torch.Tensor:
        """(n, 3, resolution, resolution) uint8 images, resized and cut as in evaluation."""
        return torch.from_numpy(centre_crops(self.paths[start:stop].tolist(), resolution))


AnySplit = Split | FileSplit


@dataclass(frozen=True)
class Dataset:
    """The three splits and what a network must know of them.

    Attributes:
        mean: of each channel of the training images, in [0, 1], or of the training series.
        std: likewise; never 0, so that a constant channel can be divided by it.
        fingerprint: hex sha256 of class names, and of pixels and labels of train, val, test in
            this order: equal data and equal splits, equal text. Of streamed files, their names
            below the folder and their bytes count. Empty where it was not asked for.
        seen: what a reader of image files saw of them; None where none were opened.
        task: what networks learn to say of them.
    """

    train: AnySplit
    val: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    seen: Seen | None = None
    task: Task = TASK

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return 3 if isinstance(self.train, FileSplit) else int(self.train.images.shape[1])

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def size(self) -> int:
        """Width and height of the stored images, px, or steps; 0 where they are streamed."""
        return 0 if isinstance(self.train, FileSplit) else int(self.train.images.shape[2])

    @property
    def preparation(self) -> str:
        """How images become inputs: STORED, STREAMED or SERIES."""
        if isinstance(self.train, FileSplit):
            return STREAMED
        return SERIES if self.train.images.ndim == 3 else STORED


def load(config: DataConfig, index: Path | None = None, identify: bool = True) -> Dataset:
    """The data set of the settings, split by class and seed.

    A test (or validation) set of the source is used as it is; otherwise its share is split off
    the training images.

    Args:
        config: where the images are.
        index: of what streamed files hold (see `contents.digests`); without, all are read.
        identify: whether to make a fingerprint.

    Raises:
        ConfigError: the source cannot be read (see sources.read), a class has too few images or is
            missing in a split, or series shall be treated as only images can be.
    """
    raw = read(config)
    if raw.serial and (config.augment == "flip" or config.normalise == "imagenet"):
        raise ConfigError(
            "augment: flip and normalise: imagenet are for images, the data are time series; use "
            "shift or none, and data"
        )
    train, val, test = _split(raw, config)
    for part, name in ((train, "training"), (val, "validation"), (test, "test")):
        if part is train or part.labels.ndim == 1:  # of masks, the metric leaves a class out
            check_classes(part, name, raw.class_names)
    mean, std = normalisation(raw, train, config)
    return Dataset(
        train=_tensors(train),
        val=_tensors(val),
        test=_tensors(test),
        class_names=raw.class_names,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(raw, config, (train, val, test), index) if identify else "",
        seen=raw.seen,
    )


def compute_device() -> torch.device:
    """Where networks run: this process's GPU where there is one (LOCAL_RANK), else the CPU.

    `CUDA_VISIBLE_DEVICES=` (empty) keeps everything on the CPU.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def wait_for_device() -> None:
    """Return when the GPU has done what it was told; at once where there is none."""
    if torch.cuda.is_available():
        torch.cuda.synchronize(compute_device())


def evenly(split: AnySplit, most: int) -> AnySplit:
    """At most n images of a split, evenly from first to last: files may be in the order of
    their classes.
    """
    if len(split) <= most:
        return split
    return split.subset(torch.linspace(0, len(split) - 1, most, dtype=torch.float64).round().long())


def batches(
    split: AnySplit, resolution: int, size: int, start: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images or series and labels (see `Split`), in order, `size` at a time from `start` on.

    Streamed images come at the resolution, the next batch being read meanwhile; others as stored.
    """

    def read_all() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for first in range(start, len(split), size):
            stop = min(first + size, len(split))
            yield split.pixels(first, stop, resolution), split.labels[first:stop]

    return ahead(read_all()) if isinstance(split, FileSplit) else read_all()


def augmented(
    split: AnySplit, index: torch.Tensor, resolution: int, kind: str, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images or series of an index, changed at random (see `augment`), and their labels
    (see `Split`): masks move with their images, and what comes in from outside is IGNORED.

    Args:
        resolution: px that streamed images are wanted at; others keep their stored size.
        kind: of augmentation; "crop" cuts a random part of each streamed image.
    """
    chosen = split.subset(index)
    if isinstance(chosen, FileSplit) and kind == "crop":
        seeds = torch.randint(2**62, (len(chosen),), generator=generator).tolist()
        cuts = torch.from_numpy(random_crops(chosen.paths.tolist(), resolution, seeds))
        return cuts, chosen.labels
    state, labels = generator.get_state(), chosen.labels
    images = augment(chosen.pixels(0, len(chosen), resolution), kind, generator)
    if labels.ndim > 1:
        generator.set_state(state)  # the same draws once more
        labels = IGNORED - augment(IGNORED - labels[:, None], kind, generator)[:, 0]
    return images, labels


def prepare(images: torch.Tensor, resolution: int, dataset: Dataset) -> torch.Tensor:
    """Input of a network: pixels scaled to [0, 1], normalised, resized (linear, no antialias).

    Args:
        images: (n, c, h, w) uint8, or (n, c, time) float32.
        resolution: px, or steps.

    Returns:
        (n, c, resolution, resolution) float32, channels last, or (n, c, resolution); mean 0 and
        standard deviation 1 over the training images at their stored size.
    """
    n_axes = images.ndim - 2
    shape = (1, -1, *(1,) * n_axes)
    mean = torch.tensor(dataset.mean, device=images.device).view(shape)
    std = torch.tensor(dataset.std, device=images.device).view(shape)
    scaled = images.to(torch.float32, copy=True)
    if images.dtype == torch.uint8:
        scaled.div_(255)
    x = scaled.sub_(mean).div_(std)
    if x.shape[-1] != resolution:
        mode = "bilinear" if n_axes == 2 else "linear"
        x = functional.interpolate(x, (resolution,) * n_axes, mode=mode, align_corners=False)
    return x.contiguous(memory_format=torch.channels_last) if n_axes == 2 else x


def augment(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Images or series moved at random; the same generator state gives the same ones.

    Args:
        images: (n, c, h, w) uint8, or (n, c, time) float32.
        kind: "none"; "shift": each image moved by up to `shift_px` in x and y, zeros behind, or
            each series in time, its first or last value behind; "flip": the same after mirroring
            half of the images.

    Raises:
        ConfigError: another kind.
    """
    if kind == "none":
        return images
    if kind not in ("shift", "flip"):
        raise ConfigError(f"augmentation {kind!r} is not one of none, shift, flip")
    if kind == "flip":
        mirrored = _draw(2, len(images), generator, images.device).bool().view(-1, 1, 1, 1)
        images = torch.where(mirrored, images.flip(-1), images)
    return _shift(images, shift_px(images.shape[-1]), generator)


def shift_px(size: int) -> int:
    """How far augmentation moves an image of a size (px), or a series (steps): 1/16, at least 1."""
    return max(1, round(size / 16))


def _shift(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Every image moved by -most..most in each axis: one window of the padded image, gathered."""
    n, _, *size = images.shape
    padding = (most, most) * len(size)
    edges = "constant" if len(size) == 2 else "replicate"
    windows = functional.pad(images, padding, edges)
    for axis, length in enumerate(size, start=2):
        windows = windows.unfold(axis, length, 1)  # a view, in the end (n, c, y, x, h, w)
    moved = [_draw(2 * most + 1, n, generator, images.device) for _ in size]
    index = torch.arange(n, device=images.device)
    return windows[(index, slice(None), *moved)]  # type: ignore[index]


def _draw(high: int, n: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """(n,) integers below high."""
    return torch.randint(high, (n,), generator=generator, device=generator.device).to(device)


# ---- splits -------------------------------------------------------------------------------------


def _split(raw: RawData, config: DataConfig) -> tuple[Labelled, Labelled, Labelled]:
    train, val, test = raw.train, raw.val, raw.test
    if test is None:
        train, test = _split_off(train, config.test, (config.seed, 0), raw.class_names)
    if val is None:
        train, val = _split_off(train, config.validation, (config.seed, 1), raw.class_names)
    return train, val, test


def _split_off(
    data: Labelled, share: float, seed: tuple[int, int], class_names: tuple[str, ...]
) -> tuple[Labelled, Labelled]:
    """What stays and what is taken: the share of every class, at least one image on both sides."""
    taken = np.zeros(len(data.labels), dtype=bool)
    classes, names = data.labels, [f"class {name!r} has" for name in class_names]
    if classes.ndim > 1:  # an image has pixels of several: split all as one
        classes, names = np.zeros(len(classes), dtype=np.int64), ["there are"]
    # Raw bits of a bit generator are the same in every numpy; Generator.permutation may change.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(data.labels)), kind="stable")
    by_class = order[np.argsort(classes[order], kind="stable")]
    ends = np.cumsum(np.bincount(classes, minlength=len(names)))
    for name, members in zip(names, np.split(by_class, ends[:-1]), strict=True):
        if len(members) < 2:
            raise ConfigError(
                f"{name} too few images to split {share:.0%} off: "
                f"{len(members)} left, expected at least 2; add images or give a test set"
            )
        taken[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return (
        Labelled(data.images[~taken], data.labels[~taken]),
        Labelled(data.images[taken], data.labels[taken]),
    )


def _tensors(part: Labelled) -> AnySplit:
    if part.images.dtype.kind == "S":
        return FileSplit(part.images, torch.from_numpy(part.labels))
    return Split(torch.from_numpy(part.images), torch.from_numpy(part.labels))


def _fingerprint(
    raw: RawData, config: DataConfig, parts: tuple[Labelled, ...], index: Path | None
) -> str:
    digest = hashlib.sha256("\0".join(raw.class_names).encode())
    if raw.streamed:
        base = len(os.fsencode(Path(config.root))) + 1  # where the name of a file begins
        held = iter(contents.digests(np.concatenate([part.images for part in parts]), base, index))
    for part in parts:
        digest.update(f"\n{part.images.shape}\n".encode())
        if raw.streamed:
            for path in part.images.tolist():
                digest.update(b"%s\0%s\n" % (path[base:], next(held).tobytes()))
        else:
            digest.update(np.ascontiguousarray(part.images).data)
        labels = part.labels.astype("<i8") if part.labels.ndim == 1 else part.labels
        digest.update(np.ascontiguousarray(labels).data)
    if isinstance(config.normalise, tuple) or (config.normalise == "imagenet" and not raw.streamed):
        digest.update(f"\n{config.normalise}\n".encode())  # what the images do not say themselves
    return digest.hexdigest()
