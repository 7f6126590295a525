"""Where a network's accuracy comes from: a table of all results, or a supernet and a shared cache.

The searchers see it as a metric that must be evaluated network by network; only cost is a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.search.front import reference_point
from hwnas.search.problem import Problem, make_problem, metrics_of
from hwnas.settings.config import AccuracyConfig, DataConfig, SearchConfig
from hwnas.supernet.evaluation import Evaluator, measure_all, read_accuracies
from hwnas.supernet.files import load_supernet
from profilers.schema import sha256_file

TABLE = Path(__file__).parents[1] / "data" / "tiny-results.npz"
FASHION = DataConfig(kind="idx", validation=0.1, augment="flip")  # as in benchmarks/training.py

Top1 = Callable[[Architecture], float]


class Measured:
    """Error of networks, each asked for once.

    Attributes:
        space: whose genomes it prices.
        top1: measures one network.
    """

    def __init__(self, space: SearchSpace, top1: Top1) -> None:
        self.space = space
        self.top1 = top1

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) measured errors of (n, n_choices) genomes."""
        archs = self.space.architectures(genome.astype(np.int64))
        return np.array([1 - self.top1(arch) for arch in archs])


def of_table() -> tuple[SearchSpace, dict[Architecture, float]]:
    """`tiny` and the accuracy of every network, on all images that training did not see."""
    with np.load(TABLE) as held:
        space = spaces.load(str(held["space"])).restricted(held["resolutions"].tolist())
        if space.geometry != str(held["geometry"]):
            raise SystemExit(f"{TABLE} is of another geometry; make it again")
        right = held["validation_right"].astype(float) + held["test_right"]
        archs = space.architectures(held["genome"].astype(np.int64))
        top1 = right / held["n_images"].sum()
    return space, dict(zip(archs, top1.tolist(), strict=True))


def of_supernet(
    name: str, supernet: Path, images: int, cache: Path
) -> tuple[SearchSpace, Top1, Top1]:
    """A space and what measures its networks, or finds them in the cache: on some validation images
    of Fashion-MNIST, and on the others.
    """
    dataset = tensors.load(FASHION)
    space = spaces.load(name).for_data(dataset.in_channels, dataset.n_classes)
    config = AccuracyConfig(images=images)
    net = load_supernet(supernet, space)
    evaluator = Evaluator(net, dataset, config, sha256_file(supernet))
    order = np.random.default_rng(config.seed).permutation(len(dataset.val))  # as the evaluator's
    others = replace(dataset, val=dataset.val.subset(torch.from_numpy(order[images:])))
    told = {"images": "others"}
    on_others = replace(evaluator, dataset=others, config=AccuracyConfig(), how=told)
    return space, _measuring(evaluator, cache), _measuring(on_others, cache)


def _measuring(evaluator: Evaluator, cache: Path) -> Top1:
    known = dict(read_accuracies(cache, evaluator).accuracy) if cache.exists() else {}

    def top1(arch: Architecture) -> float:
        if arch not in known:
            known.update(measure_all([arch], evaluator, cache))
        return known[arch]

    return top1


def problem(space: SearchSpace, top1: Top1, budgets: dict[str, float] | None = None) -> Problem:
    """Measured error against MACs."""
    metrics = metrics_of(space, error=Measured(space, top1))
    wanted = SearchConfig(objectives=("error", "macs"), budgets=budgets or {})
    return make_problem(space, wanted, metrics)


def corner(case: Problem) -> np.ndarray:
    """Reference point of the hypervolume: error of guessing, 1.1 x the MACs of the max network."""
    largest = case.space.genome([case.space.largest])
    macs = float(case.metrics["macs"].evaluate(largest)[0])
    return reference_point(case.objectives, {"macs": macs}, case.space.n_classes)
