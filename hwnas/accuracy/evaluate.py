"""Accuracy of subnets: taken out of the supernet, BatchNorm calibrated, run on held-out images.

Which split is read is always an argument: search sees the validation images only, the test images
are for what is exported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hwnas import data
from hwnas.config import AccuracyConfig
from hwnas.space import Architecture, SearchSpace
from hwnas.supernet import Subnet, Supernet, calibrate, channels_last, extract
from profilers.errors import ConfigError
from profilers.schema import append_lines, read_lines

BATCH = 256  # images of one forward pass


@dataclass(frozen=True)
class Evaluator:
    """A trained supernet and the images that its subnets are calibrated and measured on."""

    supernet: Supernet
    dataset: data.Dataset
    config: AccuracyConfig
    supernet_sha256: str

    def subnet(self, arch: Architecture) -> Subnet:
        """The plain network of an architecture, its BatchNorm calibrated on training images."""
        subnet = channels_last(extract(self.supernet, arch))
        calibrate(subnet, self._calibration(arch.resolution))
        return subnet

    def measure(self, arch: Architecture) -> float:
        """Top-1 accuracy of a subnet on the validation images that every subnet is measured on."""
        return top1(self.subnet(arch), self.dataset, self.validation)

    @property
    def validation(self) -> data.Split:
        """The first `config.images` validation images in a fixed random order, or all."""
        split = self.dataset.val
        if self.config.images == "all" or self.config.images >= len(split):
            return split
        chosen = np.random.default_rng(self.config.seed).permutation(len(split))
        index = torch.from_numpy(chosen[: self.config.images])
        return data.Split(split.images[index], split.labels[index])

    def _calibration(self, resolution: int) -> Iterator[Tensor]:
        split = self.dataset.train
        order = np.random.default_rng([self.config.seed, 1]).permutation(len(split))
        chosen = torch.from_numpy(order[: self.config.bn_images])
        for images in torch.split(split.images[chosen], BATCH):
            yield prepared(images, resolution, self.dataset)


def prepared(images: Tensor, resolution: int, dataset: data.Dataset) -> Tensor:
    """Network input of uint8 images, channels last."""
    x = data.prepare(images, resolution, dataset)
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def top1(subnet: Subnet, dataset: data.Dataset, split: data.Split) -> float:
    """Share of a split's images that a subnet classifies right."""
    px, right = subnet.arch.resolution, 0
    for images, labels in zip(
        torch.split(split.images, BATCH), torch.split(split.labels, BATCH), strict=True
    ):
        right += int((subnet(prepared(images, px, dataset)).argmax(1) == labels).sum())
    return right / len(split)


def to_measure(space: SearchSpace, n: int, rng: np.random.Generator) -> list[Architecture]:
    """Architectures that inform a predictor: corners first, then random ones, all different.

    Corners are the max and min networks and, for each kind of choice, the networks that have that
    kind at its largest and all else at its smallest, and the reverse (METHODS of a measure-refit
    loop start there: an additive fit needs the ends of every dimension).
    """
    top, low = space.n_options - 1, np.zeros_like(space.n_options)
    kinds = np.array([choice.name.split(".")[-1] for choice in space.choices])
    rows = [top, low]
    for kind in sorted(set(kinds)):
        rows += [np.where(kinds == kind, top, low), np.where(kinds == kind, low, top)]
    genome = np.concatenate([rows, space.sample(4 * n, rng)])
    _, first = np.unique(space.canonical(genome), axis=0, return_index=True)
    return space.architectures(genome[np.sort(first)][:n])


class Known(NamedTuple):
    """Accuracies that a file holds, and how many of its lines are broken or malformed."""

    top1: dict[Architecture, float]
    n_bad: int


def read_accuracies(path: Path, evaluator: Evaluator) -> Known:
    """Accuracies already measured for this very supernet, data and settings, by architecture."""
    records, broken = read_lines(path)
    expected = _conditions(evaluator)
    known = Known({}, len(broken))
    for record in records:
        if any(record.get(name) != value for name, value in expected.items()):
            continue
        row = _row(record, evaluator.supernet.space)
        if row is None:
            known = known._replace(n_bad=known.n_bad + 1)
        else:
            known.top1[row[0]] = row[1]
    return known


def _row(record: dict[str, Any], space: SearchSpace) -> tuple[Architecture, float] | None:
    """Architecture and accuracy of a record; None if it does not hold them."""
    arch, accuracy = record.get("arch"), record.get("top1")
    if not isinstance(arch, dict) or not isinstance(accuracy, (int, float)):
        return None
    if not 0 <= accuracy <= 1:
        return None
    try:
        return space.from_json(arch), float(accuracy)
    except (ConfigError, TypeError, ValueError):
        return None


def measure_all(
    archs: Iterable[Architecture], evaluator: Evaluator, path: Path
) -> Iterator[tuple[Architecture, float]]:
    """Measure architectures one by one; what `path` holds already is not measured again.

    Each new result is appended to `path` (JSON Lines) before it is yielded.
    """
    known = read_accuracies(path, evaluator).top1
    for arch in archs:
        if arch not in known:
            known[arch] = evaluator.measure(arch)
            row = {"arch": arch.to_json(), "top1": known[arch], **_conditions(evaluator)}
            append_lines(path, [row])
        yield arch, known[arch]


def _conditions(evaluator: Evaluator) -> dict[str, Any]:
    return {
        "split": "val",
        "n_images": len(evaluator.validation),
        "supernet_sha256": evaluator.supernet_sha256,
        "bn_images": evaluator.config.bn_images,
        "seed": evaluator.config.seed,
        "data": evaluator.dataset.fingerprint,
    }
