"""Which packages the settings make of a front. Reads only; needs neither torch nor sklearn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwnas.amounts import amount
from hwnas.config import PickConfig
from hwnas.pricing.terms import UNITS
from hwnas.search import front
from hwnas.search.front import Front, Point
from hwnas.stages import several
from hwnas.stages.context import Context, need
from hwnas.tables.table import load_table
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
    networks that have a package already.

    Raises:
        InfeasibleError: no network is within a budget.
        ConfigError: two packages would have one name.
    """
    margin = noise_margin(context, found.target), energy_margin(context, found.target)
    chosen: dict[str, Picked] = {}
    for rule in sorted(context.config.pick, key=lambda rule: rule.rule == "spread"):
        if rule.target not in ("", found.target):
            continue
        budgets = _budgets(found, rule)
        for name, point in _points(context, found, rule, _not_missed(found, budgets, margin)):
            if name in chosen:
                raise ConfigError(f"two picks make a package {name!r}; give one of them a name")
            if rule.rule != "spread" or point.id not in {p.point.id for p in chosen.values()}:
                chosen[name] = Picked(name, point, budgets)
    return list(chosen.values())


def _points(
    context: Context, found: Front, rule: PickConfig, kept: Front
) -> list[tuple[str, Point]]:
    """The networks that one rule picks, with the names of their packages.

    Args:
        context: of the run.
        found: the front of a target.
        rule: of the settings.
        kept: the front without what was measured over budget.
    """
    if rule.rule != "fleet":
        return front.pick(kept, rule)
    fronts = several.fronts_of(context, context.config.targets)
    served = several.fleet(context, fronts, {str(n): v for n, v in rule.budget.items()}, rule.k)
    return [(rule.package, s.point) for s in served if s.target == found.target]


def noise_margin(context: Context, target: str) -> float:
    """How far past a budget a measurement may be and still meet it: the table's noise, a share."""
    return load_table(need(context.run.table(target), f"profile --target {target}")).noise


def energy_margin(context: Context, target: str) -> float:
    """How far past a budget measured energy may be and still meet it: the noise of windows, a
    share; 0 where the table holds no energy.
    """
    table = load_table(need(context.run.table(target), f"profile --target {target}"))
    checked = table.energy.get("validation") or {}
    return float((checked.get("noise") or {}).get("value", 0.0))


def misses_energy(measured_mj: float | None, budgets: Mapping[str, float], margin: float) -> bool:
    """Whether measured energy is past its budget by more than a margin."""
    budget = budgets.get("energy_mj")
    return budget is not None and measured_mj is not None and measured_mj > budget * (1 + margin)


def misses(measured_ms: float | None, budgets: Mapping[str, float], margin: float) -> bool:
    """Whether a measured latency is past its budget by more than the noise margin."""
    budget = budgets.get("latency_ms")
    return budget is not None and measured_ms is not None and measured_ms > budget * (1 + margin)


def _not_missed(found: Front, budgets: Mapping[str, float], margins: tuple[float, float]) -> Front:
    """The front without the networks that were measured and missed these budgets.

    Measuring only ever takes a network away, so a finished run picks the same networks again.

    Args:
        found: the front of a target.
        budgets: of one rule.
        margins: shares that measured latency and energy may be over theirs.
    """

    def missed(measured: Mapping[str, float]) -> bool:
        late = misses(measured.get("latency_ms"), budgets, margins[0])
        return late or misses_energy(measured.get("energy_mj"), budgets, margins[1])

    kept = [p for p in found.points if not missed(p.measured or {})]
    if not kept:
        raise InfeasibleError(_all_missed(found, budgets))
    return replace(found, points=tuple(kept))


def _all_missed(found: Front, budgets: Mapping[str, float]) -> str:
    """What to say where every network was measured over these budgets."""
    named = [name for name in ("latency_ms", "energy_mj") if name in budgets]
    least = {
        name: min(p.measured[name] for p in found.points if p.measured and name in p.measured)
        for name in named
    }
    told = ", or ".join(
        f"{budgets[name]:.4g} {UNITS[name]}; the smallest measured is {least[name]:.4g} "
        f"{UNITS[name]}"
        for name in named
    )
    return f"every network of the front of {found.target} was measured over {told}"


def _budgets(found: Front, rule: PickConfig) -> dict[str, float]:
    """The budgets of a rule in the metrics' units."""
    whole = found.max_network
    return {str(metric): amount(value, whole[metric]) for metric, value in rule.budget.items()}
