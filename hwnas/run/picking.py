"""Which packages the settings make from fronts of targets, or of devices.

Reads only; needs neither torch nor sklearn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwnas.run import devices, joint, results
from hwnas.run.context import Context, mutes
from hwnas.run.devices import DeviceFront
from hwnas.run.results import Result
from hwnas.run.search import load_front, warn_of_changes
from hwnas.search import front
from hwnas.search.front import Front, Point
from hwnas.settings.amounts import amount
from hwnas.settings.config import PickConfig
from profilers.errors import ConfigError, HwnasError, InfeasibleError


@dataclass(frozen=True)
class Picked:
    """One package to make.

    Attributes:
        name: of its folder.
        point: its network; of a front of a device it says for which target.
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


def packages_of(context: Context, target: str, strict: bool = False) -> list[Picked]:
    """The packages that the settings make for a target, those of a `spread` last.

    With `export.per: device` these are, of the rules that name no target, the ones that pick a
    network of this target from the front of its device; maybe none. `strict` refuses a budget that
    every network missed even if that is accepted by name.

    Raises:
        HwnasError: as `picked` and `devices.device_front`.
    """
    rules = context.config.pick
    if context.config.export.per == "target":
        found = load_front(context, target)
        warn_of_changes(context, found)
        return picked(context, found, rules, strict)
    own = [rule for rule in rules if rule.target == target]
    alone = picked(context, load_front(context, target), own, strict) if own else []
    together = picked_of_device(context, devices.front_of(context, target), strict)
    return [*(choice for choice in together if choice.point.target == target), *alone]


def picked_of_device(context: Context, found: DeviceFront, strict: bool = False) -> list[Picked]:
    """The packages of a device: one for each rule that names no target."""
    rules = [rule for rule in context.config.pick if not rule.target]
    return picked(context, found.union, rules, strict)


def picked(
    context: Context, found: Front, rules: Iterable[PickConfig], strict: bool = False
) -> list[Picked]:
    """The packages that rules make from a front, those of a `spread` last.

    Every rule gets its package, even if two rules pick the same network; only a `spread` leaves out
    networks that have a package already. Predictions decide. Measurements only exclude networks:
    those that missed the budgets of a rule, and in a spread those that were slower and less
    accurate than another package. So a finished run picks the same networks again.

    Raises:
        InfeasibleError: no network is within a budget.
        ExhaustedError: every network that is, was measured over it, and that is not accepted.
        ConfigError: two packages would have one name.
    """
    chosen: dict[str, Picked] = {}
    spread: set[str] = set()
    for rule in sorted(rules, key=lambda rule: rule.rule == "spread"):
        if rule.target not in ("", found.target):
            continue
        budgets = _budgets(found, rule)
        for name, point in _points(context, found, rule, budgets, strict):
            if name in chosen:
                raise ConfigError(f"two picks make the package {name!r}; give one of them a name")
            taken = {(p.point.target, p.point.id) for p in chosen.values()}
            if rule.rule != "spread" or (point.target, point.id) not in taken:
                chosen[name] = Picked(name, point, budgets)
                if rule.rule == "spread":
                    spread.add(name)
    beaten = _beaten(context, found.target, chosen, spread) if spread else set()
    return [choice for name, choice in chosen.items() if name not in beaten]


def _beaten(
    context: Context, target: str, chosen: Mapping[str, Picked], spread: set[str]
) -> set[str]:
    """Packages of a spread that were measured slower and less accurate than another package."""
    targets = {name: choice.point.target or target for name, choice in chosen.items()}
    known = {each: results.current(context, each) for each in set(targets.values())}
    measured = {
        name: known[targets[name]][choice.point.id]
        for name, choice in chosen.items()
        if choice.point.id in known[targets[name]]
    }
    return {
        name
        for name in spread & set(measured)
        if any(results.beaten(measured[name], other) for other in measured.values())
    }


def _points(
    context: Context, found: Front, rule: PickConfig, budgets: Mapping[str, float], strict: bool
) -> list[tuple[str, Point]]:
    """The networks that one rule picks, with the names of their packages.

    Args:
        context: of the run.
        found: the front of a target or a device.
        rule: of the settings.
        budgets: of the rule, in the metrics' units.
        strict: refuse a budget that every network missed even if that is accepted by name.
    """
    # Networks of a target without a meter cannot meet a budget of energy.
    known = tuple(p for p in found.points if set(budgets) <= set(p.predicted)) or found.points
    found = replace(found, points=known)
    of_fleet = rule.rule == "fleet"
    gone = _missed_by_fleet(context, found, rule) if of_fleet else _missed(context, found, budgets)
    try:
        if of_fleet:
            return _of_fleet(context, found, rule)
        kept = tuple(p for p in known if (p.target or found.target, p.id) not in gone)
        if kept:
            return front.pick(replace(found, points=kept), rule)
    except InfeasibleError:
        if not gone:
            raise
    if of_fleet:
        predicted = _of_fleet(context, found, rule, measured=False)
    else:
        predicted = front.pick(found, rule)  # this refuses a budget that no prediction meets
    error = results.exhausted(context, found.target, budgets, gone, of_fleet)
    if strict or not mutes(context, "budget", str(error)):
        raise error
    return predicted


