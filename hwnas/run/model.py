"""A package's model: a network cut out of the supernet, exported, compared with torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.measuring import connections, parity
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture
from hwnas.run import imported, own, package, quantised, results, rounded, tuned, weights
from hwnas.run.context import Context
from hwnas.settings import versions
from hwnas.settings.targets import REFERENCE
from hwnas.supernet.evaluation import Evaluator, Measured
from hwnas.supernet.files import load_subnet
from hwnas.supernet.header import read_header
from hwnas.supernet.network import folded_weights
from profilers import precisions, runtimes
from profilers.errors import VerificationError
from profilers.schema import Target, write_atomic

PARITY_IMAGES = 256  # test images on which torch and the exported file are compared, at most, ...
PARITY_MACS = 15_000_000_000  # ... no more than make so many, which takes 2 s on a core, ...
LEAST_IMAGES = 4  # ... and at least


def write(
    context: Context, evaluator: Evaluator, target: Target, arch: Architecture, folder: Path
) -> dict[str, Any]:
    """Write a model and compare it with torch on test images; what its manifest says of it."""
    images = evaluator.dataset
    trained = tuned.finetuned(context, arch, evaluator.supernet_sha256)
    if trained is None:
        subnet = weights.subnet(context, evaluator, arch)
    else:
        subnet, _ = load_subnet(context.run.finetuned(arch.id), arch)
    shared = {
        "space": arch.space.name,
        "geometry": arch.space.geometry,
        "input": package.input_of(arch, context.data),
        "classes": list(images.class_names),
        "task": {"name": context.config.task.name, "metric": images.task.metric},
    }
    metadata = {**shared, "arch": arch.to_json(), "supernet_sha256": evaluator.supernet_sha256}
    if trained is not None:
        metadata["finetuned_sha256"] = trained["sha256"]
    recipe = context.recipe(target.name)
    if recipe:
        metadata["recipe"] = recipe
    better = how = None
    if recipe:
        imported.need_images(context.config, "int8 is calibrated on training images")
        given = quantised.images_of(images, arch.resolution, context.config.int8)
        better = rounded.tuned(context, evaluator, target, subnet, given)
    weights_ = better.net.exported() if better else folded_weights(subnet)
    data = package.write_model(folder, arch, weights_, target.batch, metadata)
    if recipe:
        known, config = better.ranges if better else None, context.config.int8
        made, how = quantised.quantised(data, target, recipe, given, config, known)
        how["tuned"] = better.about if better else None
        write_atomic(folder / package.MODEL, made)
    exact = replace(target, optimisation=quantised.level(target, recipe))
    checked = compare(better.net if better else subnet, folder / package.MODEL, exact, images)
    return {
        **shared,
        "id": arch.id,
        "architecture": arch.to_json(),
        "made_of": results.maker(context, target.name)(arch),
        "target": connections.published(target),
        "model": package.write_engine_file(folder, target),
        "built": None,
        "measured": None,
        "parity": checked,
        "origin": own.origin(context.config.space, context.run),
        "imported": read_header(context.run.supernet).get("imported"),
        "statistics": context.config.export.statistics,
        "finetuned": trained,
        "quantised": how,
        "versions": versions.of("torch", "onnx", versions.ENGINE, "numpy"),
    }


def compare(
    subnet: Measured, model: Path, target: Target, images: tensors.Dataset
) -> dict[str, Any]:
    """Logits of a network in torch and of its exported file in ONNX Runtime, on test images.

    Returns:
        max_relative_difference (see `parity.difference`), tolerance, same_top1 (a share of
        images, or of pixels), images.

    Raises:
        VerificationError: they differ by more than the tolerance, or, unless the file is quantised,
            in the class of an image or a pixel.
    """
    about = precisions.load(target.precision).PRECISION
    split, tolerance = images.test, about.loss if about.calibrated else parity.tolerance_of("fp32")
    pixels = split.pixels(0, min(_images(subnet.arch), len(split)), subnet.arch.resolution)
    x = tensors.prepare(pixels, subnet.arch.resolution, images)
    with torch.no_grad():
        expected = subnet(x).numpy()
    got = run_model(model, target, x.contiguous().numpy())
    gap = parity.difference(expected, got)
    same = (expected.argmax(1) == got.argmax(1)) | parity.ties(expected, tolerance)
    if gap > tolerance or not (same.all() or about.calibrated):
        gaps = f"{gap:.2g} of the largest" if np.isfinite(gap) else "some are NaN or infinite"
        raise VerificationError(
            f"{model.name} of {subnet.arch.id} differs from the network it was made from: largest "
            f"difference of a logit {gaps} (allowed {tolerance:g}), same class for "
            f"{same.mean():.2%} of {len(pixels)} test images; please report"
        )
    return {
        "max_relative_difference": gap,
        "tolerance": tolerance,
        "same_top1": float(same.mean()),
        "images": len(pixels),
    }


def _images(arch: Architecture) -> int:
    """How many images a network is compared on."""
    return min(PARITY_IMAGES, max(LEAST_IMAGES, PARITY_MACS // exact_costs(arch)["macs"]))


def run_model(model: Path, target: Target, images: np.ndarray) -> np.ndarray:
    """Logits (n, n_classes) of an exported file in ONNX Runtime on this machine.

    Args:
        model: its batch is fixed; the last batch is filled up.
        target: threads and optimisation level to run with; the file computes as it is.
        images: (n, channels, px, px) or (n, channels, steps) float32.
    """
    session = runtimes.load(REFERENCE).load(model, replace(target, precision="fp32"))
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
