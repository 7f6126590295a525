"""Several targets at once: a joint front, and few models for a fleet of targets or devices.

Reads tables, predictor and fronts of the run folder; needs neither torch nor sklearn.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing.terms import Terms
from hwnas.run import devices, results
from hwnas.run.context import Context
from hwnas.run.results import Result
from hwnas.run.search import load_front, target_metrics
from hwnas.search import joint, searchers
from hwnas.search.fleet import choose
from hwnas.search.front import Front, Point, make_front, named_metrics
from hwnas.search.joint import Least, Mode, Shares
from hwnas.search.problem import Metric, Problem
from hwnas.settings.amounts import amount
from hwnas.settings.config import SearchConfig
from profilers.errors import ConfigError, HwnasError
from profilers.plugins import select
from profilers.schema import canonical_json, sha256_file, sha256_text

EVERY_SUBSET = 4  # targets up to which every subset gets a search of its own
JOINT = SearchConfig(population=100, generations=30)  # of the pool's joint searches
BUDGET_SHARE = "budget_share"
_POOLS: dict[str, np.ndarray] = {}  # of this process, by what they are made from


@dataclass(frozen=True)
class Unit:
    """What one network of a fleet serves: a target, or a device by the best of its targets.

    Attributes:
        front: of the target or the device, whose name it holds.
        targets: that may serve it.
    """

    front: Front
    targets: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the target or the device."""
        return self.front.target


@dataclass(frozen=True)
class Served:
    """The network that serves one target or device of a fleet.

    Attributes:
        name: of the target or the device.
        target: that it runs on.
        point: the network with its predictions for this target.
        budgets: in the metrics' units.
        alone: predicted error of the best network for it by itself, a fraction.
    """

    name: str
    target: str
    point: Point
    budgets: dict[str, float]
    alone: float

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, for `hwnas fleet --json`."""
        error = self.point.predicted["error"]
        return {
            **({"device": self.name} if self.name != self.target else {}),
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
        mode: see `search.joint.joint_problem`.
        weights: of the targets in a mean; 1 where none is given.

    Raises:
        ConfigError: fewer than two targets, or of precisions with other errors; a weight without
            its target.
        TableError: a table does not serve, or is not accepted.
        InfeasibleError: a budget of the settings cannot be met on a target.
    """
    if len(targets) < 2:
        raise ConfigError(f"a joint search needs at least 2 targets, the settings name {targets}")
    predictors = sorted({context.predictor(name).name for name in targets})
    if len(predictors) > 1:
        raise ConfigError(
            f"error on {', '.join(targets)} differs: {' and '.join(predictors)} predict it; "
            "search targets of one precision together, or ask `hwnas front --device`"
        )
    state = _stater(context, targets, weights)
    stated = state(mode)
    if mode == "worst":
        begin = searchers.search(state("mean"), JOINT)
        stated = replace(stated, start=begin.front.genome)
    settings = context.config.search.model_copy(
        update={"algorithm": "nsga2", "objectives": stated.objectives, "budgets": {}}
    )
    last = searchers.search(stated, settings)
    hashes = {f"table.{name}": sha256_file(context.table(name)) for name in targets}
    hashes["predictor"] = sha256_file(context.predictor(targets[0]))
    accepted = tuple(sorted(context.accept))
    return make_front(f"{mode} of {', '.join(targets)}", stated, last, settings, hashes, accepted)


def _stater(
    context: Context, targets: Sequence[str], weights: Mapping[str, float]
) -> Callable[[Mode], Problem]:
    """A function that makes the joint problem of a mode, within the settings' budget."""
    both = {name: target_metrics(context, name) for name in targets}
    latency = {name: _sum_of(metrics, name) for name, (metrics, _) in both.items()}
    metrics, most = both[targets[0]]
    shared = {n: m for n, m in metrics.items() if n not in ("latency_ms", "energy_mj")}
    whole = {n: most[n] for n in shared}
    whole |= {joint.on(name): values["latency_ms"] for name, (_, values) in both.items()}
    budget = _latency_budget(context)

    def state(mode: Mode) -> Problem:
        found = joint.joint_problem(context.searched, shared, latency, mode, weights, whole)
        return found if budget is None else joint.within(found, budget)

    return state


