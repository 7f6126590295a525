"""What a training run changes: weights, momentum, their running average, the teacher it kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hwnas.settings.config import TrainConfig
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, Supernet
from hwnas.supernet.sorting import sort_channels


@dataclass
class State:
    """A run between two steps; all of it is in a checkpoint.

    Attributes:
        net: what is trained.
        average: running average of its weights; None where the recipe wants none.
        teacher: the supernet whose max network teaches; None where it is `net` itself, or where
            somebody else does.
    """

    net: Supernet | Subnet
    optimizer: torch.optim.Optimizer
    average: Supernet | Subnet | None = None
    teacher: Supernet | None = None

    @classmethod
    def fresh(cls, job: Job, net: Supernet | Subnet) -> State:
        """Of a run that begins."""
        average = copy.deepcopy(net) if job.recipe.ema else None
        return cls(net, _optimizer(net, job.config), average)

    def enter(self, job: Job, step: int, taught: bool) -> None:
        """Do what the stage wants that a step begins, if it begins one.

        Args:
            taught: whether somebody else teaches.
        """
        number = job.plan.stage(step)
        if step != job.plan.starts[number] or isinstance(self.net, Subnet):
            return
        if job.recipe.frozen and number and not taught and not self.teacher:
            self.freeze_teacher()
        if job.recipe.stages[number].sorts:
            sort_channels(self.net)
        if job.recipe.restarts:
            self.optimizer.state.clear()
            if self.average:
                self.average.load_state_dict(self.net.state_dict())

    def freeze_teacher(self) -> None:
        """Let the supernet as it is now teach from now on."""
        if isinstance(self.net, Supernet):
            self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int, stays: float) -> None:
        """Move the average towards the weights.

        Args:
            stays: share of the old average; less in the first steps, which know little.
        """
        if self.average is None:
            return
        share = 1 - min(stays, (1 + step) / (10 + step))
        average, new = (list(net.state_dict().values()) for net in (self.average, self.net))
        torch._foreach_lerp_(average, new, share)

    def finish(self) -> None:
        """The network takes its average, if there is one."""
        if self.average is not None:
            self.net.load_state_dict(self.average.state_dict())


def _optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; no decay on BatchNorm, biases and kernel transforms."""
    decayed = [p for n, p in net.named_parameters() if n.endswith("weight") and p.ndim > 1]
    kept = {id(p) for p in decayed}
    others = [p for p in net.parameters() if id(p) not in kept]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others},
    ]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True)
