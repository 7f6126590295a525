"""Which order of units leaves the best narrower networks before any training: three measures.

A residual CNN is trained on 10,000 images of Fashion-MNIST (Debian: dataset-fashion-mnist). Its
units are sorted by each measure; random networks are measured on validation images, BatchNorm
calibrated, nothing trained. The test images are not read.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stock.loop import Plain, steps_of, trained
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.images import tensors
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.networks.spaces import of_model
from hwnas.settings.config import AccuracyConfig, DataConfig
from hwnas.supernet.evaluation import Evaluator
from hwnas.traced.analyse import analyse
from hwnas.traced.analysis import Analysis
from hwnas.traced.lowering import lowered
from hwnas.traced.weights import importance, orders, own_supernet
from own_model.analysis import bar

sys.path.append(str(Path(__file__).parent.parent.parent / "tests"))
from user_models import ResNet

KINDS = ("none", "norm", "scale", "flow", "taylor")
SEEDS, EPOCHS, IMAGES, NETWORKS, BATCH = 3, 4, 10_000, 12, 64
CHOSEN = "norm"  # what hwnas/run/space.py uses
MARGIN = 0.02  # how much worse than the best measure it may be


def measure(models: list[str], quick: bool) -> dict[str, Any]:
    """The document of this part."""
    del models
    kind = "digits" if quick else "idx"
    dataset = tensors.load(DataConfig(kind=kind, validation=0.1, augment="none"))
    rows = [row(dataset, seed, quick) for seed in range(1 if quick else SEEDS)]
    means = {k: statistics.mean(r["accuracy"][k] for r in rows) for k in KINDS}
    print(f"{len(rows)} seeds, mean validation accuracy: "
          + ", ".join(f"{k} {v:.1%}" for k, v in means.items()))  # fmt: skip
    short = max(means.values()) - means[CHOSEN]
    return {
        "setting": f"{IMAGES} images, {EPOCHS} epochs, {NETWORKS} random networks of each seed",
        "n": len(rows) * NETWORKS,
        "spread": {k: [min(v), max(v)] for k in KINDS if (v := [r["accuracy"][k] for r in rows])},
        "seeds": rows,
        "bars": [
            bar(f"accuracy_of_{CHOSEN}_below_the_best", None if quick else short, "<=", MARGIN)
        ],
    }


def row(dataset: tensors.Dataset, seed: int, quick: bool) -> dict[str, Any]:
    """Mean accuracy of the same random networks by each measure, for one training."""
    torch.manual_seed(seed)
    px = dataset.size
    few = replace(dataset, train=dataset.train.subset(torch.randperm(len(dataset.train))[:IMAGES]))
    steps = steps_of(few, 1 if quick else EPOCHS, BATCH)
    model = trained(ResNet(), few, Plain(steps, 0.1, BATCH, augment="none", seed=seed), px)
    analysis = analyse(model, (1, px, px))
    low = lowered(analysis, 4, 8)
    space = of_model(low.family, [px], low.bn_eps)
    archs = networks(space, 3 if quick else NETWORKS, seed)
    gradients = gradients_of(model, analysis, dataset, px)
    found = {}
    for kind in KINDS:
        order = orders(importance(analysis, kind, gradients))
        net = own_supernet(space, low, analysis, order)
        evaluator = Evaluator(net, dataset, AccuracyConfig(images=2000, bn_images=1024), kind)
        found[kind] = statistics.mean(evaluator.measure(arch) for arch in archs)
    whole = evaluator.measure(space.largest)
    print(f"seed {seed}: whole {whole:.1%}; "
          + ", ".join(f"{k} {v:.1%}" for k, v in found.items()), flush=True)  # fmt: skip
    return {"seed": seed, "whole": whole, "accuracy": found}


def networks(space: SearchSpace, n: int, seed: int) -> list[Architecture]:
    """Random networks with every branch kept: what is compared are widths."""
    genome = space.sample(n, np.random.default_rng(seed))
    kept = [column for name, column in space.columns.items() if name.endswith(".kept")]
    genome[:, kept] = 1
    return space.architectures(genome)


def batches(dataset: tensors.Dataset, px: int, images: int) -> list[tuple[Tensor, Tensor]]:
    """Prepared training images in a random order."""
    order = torch.randperm(len(dataset.train))[:images]
    part = dataset.train.subset(order)
    return [
        (tensors.prepare(part.pixels(i, i + BATCH, px), px, dataset), part.labels[i : i + BATCH])
        for i in range(0, len(part) - BATCH + 1, BATCH)
    ]


def gradients_of(
    model: nn.Module, analysis: Analysis, dataset: tensors.Dataset, px: int
) -> dict[str, Tensor]:
    """Gradients of the loss of 1,024 training images, by name of tensor."""
    model.zero_grad()
    for x, y in batches(dataset, px, 1024):
        F.cross_entropy(model(x), y).backward()
    known = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {node: known[name] for node, name in analysis.names.items() if name in known}