def _sum_of(metrics: Mapping[str, Metric], target: str) -> Terms:
    found = metrics.get("latency_ms")
    if not isinstance(found, Terms):
        raise ConfigError(f"the table of {target} gives no latency that is a sum over ops")
    return found


def _latency_budget(context: Context) -> float | str | None:
    """The settings' latency budget on each target; None if they state none."""
    others = sorted(set(context.config.search.budgets) - {"latency_ms"})
    if others:
        raise ConfigError(
            f"search.budgets.{others[0]} has no meaning in a joint search, which knows latency_ms "
            "only; remove it, or search each target"
        )
    return context.config.search.budgets.get("latency_ms")


# ---- fleet --------------------------------------------------------------------------------------


def units_of(context: Context, targets: Sequence[str], per_device: bool) -> list[Unit]:
    """Targets that have a front, or their devices; one that failed is left out."""
    there = [name for name in targets if context.run.front(name).exists()]
    if not per_device:
        return [Unit(load_front(context, name), (name,)) for name in there]
    units = []
    for name, mine in devices.devices(there).items():
        with contextlib.suppress(HwnasError):
            units.append(unit_of(devices.device_front(context, name, mine)))
    return units


def unit_of(found: devices.DeviceFront) -> Unit:
    """A device, served by the targets that have networks in its front."""
    return Unit(found.union, tuple(found.fronts))


def missed(
    context: Context, units: Sequence[Unit], budget: Mapping[str, float | str]
) -> dict[tuple[str, str], Result]:
    """Networks that were measured over the budgets of a fleet's members, by target and id."""
    found: dict[tuple[str, str], Result] = {}
    for unit in units:
        limits = _limits(unit, budget, {t: target_metrics(context, t)[0] for t in unit.targets})
        for target in unit.targets:
            over = results.missed(context, target, limits)
            found |= {(target, network): result for network, result in over.items()}
    return found


def fleet(
    context: Context,
    units: Sequence[Unit],
    budget: Mapping[str, float | str],
    models: int,
    weights: Mapping[str, float] | None = None,
    measured: bool = True,
) -> list[Served]:
    """At most `models` networks for several targets or devices, each within its budgets.

    Args:
        context: of the run.
        units: targets or devices, all of one space.
        budget: of each of them, absolute or as a share of its max network's value.
        models: number of different networks allowed.
        weights: how many devices there are of each; 1 where none is given.
        measured: whether networks that were measured over the budget of a target are left out.

    Raises:
        ConfigError: a budget's metric is not known, or a weight is of nothing; no model allowed.
        InfeasibleError: the budgets cannot be met with so few networks.
    """
    metrics = {t: target_metrics(context, t)[0] for unit in units for t in unit.targets}
    limits = {unit.name: _limits(unit, budget, metrics) for unit in units}
    pool = _pool(context, units, metrics, limits)
    priced = [_priced(context, pool, unit, metrics, limits[unit.name], measured) for unit in units]
    given = {select(n, limits, "--weight"): weight for n, weight in (weights or {}).items()}
    errors = np.stack([error for error, _ in priced], axis=1)
    found = choose(errors, models, np.array([given.get(unit.name, 1.0) for unit in units]))
    served = []
    for n, (unit, (_, ways)) in enumerate(zip(units, priced, strict=True)):
        row = int(found.rows[n])
        target = unit.targets[int(ways[row])]
        values = {k: m.evaluate(pool[[row]]) for k, m in metrics[target].items()}
        point = Point(context.searched.architectures(pool[[row]])[0], named_metrics(values, 0))
        served.append(Served(unit.name, target, point, limits[unit.name], float(found.alone[n])))
    return served


def _limits(
    unit: Unit, budget: Mapping[str, float | str], metrics: Mapping[str, Mapping[str, Metric]]
) -> dict[str, float]:
    known = dict.fromkeys(name for target in unit.targets for name in metrics[target])
    if "error" not in known:
        raise ConfigError(f"a fleet weighs errors, and none is predicted on {unit.name}")
    for name in budget:
        if name not in known:
            raise ConfigError(
                f"budget {name} is not known on {unit.name}; there are {', '.join(known)}"
            )
        if name not in unit.front.max_network:  # its table has changed since
            raise ConfigError(f"the front of {unit.name} holds no {name}; run `hwnas search` again")
    return {name: amount(value, unit.front.max_network[name]) for name, value in budget.items()}


