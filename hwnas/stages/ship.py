"""Stages `export` and `verify`: front to packages to measured packages.

A package is exported once from calibrated weights and never changed afterwards but for what
measuring adds to its manifest. The test split is read here and nowhere else.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas import data, package
from hwnas.accuracy.evaluate import Evaluator, prepared
from hwnas.amounts import amount
from hwnas.checkpoint import load_subnet
from hwnas.counting import exact_costs
from hwnas.measuring import parity, remote
from hwnas.run_folder import Work, is_current, mark_current
from hwnas.search import front
from hwnas.stages import energy, finetune, imported, learn, weights
from hwnas.stages.context import Context, Progress, need
from hwnas.stages.picking import Picked, misses, noise_margin, picked
from hwnas.stages.search import load_front
from hwnas.supernet import Subnet, folded_weights
from profilers import runtimes
from profilers.errors import (
    ConfigError,
    FileFormatError,
    InfeasibleError,
    MissedBudgetError,
    TableError,
    UnstableMeasurementError,
    VerificationError,
)
from profilers.schema import Target, sha256_file, write_error

EXPORT_VERSION, VERIFY_VERSION = 1, 1
NEXT_TRIES = 5  # networks tried in place of one that misses its budget when measured
PARITY_IMAGES = 256  # test images on which torch and the exported file are compared


# ---- export ------------------------------------------------------------------------------------


def export(context: Context, target_name: str) -> bool:
    """Make the packages that the settings pick of a front. Returns whether anything was to do."""
    run, target = context.run, context.target(target_name)
    chosen = picked(context, load_front(context, target_name))
    folder = run.packages(target_name)
    inputs = {
        "picked": [choice.to_json() for choice in chosen],
        "target": target.without_address(),
        "export": context.config.export.model_dump(mode="json"),
        "accuracy": context.config.accuracy.model_dump(mode="json"),
        "hashes": _hashes(context, target_name),
        "finetuned": finetune.of_networks(context, [choice.point.arch for choice in chosen]),
    }
    if not chosen:
        raise ConfigError(f"the settings pick nothing for {target_name}; add a pick without target")
    outputs = tuple(folder / choice.name / package.MODEL for choice in chosen)
    work = Work(f"export.{target_name}", EXPORT_VERSION, inputs, outputs)
    if is_current(run, work) and all(_is_whole(folder / choice.name) for choice in chosen):
        return False
    evaluator = weights.evaluator(context)
    say = context.report.progress(f"export {target_name}")
    for n, choice in enumerate(chosen, start=1):
        _export_one(context, evaluator, target, choice)
        say(n / len(chosen), choice.name)
    _remove_others(folder, {choice.name for choice in chosen})
    mark_current(run, work)
    return True


def _export_one(context: Context, evaluator: Evaluator, target: Target, choice: Picked) -> None:
    """Write one package: model, parity with torch on test images, manifest."""
    folder = context.run.packages(target.name) / choice.name
    arch, images = choice.point.arch, evaluator.dataset
    tuned = finetune.finetuned(context, arch, evaluator.supernet_sha256)
    if tuned is None:
        subnet = weights.subnet(context, evaluator, arch)
    else:
        subnet, _ = load_subnet(finetune.subnet_path(context, arch), arch)
    hashes = _hashes(context, target.name)
    shared = {
        "space": arch.space.name,
        "geometry": arch.space.geometry,
        "input": package.input_of(arch, context.data),
        "classes": list(images.class_names),
    }
    metadata = {**shared, "arch": arch.to_json(), "supernet_sha256": hashes["supernet"]}
    if tuned is not None:
        metadata["finetuned_sha256"] = tuned["sha256"]
    _forget_manifest(folder)
    package.write_model(folder, arch, folded_weights(subnet), target.batch, metadata)
    parity = compare(subnet, folder / package.MODEL, target, images)
    if parity["max_abs_difference"] > package.PARITY or parity["same_top1"] < 1:
        raise VerificationError(
            f"{folder / package.MODEL} differs from the network it was made from: largest "
            f"difference {parity['max_abs_difference']:.2g} (allowed {package.PARITY:g}), same "
            f"class for {parity['same_top1']:.2%} of {parity['images']} test images; please report"
        )
    manifest = {
        **shared,
        "name": choice.name,
        "id": arch.id,
        "architecture": arch.to_json(),
        "target": target.without_address(),
        "budgets": choice.budgets,
        "predicted": {**choice.point.predicted, **exact_costs(arch)},
        "measured": None,
        "parity": parity,
        "statistics": context.config.export.statistics,
        "finetuned": tuned,
        "hashes": hashes,
        "accepted": sorted(context.accept),
        "versions": package.versions(),
        "settings": context.config.model_dump(mode="json"),
    }
    package.write_manifest(folder, manifest)


def _forget_manifest(folder: Path) -> None:
    """Remove a package's manifest first, so that a kill leaves none of another model."""
    try:
        (folder / package.MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder / package.MANIFEST, error) from error


