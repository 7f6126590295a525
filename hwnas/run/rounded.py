"""Training on, with rounded weights, of an int8 package that loses more than it may.

Validation images decide whether that is due, and whether it helped. Uses torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.networks import onnx_graph
from hwnas.networks.ranges import Ranges
from hwnas.run import quantised
from hwnas.run.context import Context
from hwnas.supernet import exported
from hwnas.supernet.evaluation import Evaluator, Measured, metric_of
from hwnas.supernet.folded import Folded, Rounding, train_rounded
from hwnas.supernet.network import Subnet, folded_weights
from profilers import precisions
from profilers.schema import Target

STEPS, BATCH = 300, 64
STREAM = 4  # of the seed: nothing else draws from this stream


class Tuned(NamedTuple):
    """A rounded network, the ranges that it was trained with, and what a manifest says of it."""

    net: Folded
    ranges: Ranges
    about: dict[str, Any]


def tuned(
    context: Context, evaluator: Evaluator, target: Target, subnet: Subnet, images: quantised.Images
) -> Tuned | None:
    """A network that was trained further to lose less in int8; None if it loses no more than
    `int8.tune_above`, if that is not set, or if training did not help.

    Args:
        context: of the run.
        evaluator: supernet and images.
        target: in int8.
        subnet: on the CPU.
        images: that ranges are taken of.
    """
    most, arch = context.config.int8.tune_above, subnet.arch
    if most is None:
        return None
    recipe, part = context.recipe(target.name), precisions.load(target.precision)
    driven = quantised.driven_here(target, recipe)

    def file_of(weights: dict[str, np.ndarray]) -> bytes:
        return onnx_graph.to_bytes(onnx_graph.build(arch.ops, weights, exported.BATCH))

    def validated(net: Measured) -> float:
        return metric_of(net, evaluator.dataset, evaluator.validation)

    def rounded(model: bytes) -> float:
        made = part.calibrated(model, recipe, found)
        return validated(exported.Exported(arch, made, driven))

    weights = folded_weights(subnet)
    model = file_of(weights)
    found = quantised.ranges_of(model, driven, images, context.config.int8)
    whole, before = validated(subnet), rounded(model)
    if 100 * (whole - before) <= most:
        return None
    say = context.report.progress(f"tune {arch.id} in {target.precision}")
    net = Folded(arch, weights, Rounding(model, part.RECIPES[recipe], found))
    train_rounded(net, subnet, _batches(context, evaluator, arch.resolution), STEPS)
    after = rounded(file_of(net.exported()))
    say(1.0, f"{whole:.2%} in fp32, {before:.2%} in {target.precision}, {after:.2%} trained on")
    about = {
        "val_accuracy_fp32": whole,
        "val_accuracy_before": before,
        "val_accuracy": after,
        "steps": STEPS,
    }
    return Tuned(net, found, about) if after > before else None


def _batches(context: Context, evaluator: Evaluator, px: int) -> Iterator[torch.Tensor]:
    """Training images as they are augmented in training, at random, without end."""
    dataset, seed = evaluator.dataset, context.config.int8.seed
    rng, generator = np.random.default_rng([seed, STREAM]), torch.Generator().manual_seed(seed)
    size = min(BATCH, len(dataset.train))
    while True:
        chosen = torch.from_numpy(rng.choice(len(dataset.train), size, replace=False))
        augment = context.config.data.augment
        pixels, _ = tensors.augmented(dataset.train, chosen, px, augment, generator)
        yield tensors.prepare(pixels, px, dataset)
