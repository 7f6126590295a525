"""Stage `verify`: measures every package on its target, and replaces one that misses its budget by
the next network. Loads torch only when something is to be measured or exported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.measuring import remote, verdict
from hwnas.pricing.terms import UNITS
from hwnas.run import accuracy, gates, package, results
from hwnas.run.context import Context, mutes
from hwnas.run.devices import siblings
from hwnas.run.export import export
from hwnas.run.folder import State, differences
from hwnas.run.results import Result, Results
from hwnas.run.search import load_front
from hwnas.search import front
from hwnas.settings.accept import TABLES
from hwnas.settings.amounts import amount
from hwnas.settings.config import CheckConfig
from profilers.errors import (
    InfeasibleError,
    MissedBudgetError,
    TableError,
    VerificationError,
)
from profilers.schema import Target

NEXT_TRIES = 5  # networks tried in place of one that misses its budget when measured


def verify(context: Context, target_name: str) -> bool:
    """Measure every package on its target and run the test images through it.

    A model that was measured in this environment is not measured again, unless that was disturbed
    and is past a budget or limit or far from its prediction. Returns whether anything was to do.

    Raises:
        VerificationError: a file was changed, or there is no package.
        InfeasibleError: a measured latency misses its budget, or the accuracy floor is missed.
        TableError: measured and predicted latency are further apart than allowed.
        UnstableMeasurementError: the machine is too disturbed to time the packages.
    """
    target = context.target(target_name)
    manifests, known = _manifests(context, target_name), results.of_now(context, target_name)
    made_by = known.made_by
    stale = _open_ones(context, target_name, manifests, known, made_by)
    if stale:
        from hwnas.run.tested import measure  # imports torch

        found = measure(context, target, stale, made_by)
        known = results.add(context, target_name, made_by, found)
    known = _renewed(context, target_name, known, manifests.values())
    changed = _tell(context, manifests, known, stale)
    changed = _take_built(context, target, made_by[target.runtime]) or changed
    manifests = _manifests(context, target_name)
    _update_front(context, target_name)
    _check(context, target_name, manifests)
    return changed


def _open_ones(
    context: Context,
    target: str,
    manifests: Mapping[Path, dict[str, Any]],
    known: Results,
    made_by: Mapping[str, str],
) -> dict[Path, dict[str, Any]]:
    """Those packages that are to be measured."""
    of = known.of if known.made_by == made_by else {}
    return {
        folder: manifest
        for folder, manifest in manifests.items()
        if _is_open(context, target, manifest, of.get(package.model_of(manifest)))
    }


def verify_state(context: Context, target_name: str) -> State:
    """Whether every package of a target was measured, and why not; measures nothing.

    Raises:
        VerificationError: a file was changed, or there is no package.
    """
    manifests = _manifests(context, target_name)
    made_by = results.made_by(context, target_name)
    known = results.load(context, target_name)
    names = [f.name for f in _open_ones(context, target_name, manifests, known, made_by)]
    if not names:
        return _built_state(context, target_name, manifests, made_by)
    changed = differences(known.made_by, made_by, "{} was {}, is {}") if known.made_by else []
    return State(False, ", ".join(changed) or f"not measured yet: {', '.join(names)}")


def _built_state(
    context: Context,
    target_name: str,
    manifests: Mapping[Path, dict[str, Any]],
    made_by: Mapping[str, str],
) -> State:
    """Whether measured packages hold what their engine builds on the device."""
    target = context.target(target_name)
    by = made_by[target.runtime]
    lacking = [f.name for f, m in manifests.items() if package.lacks_built(m, target, by)]
    if not lacking:
        return State(True, "")
    return State(False, f"built by another {target.runtime}, or not: {', '.join(lacking)}")


def _take_built(context: Context, target: Target, by: str) -> bool:
    """Fetch what the engine built of packages on the device, if what they hold is of another
    version or device. Returns whether anything was to do.
    """
    manifests = {
        folder: manifest
        for folder, manifest in _manifests(context, target.name).items()
        if package.lacks_built(manifest, target, by)
    }
    if not manifests:
        return False
    folders = {package.model_of(manifest): folder for folder, manifest in manifests.items()}
    archs = [context.space.from_json(manifests[f]["architecture"]) for f in folders.values()]
    models = [folder / package.MODEL for folder in folders.values()]
    found = remote.built_files(target, models, [arch.ops for arch in archs])
    contents = dict(zip(folders, found, strict=True))
    for folder, manifest in manifests.items():
        package.keep_built(folder, target, contents[package.model_of(manifest)], by)
    return True


def verify_or_next(context: Context, target_name: str) -> bool:
    """Verify, and while a package misses its budget export the next network instead.

    If `budget` is accepted, a budget that is still missed then gives a warning.

    Raises:
        InfeasibleError: a budget is still missed after NEXT_TRIES, or no network is left.
    """
    done = False
    for _ in range(NEXT_TRIES):
        try:
            done = verify(context, target_name) or done
        except MissedBudgetError as error:
            context.report.note(str(error))
            if not export(context, target_name):  # no other network is left
                break
        else:
            if not export(context, target_name):  # measured values change no pick
                return done
        done = True
    try:
        return verify(context, target_name) or done
    except MissedBudgetError as error:
        if not mutes(context, "budget", str(error)):
            raise
        return True


def _is_open(
    context: Context, target: str, manifest: Mapping[str, Any], known: Result | None
) -> bool:
    """Whether a package must be measured: it was not yet, or its measurement was disturbed and
    speaks against it.
    """
    if known is None or known.data != context.data["fingerprint"]:
        return True
    measured = known.measured
    if measured["latency_ms"] is None or not _has_limited(context.config.check, measured):
        return True
    told, noise = {**manifest, "measured": measured}, results.margins(context, target)
    held = gates.gates(told, context.config.check, noise, best=False)
    return any(gate.verdict == gates.UNKNOWN and gate.value is not None for gate in held)


def _has_limited(check: CheckConfig, measured: Mapping[str, Any]) -> bool:
    """Whether what limits of the settings ask for was measured."""
    hot_s = (measured.get("sustained") or {}).get("duration_s", 0.0)
    return ("memory_bytes" not in check.limits or "memory" in measured) and (
        "sustained_ms" not in check.limits or hot_s >= check.sustained_s
    )


def _manifests(context: Context, target: str) -> dict[Path, dict[str, Any]]:
    """The manifests of a target's packages, whose files have the hashes in them. There may be none
    if packages are made for devices and other targets have them all.

    Raises:
        VerificationError: none were made, or a file was changed.
    """
    folder = context.run.packages(target)
    found = {p.parent: package.read_manifest(p.parent) for p in _manifest_paths(folder)}
    may_lack = context.config.export.per == "device"
    if not found and not (may_lack and context.run.stamp(f"export.{target}").exists()):
        raise VerificationError(f"no packages in {folder}; run `hwnas export` first")
    return found


def _manifest_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/{package.MANIFEST}"))


def _renewed(
    context: Context, target: str, known: Results, manifests: Iterable[Mapping[str, Any]]
) -> Results:
    """The results, renewed after equal models were made in another way, for example by another
    version.
    """
    made = {package.model_of(manifest): manifest["made_of"] for manifest in manifests}
    old = [known.of[model] for model, hash_ in made.items() if known.of[model].made_of != hash_]
    fresh = [replace(result, made_of=made[result.model]) for result in old]
    return results.add(context, target, known.made_by, fresh) if fresh else known


def _tell(
    context: Context,
    manifests: Mapping[Path, dict[str, Any]],
    known: Results,
    stale: Collection[Path],
) -> bool:
    """Write into manifests what was measured of their models. Returns whether anything was new."""
    for folder, manifest in manifests.items():
        measured = known.of[package.model_of(manifest)].measured
        if manifest["measured"] != measured:
            package.write_manifest(folder, {**manifest, "measured": measured})
        for words in verdict.warnings(measured) if folder in stale else ():
            context.report.warn(f"{manifest['target']['name']}, {folder.name}: {words}")
    return bool(stale) or any(
        m["measured"] != known.of[package.model_of(m)].measured for m in manifests.values()
    )


def _update_front(context: Context, target: str) -> None:
    """Write what was measured of a target's networks into its front."""
    found = load_front(context, target)
    measured = {
        name: _measured_fields(result.measured)
        for name, result in results.current(context, target).items()
        if result.measured["latency_ms"] is not None
    }
    corrected = found.with_measured(measured, keep=False)
    if corrected != found:
        front.save(corrected, context.run.front(target))


