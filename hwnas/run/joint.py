"""Several targets at once: a joint front, and few models for a fleet of devices.

Reads tables, predictor and fronts of the run folder; needs neither torch nor sklearn.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwnas.pricing.terms import Terms
from hwnas.run import results
from hwnas.run.context import Context
from hwnas.run.search import load_front, target_metrics
from hwnas.search import joint, searchers
from hwnas.search.fleet import choose
from hwnas.search.front import Front, Point, make_front, named_metrics
from hwnas.search.joint import Mode, Shares
from hwnas.search.problem import Metric, Problem
from hwnas.settings.amounts import amount
from hwnas.settings.config import SearchConfig
from profilers.errors import ConfigError
from profilers.schema import sha256_file

EVERY_SUBSET = 4  # targets up to which every subset gets a search of its own
JOINT = SearchConfig(population=100, generations=30)  # of the pool's joint searches
BUDGET_SHARE = "budget_share"


@dataclass(frozen=True)
class Served:
    """The network that serves one target of a fleet.

    Attributes:
        target: its name.
        point: the network with its predictions for this target.
        budgets: in the metrics' units.
        alone: predicted error of the best network for this target by itself, a fraction.
    """

    target: str
    point: Point
    budgets: dict[str, float]
    alone: float

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, for `hwnas fleet --json`."""
        error = self.point.predicted["error"]
        return {
            "target": self.target,
            "id": self.point.id,
            "arch": self.point.arch.to_json(),
            "predicted": self.point.predicted,
            "budgets": self.budgets,
            "error_alone": self.alone,
            "loss": error - self.alone,
        }


def joint_front(
    context: Context, targets: Sequence[str], mode: Mode, weights: Mapping[str, float]
) -> Front:
    """One front for several targets: error against the worst or the mean share of latency.

    Args:
        context: of the run.
        targets: their names.
        mode: see `several.joint_problem`.
        weights: of the targets in a mean; 1 where none is given.

    Raises:
        ConfigError: fewer than two targets; a weight without its target.
        TableError: a table does not serve, or is not accepted.
        InfeasibleError: a budget of the settings cannot be met on a target.
    """
    if len(targets) < 2:
        raise ConfigError(f"a joint search needs at least 2 targets, the settings name {targets}")
    metrics = {name: target_metrics(context, name) for name in targets}
    latency = {name: _sum_of(found, name) for name, found in metrics.items()}
    first = metrics[targets[0]]
    shared = {n: m for n, m in first.items() if n not in ("latency_ms", "energy_mj")}
    budgets = _latency_budgets(context, latency)
    stated = joint.joint_problem(context.space, shared, latency, mode, weights, budgets)
    if mode == "worst":
        mean = joint.joint_problem(context.space, shared, latency, "mean", weights, budgets)
        begin = searchers.search(mean, JOINT)
        stated = replace(stated, start=begin.front.genome)
    settings = context.config.search.model_copy(
        update={"algorithm": "nsga2", "objectives": stated.objectives, "budgets": {}}
    )
    last = searchers.search(stated, settings)
    hashes = {f"table.{name}": sha256_file(context.table(name)) for name in targets}
    hashes["predictor"] = sha256_file(context.run.predictor)
    accepted = tuple(sorted(context.accept))
    return make_front(f"{mode} of {', '.join(targets)}", stated, last, settings, hashes, accepted)


def _sum_of(metrics: Mapping[str, Metric], target: str) -> Terms:
    found = metrics.get("latency_ms")
    if not isinstance(found, Terms):
        raise ConfigError(f"the table of {target} gives no latency that is a sum over ops")
    return found


def _latency_budgets(context: Context, latency: Mapping[str, Terms]) -> dict[str, float]:
    """The settings' latency budget on each target, in ms; none if they state none."""
    others = sorted(set(context.config.search.budgets) - {"latency_ms"})
    if others:
        raise ConfigError(
            f"search.budgets.{others[0]} has no meaning in a joint search, which knows latency_ms "
            "only; remove it, or search each target"
        )
    wanted = context.config.search.budgets.get("latency_ms")
    if wanted is None:
        return {}
    largest = context.space.genome([context.space.largest])
    return {n: amount(wanted, float(term.evaluate(largest)[0])) for n, term in latency.items()}


# ---- fleet --------------------------------------------------------------------------------------


