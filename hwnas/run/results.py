"""What was measured of packages, and which networks that excludes from a budget.

One small file for each target holds the results by the sha256 of the model, for the environment
that it was measured in. So an unchanged network is not measured again, whatever the name of its
package; with another engine, all are. Predictions decide what is picked. A result only excludes a
network that was over its budget by more than the noise, undisturbed.
Needs neither torch nor an engine. Format: docs/formats.md, "Run folder".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hwnas.measuring import connections, verdict
from hwnas.networks.space import Architecture
from hwnas.pricing.terms import UNITS
from hwnas.run import imported
from hwnas.run.accuracy import alike
from hwnas.run.context import Context, need
from hwnas.run.folder import differences
from hwnas.settings import versions
from hwnas.tables.table import CostTable, load_table
from profilers.errors import ExhaustedError, FileFormatError
from profilers.schema import canonical_json, read_json, sha256_file, sha256_text, write_json

FORMAT = "hwnas-results-1"
VERSION = 3  # raised when measuring a package finds something else
EXPORT_VERSION = 2  # raised when the export of a network gives another file


@dataclass(frozen=True)
class Result:
    """What was measured of one model.

    Attributes:
        model: sha256 of the file.
        made_of: hash of what it was exported from last, of `maker`.
        data: fingerprint of the data that it was tested on.
        arch: of the network.
        measured: as manifests hold it.
        right: hex of bits, whether the model is right on each test image; empty without images.
        again: whether it was measured once more because no other network was left.
    """

    model: str
    made_of: str
    data: str
    arch: dict[str, Any]
    measured: dict[str, Any]
    right: str = ""
    again: bool = False


@dataclass(frozen=True)
class Results:
    """All results of one target, by model, and what made them: engines and environment."""

    made_by: dict[str, str]
    of: dict[str, Result]


def load(context: Context, target: str) -> Results:
    """The results of a target; none where the file is missing or cannot be read."""
    try:
        content = read_json(context.run.results(target), FORMAT)
        found = [Result(**each) for each in content["results"]]
        current = [each for each in found if each.measured["version"] == VERSION]
        return Results(dict(content["made_by"]), {each.model: each for each in current})
    except (FileFormatError, KeyError, TypeError, ValueError, AttributeError):
        return Results({}, {})


def made_by(context: Context, target: str) -> dict[str, str]:
    """What decides the numbers besides the model: the versions of the target's engine and of the
    reference engine, the hash of the environment, what sets the clocks, a metric of the user's.
    """
    there, runtime = context.environment(target), context.target(target).runtime
    here = versions.of(versions.ENGINE)[versions.ENGINE]
    engine = {runtime: str(there["engine_version"]), versions.ENGINE: here}
    clocks = {name: there.get(name) for name in ("governor", "power_mode", "clocks_locked")}
    told = ", ".join(f"{name} {value}" for name, value in clocks.items() if value is not None)
    metric = {"metric": context.task.version} if context.task.version else {}
    return {
        **engine,
        "environment": str(there["fingerprint"]),
        "clocks": told or "unknown",
        **metric,
    }


def of_now(context: Context, target: str) -> Results:
    """The results of a target; if another engine or environment made them, they are forgotten."""
    known, now = load(context, target), made_by(context, target)
    if known.made_by == now:
        return known
    if known.made_by:
        words = differences(known.made_by, now, "{} was {}, is {}")
        context.report.note(f"verify.{target}: redone, {', '.join(words)}")
    return add(context, target, now, ())


def add(context: Context, target: str, made_by: dict[str, str], found: Iterable[Result]) -> Results:
    """Keep results with those of the same engines, environment and data; drop others."""
    known = load(context, target)
    kept = known.of if known.made_by == made_by else {}
    data = context.data["fingerprint"]
    kept = {model: each for model, each in kept.items() if each.data == data}
    kept |= {each.model: each for each in found}
    content = [asdict(kept[model]) for model in sorted(kept)]
    path = context.run.results(target)
    write_json(path, {"format": FORMAT, "made_by": made_by, "results": content})
    return Results(made_by, kept)


def maker(context: Context, target: str) -> Callable[[Architecture], str]:
    """A function that hashes all that decides the model of a network on a target."""
    driven = context.target(target)
    shared: dict[str, Any] = {
        "version": [EXPORT_VERSION, versions.of_models(driven.runtime)],
        "target": connections.published(driven),
        "export": context.config.export.model_dump(mode="json", exclude={"per"}),
        "accuracy": context.config.accuracy.model_dump(mode="json"),
        "supernet": sha256_file(imported.need_weights(context.run)),
        "data": context.data,
        **quantisation(context, target),
    }

    def made_of(arch: Architecture) -> str:
        tuned = context.run.finetuned(arch.id)
        own = {"arch": arch.to_json(), "tuned": sha256_file(tuned) if tuned.exists() else None}
        return sha256_text(canonical_json({**shared, **own}))

    return made_of


def quantisation(context: Context, target: str) -> dict[str, Any]:
    """What decides how networks of a target are quantised; nothing where they are not."""
    recipe = context.recipe(target)
    if not recipe:
        return {}
    return {"int8": {"recipe": recipe, **context.config.int8.model_dump(mode="json")}}


def _is_current(context: Context, target: str) -> Callable[[Result], bool]:
    """A function that tells whether a result is of the model that an export would make now."""
    made_of = maker(context, target)

    def same(result: Result) -> bool:
        return made_of(context.space.from_json(result.arch)) == result.made_of

    return same


def current(context: Context, target: str) -> dict[str, Result]:
    """Results of networks as they would be exported now, by the networks' ids."""
    found = load(context, target).of
    if not found:
        return {}
    same = _is_current(context, target)
    return {context.space.from_json(each.arch).id: each for each in found.values() if same(each)}