def _priced(
    context: Context,
    pool: np.ndarray,
    unit: Unit,
    metrics: Mapping[str, Mapping[str, Metric]],
    limits: Mapping[str, float],
    measured: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) error of each network on a unit, infinite where it is not within the limits (if
    `measured`, or was measured over them); and (n,) the index of the target that gives this error,
    of equal ones that of least latency.
    """
    errors, latencies = [], []
    for target in unit.targets:
        fits = _fits(pool, metrics[target], limits)
        if measured:
            fits &= ~_over(context, target, pool, limits)
        errors.append(np.where(fits, metrics[target]["error"].evaluate(pool), np.inf))
        latencies.append(metrics[target]["latency_ms"].evaluate(pool))
    ways = np.lexsort((np.array(latencies), np.array(errors)), axis=0)[0]
    return np.min(errors, axis=0), ways


def _fits(
    genome: np.ndarray, metrics: Mapping[str, Metric], limits: Mapping[str, float]
) -> np.ndarray:
    """(n,) whether each network is within every limit; none is where a metric is not known."""
    if not set(limits) <= set(metrics):
        return np.zeros(len(genome), bool)
    within = [metrics[name].evaluate(genome) <= limit for name, limit in limits.items()]
    return np.asarray(np.all(within, axis=0))


def _over(
    context: Context, target: str, genome: np.ndarray, limits: Mapping[str, float]
) -> np.ndarray:
    """(n,) whether each network was measured over a limit on a target."""
    space, gone = context.searched, results.missed(context, target, limits).values()
    archs = [context.space.from_json(result.arch) for result in gone]
    known = space.canonical(space.genome([arch for arch in archs if space.holds(arch)]))
    same = space.canonical(genome)[:, None, :] == known[None, :, :]
    return np.asarray(same.all(axis=2).any(axis=1))


def _pool(
    context: Context,
    units: Sequence[Unit],
    metrics: Mapping[str, Mapping[str, Metric]],
    limits: Mapping[str, Mapping[str, float]],
) -> np.ndarray:
    """(n, n_choices) networks to choose from: the smallest one, the front of every unit, and fronts
    of error against the worst share of the budgets of several units together.
    """
    space = context.searched
    own = [
        space.genome([point.arch for point in unit.front.points if space.holds(point.arch)])
        for unit in units
    ]
    start = np.concatenate([space.genome([space.smallest, space.largest]), *own])
    asked = _fingerprint(space, start, metrics, limits)
    if asked in _POOLS:
        return _POOLS[asked]
    sizes = range(2, len(units) + 1) if len(units) <= EVERY_SUBSET else [len(units)]
    found = [start]
    for group in itertools.chain(*(itertools.combinations(units, size) for size in sizes)):
        pairs = [
            (Least(tuple(metrics[t][name] for t in unit.targets if name in metrics[t])), limit)
            for unit in group
            for name, limit in limits[unit.name].items()
        ]
        worst = Shares(*map(tuple, zip(*pairs, strict=True)))
        known = {"error": metrics[group[0].targets[0]]["error"], BUDGET_SHARE: worst}
        stated = Problem(space, ("error", BUDGET_SHARE), known, {}, start)
        found.append(searchers.search(stated, JOINT).front.genome)
    genome = np.concatenate(found)
    _, first = np.unique(space.canonical(genome), axis=0, return_index=True)
    _POOLS[asked] = genome[first]
    return _POOLS[asked]


def _fingerprint(
    space: SearchSpace,
    start: np.ndarray,
    metrics: Mapping[str, Mapping[str, Metric]],
    limits: Mapping[str, Mapping[str, float]],
) -> str:
    """Of what a pool is made from: the stages of a run ask for the same one dozens of times."""
    of_space = [space.geometry, list(space.resolutions)]
    known = {t: {n: m.evaluate(start).tolist() for n, m in of.items()} for t, of in metrics.items()}
    return sha256_text(canonical_json([of_space, start.tolist(), known, limits]))
