"""The images of each step of a training run, in order."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hwnas.images import tensors
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, Supernet
from hwnas.supernet.plan import sampled_architectures
from hwnas.supernet.step import Batch


def batches_of(
    job: Job, net: Supernet | Subnet, first: int, crew: tuple[int, int]
) -> Iterator[Batch]:
    """What every step from the first on trains, in order.

    Args:
        crew: rank of this process and number of all.
    """
    for step in range(first, job.plan.steps):
        archs = {"max": [net.arch]} if isinstance(net, Subnet) else sampled_architectures(job, step)
        px = max(arch.resolution for several in archs.values() for arch in several)
        yield Batch(archs, *_images(job, step, px, crew))


def _images(job: Job, step: int, resolution: int, crew: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """This process's share of a step's images, augmented until the plain epochs, and labels."""
    (rank, world), seed = crew, job.config.seed
    epoch, position = divmod(step, job.plan.per_epoch)
    size = job.config.batch_size
    order = _order(seed, epoch, len(job.dataset.train))[position * size : (position + 1) * size]
    chosen = torch.from_numpy(order[rank::world])
    drawn = np.random.default_rng([seed, step, 3, rank]).integers(2**62)
    generator = torch.Generator().manual_seed(int(drawn))
    split = job.dataset.train
    plain = epoch >= job.config.epochs - job.config.plain_epochs
    augment = "none" if plain else job.augment
    return tensors.augmented(split, chosen, resolution, augment, generator)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    """(n,) the images of an epoch in the order that they are trained in."""
    return np.random.default_rng([seed, epoch, 2]).permutation(n)