def as_accurate(found: Mapping[str, Result]) -> list[str]:
    """Ids of networks that the test images do not tell apart from the most accurate one of them,
    least accurate first; without that one. Only those tested on equal images are compared.
    """
    known = {name: each for name, each in found.items() if each.right}
    if not known:
        return []
    order = sorted(known, key=lambda name: (known[name].measured["test_accuracy"], name))
    best, others = known[order[-1]], order[:-1]
    images = best.measured["test_images"]
    return [
        name
        for name in others
        if known[name].measured["test_images"] == images and alike(best.right, known[name].right)
    ]


def beaten(a: Result, b: Result) -> bool:
    """Whether a was measured slower and less accurate than b, both undisturbed."""
    if verdict.is_disturbed(a.measured) or verdict.is_disturbed(b.measured):
        return False
    slower = (a.measured["latency_ms"] or 0) > (b.measured["latency_ms"] or math.inf)
    known = (a.measured["test_accuracy"], b.measured["test_accuracy"])
    return slower and None not in known and known[0] < known[1]


# ---- budgets -------------------------------------------------------------------------------------


def margins(context: Context, target: str) -> dict[str, float]:
    """`margins_of` the table of a target."""
    return margins_of(load_table(need(context.table(target), f"profile --target {target}")))


def margins_of(table: CostTable | None) -> dict[str, float]:
    """How far past a limit measured metrics may be and still meet it, shares: the noise of a table
    and of its windows of energy; 0 where that is unknown.
    """
    checked = (table.energy.get("validation") or {}) if table else {}
    latency, energy = table.noise if table else 0.0, (checked.get("noise") or {}).get("value", 0.0)
    return {"latency_ms": latency, "sustained_ms": latency, "energy_mj": float(energy)}


def misses(value: float | None, budget: float | None, margin: float) -> bool:
    """Whether a measured value is past its budget by more than a margin, a share."""
    return budget is not None and value is not None and value > budget * (1 + margin)


def over(
    context: Context,
    target: str,
    measured: Mapping[str, Any],
    budgets: Mapping[str, float],
    disturbed: bool = False,
) -> list[str]:
    """Metrics that were measured over their budgets by more than the noise.

    Args:
        context: of the run.
        target: its name.
        measured: of a package.
        budgets: in the metrics' units.
        disturbed: those whose measurement was disturbed, and decides nothing; else the others.
    """
    known = margins(context, target) if budgets else {}
    return past(measured, budgets, known, disturbed)


def past(
    measured: Mapping[str, Any],
    budgets: Mapping[str, float],
    margins: Mapping[str, float],
    disturbed: bool = False,
) -> list[str]:
    """As `over`, with the margins of metrics, shares."""
    about = {"latency_ms": measured, "energy_mj": measured.get("energy") or {}}
    return [
        name
        for name, told in about.items()
        if name in budgets
        and verdict.is_disturbed(told) == disturbed
        and misses(measured.get(name), budgets[name], margins[name])
    ]


def missed(context: Context, target: str, budgets: Mapping[str, float]) -> dict[str, Result]:
    """Networks that were measured over some of these budgets, undisturbed, by their ids."""
    if not set(budgets) & {"latency_ms", "energy_mj"}:
        return {}
    return {
        name: result
        for name, result in current(context, target).items()
        if over(context, target, result.measured, budgets)
    }


def exhausted(
    context: Context,
    name: str,
    budgets: Mapping[str, float],
    gone: Mapping[tuple[str, str], Result],
    of_fleet: bool = False,
) -> ExhaustedError:
    """What to say where every network within some budgets was measured over them.

    Args:
        context: of the run.
        name: of the target or the device.
        budgets: in the metrics' units.
        gone: what was measured, by target and network.
        of_fleet: whether the networks were measured on any target of a fleet.
    """
    told = [
        f"{name} = {budget:.4g} {UNITS[name]} (least measured {least:.4g})"
        for name, budget in budgets.items()
        for least in [
            min((r.measured[name] for r in gone.values() if r.measured.get(name)), default=0)
        ]
        if least
    ]
    targets = list(dict.fromkeys(target for target, _ in gone))
    files = [str(context.run.results(target)) for target in targets]
    limits = " and ".join(told)
    why = f"all {len(gone)} networks predicted within {limits} were measured over it"
    if of_fleet:
        why = f"no fleet is left: on {' and '.join(targets)} networks were measured over {limits}"
    return ExhaustedError(
        f"{name}: {why}; raise the budget, profile again, or delete {' and '.join(files)} and "
        "run again on a quiet machine",
        tuple(sorted(gone)),
    )