def fleet(
    context: Context,
    fronts: Sequence[Front],
    budget: Mapping[str, float | str],
    models: int,
    weights: Mapping[str, float] | None = None,
) -> list[Served]:
    """At most `models` networks for several targets, each within its budgets.

    Args:
        context: of the run.
        fronts: one of each target; all of one space.
        budget: of every target, absolute or as a share of its max network's value.
        models: number of different networks allowed.
        weights: how many devices there are of a target; 1 where none is given.

    Raises:
        ConfigError: a budget's metric is not known on a target; no model allowed.
        InfeasibleError: the budgets cannot be met with so few networks.
    """
    metrics = {f.target: target_metrics(context, f.target) for f in fronts}
    limits = {f.target: _limits(f, budget, metrics[f.target]) for f in fronts}
    pool = _pool(context, fronts, metrics, limits)
    fits = np.stack(
        [
            _fits(pool, metrics[name], limits[name]) & ~_missed(context, name, pool, limits[name])
            for name in metrics
        ],
        axis=1,
    )
    error = metrics[fronts[0].target]["error"].evaluate(pool)
    given = dict(weights or {})
    found = choose(error, fits, models, np.array([given.get(name, 1.0) for name in metrics]))
    served = []
    for n, name in enumerate(metrics):
        row = int(found.rows[n])
        values = {k: m.evaluate(pool[[row]]) for k, m in metrics[name].items()}
        point = Point(context.space.architectures(pool[[row]])[0], named_metrics(values, 0))
        served.append(Served(name, point, limits[name], float(found.alone[n])))
    return served


def _limits(
    found: Front, budget: Mapping[str, float | str], metrics: Mapping[str, Metric]
) -> dict[str, float]:
    for name in budget:
        if name not in metrics:
            raise ConfigError(
                f"budget {name} is not known on {found.target}; there are {', '.join(metrics)}"
            )
    return {name: amount(value, found.max_network[name]) for name, value in budget.items()}


def _fits(
    genome: np.ndarray, metrics: Mapping[str, Metric], limits: Mapping[str, float]
) -> np.ndarray:
    """(n,) whether each network is within every limit."""
    within = [metrics[name].evaluate(genome) <= limit for name, limit in limits.items()]
    return np.asarray(np.all(within, axis=0))


def _missed(
    context: Context, target: str, genome: np.ndarray, limits: Mapping[str, float]
) -> np.ndarray:
    """(n,) whether each network was measured over a limit on a target."""
    gone = results.missed(context, target, limits).values()
    space = context.space
    if not gone:
        return np.zeros(len(genome), bool)
    known = space.canonical(space.genome([space.from_json(result.arch) for result in gone]))
    same = space.canonical(genome)[:, None, :] == known[None, :, :]
    return np.asarray(same.all(axis=2).any(axis=1))


def _pool(
    context: Context,
    fronts: Sequence[Front],
    metrics: Mapping[str, Mapping[str, Metric]],
    limits: Mapping[str, Mapping[str, float]],
) -> np.ndarray:
    """(n, n_choices) networks to choose from: the smallest one, every target's front, and fronts of
    error against the worst share of the budgets of several targets together.
    """
    space = context.space
    own = [space.genome([point.arch for point in f.points]) for f in fronts]
    start = np.concatenate([space.genome([space.smallest, space.largest]), *own])
    names = [f.target for f in fronts]
    sizes = range(2, len(names) + 1) if len(names) <= EVERY_SUBSET else [len(names)]
    found = [start]
    for group in itertools.chain(*(itertools.combinations(names, size) for size in sizes)):
        pairs = [(metrics[t][m], limit) for t in group for m, limit in limits[t].items()]
        worst = Shares(*map(tuple, zip(*pairs, strict=True)))
        known = {"error": metrics[group[0]]["error"], BUDGET_SHARE: worst}
        stated = Problem(space, ("error", BUDGET_SHARE), known, {}, start)
        found.append(searchers.search(stated, JOINT).front.genome)
    genome = np.concatenate(found)
    _, first = np.unique(space.canonical(genome), axis=0, return_index=True)
    return genome[first]


def fronts_of(context: Context, targets: Sequence[str]) -> list[Front]:
    """The fronts there are; a target whose search failed has none and does not stop the others."""
    there = [name for name in targets if context.run.front(name).exists()]
    return [load_front(context, name) for name in there]
