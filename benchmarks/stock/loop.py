"""Training a torch model as its user would: SGD with momentum, one cycle of the rate, labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from hwnas.images import tensors


class Plain(NamedTuple):
    """How long and how: steps in place of epochs, so that a training of any length can be had.

    Attributes:
        plain_steps: the last ones, which take the images as they are, without augmentation.
    """

    steps: int
    rate: float
    batch: int = 64
    decay: float = 5e-4
    augment: str = "shift"
    seed: int = 0
    plain_steps: int = 0


def steps_of(dataset: tensors.Dataset, epochs: float, batch: int) -> int:
    """Whole batches of so many epochs, at least one."""
    return max(round(epochs * (len(dataset.train) // batch)), 1)


def trained(
    model: nn.Module,
    dataset: tensors.Dataset,
    how: Plain,
    px: int,
    say: Callable[[int], object] = lambda epoch: None,
) -> nn.Module:
    """The model in eval mode after training; `say` is told the number of each epoch that ended."""
    per_epoch = len(dataset.train) // how.batch
    optimizer = torch.optim.SGD(
        model.parameters(), how.rate, 0.9, weight_decay=how.decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.rate, total_steps=how.steps)
    generator = torch.Generator().manual_seed(how.seed)
    model.train()
    order = torch.empty(0)
    for number in range(how.steps):
        if not (step := number % per_epoch):
            order = torch.randperm(len(dataset.train), generator=generator)
        index = order[step * how.batch : (step + 1) * how.batch]
        augment = how.augment if number < how.steps - how.plain_steps else "none"
        images, _ = tensors.augmented(dataset.train, index, px, augment, generator)
        optimizer.zero_grad()
        x = tensors.prepare(images, px, dataset)
        F.cross_entropy(model(x), dataset.train.labels[index]).backward()
        optimizer.step()
        schedule.step()
        if step == per_epoch - 1:
            say(number // per_epoch + 1)
    return model.eval()


@torch.no_grad()
def top1(model: nn.Module, dataset: tensors.Dataset, split: tensors.AnySplit, px: int) -> float:
    """Share of a split's images that the model gets right."""
    right = 0
    for images, labels in tensors.batches(split, px, 256):
        answers = model.eval()(tensors.prepare(images, px, dataset)).argmax(1)
        right += int((answers == labels).sum())
    return right / len(split)
