"""Which packages the settings make of a front. Reads only; needs neither torch nor sklearn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwnas.run import joint, results
from hwnas.run.context import Context
from hwnas.search import front
from hwnas.search.front import Front, Point
from hwnas.settings.amounts import amount
from hwnas.settings.config import PickConfig
from profilers.errors import ConfigError, InfeasibleError


@dataclass(frozen=True)
class Picked:
    """One package to make.

    Attributes:
        name: of its folder.
        point: its network.
        budgets: largest value of each metric that it was picked for, in the metric's unit.
    """

    name: str
    point: Point
    budgets: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, for `hwnas pick --json`."""
        return {
            "package": self.name,
            "id": self.point.id,
            "arch": self.point.arch.to_json(),
            "predicted": self.point.predicted,
            "budgets": self.budgets,
        }


def picked(context: Context, found: Front) -> list[Picked]:
    """The packages that the settings make of a front, best rules first.

    Every rule gets its package, also where two rules pick one network; only a `spread` leaves out
    networks that have a package already. Predictions decide; what was measured only takes away
    networks that missed the budgets of a rule, so a finished run picks the same networks again.

    Raises:
        InfeasibleError: no network is within a budget.
        ExhaustedError: every network that is, was measured over it.
        ConfigError: two packages would have one name.
    """
    chosen: dict[str, Picked] = {}
    for rule in sorted(context.config.pick, key=lambda rule: rule.rule == "spread"):
        if rule.target not in ("", found.target):
            continue
        budgets = _budgets(found, rule)
        for name, point in _points(context, found, rule, budgets):
            if name in chosen:
                raise ConfigError(f"two picks make a package {name!r}; give one of them a name")
            if rule.rule != "spread" or point.id not in {p.point.id for p in chosen.values()}:
                chosen[name] = Picked(name, point, budgets)
    return list(chosen.values())


def _points(
    context: Context, found: Front, rule: PickConfig, budgets: Mapping[str, float]
) -> list[tuple[str, Point]]:
    """The networks that one rule picks, with the names of their packages.

    Args:
        context: of the run.
        found: the front of a target.
        rule: of the settings.
        budgets: of the rule, in the metrics' units.
    """
    gone = results.missed(context, found.target, budgets)
    try:
        if rule.rule == "fleet":
            return _of_fleet(context, found.target, rule)
        kept = tuple(point for point in found.points if point.id not in gone)
        if kept:
            return front.pick(replace(found, points=kept), rule)
    except InfeasibleError:
        if not gone:
            raise
    if rule.rule != "fleet":
        front.pick(found, rule)  # a budget that no prediction meets is refused as such
    raise results.exhausted(context, found.target, budgets, gone)


def _of_fleet(context: Context, target: str, rule: PickConfig) -> list[tuple[str, Point]]:
    """The network that serves a target of a fleet, with the name of its package."""
    fronts = joint.fronts_of(context, context.config.targets)
    budget = {str(name): value for name, value in rule.budget.items()}
    served = joint.fleet(context, fronts, budget, rule.k)
    return [(rule.package, s.point) for s in served if s.target == target]


def _budgets(found: Front, rule: PickConfig) -> dict[str, float]:
    """The budgets of a rule in the metrics' units."""
    whole = found.max_network
    return {str(metric): amount(value, whole[metric]) for metric, value in rule.budget.items()}
