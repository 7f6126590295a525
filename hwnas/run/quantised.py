"""Networks in int8: ranges of activations from training images, accuracy of some as they ship.

Only training images are read, never those that accuracy is measured on. Manifests name them, with
the hash of their content.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.measuring import remote
from hwnas.networks import onnx_graph, ranges
from hwnas.networks.counts import SUMS
from hwnas.networks.space import Architecture
from hwnas.pricing.terms import op_terms
from hwnas.run.context import Context
from hwnas.settings.int8_config import Int8Config
from hwnas.settings.targets import REFERENCE
from hwnas.supernet.evaluation import Evaluator, measure_all
from hwnas.supernet.exported import BATCH, Exported
from hwnas.supernet.network import Subnet, folded_weights
from profilers import precisions, runtimes
from profilers.cpus import affinity
from profilers.errors import VerificationError
from profilers.schema import Target, write_atomic

FEWEST = 32  # training images that ranges are taken of
EXACT_EVERYWHERE = "u8s7"  # recipe of processors whose kernels saturate on weights of 8 bits
NOT_MEASURED = {"measure", "tune_above"}  # settings that change no measured accuracy
STREAM = 3  # of the seed: nothing else draws from this stream


class Images(NamedTuple):
    """Training images for calibration: inputs (n, ...) float32; what a manifest says of them."""

    inputs: np.ndarray
    about: dict[str, Any]


def images_of(dataset: tensors.Dataset, resolution: int, config: Int8Config) -> Images:
    """Training images in a random order of the settings' seed, as inputs of a resolution.

    Raises:
        VerificationError: they are too few, or all the same.
    """
    split = dataset.train
    if len(split) < FEWEST:
        raise VerificationError(
            f"int8 is calibrated on training images, there are {len(split)}, {FEWEST} are needed; "
            "name more data, or a target in fp32"
        )
    order = np.random.default_rng([config.seed, STREAM]).permutation(len(split))
    chosen = np.sort(order[: config.images])
    parts = [
        tensors.prepare(pixels, resolution, dataset).contiguous().numpy()
        for pixels, _ in tensors.batches(split.subset(torch.from_numpy(chosen)), resolution, 256)
    ]
    inputs = np.concatenate(parts)
    if np.ptp(inputs.reshape(len(inputs), -1), axis=0).max() == 0:
        raise VerificationError(
            f"the {len(inputs)} training images for calibration are all the same; look at the data"
        )
    digest = hashlib.sha256(np.ascontiguousarray(inputs, "<f4").tobytes()).hexdigest()
    return Images(inputs, {"images": len(inputs), "indices": chosen.tolist(), "sha256": digest})


def quantised(
    model: bytes,
    target: Target,
    recipe: str,
    images: Images,
    config: Int8Config,
    known: ranges.Ranges | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """The file of a network in a target's precision, and how it was made.

    Args:
        model: in fp32, its batch fixed.
        target: its precision is used.
        recipe: of the precision, for the target's device.
        images: of `images_of`.
        config: how ranges are taken.
        known: ranges of the activations; None: those of the images.

    Raises:
        VerificationError: an activation is no number.
    """
    part = precisions.load(target.precision)
    found = known or ranges_of(model, target, images, config)
    about = {
        "precision": target.precision,
        "recipe": recipe,
        "calibration": config.calibration,
        **({"percentile": config.percentile} if config.calibration == "percentile" else {}),
        "in_float": part.in_float(model, recipe),
        **images.about,
    }
    return part.calibrated(model, recipe, found), about


def ranges_of(model: bytes, target: Target, images: Images, config: Int8Config) -> ranges.Ranges:
    """Ranges of the activations of a network on training images; arguments as of `quantised`.

    Raises:
        VerificationError: an activation is not a number.
    """
    part = precisions.load(target.precision)
    watched = ranges.watched(model, part.ranged(model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "watched.onnx"
        write_atomic(path, watched.model)
        here = Target("host", REFERENCE, threads=len(affinity()))
        session = runtimes.load(REFERENCE).load(path, here)
        batch = session.info()["input_shape"][0]

        def batches() -> Iterator[np.ndarray]:
            for start in range(0, len(images.inputs), batch):
                part = images.inputs[start : start + batch]
                yield np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])

        try:
            return ranges.ranges(
                session.run, batches, watched.sizes, config.calibration, config.percentile
            )
        finally:
            session.close()


# ---- accuracy of some ----------------------------------------------------------------------------


def measure_along(
    context: Context,
    evaluator: Evaluator,
    target: Target,
    written: str,
    known: Mapping[Architecture, float],
) -> dict[Architecture, float]:
    """Top-1 on validation images of some networks, as written for a target.

    Args:
        context: of the run.
        evaluator: supernet and images.
        target: its precision is used, its recipe is that of the context.
        written: names both, `int8-u8s8`.
        known: networks to choose from, evenly along their MACs.
    """
    config, recipe = context.config.int8, context.recipe(target.name)
    driven = driven_here(target, recipe)
    images = functools.lru_cache(maxsize=None)(lambda px: images_of(evaluator.dataset, px, config))

    def made(subnet: Subnet) -> Exported:
        data = onnx_graph.build(subnet.arch.ops, folded_weights(subnet.cpu()), BATCH)
        model, _ = quantised(
            onnx_graph.to_bytes(data), driven, recipe, images(subnet.arch.resolution), config
        )
        return Exported(subnet.arch, model, driven)

    how = {"written": written, "int8": config.model_dump(mode="json", exclude=NOT_MEASURED)}
    own = replace(evaluator, made=made, how=how)
    say, found = context.report.progress(f"evaluate {written}"), {}
    archs = _evenly(context, list(known), config.measure)
    for arch, top1 in measure_all(archs, own, context.run.accuracies_in(written)):
        found[arch] = top1
        say(len(found) / len(archs), f"{len(found)} of {len(archs)} networks")
    return found


def _evenly(context: Context, archs: list[Architecture], n: int) -> list[Architecture]:
    """n networks, evenly along their MACs, with the smallest and the largest."""
    space = context.space
    order = np.argsort(op_terms(space, SUMS["macs"]).evaluate(space.genome(archs)), kind="stable")
    at = np.unique(np.linspace(0, len(archs) - 1, min(n, len(archs))).round().astype(int))
    return [archs[int(order[i])] for i in at]


def driven_here(target: Target, recipe: str) -> Target:
    """What computes networks of a target's precision and recipe on this machine."""
    here = Target("host", REFERENCE, target.precision, BATCH, len(affinity()))
    return replace(here, optimisation=level(target, recipe))


def level(target: Target, recipe: str) -> str:
    """The optimisation level at which ONNX Runtime here computes a recipe faithfully.

    Without VNNI its integer kernels saturate on weights of 8 bits, so they do not stand for a
    device whose kernels are exact.
    """
    if not recipe:
        return target.optimisation
    return "disable" if _here() == EXACT_EVERYWHERE != recipe else target.optimisation


@functools.lru_cache(maxsize=1)
def _here() -> str:
    """The recipe of this machine's processor."""
    return str(remote.probe(Target("host", REFERENCE, precision="int8"))["recipe"])
