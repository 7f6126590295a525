"""Supernet training on Fashion-MNIST: cost, accuracy along the front, and the same networks alone.

Question: are subnets cut out of a supernet as good as the same networks trained alone for as many
epochs, and what does the supernet cost? Space mbv3-28. The front is of predicted error against
MACs, by dynamic programming. Its best network is the one of most validation images right; the
official test images (10,000) are read once, at the end: for that one, and for the networks that
were chosen to be compared before anything was trained.

    python benchmarks/training.py --out runs/bench-training     all of it, more than an hour
    python benchmarks/training.py --quick                       digits and tiny, seconds
    python benchmarks/training.py ladder --out runs/ladder     recipes (recipes/ladder.py)
    python benchmarks/training.py step                          time of a step (recipes/step.py)

The networks trained alone are chosen before anything is trained, so that neither side profits from
the choice. Each phase keeps its result in --out and is not repeated; --phase runs one of them. Time
is given by the clock and as CPU time, which other work on the machine inflates less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipes import ladder, step

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture
from hwnas.predictors import fit
from hwnas.search import problem, searchers
from hwnas.settings.config import AccuracyConfig, DataConfig, SearchConfig, TrainConfig
from hwnas.supernet import evaluation, training
from hwnas.supernet.network import Subnet, calibrate
from profilers.schema import read_json, read_lines, sha256_file, write_json

FULL: dict[str, Any] = {
    "data": DataConfig(kind="idx", validation=0.1, augment="flip"),
    "space": "mbv3-28",
    "train": TrainConfig(
        epochs=12, batch_size=64, learning_rate=0.12, weight_decay=3e-4, max_only=0.2
    ),
    "accuracy": AccuracyConfig(measure=60, images=4000, bn_images=2048),
    "points": 10,
    "alone": (0.35, 0.65),
}
QUICK: dict[str, Any] = {
    "data": DataConfig(kind="digits", augment="none"),
    "space": "tiny",
    "train": TrainConfig(epochs=2),
    "accuracy": AccuracyConfig(measure=12, bn_images=256),
    "points": 3,
    "alone": (),
}
LIMITS = {"best_test_accuracy": 0.925, "supernet_minutes": 40.0, "mean_gap_points": 0.5}


def main() -> None:
    parts = {"ladder": ladder.main, "step": step.main}
    if sys.argv[1:] and sys.argv[1] in parts:
        parts[sys.argv.pop(1)]()
        return
    parser = argparse.ArgumentParser(description="supernet training: cost and accuracy")
    parser.add_argument("--quick", action="store_true", help="digits and tiny, seconds")
    parser.add_argument("--out", type=Path, help="folder that keeps the result of each phase")
    parser.add_argument("--phase", choices=("all", "supernet", "alone"), default="all")
    parser.add_argument(
        "--threads", type=int, default=0, help="of training; 0: as many as are fastest"
    )
    arguments = parser.parse_args()
    setting = dict(QUICK if arguments.quick else FULL)
    setting["train"] = setting["train"].model_copy(update={"threads": arguments.threads})
    out = arguments.out or Path(tempfile.mkdtemp(prefix="hwnas-bench-"))
    images = tensors.load(setting["data"])
    space = spaces.load(setting["space"]).for_data(images.in_channels, images.n_classes)
    job = training.Job(setting["train"], space, images, setting["data"].augment, out)
    if arguments.phase != "alone":
        kept(out / "supernet.json", lambda: train_supernet(job))
    compared = to_compare(job, setting["alone"])
    if arguments.phase != "supernet":
        for arch in compared:
            kept(out / f"alone-{arch.id}.json", lambda arch=arch: train_alone(job, setting, arch))
    if arguments.phase == "all":
        alone = {arch: read_json(out / f"alone-{arch.id}.json") for arch in compared}
        points = kept(out / "points.json", lambda: front_points(job, setting, compared))
        show(setting, job, read_json(out / "supernet.json"), points, alone)


def to_compare(job: training.Job, quantiles: tuple[float, ...]) -> list[Architecture]:
    """Networks to train alone, chosen before anything is trained: the smallest one, and of 1,000
    random ones those at some quantiles of MACs.
    """
    random = job.space.architectures(job.space.sample(1000, np.random.default_rng(0)))
    random.sort(key=lambda arch: exact_costs(arch)["macs"])
    return [job.space.smallest, *(random[int(q * len(random))] for q in quantiles)]


def kept(path: Path, work: Callable[[], Any]) -> Any:
    """The result of a phase, from its file if it has run."""
    if not path.exists():
        write_json(path, work())
    return read_json(path)


def spread(items: list[Any], n: int) -> list[Any]:
    """n items from first to last, evenly."""
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]


def timed(job: training.Job, network: Subnet | None) -> tuple[Any, dict[str, Any]]:
    """A trained network, and what training it cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    net = training.train(job, lambda share, text: None, network)
    events, _ = read_lines(job.folder / "events.jsonl")
    return net, {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "threads": events[-1]["threads"],
    }


def train_supernet(job: training.Job) -> dict[str, Any]:
    net, cost = timed(job, None)
    training.save_supernet(net, job, job.folder / "supernet.safetensors")
    return cost


