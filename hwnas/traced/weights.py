"""The model's own weights in the supernet of its space, units sorted by importance.

A network keeps the first units of each group, so the ones that matter most come first. Sorting
changes nothing in the max network: every axis that a group is on is sorted alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hwnas.networks.axes import Axis
from hwnas.networks.space import SearchSpace
from hwnas.supernet.network import Supernet, layers_of
from hwnas.traced.analysis import Analysis
from hwnas.traced.lowering import Lowered

KINDS = ("flow", "norm", "scale", "taylor", "none")  # of importance


def positions(axis: Axis, group: int) -> np.ndarray:
    """(places,) rank of the unit of a group at each place; -1 where there is none."""
    parts = [np.full(0, -1)]
    for stretch in axis:
        ranks = np.full(stretch.units, -1)
        if stretch.group == group:
            ranks = np.arange(stretch.first, stretch.first + stretch.units)
        parts.append(np.repeat(ranks, stretch.repeat))
    return np.concatenate(parts)


def importance(
    analysis: Analysis, kind: str, gradients: Mapping[str, Tensor] | None = None
) -> list[np.ndarray]:
    """(units,) of each group, how much depends on each unit; more is more important.

    `norm`: sum of squares of the weights that make or read it. `scale`: of the BatchNorm scales
    on it (Liu et al., arXiv 1708.06519), of the weights that make it where it has none. `flow`:
    that times the sum of squares of the weights that read it. `taylor`: of weight times
    gradient (Molchanov et al., arXiv 1906.10771). `none`: the order that the model has.

    Args:
        analysis: of the model.
        kind: one of KINDS.
        gradients: of the loss by name of tensor, for `taylor`.
    """
    return [
        _importance(analysis, number, kind, gradients) for number in range(len(analysis.groups))
    ]


def _importance(
    analysis: Analysis, group: int, kind: str, gradients: Mapping[str, Tensor] | None
) -> np.ndarray:
    units = analysis.groups[group].units
    if kind == "none":
        return np.arange(units, 0, -1.0)
    weights = analysis.groups[group].weights
    matrices = [(n, a) for n, a in weights if analysis.tensors[n].dim() > 1]
    vectors = [(n, a) for n, a in weights if _is_scale(analysis, n)]
    if kind == "norm":
        return _squares(analysis, group, matrices)
    if kind == "taylor":
        known = [(n, a) for n, a in weights if gradients and n in gradients]
        return _squares(analysis, group, known, gradients)
    scales = _squares(analysis, group, vectors or [(n, a) for n, a in matrices if a == 0])
    readers = [(n, a) for n, a in matrices if a > 0]
    if kind == "scale" or not readers:
        return scales
    return np.asarray(scales * _squares(analysis, group, readers))


def _squares(
    analysis: Analysis,
    group: int,
    weights: Sequence[tuple[str, int]],
    times: Mapping[str, Tensor] | None = None,
) -> np.ndarray:
    """(units,) sum of squares of some weights, times others, at each unit of a group."""
    total = np.zeros(analysis.groups[group].units)
    for name, axis in weights:
        value = analysis.tensors[name].detach().double()
        if times is not None:
            value = value * times[name].double()
        score = value.movedim(axis, 0).reshape(value.shape[axis], -1).square().sum(1).numpy()
        at = positions(analysis.axes[name][axis], group)
        np.add.at(total, at[at >= 0], score[at >= 0])
    return total


def _is_scale(analysis: Analysis, name: str) -> bool:
    """Whether it is the scale of a norm."""
    return analysis.tensors[name].dim() == 1 and analysis.names.get(name, "").endswith("weight")


def orders(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(units,) of each group, its units from the most important to the least; ties as they were."""
    return [np.argsort(-score, kind="stable") for score in scores]


def sorted_tensor(tensor: Tensor, axes: Sequence[Axis], order: Sequence[np.ndarray]) -> Tensor:
    """A weight whose units stand in the given orders on each axis."""
    for number, axis in enumerate(axes):
        index = np.arange(tensor.shape[number])
        for group in sorted({s.group for s in axis if s.group >= 0}):
            rank = positions(axis, group)
            places: dict[tuple[int, int], int] = {}
            seen: dict[int, int] = {}
            for place in np.flatnonzero(rank >= 0):
                unit = int(rank[place])
                places[unit, seen.get(unit, 0)] = int(place)
                seen[unit] = seen.get(unit, 0) + 1
            for (unit, nth), position in places.items():
                index[position] = places[int(order[group][unit]), nth]
        tensor = tensor.index_select(number, torch.from_numpy(index))
    return tensor


@torch.no_grad()
def own_supernet(
    space: SearchSpace, lowered: Lowered, analysis: Analysis, order: Sequence[np.ndarray]
) -> Supernet:
    """The supernet of the model's space with the model's weights, in evaluation mode."""
    net = Supernet(space)
    for (slot, primitive, role), name in lowered.sources.items():
        target = getattr(layers_of(net, slot)[primitive], role)
        own = sorted_tensor(analysis.tensors[name].detach(), analysis.axes[name], order)
        target.copy_(own.reshape(target.shape))
    return net.eval()