def _measured_fields(measured: Mapping[str, Any]) -> dict[str, float]:
    """What a front says of a measured network."""
    top1 = measured["test_accuracy"]  # None where there are no images
    told = {"latency_ms": measured["latency_ms"], "energy_mj": measured.get("energy_mj")}
    told["test_error"] = None if top1 is None else 1 - top1
    return {name: value for name, value in told.items() if value is not None}


def _check(context: Context, target: str, manifests: Mapping[Path, dict[str, Any]]) -> None:
    """Compare measured numbers with what the settings demand."""
    _record_accepted(context, manifests)
    check = context.config.check
    best, between, n = _best_accuracy(context, target, manifests)
    if best < check.min_accuracy:
        raise InfeasibleError(
            f"{target}: best test accuracy ({context.task.metric}) "
            f"{accuracy.in_words(best, between)} of {n} images is below "
            f"check.min_accuracy {check.min_accuracy:.2%}; train longer or lower the floor"
        )
    _check_limits(context, target, manifests)
    late = [_late(context, target, folder, manifest) for folder, manifest in manifests.items()]
    if any(late):
        noise = results.margins(context, target)["latency_ms"]
        raise MissedBudgetError(
            f"{target}: measured over budget by more than the noise "
            f"({noise:.1%}): {'; '.join(filter(None, late))}; "
            "`hwnas run` tries the next networks"
        )
    allowed = amount(check.max_gap, 1.0)
    far = {
        folder: manifest
        for folder, manifest in manifests.items()
        if manifest["measured"]["latency_ms"] is not None and abs(gap(manifest)) > allowed
    }
    if not far:
        return
    told = ", ".join(f"{folder.name} {gap(manifest):+.1%}" for folder, manifest in far.items())
    disturbed = all(verdict.is_disturbed(manifest["measured"]) for manifest in far.values())
    text = (
        f"{target}: measured latency further than {100 * allowed:g} % from its prediction "
        f"({told}): "
        + (
            "the machine was disturbed meanwhile; run again on a quiet one"
            if disturbed
            else "the table is stale, or was made on a disturbed machine; profile again"
        )
    )
    if disturbed:
        context.report.warn(text)
    elif not mutes(context, "gap", text):
        raise TableError(text)