def front_points(
    job: training.Job, setting: dict[str, Any], compared: list[Architecture]
) -> list[dict[str, Any]]:
    """Networks along the predicted front and those compared, with their accuracies."""
    path = job.folder / "supernet.safetensors"
    supernet = training.load_supernet(path, job.space)
    evaluator = evaluation.Evaluator(supernet, job.dataset, setting["accuracy"], sha256_file(path))
    rng = np.random.default_rng(0)
    archs = evaluation.to_measure(job.space, setting["accuracy"].measure, rng)
    rows = list(evaluation.measure_all(archs, evaluator, job.folder / "accuracy.jsonl"))
    fitted = fit.fit_predictor(job.space, rows, 0, evaluator.supernet_sha256)
    metrics = problem.metrics_of(job.space, error=fitted.metric(job.space))
    wanted = SearchConfig(algorithm="dp", objectives=("error", "macs"))
    front = searchers.search(problem.make_problem(job.space, wanted, metrics), wanted).front
    found = sorted(
        job.space.architectures(front.genome), key=lambda arch: exact_costs(arch)["macs"]
    )
    chosen = spread(found, setting["points"])
    points = [
        {
            "arch": arch.to_json(),
            "macs": exact_costs(arch)["macs"],
            "on_front": arch in chosen,
            "validation_accuracy": evaluator.measure(arch),
        }
        for arch in [*chosen, *(arch for arch in compared if arch not in chosen)]
    ]
    best = best_of(points)
    for point in points:
        arch = job.space.from_json(point["arch"])
        if point is best or arch in compared:
            subnet = evaluator.subnet(arch)
            point["test_accuracy"] = evaluation.top1(subnet, job.dataset, job.dataset.test)
    return points


def best_of(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The network of the front that classifies most validation images right."""
    front = [point for point in points if point["on_front"]]
    return max(front, key=lambda point: point["validation_accuracy"])


def train_alone(job: training.Job, setting: dict[str, Any], arch: Architecture) -> dict[str, Any]:
    """The same network trained alone with the same schedule, calibrated and tested the same way."""
    torch.manual_seed(0)
    folder = job.folder / f"alone-{arch.id}"
    single = training.Job(job.config, job.space, job.dataset, job.augment, folder)
    net, cost = timed(single, Subnet(arch))
    pixels = job.dataset.train.images[: setting["accuracy"].bn_images]
    batches = torch.split(pixels, evaluation.BATCH)
    calibrate(net, (tensors.prepare(b, arch.resolution, job.dataset) for b in batches))
    accuracy = evaluation.top1(net, job.dataset, job.dataset.test)
    return {"id": arch.id, "test_accuracy": accuracy, **cost}


def show(
    setting: dict[str, Any],
    job: training.Job,
    cost: dict[str, Any],
    points: list[dict[str, Any]],
    alone: dict[Architecture, dict[str, Any]],
) -> None:
    """A table for people, then one JSON document."""
    print(f"space {job.space.name}, {job.config.epochs} epochs, {os.cpu_count()} cores")
    print(
        f"supernet: {cost['wall_s'] / 60:.1f} min by the clock, {cost['cpu_s'] / 60:.1f} CPU "
        f"minutes, {cost['threads']} thread(s)"
    )
    print(
        f"{'network':14}{'px':>4}{'MACs':>12}{'validation':>12}{'front':>6}{'test':>9}{'alone':>9}"
        f"{'gap, points':>13}"
    )
    gaps = []
    for point in points:
        arch = job.space.from_json(point["arch"])
        row, line = alone.get(arch), f"{arch.id:14}{arch.resolution:4}{point['macs']:12,}"
        line += f"{point['validation_accuracy']:12.2%}{'' if point['on_front'] else ' (off)':6}"
        if "test_accuracy" in point:
            line += f"{point['test_accuracy']:9.2%}"
        if row:
            gaps.append(100 * (row["test_accuracy"] - point["test_accuracy"]))
            line += f"{row['test_accuracy']:9.2%}{gaps[-1]:13.2f}"
        print(line)
    values = {
        "best_test_accuracy": best_of(points)["test_accuracy"],
        "supernet_minutes": cost["wall_s"] / 60,
        "mean_gap_points": statistics.mean(gaps),
    }
    bars = [
        {"name": name, "value": value, "limit": LIMITS[name], "holds": holds(name, value)}
        for name, value in values.items()
    ]
    validated = [point["validation_accuracy"] for point in points]
    spread_of = {"gap_points": gaps, "validation_accuracy": validated}
    about = {
        "space": job.space.name,
        "data": setting["data"].model_dump(mode="json"),
        "train": job.config.model_dump(mode="json"),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "supernet": cost,
        "alone": list(alone.values()),
        "points": points,
    }
    print(json.dumps({"setting": about, "n": len(gaps), "spread": spread_of, "bars": bars}))


def holds(name: str, value: float) -> bool:
    """Whether a bar holds: accuracies from below, costs and gaps from above."""
    return value >= LIMITS[name] if name == "best_test_accuracy" else value <= LIMITS[name]


if __name__ == "__main__":
    main()
