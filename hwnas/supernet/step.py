"""The gradients of one training step: of every network's loss, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hwnas.images import tensors
from hwnas.networks.space import Architecture
from hwnas.settings.config import TrainConfig
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, Supernet
from hwnas.supernet.plan import subnet_factor
from hwnas.supernet.state import State


class Teacher(NamedTuple):
    """A network whose answers another one learns, beside the labels.

    Attributes:
        net: in evaluation mode; it is shown the images at its own resolution.
        weight: of its share in the loss of the network that learns from the labels too, whose
            share is 1.
    """

    net: Subnet
    weight: float


class Batch(NamedTuple):
    """What one step trains: networks by their role (see `plan.sampled_architectures`), images, and
    their labels.
    """

    archs: Mapping[str, list[Architecture]]
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Step:
    """One step under way.

    Attributes:
        teacher: of somebody else, which teaches all networks.
        inputs: prepared images by resolution.
    """

    job: Job
    state: State
    teacher: Teacher | None
    batch: Batch
    inputs: dict[int, Tensor]

    def shown(self, resolution: int) -> Tensor:
        """The images as a network of a resolution takes them."""
        if resolution not in self.inputs:
            images = self.batch.images.to(tensors.compute_device())
            self.inputs[resolution] = tensors.prepare(images, resolution, self.job.dataset)
        return self.inputs[resolution]


def backward(step: Step, number: int) -> dict[str, float]:
    """Add the gradients of one step's networks.

    Returns:
        `loss_<role>`, what is minimised, and `loss_teacher`, the max network's share of it that
        somebody else teaches; `labels_<role>`, the task's loss with the labels as they are, in
        nats, which compares between networks and runs.
    """
    job, labels = step.job, step.batch.labels.to(tensors.compute_device())
    task = job.dataset.task
    found: dict[str, list[float]] = {}
    answers = _teachers_answers(step)
    for role, archs in step.batch.archs.items():
        for arch in archs:
            logits = answer(job.config, step.state.net, step.shown(arch.resolution), arch)
            loss = task.label_loss(logits, labels, job.config.label_smoothing)
            if role == "max" and step.teacher and answers is not None:
                taught = task.taught_loss(answers, logits, 0.0)
                found["loss_teacher"] = [taught.item()]
                torch.autograd.backward(loss + step.teacher.weight * taught)
            elif role == "max":
                torch.autograd.backward(loss)
                answers = logits.detach() if answers is None else answers
            else:
                if answers is not None:
                    loss = _subnet_loss(job, answers, logits, loss)
                torch.autograd.backward(subnet_factor(job, number) * loss)
            plain = task.label_loss(logits.detach(), labels, 0.0)
            found.setdefault(f"loss_{role}", []).append(loss.item())
            found.setdefault(f"labels_{role}", []).append(plain.item())
    return {name: sum(values) / len(values) for name, values in found.items()}


def _teachers_answers(step: Step) -> Tensor | None:
    """Logits of a network that learns nothing in this step; None: the max network teaches."""
    config, space = step.job.config, step.job.space
    with torch.no_grad():
        if step.teacher:
            net = step.teacher.net
            return answer(config, net, step.shown(net.arch.resolution), net.arch)
        if step.state.teacher:
            largest = space.largest
            if step.job.recipe.resolutions == "shared":
                (first, *_), *_ = step.batch.archs.values()
                largest = space.largest_at(first.resolution)
            return answer(config, step.state.teacher, step.shown(largest.resolution), largest)
    return None


def _subnet_loss(job: Job, answers: Tensor, logits: Tensor, labelled: Tensor) -> Tensor:
    """What a subnet minimises: the teacher's answers, and the labels as far as the recipe says."""
    share = job.recipe.labels
    taught = job.dataset.task.taught_loss(answers, logits, job.recipe.smoothing)
    return taught if not share else (1 - share) * taught + share * labelled


def answer(config: TrainConfig, net: Supernet | Subnet, x: Tensor, arch: Architecture) -> Tensor:
    """Logits of an architecture of a supernet, or of a plain network."""
    device = tensors.compute_device().type
    with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
        logits: Tensor = net(x, arch) if isinstance(net, Supernet) else net(x)
    return logits.float()
