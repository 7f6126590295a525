"""Which packages the settings make of a front. Reads only; needs neither torch nor sklearn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwnas import front
from hwnas.config import PickConfig, amount
from hwnas.front import Front, Point
from hwnas.stages.context import Context, need
from profilers.errors import ConfigError


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


def load_front(context: Context, target: str) -> Front:
    """The front of a target.

    Raises:
        ConfigError: it has not been searched.
    """
    path = need(context.run.front(target), f"search --target {target}")
    return front.load(path, context.space)


def picked(context: Context, found: Front) -> list[Picked]:
    """The packages that the settings make of a front; a network that two rules pick is made once.

    Raises:
        InfeasibleError: no network is within a budget.
        ConfigError: two packages would have one name.
    """
    chosen: dict[str, Picked] = {}
    names: set[str] = set()
    for rule in context.config.pick:
        if rule.target not in ("", found.target):
            continue
        for name, point in front.pick(found, rule):
            if name in names:
                raise ConfigError(f"two picks make a package {name!r}; give one of them a name")
            names.add(name)
            new = Picked(name, point, _budgets(found, rule))
            known = chosen.get(point.id)
            chosen[point.id] = _held_to_both(known, new) if known else new
    return list(chosen.values())


def _budgets(found: Front, rule: PickConfig) -> dict[str, float]:
    """The budgets of a rule in the metrics' units."""
    whole = found.max_network
    return {str(metric): amount(value, whole[metric]) for metric, value in rule.budget.items()}


def _held_to_both(known: Picked, other: Picked) -> Picked:
    """A package that two rules picked: the first one's name, the tighter budget of each metric."""
    budgets = dict(known.budgets)
    for metric, limit in other.budgets.items():
        budgets[metric] = min(budgets.get(metric, limit), limit)
    return Picked(known.name, known.point, budgets)
