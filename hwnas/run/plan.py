"""What a run would do, without doing it: which stages are current, why others are not, how long.

A stage whose inputs another stage makes anew is listed as following it; its outputs may turn out
equal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwnas.measuring import connections
from hwnas.networks import spaces
from hwnas.run import energy, imported, own
from hwnas.run.context import Context
from hwnas.run.data import data_work, dataset
from hwnas.run.devices import siblings
from hwnas.run.evaluate import evaluate_work, keeps_predictor
from hwnas.run.export import export_state
from hwnas.run.folder import NEVER, State, state
from hwnas.run.profile import profile_work
from hwnas.run.refine import make_goals, refine_work
from hwnas.run.search import check_energies, search_work, usable_table
from hwnas.run.train import settings_of, skips_training, train_work
from hwnas.run.verify import verify_state
from hwnas.settings.config import SpaceConfig
from hwnas.tables.table import load_table
from profilers.errors import ConfigError, DeviceError, HwnasError, RuntimeMissingError
from profilers.schema import Target, read_json

AFTER = {  # what makes the inputs of a stage, of the same target where it is one of a target
    "train": ("space", "data"),
    "profile": ("space", "data"),
    "evaluate": ("train",),
    "refine": ("evaluate", "profile"),
    "search": ("refine", "evaluate", "profile"),
    "export": ("search", "train"),
    "verify": ("export",),
}
PER_TARGET = ("profile", "search", "export", "verify")


@dataclass(frozen=True)
class Step:
    """One piece of work of a run.

    Attributes:
        name: `<stage>` or `<stage>.<target>`.
        current: whether there is nothing to do.
        why: it is to be done; for current work, a note on it; maybe empty.
        about_s: how long it takes, roughly, seconds; None where nothing tells.
        error: what is wrong with its inputs.
    """

    name: str
    current: bool
    why: str
    about_s: float | None = None
    error: HwnasError | None = None


# ---- what is wrong before anything runs ---------------------------------------------------------


def problems(context: Context, targets: Iterable[str]) -> dict[str, HwnasError]:
    """Problems that would end a target's work after hours, found now; asks devices what they
    have.

    Boards that cannot be reached, or are busy, are among them: their turn may come later.
    """
    found: dict[str, HwnasError] = {}
    for name in targets:
        try:
            if imported.keeps_table(context.run, name):
                continue
            _check_energy(context, context.target(name))
            _check_cache(context, context.target(name))
            context.environment(name, at_once=True)
        except HwnasError as error:
            found[name] = error
    return found


def is_lasting(error: HwnasError) -> bool:
    """Whether a problem stays until somebody mends it: an engine that is missing, a setting."""
    return isinstance(error, RuntimeMissingError) or not isinstance(error, DeviceError)


def _check_energy(context: Context, target: Target) -> None:
    """Refuse settings that want energy if no meter measures it and no table holds it."""
    config, path = context.config, context.run.table(target.name)
    picks = [rule.budget for rule in config.pick if rule.target in ("", target.name)]
    wanted = energy.is_wanted(config) or any("energy_mj" in budget for budget in picks)
    if not wanted or target.meter != "none" or (path.exists() and load_table(path).energy):
        return
    raise ConfigError(
        f"target {target.name} has no meter, but the settings want energy_mj; name a meter in "
        f"targets/{target.name}.yaml, or leave energy_mj out"
    )


def _check_cache(context: Context, target: Target) -> None:
    """Refuse a cache folder of this machine that no kit can be written to."""
    if not connections.is_here(target) or context.run.table(target.name).exists():
        return
    told = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    place = next(path for path in (Path(told), *Path(told).absolute().parents) if path.exists())
    usable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    if told.startswith("~") or not usable:
        raise ConfigError(
            f"the cache folder {told} cannot be written; set XDG_CACHE_HOME to one that can"
        )


def check_settings(context: Context) -> None:
    """Refuse images that cannot be read.

    Raises:
        ConfigError: the message says which.
    """
    if not imported.has_images(context.config) or state(context.run, data_work(context)).current:
        return
    if not context.data_config.stream:  # those are looked at by name alone
        dataset(context.data_config, context.run.contents)


# ---- stages -------------------------------------------------------------------------------------


def steps(context: Context, stages: Iterable[str], targets: Iterable[str]) -> list[Step]:
    """The pieces of work of some stages, in order; nothing is written."""
    quiet = replace(context.report, note=lambda text: None, warn=lambda text: None)
    context = replace(context, report=quiet)
    took = durations(context)
    found: dict[str, Step] = {}
    for stage in stages:
        for target in targets if stage in PER_TARGET else ("",):
            step = _step(context, stage, target, found)
            about_s = None if step.current else _about_s(context, step.name, took)
            found[step.name] = replace(step, about_s=about_s)
    return list(found.values())


def _step(context: Context, stage: str, target: str, before: Mapping[str, Step]) -> Step:
    name = f"{stage}.{target}" if target else stage
    others = siblings(context, target) if stage == "export" else []
    open_ = [
        step.name
        for step in before.values()
        for other in [step.name.partition(".")]
        if other[0] in AFTER.get(stage, ()) and (other[2] in ("", target, *others) or not target)
        if not step.current
    ]
    if open_:
        return Step(name, False, f"after {', '.join(open_)}")
    try:
        return Step(name, *_state(context, stage, target))
    except HwnasError as error:
        return Step(name, False, str(error), error=error)


def _state(context: Context, stage: str, target: str) -> State:
    """Whether one stage has nothing to do."""
    run = context.run
    if stage == "space":
        return state(run, own.space_work(context.config.space, context.base, run))
    if stage == "data" and not imported.has_images(context.config):
        return State(True, "no images")
    if stage == "train" and skips_training(context):
        return State(True, "the supernet was imported")
    if stage == "evaluate" and keeps_predictor(context):
        return State(True, "the predictor was imported")
    if stage == "profile" and imported.keeps_table(run, target):
        return State(True, "the table was imported")
    if stage == "refine":
        return state(run, refine_work(context, evaluate_work(context), make_goals(context)))
    if stage in ("export", "verify"):
        return (export_state if stage == "export" else verify_state)(context, target)
    if stage == "search":
        check_energies(context, usable_table(context, target))  # or says why not
        if not run.front(target).exists():
            return State(False, NEVER)
    shared = {"data": data_work, "train": train_work, "evaluate": evaluate_work}
    of_target = {"profile": profile_work, "search": search_work}
    work = of_target[stage](context, target) if target else shared[stage](context)
    found = state(run, work)
    if stage == "profile" and found.current and energy.is_missing(context, context.target(target)):
        return State(False, "its table holds no energies")
    return found


# ---- how long -----------------------------------------------------------------------------------


def durations(context: Context) -> Mapping[str, Any]:
    """Seconds that stages took the last time, and the epochs of training."""
    try:
        return dict(read_json(context.run.durations))
    except HwnasError:
        return {}


def _about_s(context: Context, name: str, took: Mapping[str, Any]) -> float | None:
    """How long a stage took the last time; for a first profile, its budgets."""
    stage, _, target = name.partition(".")
    known = took.get(name)
    if stage == "train" and known and took.get("epochs"):
        return float(known) * settings_of(context.config).epochs / float(took["epochs"])
    if known is not None:
        return float(known)
    if stage != "profile":
        return None
    settings, metered = context.config.profile, energy.is_metered(context, context.target(target))
    return settings.budget_s * _sizes(context.config.space) + settings.energy_budget_s * metered


def _sizes(settings: SpaceConfig) -> int:
    """How many input sizes are measured; a model of the user's has the one that it was made for."""
    if settings.resolutions or settings.model:
        return len(settings.resolutions) or 1
    return len(spaces.load(settings.name).profiled)


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
