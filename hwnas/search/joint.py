"""Several targets at once: one network for all, by its worst target or by a weighted mean.

Latencies of different devices are made comparable by what the max network takes on each: a share
of 0.5 means half of that. The worst share is a maximum of sums, for which there is no exact search,
so evolution searches it. A weighted mean of shares is a sum again, and searched exactly, unless a
latency is a bent sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing.terms import Terms
from hwnas.search.problem import Metric, Problem, check_feasible
from hwnas.settings.amounts import amount
from profilers.errors import ConfigError

SHARE = "latency_share"  # of what the max network takes, over the targets
Mode = Literal["worst", "mean"]


@dataclass(frozen=True, eq=False)
class Shares:
    """Several metrics as one, each divided by its scale: the largest, or their weighted mean.

    Attributes:
        metrics: for example the latency on each target.
        scales: the value of each that counts as 1.
        weights: of each in the mean; empty: the largest share counts.
    """

    metrics: tuple[Metric, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...] = ()

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) joined share of (n, n_choices) genomes."""
        pairs = zip(self.metrics, self.scales, strict=True)
        shares = np.stack([metric.evaluate(genome) / scale for metric, scale in pairs])
        if not self.weights:
            return np.asarray(shares.max(axis=0))
        return np.asarray(np.average(shares, axis=0, weights=self.weights))


@dataclass(frozen=True, eq=False)
class Least:
    """The least of several metrics: what a network costs on a device, driven the best way.

    Attributes:
        metrics: for example the latency on each target of a device.
    """

    metrics: tuple[Metric, ...]

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) least value of (n, n_choices) genomes."""
        return np.asarray(np.min([metric.evaluate(genome) for metric in self.metrics], axis=0))


def mean_share(
    terms: Mapping[str, Terms], scales: Mapping[str, float], weights: Mapping[str, float]
) -> Metric:
    """Weighted mean of shares: one sum, unless a target's latency is a bent one.

    Args:
        terms: sum of each target.
        scales: what counts as 1 on each target.
        weights: of the targets; what they add up to does not matter.
    """
    if any(term.link for term in terms.values()):
        names = list(terms)
        return Shares(
            tuple(terms.values()),
            tuple(scales[n] for n in names),
            tuple(weights[n] for n in names),
        )
    total = sum(weights[name] for name in terms)
    parts = [term.times(weights[name] / total / scales[name]) for name, term in terms.items()]
    return Terms(parts[0].space, tuple(factor for part in parts for factor in part.factors))


def joint_problem(
    space: SearchSpace,
    shared: Mapping[str, Metric],
    latency: Mapping[str, Terms],
    mode: Mode = "worst",
    weights: Mapping[str, float] | None = None,
    whole: Mapping[str, float] | None = None,
) -> Problem:
    """Error against the share of latency over several targets.

    Args:
        space: the search space.
        shared: metrics that are the same on every target, `error` among them.
        latency: table sums in ms by target.
        mode: the worst target's share, or the weighted mean of shares.
        weights: of the targets in a mean; None: all alike.
        whole: metrics of the max network of a space that this one is part of, latencies as
            `latency_ms@<target>`; None: of none.

    Raises:
        ConfigError: a weight is not positive, or names no target.
    """
    weights = _checked(weights or dict.fromkeys(latency, 1.0), latency)
    named = {on(name): term for name, term in latency.items()}
    plain = Problem(space, ("error",), {**shared, **named}, {}, whole=whole)
    scales = {name: plain.max_network[on(name)] for name in latency}
    share: Metric = Shares(tuple(latency.values()), tuple(scales.values()))
    if mode == "mean":
        share = mean_share(latency, scales, weights)
    return replace(
        plain,
        objectives=("error", SHARE),
        metrics={**plain.metrics, SHARE: share},
        whole={**plain.max_network, SHARE: 1.0},
    )


def within(stated: Problem, budget: float | str) -> Problem:
    """A joint problem with a largest latency on every target.

    Args:
        stated: by `joint_problem`.
        budget: ms, or a share of what the max network takes on each.

    Raises:
        InfeasibleError: it cannot be met; names the smallest reachable value.
    """
    most = {n: ms for n, ms in stated.max_network.items() if n.startswith(on(""))}
    found = replace(stated, budgets={name: amount(budget, ms) for name, ms in most.items()})
    check_feasible(found)
    return found


def on(target: str) -> str:
    """Name of the metric that is latency on a target."""
    return f"latency_ms@{target}"


def _checked(weights: Mapping[str, float], latency: Mapping[str, Terms]) -> dict[str, float]:
    """The weight of every target, 1 where none is given."""
    for name, weight in weights.items():
        if name not in latency:
            raise ConfigError(f"weight of {name}: no such target; there are {', '.join(latency)}")
        if not 0 < weight < float("inf"):
            raise ConfigError(f"weight of {name} is {weight}; give a positive number")
    return {name: float(weights.get(name, 1.0)) for name in latency}
