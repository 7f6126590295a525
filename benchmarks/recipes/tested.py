"""Test accuracies of training.py: what each network answered, and how much of it is right."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hwnas.images import tensors
from hwnas.networks.space import Architecture
from hwnas.supernet import evaluation
from hwnas.supernet.network import Subnet
from profilers.schema import canonical_json, read_json, sha256_text
from recipes import table
from recipes.bench import Bench, kept


@torch.no_grad()
def answers(net: Subnet, images: tensors.Dataset) -> str:
    """The class that a network gives each test image, a digit each; no label is read."""
    if images.n_classes > 10:
        raise SystemExit(f"{images.n_classes} classes: a digit an image tells ten apart")
    px, said = net.arch.resolution, ""
    for pixels, _ in tensors.batches(images.test, px, evaluation.BATCH):
        logits = net(tensors.prepare(pixels, px, images))
        said += "".join(map(str, logits.argmax(1).tolist()))
    return said


def share_right(bench: Bench, said: str) -> float:
    """The share of the test images that got their own class."""
    own = "".join(map(str, bench.images.test.labels.tolist()))
    return statistics.mean(a == b for a, b in zip(said, own, strict=True))


def keep(
    bench: Bench,
    seed: int,
    name: str,
    sides: Mapping[str, Sequence[Architecture]],
    rate: float,
    told: Mapping[str, Any],
) -> None:
    """Keep a file of test accuracies, by side and network; nothing while an answer is missing.

    Args:
        sides: networks of each side.
        rate: of networks alone.
        told: what the file says besides.
    """
    folder, said = bench.folder(seed), {}
    for side, archs in sides.items():
        if side == "supernet":
            points = {p["id"]: p["answers"] for p in read_json(folder / table.POINTS)["points"]}
            said[side] = {arch.id: points[arch.id] for arch in archs}
            continue
        files = {arch.id: table.file_of(folder, side, arch, rate) for arch in archs}
        if missing := [path.name for path in files.values() if not path.exists()]:
            print(f"seed {seed}: {', '.join(missing)} not there, so {name} is not made")
            return
        said[side] = {network: read_json(path)["answers"] for network, path in files.items()}

    def work() -> dict[str, Any]:
        right = {
            side: {network: share_right(bench, text) for network, text in of_side.items()}
            for side, of_side in said.items()
        }
        return {**told, **right}

    kept(folder / name, sha256_text(canonical_json(said)), work)