def _missed(
    context: Context, found: Front, budgets: Mapping[str, float]
) -> dict[tuple[str, str], Result]:
    """Networks of a front that were measured over some budgets, by target and id."""
    targets = dict.fromkeys(point.target or found.target for point in found.points)
    return {
        (target, name): result
        for target in targets
        for name, result in results.missed(context, target, budgets).items()
    }


def _missed_by_fleet(
    context: Context, found: Front, rule: PickConfig
) -> dict[tuple[str, str], Result]:
    """Networks that were measured over the budgets of any member of a front's fleet."""
    return joint.missed(context, _members(context, found), _asked(rule))


def _of_fleet(
    context: Context, found: Front, rule: PickConfig, measured: bool = True
) -> list[tuple[str, Point]]:
    """The network that serves a target or a device of a fleet, with the name of its package; if not
    `measured`, by predictions alone.
    """
    units = _members(context, found)
    served = joint.fleet(context, units, _asked(rule), rule.k, measured=measured)
    return [
        (rule.package, replace(s.point, target=s.target if _per_device(found) else ""))
        for s in served
        if s.name == found.target
    ]


def _members(context: Context, found: Front) -> list[joint.Unit]:
    """The targets, or the devices, of the fleet that a front belongs to."""
    return joint.units_of(context, context.config.targets, _per_device(found))


def _per_device(found: Front) -> bool:
    """Whether a front is of a device; one of a target names no target in its points."""
    return any(point.target for point in found.points)


def _asked(rule: PickConfig) -> dict[str, float | str]:
    """The budgets of a rule as the settings give them."""
    return {str(metric): value for metric, value in rule.budget.items()}


def _budgets(found: Front, rule: PickConfig) -> dict[str, float]:
    """The budgets of a rule in the metrics' units."""
    whole = found.max_network
    if unknown := [str(metric) for metric in rule.budget if metric not in whole]:
        found.values((unknown[0],))  # is refused with the metrics there are
    return {str(metric): amount(value, whole[metric]) for metric, value in rule.budget.items()}


def device_rows(context: Context, found: DeviceFront) -> list[dict[str, Any]]:
    """What the settings pick of a device, for programs: docs/formats.md, "Front of a device"."""
    return [
        {
            "device": found.name,
            **devices.target_fields(context.target(choice.point.target)),
            **choice.to_json(),
            "quality": front.quality(found.union),
            "uncertainty": found.trust[choice.point.target],
            "rivals": rivals(context, found, choice),
        }
        for choice in picked_of_device(context, found)
    ]


# ---- what else there was ------------------------------------------------------------------------


def rivals(context: Context, found: DeviceFront, choice: Picked) -> list[dict[str, Any]]:
    """What each other target of a device offers in place of a package, best first.

    Networks count that are within the budgets of the package or, if it has none, within its own
    costs. A row holds the target and how it drives the device, `id`, `predicted`, `loss` (of the
    quality that the package is best in,
    in its unit) and `within_uncertainty`, whether the predictions are too uncertain to tell the two
    apart; `error` where nothing of the target is within.
    """
    point = choice.point
    quality = front.quality(found.union)
    costs = {name: point.predicted[name] for name in found.union.objectives if name != quality}
    limits = choice.budgets or costs
    told: list[dict[str, Any]] = []
    for target, own in found.fronts.items():
        if target == point.target:
            continue
        driven = devices.target_fields(context.target(target))
        try:
            other = _within(context, own, limits)
        except HwnasError as error:
            told.append({**driven, "error": str(error)})
            continue
        loss = other.predicted[quality] - point.predicted[quality]
        spread = [found.trust[each].get(quality, 0.0) for each in (point.target, target)]
        told.append(
            {
                **driven,
                "id": other.id,
                "predicted": other.predicted,
                "loss": loss,
                "within_uncertainty": abs(loss) <= math.hypot(*spread),
            }
        )
    return sorted(told, key=lambda rival: rival.get("loss", math.inf))


def _within(context: Context, own: Front, limits: Mapping[str, float]) -> Point:
    """The best network of a target within limits that was not measured over them.

    Raises:
        InfeasibleError: there is none.
        ConfigError: a limit is of a metric that the target does not know.
    """
    gone = results.missed(context, own.target, limits)
    left = tuple(point for point in own.points if point.id not in gone)
    if not left:
        told = {(own.target, name): result for name, result in gone.items()}
        raise results.exhausted(context, own.target, limits, told)
    return left[front.within_budget(replace(own, points=left), limits)]
