"""The front of a device: the union of the fronts of its targets, each a way to drive the device.

Engine, precision and threads are chosen for a whole network, so no network mixes them: what is best
on the device is best on one of its targets. The union is exact where the fronts are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwnas.pricing import pareto
from hwnas.search.front import Front
from profilers.errors import ConfigError


def union(name: str, fronts: Sequence[Front]) -> Front:
    """One front of several targets; each point names its target.

    Of points that are equal in every objective, the one of least latency stays, then the one of the
    first target. Shares of budgets are of the max network on the target where it costs least; the
    reference point is the largest in each objective.

    Args:
        name: of the device.
        fronts: one of each target, of one space and of the same objectives.

    Raises:
        ConfigError: they are of other spaces or objectives.
    """
    first = fronts[0]
    for other in fronts:
        _check_alike(first, other)
    known = [replace(point, target=front.target) for front in fronts for point in front.points]
    known.sort(key=lambda point: point.predicted.get("latency_ms", math.inf))
    costs = np.array([[point.predicted[n] for n in first.objectives] for point in known])
    rows = np.flatnonzero(pareto.non_dominated(costs))
    rows = rows[np.lexsort((costs[rows, 0], costs[rows, 1]))]
    reference = np.max([front.reference_point for front in fronts], axis=0)
    metrics = dict.fromkeys(metric for front in fronts for metric in front.max_network)
    return replace(
        first,
        target=name,
        reference_point=tuple(reference.tolist()),
        hypervolume=pareto.hypervolume(costs[rows], reference),
        max_network={
            metric: min(f.max_network[metric] for f in fronts if metric in f.max_network)
            for metric in metrics
        },
        hashes={f"front.{front.target}": front.identity for front in fronts},
        accepted=tuple(sorted({word for front in fronts for word in front.accepted})),
        evaluations=sum(front.evaluations for front in fronts),
        points=tuple(known[row] for row in rows),
    )


def _check_alike(first: Front, other: Front) -> None:
    told = [
        (first.objectives, other.objectives, "for the objectives", ", ".join(other.objectives)),
        (first.space.geometry, other.space.geometry, "in the space", other.space.name),
    ]
    for mine, its, words, shown in told:
        if mine != its:
            raise ConfigError(
                f"the front of {other.target} was searched {words} {shown}, that of "
                f"{first.target} was not; run `hwnas search` for both"
            )
