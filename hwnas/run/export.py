"""Stage `export`: front to packages, each exported once from calibrated weights.

A package never changes afterwards, except that measuring adds to its manifest. It is never removed:
a package that is replaced, or that the settings no longer ask for, is set aside. Loads torch
only when a network is to be exported.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.measuring import connections
from hwnas.measuring.scratch import scratch
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture
from hwnas.run import imported, package, results, timed, tuned
from hwnas.run.context import Context, need
from hwnas.run.folder import State, Work, begin, is_current, mark_current, state
from hwnas.run.picking import Picked, packages_of
from hwnas.run.public import public_settings
from hwnas.run.search import load_front, predictor_doubts, predictor_words
from hwnas.settings import versions
from hwnas.settings.accept import TABLES
from profilers.errors import (
    ConfigError,
    ExhaustedError,
    FileFormatError,
    VerificationError,
)
from profilers.schema import Target, sha256_file, write_atomic, write_error


def export(context: Context, target_name: str) -> bool:
    """Make the packages that the settings pick of a front. Returns whether anything was to do."""
    run, target = context.run, context.target(target_name)
    folder = run.packages(target_name)
    chosen = choose(context, target_name)
    for arch in tuned.are_due(context, [choice.point.arch for choice in chosen]):
        from hwnas.run.finetune import finetune_subnet  # imports torch

        finetune_subnet(context, arch)
    work = _work(context, target_name, chosen)
    current = is_current(run, work, context.report.note)
    if current and all(_is_whole(folder / choice.name) for choice in chosen):
        return False
    evaluator, made_of = None, results.maker(context, target_name)
    say = context.report.progress(f"export {target_name}")
    begin(run, work)
    for n, choice in enumerate(chosen, start=1):
        known = _known(folder / choice.name, made_of(choice.point.arch))
        if known is None:
            from hwnas.run import weights  # imports torch

            evaluator = evaluator or weights.evaluator(context)
            known = _made(context, evaluator, target, choice.point.arch, folder / choice.name)
        about = {**known, **_about(context, target, choice)}
        if about != known or not _is_whole(folder / choice.name):
            package.write_manifest(folder / choice.name, about)
        say(n / len(chosen), choice.name)
    if not chosen:
        say(1.0, "")
    for path in sorted(folder.glob("*/")):
        if path.name not in {choice.name for choice in chosen}:
            _make_room(context, target_name, path)
    mark_current(run, work)
    return True


def export_state(context: Context, target_name: str) -> State:
    """Whether a target has its packages, and why not; measures and writes nothing.

    Raises:
        InfeasibleError: no network is within a budget.
    """
    chosen = packages_of(context, target_name)
    if due := tuned.are_due(context, [choice.point.arch for choice in chosen]):
        return State(False, f"network {due[0].id} is not fine-tuned yet")
    found = state(context.run, _work(context, target_name, chosen))
    folder = context.run.packages(target_name)
    broken = [choice.name for choice in chosen if not _is_whole(folder / choice.name)]
    return State(False, f"{broken[0]} is not whole") if found.current and broken else found


def _work(context: Context, target_name: str, chosen: Sequence[Picked]) -> Work:
    """What the packages of a target are made from.

    Raises:
        ConfigError: nothing is picked, and no other target of the device can have the packages.
    """
    if not chosen and context.config.export.per == "target":
        raise ConfigError(f"the settings pick nothing for {target_name}; add a pick without target")
    inputs = {
        "picked": [choice.to_json() for choice in chosen],
        "target": connections.published(context.target(target_name)),
        "export": context.config.export.model_dump(mode="json"),
        "accuracy": context.config.accuracy.model_dump(mode="json"),
        "hashes": _hashes(context, target_name),
        "finetuned": tuned.of_networks(context, [choice.point.arch for choice in chosen]),
        **results.quantisation(context, target_name),
    }
    folder = context.run.packages(target_name)
    outputs = tuple(folder / choice.name / package.MODEL for choice in chosen)
    made_by = versions.of_models(context.target(target_name).runtime)
    return Work(f"export.{target_name}", results.EXPORT_VERSION, inputs, outputs, made_by)


def choose(context: Context, target: str) -> list[Picked]:
    """What the settings pick for a target. Networks that missed a budget are measured once more,
    together, before the budget is given up; if that is accepted by name, predictions alone decide.

    Raises:
        InfeasibleError: no network is within a budget, or every one was measured over it.
    """
    try:
        return packages_of(context, target, strict=True)
    except ExhaustedError as error:
        tried: dict[str, list[str]] = {}
        for owner, network in error.networks:
            tried.setdefault(owner, []).append(network)
        if [name for name, ids in tried.items() if timed.once_more(context, name, ids)]:
            return choose(context, target)
        return packages_of(context, target)


def _known(folder: Path, made_of: str) -> dict[str, Any] | None:
    """The manifest of a package whose model is made of the same; None if there is none yet."""
    try:
        manifest = package.read_manifest(folder)
    except (FileFormatError, VerificationError):
        return None
    del manifest["files"], manifest["format"]
    return manifest if manifest.get("made_of") == made_of else None


def _made(
    context: Context, evaluator: Any, target: Target, arch: Architecture, folder: Path
) -> dict[str, Any]:
    """Write the model of a package, in place of what was there, which stays if it cannot be made;
    what its manifest says of it.
    """
    from hwnas.run import model  # imports torch

    with scratch("export") as place:
        known = model.write(context, evaluator, target, arch, place)
        _make_room(context, target.name, folder)
        for name in {package.MODEL, known["model"]}:
            write_atomic(folder / name, (place / name).read_bytes())
    return known


def _about(context: Context, target: Target, choice: Picked) -> dict[str, Any]:
    """What a manifest says beside what its model is made of: it may change, the model stays."""
    costs = set(load_front(context, target.name).accepted) & set(TABLES)
    return {
        "name": choice.name,
        "budgets": choice.budgets,
        "predicted": {**choice.point.predicted, **exact_costs(choice.point.arch, target.precision)},
        "hashes": _hashes(context, target.name),
        "predictor": {
            "words": predictor_words(context, [target.name]),
            "doubts": predictor_doubts(context, [target.name]),
        },
        "accepted": sorted(context.accept | costs),
        "settings": public_settings(context.config.model_dump(mode="json")),
    }


def _make_room(context: Context, target: str, folder: Path) -> None:
    """Set a package aside, named after its model as well; of one that is not whole remove the
    manifest, so that a kill leaves none of another model.
    """
    try:
        if not _is_whole(folder):
            (folder / package.MANIFEST).unlink(missing_ok=True)
            return
        model = sha256_file(folder / package.MODEL)
        kept = context.run.aside(target) / f"{folder.name}-{model[:8]}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        if kept.exists():  # the same model, from before
            shutil.rmtree(kept)
        folder.rename(kept)
    except OSError as error:
        raise write_error(folder, error) from error


def _hashes(context: Context, target: str) -> dict[str, str]:
    """What packages are made from: their predictions from what the front was searched with."""
    made = {
        "table": sha256_file(need(context.table(target), f"profile --target {target}")),
        "predictor": sha256_file(need(context.predictor(target), "evaluate")),
    }
    made |= {name: of for name, of in load_front(context, target).hashes.items() if name in made}
    return {
        **made,
        "supernet": sha256_file(imported.need_weights(context.run)),
        "data": context.data["fingerprint"],
    }


def _is_whole(folder: Path) -> bool:
    """Whether a package has its manifest and the files that it names; a kill may leave less."""
    try:
        package.read_manifest(folder)
    except (FileFormatError, VerificationError):
        return False
    return True