def _hashes(context: Context, target: str) -> dict[str, str]:
    run = context.run
    return {
        "table": sha256_file(need(run.table(target), f"profile --target {target}")),
        "predictor": sha256_file(need(run.predictor, "evaluate")),
        "supernet": sha256_file(need(run.supernet, "train")),
        "data": context.data["fingerprint"],
    }


def compare(subnet: Subnet, model: Path, target: Target, images: data.Dataset) -> dict[str, Any]:
    """Logits of a subnet in torch and of its exported file in the engine, on test images.

    Returns:
        max_abs_difference of a logit, same_top1 (a share), images.
    """
    split = images.test
    pixels = split.pixels(0, min(PARITY_IMAGES, len(split)), subnet.arch.resolution)
    x = prepared(pixels, subnet.arch.resolution, images)
    with torch.no_grad():
        expected = subnet(x).numpy()
    got = run_model(model, target, x.contiguous().numpy())
    same = (expected.argmax(1) == got.argmax(1)) | _ties(expected)
    return {
        "max_abs_difference": float(np.abs(expected - got).max()),
        "same_top1": float(same.mean()),
        "images": len(pixels),
    }


def _ties(logits: np.ndarray) -> np.ndarray:
    """(n,) whether the two best classes are closer than parity can tell apart."""
    best = np.sort(logits, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0] < 2 * package.PARITY)


def run_model(model: Path, target: Target, images: np.ndarray) -> np.ndarray:
    """Logits (n, n_classes) of an exported file in ONNX Runtime on this machine.

    Args:
        model: its batch is fixed; the last batch is filled up.
        target: threads and optimisation level to run with.
        images: (n, channels, px, px) float32.
    """
    session = runtimes.load("ort-cpu").load(model, target)
    try:
        outputs = []
        for start in range(0, len(images), target.batch):
            part = images[start : start + target.batch]
            batch = np.zeros((target.batch, *part.shape[1:]), np.float32)
            batch[: len(part)] = part
            outputs.append(session.run(batch)[: len(part)].copy())
    finally:
        session.close()
    return np.concatenate(outputs)


def _is_whole(folder: Path) -> bool:
    """Whether a package has its manifest and the files that it names; a kill may leave less."""
    try:
        package.read_manifest(folder)
    except (FileFormatError, VerificationError):
        return False
    return True


def _remove_others(folder: Path, keep: set[str]) -> None:
    """Remove packages that an earlier run made and the settings no longer ask for."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and path.name not in keep and (path / package.MODEL).exists():
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise write_error(path, error) from error


# ---- verify ------------------------------------------------------------------------------------


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
    manifests = _manifests(context, target_name)
    stale = {
        folder: manifest
        for folder, manifest in manifests.items()
        if (manifest["measured"] or {}).get("version") != VERIFY_VERSION
    }
    if stale:
        _measure(context, target, stale)
        manifests = _manifests(context, target_name)
    found = load_front(context, target_name)
    corrected = found.with_measured(_measured(manifests))
    if corrected != found:  # measured now, or before the front was searched anew
        front.save(corrected, run.front(target_name))
    _check(context, target_name, manifests)
    return bool(stale)


def verify_or_next(context: Context, target_name: str) -> bool:
    """Verify, and while a package misses its budget export the next network instead.

    Where unreliable tables are accepted, a budget that is still missed then is a warning.

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
        if "unreliable" not in context.accept:
            raise
        context.report.warn(str(error))
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


def _measure(context: Context, target: Target, manifests: Mapping[Path, dict[str, Any]]) -> None:
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
        }
        package.write_manifest(folder, {**manifest, "measured": measured})
        say(0.5 + 0.5 * n / len(manifests), f"accuracy of {folder.name}")


def _latencies(
    context: Context, target: Target, manifests: Mapping[Path, dict[str, Any]], say: Progress
) -> list[dict[str, Any]]:
    """Latency of each package; unknown (None) if the machine is too disturbed and that is accepted.

    Raises:
        UnstableMeasurementError: too disturbed, and `unreliable` is not accepted.
    """
    models = [folder / package.MODEL for folder in manifests]
    ops = [context.space.from_json(m["architecture"]).ops for m in manifests.values()]
    settings = context.config.profile
    try:
        return remote.measure_models(
            target, models, settings, lambda text, share: say(0.5 * share, text), ops
        )
    except UnstableMeasurementError as error:
        if "unreliable" not in context.accept:
            raise
        context.report.warn(f"{target.name}: packages were not timed: {error}")
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
        if "unreliable" not in context.accept:
            raise TableError(text)
        context.report.warn(text)


def gap(manifest: Mapping[str, Any]) -> float:
    """Measured over predicted latency, minus 1."""
    return float(manifest["measured"]["latency_ms"] / manifest["predicted"]["latency_ms"] - 1)
