"""What int8 loses in accuracy, and whether a stage in fp32 brings it back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.settings.targets import REFERENCE
from mixing.pairs import stages_of
from mixing.partly import partly, recipe_of
from profilers.schema import Target, read_json, read_lines

INT8 = Target("host", REFERENCE, precision="int8")
WORST, SURE = 6, 1.96  # networks that are measured; of a 95 % interval


def accuracy(folder: Path, n: int = WORST) -> list[dict[str, Any]]:
    """Points that the networks lose in int8 which lost most, on other validation images: all in
    int8, and with one stage left in fp32.
    """
    from precision import context_of

    from hwnas.run.weights import make_evaluator

    context = context_of(folder, {**read_json(folder / "config.json"), "run": str(folder)})
    evaluator = make_evaluator(context)
    lost = losses(folder, evaluator.supernet_sha256, context.space)
    split = unseen(evaluator)
    rows = []
    for arch in sorted(lost, key=lost.__getitem__)[-n:]:
        hits = dict(variants(arch, evaluator, context, split))
        rows.append({"network": arch.id, "chosen_by": lost[arch], **against(hits)})
        print(json.dumps(rows[-1]), flush=True)
    names = [name for name in rows[0] if name not in ("network", "chosen_by")]
    mean = {name: float(np.mean([row[name]["points"] for row in rows])) for name in names}
    print(json.dumps({"mean": mean, "images": len(split), "of_networks": len(lost)}))
    return rows


def losses(folder: Path, supernet: str, space: SearchSpace) -> dict[Architecture, float]:
    """Points that each measured network loses in int8 in ONNX Runtime, as `evaluate` found it."""
    written = f"int8-{recipe_of(INT8)}"
    top1: list[dict[Architecture, float]] = []
    for name in ("accuracy.jsonl", f"accuracy.{written}.jsonl"):
        lines = [line for line in read_lines(folder / name)[0] if "accuracy" in line]
        mine = [line for line in lines if line["supernet_sha256"] == supernet]
        top1.append({space.from_json(line["arch"]): line["accuracy"] for line in mine})
    return {arch: 100 * (top1[0][arch] - value) for arch, value in top1[1].items()}


def unseen(evaluator: Any) -> Any:
    """Validation images on which no network was measured."""
    import torch

    split, seen = evaluator.dataset.val, len(evaluator.validation)
    order = np.random.default_rng(evaluator.config.seed).permutation(len(split))
    return split.subset(torch.from_numpy(order[seen:]))


def variants(
    arch: Architecture, evaluator: Any, context: Any, split: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """Which images are right: in fp32, in int8, and without one stage each."""
    from hwnas.networks import onnx_graph
    from hwnas.run import quantised
    from hwnas.supernet.exported import BATCH
    from hwnas.supernet.network import folded_weights

    target = replace(INT8, batch=BATCH)
    weights = folded_weights(evaluator.subnet(arch))
    model = onnx_graph.to_bytes(onnx_graph.build(arch.ops, weights, BATCH))
    images = quantised.images_of(evaluator.dataset, arch.resolution, context.config.int8)
    ranges = quantised.ranges_of(model, target, images, context.config.int8)
    stages = stages_of(context.space)
    slots = {placed.slot: stages[placed.op.key] for placed in arch.ops}
    yield "fp32", right(arch, model, replace(target, precision="fp32"), evaluator, split)
    for left in ("", *dict.fromkeys(slots.values())):
        kept = {slot for slot, stage in slots.items() if stage != left}
        made = partly(model, recipe_of(target), kept, ranges)
        name = f"{left} in fp32" if left else "int8"
        yield name, right(arch, made, target, evaluator, split)


def right(
    arch: Architecture, model: bytes, target: Target, evaluator: Any, split: Any
) -> np.ndarray:
    """(n,) whether a file classifies each image right."""
    from hwnas.images import tensors
    from hwnas.supernet.exported import Exported

    net, hits = Exported(arch, model, target), []
    for pixels, labels in tensors.batches(split, arch.resolution, 256):
        logits = net(tensors.prepare(pixels, arch.resolution, evaluator.dataset))
        hits.append((logits.argmax(1) == labels).numpy())
    return np.concatenate(hits)


def against(hits: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Points that each file loses against fp32, and half their 95 % interval (paired)."""
    found = {}
    for name, mine in hits.items():
        if name != "fp32":
            change = hits["fp32"].astype(float) - mine
            half = SURE * float(change.std()) / len(change) ** 0.5
            found[name] = {"points": 100 * float(change.mean()), "half": 100 * half}
    return found