def _best_accuracy(
    context: Context, target: str, manifests: Mapping[Path, dict[str, Any]]
) -> tuple[float, list[float], int]:
    """The best test accuracy of a target's packages (of its device's, if packages are made for
    devices), its interval, and the number of images; 1 if it is unknown, or not all of them are
    measured yet.
    """
    told = [m["measured"] for m in manifests.values()]
    for other in siblings(context, target):
        paths = _manifest_paths(context.run.packages(other))
        told += [package.read_manifest(path.parent)["measured"] for path in paths]
    if not all(told):
        return 1.0, [], 0
    names = ("test_accuracy", "test_interval", "test_images")
    known = [tuple(each[name] for name in names) for each in told if each[names[0]] is not None]
    return max(known, default=(1.0, [], 0))


def _check_limits(context: Context, target: str, manifests: Mapping[Path, dict[str, Any]]) -> None:
    """Refuse packages past `check.limits`, but for those whose measurement was disturbed."""
    check, noise = context.config.check, results.margins(context, target)
    past = [
        f"{folder.name} {gate.metric} {gate.value:.6g}, limit {gate.limit:.6g}"
        for folder, manifest in manifests.items()
        for told in [
            {
                **manifest,
                "budgets": {},
                "accepted": [],
                "size_bytes": (folder / manifest["model"]).stat().st_size,
            }
        ]
        for gate in gates.gates(told, check, noise, best=False)
        if gate.verdict == gates.FAILED and gate.gate in gates.LIMITED
    ]
    text = f"{target}: over check.limits: {'; '.join(past)}; raise them or pick smaller networks"
    if past and not mutes(context, "limit", text):
        raise InfeasibleError(text)


def _record_accepted(context: Context, manifests: Mapping[Path, dict[str, Any]]) -> None:
    """Write into packages what is accepted now, beside the tables accepted when they were made; a
    gate is muted only by those who say so now.
    """
    for folder, manifest in manifests.items():
        accepted = sorted({*manifest["accepted"]} & {*TABLES} | {*context.accept})
        if accepted != manifest["accepted"]:
            package.write_manifest(folder, {**manifest, "accepted": accepted})


def _late(context: Context, target: str, folder: Path, manifest: Mapping[str, Any]) -> str:
    """Which metrics of a package were measured over budget, in words. If the measurement was
    disturbed this only warns, because it is no reason to give the network up.
    """
    measured, budgets = manifest["measured"], manifest["budgets"]
    words = "{} {:.4g} {unit}, budget {:.4g} {unit}"
    for disturbed in (True, False):
        over = results.over(context, target, measured, budgets, disturbed)
        told = ", ".join(
            words.format(folder.name, measured[name], budgets[name], unit=UNITS[name])
            for name in over
        )
        if told and disturbed:
            context.report.warn(
                f"{target}: {told}, but the machine was disturbed meanwhile; run again on a quiet "
                "one: the package stays until it is measured undisturbed"
            )
    return told


def gap(manifest: Mapping[str, Any]) -> float:
    """Measured over predicted latency, minus 1."""
    return float(manifest["measured"]["latency_ms"] / manifest["predicted"]["latency_ms"] - 1)
