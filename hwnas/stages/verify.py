"""Stage `verify`: every package measured on its target, and the next network in place of one that
misses its budget. The test split is read here and nowhere else, but for the parity of exports.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas import data, package, versions
from hwnas.amounts import amount
from hwnas.measuring import parity, remote
from hwnas.run_folder import differences
from hwnas.search import front
from hwnas.stages import energy, imported, learn
from hwnas.stages.context import Context, Progress, mutes
from hwnas.stages.export import export, run_model
from hwnas.stages.picking import misses, noise_margin
from hwnas.stages.search import load_front
from profilers.errors import (
    InfeasibleError,
    MissedBudgetError,
    TableError,
    UnstableMeasurementError,
    VerificationError,
)
from profilers.schema import Target

VERIFY_VERSION = 1
NEXT_TRIES = 5  # networks tried in place of one that misses its budget when measured


def verify(context: Context, target_name: str) -> bool:
    """Measure every package on its target and run the test images through it.

    Returns whether anything was to do.

    Raises:
        VerificationError: a file was changed, or there is no package.
        InfeasibleError: a measured latency misses its budget, or the accuracy floor is missed.
        TableError: measured and predicted latency are further apart than allowed.
        UnstableMeasurementError: the machine is too disturbed to time the packages.
    """
    run, target = context.run, context.target(target_name)
    manifests, made_by = _manifests(context, target_name), _made_by(context, target)
    stale = {
        folder: manifest
        for folder, manifest in manifests.items()
        if (manifest["measured"] or {}).get("version") != VERIFY_VERSION
        or manifest["measured"].get("made_by") != made_by
    }
    if stale:
        _say_why(context, target_name, stale, made_by)
        _measure(context, target, stale, made_by)
        manifests = _manifests(context, target_name)
    found = load_front(context, target_name)
    corrected = found.with_measured(_measured(manifests))
    if corrected != found:  # measured now, or before the front was searched anew
        front.save(corrected, run.front(target_name))
    _check(context, target_name, manifests)
    return bool(stale)


def _made_by(context: Context, target: Target) -> dict[str, str]:
    """What decides the numbers beside the model: versions of the engine there and of the one that
    outputs are compared with, and the hash of the environment.
    """
    there = remote.probe(target, context.config.profile)
    here = versions.of("onnxruntime")["onnxruntime"]
    engine = {target.runtime: str(there["engine_version"]), "onnxruntime": here}
    return {**engine, "environment": str(there["fingerprint"])}


def _say_why(
    context: Context, target: str, stale: Mapping[Path, dict[str, Any]], made_by: Mapping[str, str]
) -> None:
    """One line of what changed since packages were measured; none where that was never done."""
    then = [m["measured"].get("made_by") for m in stale.values() if m["measured"]]
    words = differences(then[0] or {}, made_by, "{} was {}, is {}") if then else []
    if words:
        context.report.note(f"verify.{target}: redone, {', '.join(words)}")


def verify_or_next(context: Context, target_name: str) -> bool:
    """Verify, and while a package misses its budget export the next network instead.

    Where `budget` is accepted, one that is still missed then is a warning.

    Raises:
        InfeasibleError: a budget is still missed after NEXT_TRIES, or no network is left.
    """
    for _ in range(NEXT_TRIES):
        try:
            return verify(context, target_name)
        except MissedBudgetError as error:
            context.report.note(str(error))
            export(context, target_name)
    try:
        return verify(context, target_name)
    except MissedBudgetError as error:
        if not mutes(context, "budget", str(error)):
            raise
        return True


def _manifests(context: Context, target: str) -> dict[Path, dict[str, Any]]:
    """The manifests of a target's packages, their files checked against the hashes in them."""
    folder = context.run.packages(target)
    found = {p.parent: package.read_manifest(p.parent) for p in _manifest_paths(folder)}
    if not found:
        raise VerificationError(f"no packages in {folder}; run `hwnas export` first")
    return found


def _manifest_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/{package.MANIFEST}"))


def _measure(
    context: Context,
    target: Target,
    manifests: Mapping[Path, dict[str, Any]],
    made_by: Mapping[str, str],
) -> None:
    """Measure packages together, interleaved, and write what was found into their manifests."""
    say = context.report.progress(f"verify {target.name}")
    images = learn.checked_dataset(context) if imported.has_images(context) else None
    timed = _latencies(context, target, manifests, say)
    models = [folder / package.MODEL for folder in manifests]
    ops = [context.space.from_json(m["architecture"]).ops for m in manifests.values()]
    energies = energy.package_energies(context, target, models, ops)
    for n, (folder, manifest) in enumerate(manifests.items(), start=1):
        model = folder / package.MODEL
        measured = {
            **timed[n - 1],
            **energies[n - 1],
            **parity.told_outputs(target, model, manifest["input"]),
            "test_accuracy": accuracy_on_test(model, manifest, target, images) if images else None,
            "test_images": len(images.test) if images else 0,
            "version": VERIFY_VERSION,
            "made_by": dict(made_by),
        }
        package.write_manifest(folder, {**manifest, "measured": measured})
        say(0.5 + 0.5 * n / len(manifests), f"accuracy of {folder.name}")


