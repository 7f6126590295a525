"""Stage `export`: front to packages, each exported once from calibrated weights.

A package is never changed afterwards, but for what measuring adds to its manifest.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.measuring import connections, parity
from hwnas.networks.counts import exact_costs
from hwnas.run import finetune, package, results, timed, versions, weights
from hwnas.run.context import Context, need
from hwnas.run.folder import Work, is_current, mark_current
from hwnas.run.picking import Picked, picked
from hwnas.run.search import load_front
from hwnas.supernet.evaluation import Evaluator, prepared
from hwnas.supernet.files import load_subnet
from hwnas.supernet.network import Subnet, folded_weights
from profilers import runtimes
from profilers.errors import (
    ConfigError,
    ExhaustedError,
    FileFormatError,
    VerificationError,
)
from profilers.schema import Target, sha256_file, write_error

PARITY_IMAGES = 256  # test images on which torch and the exported file are compared


def export(context: Context, target_name: str) -> bool:
    """Make the packages that the settings pick of a front. Returns whether anything was to do."""
    run, target = context.run, context.target(target_name)
    chosen = _chosen(context, target_name)
    folder = run.packages(target_name)
    inputs = {
        "picked": [choice.to_json() for choice in chosen],
        "target": connections.published(target),
        "export": context.config.export.model_dump(mode="json"),
        "accuracy": context.config.accuracy.model_dump(mode="json"),
        "hashes": _hashes(context, target_name),
        "finetuned": finetune.of_networks(context, [choice.point.arch for choice in chosen]),
    }
    if not chosen:
        raise ConfigError(f"the settings pick nothing for {target_name}; add a pick without target")
    outputs = tuple(folder / choice.name / package.MODEL for choice in chosen)
    made_by = versions.of("torch", "onnx")
    work = Work(f"export.{target_name}", results.EXPORT_VERSION, inputs, outputs, made_by)
    current = is_current(run, work, context.report.note)
    if current and all(_is_whole(folder / choice.name) for choice in chosen):
        return False
    evaluator, made_of = None, results.maker(context, target_name)
    say = context.report.progress(f"export {target_name}")
    for n, choice in enumerate(chosen, start=1):
        known = _known(folder / choice.name, made_of(choice.point.arch))
        if known is None:
            evaluator = evaluator or weights.evaluator(context)
            known = _export_one(context, evaluator, target, choice)
        about = {**known, **_about(context, target, choice)}
        if about != known or not _is_whole(folder / choice.name):
            package.write_manifest(folder / choice.name, about)
        say(n / len(chosen), choice.name)
    _remove_others(folder, {choice.name for choice in chosen})
    mark_current(run, work)
    return True


def _chosen(context: Context, target: str) -> list[Picked]:
    """What the settings pick. Networks that missed a budget are measured once more, together,
    before the budget is given up.
    """
    found = load_front(context, target)
    try:
        return picked(context, found)
    except ExhaustedError as error:
        if not timed.once_more(context, target, error.networks):
            raise
        return picked(context, found)


def _known(folder: Path, made_of: str) -> dict[str, Any] | None:
    """The manifest of a package whose model is made of the same; None where it is to be made."""
    try:
        manifest = package.read_manifest(folder)
    except (FileFormatError, VerificationError):
        return None
    del manifest["files"], manifest["format"]
    return manifest if manifest.get("made_of") == made_of else None


def _about(context: Context, target: Target, choice: Picked) -> dict[str, Any]:
    """What a manifest says beside what its model is made of: it may change, the model stays."""
    return {
        "name": choice.name,
        "budgets": choice.budgets,
        "predicted": {**choice.point.predicted, **exact_costs(choice.point.arch)},
        "hashes": _hashes(context, target.name),
        "accepted": sorted(context.accept),
        "settings": context.config.model_dump(mode="json"),
    }


def _export_one(
    context: Context, evaluator: Evaluator, target: Target, choice: Picked
) -> dict[str, Any]:
    """Write a model and compare it with torch on test images; what its manifest says of it."""
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
    _make_room(context, target, folder)
    package.write_model(folder, arch, folded_weights(subnet), target.batch, metadata)
    return {
        **shared,
        "id": arch.id,
        "architecture": arch.to_json(),
        "made_of": results.maker(context, target.name)(arch),
        "target": connections.published(target),
        "measured": None,
        "parity": compare(subnet, folder / package.MODEL, target, images),
        "statistics": context.config.export.statistics,
        "finetuned": tuned,
        "versions": versions.of("torch", "onnx", "onnxruntime", "numpy"),
    }


def _make_room(context: Context, target: Target, folder: Path) -> None:
    """Keep the model of a package that missed its budgets, and remove the manifest first, so that
    a kill leaves none of another model.
    """
    with contextlib.suppress(FileFormatError, VerificationError):
        budgets = package.read_manifest(folder)["budgets"]
        timed.keep_candidate(context, target.name, folder / package.MODEL, budgets)
    try:
        (folder / package.MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder / package.MANIFEST, error) from error


def _hashes(context: Context, target: str) -> dict[str, str]:
    run = context.run
    return {
        "table": sha256_file(need(context.table(target), f"profile --target {target}")),
        "predictor": sha256_file(need(run.predictor, "evaluate")),
        "supernet": sha256_file(need(run.supernet, "train")),
        "data": context.data["fingerprint"],
    }


def compare(subnet: Subnet, model: Path, target: Target, images: tensors.Dataset) -> dict[str, Any]:
    """Logits of a subnet in torch and of its exported file in the engine, on test images.

    Returns:
        max_relative_difference (see `parity.difference`), tolerance, same_top1 (a share), images.

    Raises:
        VerificationError: they differ by more than the tolerance, or in the class of an image.
    """
    split, tolerance = images.test, parity.TOLERANCE["fp32"]
    pixels = split.pixels(0, min(PARITY_IMAGES, len(split)), subnet.arch.resolution)
    x = prepared(pixels, subnet.arch.resolution, images)
    with torch.no_grad():
        expected = subnet(x).numpy()
    got = run_model(model, target, x.contiguous().numpy())
    gap = parity.difference(expected, got)
    same = (expected.argmax(1) == got.argmax(1)) | parity.ties(expected, tolerance)
    if gap > tolerance or not same.all():
        gaps = f"{gap:.2g} of the largest" if np.isfinite(gap) else "some are no numbers"
        raise VerificationError(
            f"{model} differs from the network it was made from: largest "
            f"difference of a logit {gaps} (allowed {tolerance:g}), same class for "
            f"{same.mean():.2%} of {len(pixels)} test images; please report"
        )
    return {
        "max_relative_difference": gap,
        "tolerance": tolerance,
        "same_top1": float(same.mean()),
        "images": len(pixels),
    }


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
