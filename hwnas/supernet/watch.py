"""Looks at a run under way: validation accuracy of a few networks, and whether it ends too early.

Nothing here changes what is trained: networks are copies, with statistics of their own.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.supernet.evaluation import BATCH, to_measure
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, Supernet, calibrate, channels_last, extract

LOOKS = 5  # in a run, evenly, the last one at its end
PAUSE_S = 20.0  # between two looks at least: they shall take a small share of the run
IMAGES, BN_IMAGES = 1000, 256  # of validation, and of training for the statistics
NAMES = ("max", "min", "corner1", "corner2", "corner3")  # as in `to_measure`
LAST = 0.1  # share of the run whose losses of training count
LEARNT = 0.97  # of the loss on validation images: below it training images are known better


class Look(NamedTuple):
    """Metric of networks on validation images, and the max network's loss there, nats."""

    accuracy: dict[str, float]
    loss: float


@dataclass
class Watch:
    """When a run is looked at, and what its last steps lost.

    Attributes:
        losses: of the max network with the labels as they are, of the last steps, nats.
    """

    job: Job
    looked: float = field(default_factory=time.monotonic)
    losses: list[float] = field(default_factory=list)

    def note(self, step: int, losses: Mapping[str, float]) -> None:
        """Keep what a step lost."""
        if step >= (1 - LAST) * self.job.plan.steps and "labels_max" in losses:
            self.losses.append(losses["labels_max"])

    def due(self, done: int) -> bool:
        """Whether to look after so many steps."""
        marks = {round(self.job.plan.steps * (i + 1) / LOOKS) for i in range(LOOKS)}
        return done in marks and time.monotonic() - self.looked >= PAUSE_S

    def look(self, net: Supernet | Subnet) -> Look:
        """Measure the max and the min network and three corners; of a plain network itself."""
        few = tensors.evenly(self.job.dataset.val, IMAGES)
        images = replace(self.job.dataset, val=few)
        found = {name: _measure(subnet, images) for name, subnet in _subnets(net, self.job).items()}
        self.looked = time.monotonic()
        return Look({name: right for name, (right, _) in found.items()}, found["max"][1])

    def too_early(self, look: Look) -> str:
        """Why the run has ended too early; empty: nothing says so.

        A network that is as good on new images as on those that it learns from has not learnt them
        yet. (Augmented images are harder: with strong augmentation the sign is weaker.)
        """
        if not self.losses or statistics.mean(self.losses) < LEARNT * look.loss:
            return ""
        return (
            "training may have stopped too early: at its end the max network's loss is "
            f"{statistics.mean(self.losses):.3f} on training images and {look.loss:.3f} on "
            "validation images, so it has not learnt its images yet; more epochs should help"
        )


def _subnets(net: Supernet | Subnet, job: Job) -> dict[str, Subnet]:
    if isinstance(net, Subnet):
        return {"max": copy.deepcopy(net)}
    archs = to_measure(job.space, len(NAMES), np.random.default_rng(0))
    return {name: extract(net, arch) for name, arch in zip(NAMES, archs, strict=False)}


@torch.no_grad()
def _measure(subnet: Subnet, images: tensors.Dataset) -> tuple[float, float]:
    """Metric and loss of a network on validation images."""
    px, device, task = subnet.arch.resolution, tensors.compute_device(), images.task
    channels_last(subnet).to(device)
    known = tensors.batches(tensors.evenly(images.train, BN_IMAGES), px, BATCH)
    calibrate(subnet, (tensors.prepare(p.to(device), px, images) for p, _ in known))
    counts, lost = [], 0.0
    for pixels, labels in tensors.batches(images.val, px, BATCH):
        logits = subnet(tensors.prepare(pixels.to(device), px, images)).float().cpu()
        counts.append(task.counts(logits, labels))
        lost += float(task.label_loss(logits, labels, 0.0)) * len(labels)
    n = len(images.val)
    return task.value(np.concatenate(counts), n), lost / n