def _latencies(
    context: Context, target: Target, manifests: Mapping[Path, dict[str, Any]], say: Progress
) -> list[dict[str, Any]]:
    """Latency of each package; unknown (None) if the machine is too disturbed and that is accepted.

    Raises:
        UnstableMeasurementError: too disturbed, and `untimed` is not accepted.
    """
    models = [folder / package.MODEL for folder in manifests]
    ops = [context.space.from_json(m["architecture"]).ops for m in manifests.values()]
    settings = context.config.profile
    try:
        return remote.measure_models(
            target, models, settings, lambda text, share: say(0.5 * share, text), ops
        )
    except UnstableMeasurementError as error:
        if not mutes(context, "untimed", f"{target.name}: packages were not timed: {error}"):
            raise
        return [{"latency_ms": None, "unstable": str(error)} for _ in models]


def accuracy_on_test(
    model: Path, manifest: Mapping[str, Any], target: Target, images: data.Dataset
) -> float:
    """Top-1 accuracy of the exported file itself on every test image."""
    split, right, px = images.test, 0, manifest["input"]["size"]
    for pixels, labels in data.batches(split, px, 1024):
        x = data.prepare(pixels, px, images).numpy()
        right += int((run_model(model, target, x).argmax(1) == labels.numpy()).sum())
    return right / len(split)


def _measured(manifests: Mapping[Path, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What a front says of its measured networks, by id."""
    return {
        manifest["id"]: {
            "latency_ms": manifest["measured"]["latency_ms"],
            **_test_error(manifest["measured"]),
            **{n: v for n, v in manifest["measured"].items() if n == "energy_mj" and v is not None},
        }
        for manifest in manifests.values()
        if manifest["measured"]["latency_ms"] is not None
    }


def _test_error(measured: Mapping[str, Any]) -> dict[str, float]:
    accuracy = measured["test_accuracy"]  # None where there are no images
    return {} if accuracy is None else {"test_error": 1 - accuracy}


def _check(context: Context, target: str, manifests: Mapping[Path, dict[str, Any]]) -> None:
    """Hold measured numbers against what the settings demand."""
    _record_accepted(context, manifests)
    check = context.config.check
    known = (m["measured"]["test_accuracy"] for m in manifests.values())
    best = max((accuracy for accuracy in known if accuracy is not None), default=1.0)
    if best < check.min_accuracy:
        raise InfeasibleError(
            f"{target}: best test accuracy {best:.2%} is below check.min_accuracy "
            f"{check.min_accuracy:.2%}; train longer or lower the floor"
        )
    timed = {f: m for f, m in manifests.items() if m["measured"]["latency_ms"] is not None}
    margin = noise_margin(context, target)
    late = [
        f"{folder.name} {m['measured']['latency_ms']:.4g} ms, budget "
        f"{m['budgets']['latency_ms']:.4g} ms"
        for folder, m in timed.items()
        if misses(m["measured"]["latency_ms"], m["budgets"], margin)
    ]
    late += energy.over_budget(context, target, manifests)
    if late:
        raise MissedBudgetError(
            f"{target}: measured over budget by more than the noise ({margin:.1%}): "
            f"{'; '.join(late)}; `hwnas run` tries the next networks"
        )
    allowed = amount(check.max_gap, 1.0)
    gaps = [
        f"{folder.name} {gap(manifest):+.1%}"
        for folder, manifest in timed.items()
        if abs(gap(manifest)) > allowed
    ]
    if gaps:
        text = (
            f"{target}: measured latency further than {100 * allowed:g} % from its prediction "
            f"({', '.join(gaps)}): the machine was disturbed meanwhile, or the table is stale; "
            "profile again on a quiet machine"
        )
        if not mutes(context, "gap", text):
            raise TableError(text)


def _record_accepted(context: Context, manifests: Mapping[Path, dict[str, Any]]) -> None:
    """Write into packages what is accepted now, beside what was when they were made."""
    for folder, manifest in manifests.items():
        accepted = sorted({*manifest["accepted"], *context.accept})
        if accepted != manifest["accepted"]:
            package.write_manifest(folder, {**manifest, "accepted": accepted})


def gap(manifest: Mapping[str, Any]) -> float:
    """Measured over predicted latency, minus 1."""
    return float(manifest["measured"]["latency_ms"] / manifest["predicted"]["latency_ms"] - 1)
