"""Public models as spaces: analysed, lowered, with weights that nothing hides behind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from hwnas.networks.space import SearchSpace
from hwnas.networks.spaces import of_model
from hwnas.supernet.network import Supernet
from hwnas.traced.analyse import analyse
from hwnas.traced.lowering import lowered
from hwnas.traced.weights import importance, orders, own_supernet
from own_model import zoo

WIDTHS, ROUND_TO = 4, 8


class Own(NamedTuple):
    """A model, its space, and the supernet of its weights."""

    model: nn.Module
    space: SearchSpace
    supernet: Supernet


def own(name: str, px: int, seed: int = 0) -> Own:
    """A public model as a space of one resolution."""
    model, shape = zoo.make(f"{name}@{px}")
    randomised(model, seed)
    analysis = analyse(model, shape)
    low = lowered(analysis, WIDTHS, ROUND_TO)
    space = of_model(low.family, [px], low.bn_eps)
    order = orders(importance(analysis, "norm"))
    return Own(model, space, own_supernet(space, low, analysis, order))


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """The model with scales, shifts and statistics at random: fresh ones are 1 and 0 and would
    hide mistakes. In evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and value.dim() == 1:
            low = 0.5 if name.endswith(("weight", "var")) else -0.2
            value.data.uniform_(low, low + 0.7, generator=generator)
    return model.eval()
