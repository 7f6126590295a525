"""Measured fronts again, on images that no searcher saw.

A searcher keeps networks that were right for its images, by luck as well: the more it measures, the
more luck its front holds. Other images tell what the front is worth.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.pricing import pareto
from sampling.evaluations import Top1, corner, problem


class Recorder:
    """Measures networks and keeps their order.

    Attributes:
        seen: accuracy of each network, in the order in which they were first asked for.
    """

    def __init__(self, top1: Top1) -> None:
        self._top1 = top1
        self.seen: dict[Architecture, float] = {}

    def __call__(self, arch: Architecture) -> float:
        if arch not in self.seen:
            self.seen[arch] = self._top1(arch)
        return self.seen[arch]


def front_of(space: SearchSpace, known: Mapping[Architecture, float]) -> list[Architecture]:
    """The networks that no other beats in measured error and MACs."""
    archs = list(known)
    best = pareto.non_dominated(costs_of(space, archs, known.__getitem__))
    return [archs[row] for row in np.flatnonzero(best)]


def costs_of(space: SearchSpace, archs: Sequence[Architecture], top1: Top1) -> np.ndarray:
    """(n, 2) error and MACs."""
    macs = problem(space, top1).metrics["macs"].evaluate(space.genome(archs))
    return np.stack([[1 - top1(arch) for arch in archs], macs], axis=1)


def show(
    space: SearchSpace,
    runs: Mapping[str, Sequence[Recorder]],
    after: Mapping[str, Sequence[int]],
    other: Top1,
) -> dict[str, list[float]]:
    """Hypervolumes of fronts after so many networks, by accuracy on other images.

    Args:
        space: that was searched.
        runs: of each contestant.
        after: networks after which its front is taken.
        other: measures a network on images that no run saw.

    Returns:
        by contestant and number of networks, of each run.
    """
    reference, found = corner(problem(space, other)), {}
    print(
        "\nthe same fronts on images that no searcher saw, hypervolume: mean (least to most); and"
    )
    print("how much more accurate their networks were on the searchers' images, points\n")
    for name, counts in after.items():
        for n in counts:
            volumes, luck = [], []
            for run in runs[name]:
                archs = front_of(space, dict(list(run.seen.items())[:n]))
                volumes.append(pareto.hypervolume(costs_of(space, archs, other), reference))
                luck.append(statistics.mean(run.seen[arch] - other(arch) for arch in archs))
            found[f"{name} after {n}"] = volumes
            print(f"{name + f' after {n}':<24}{statistics.mean(volumes):14,.0f} "
                  f"({min(volumes):,.0f} to {max(volumes):,.0f})"
                  f"{100 * statistics.mean(luck):8.2f}")  # fmt: skip
    return found
