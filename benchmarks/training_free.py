"""Do scores of untrained networks rank them? Each part of DAS against MACs and parameters.

Kendall's tau with the measured accuracy of subnets, within each resolution (pairs of different
resolutions do not count): distinguishing ability D, number of units N, their combinations (NASWOT
is D / B + ln N), after 0 and after some training steps, MACs, parameters. Beside it what ridge
makes of half of the measurements for the other half, ten random halves: the score that counts once
something has been measured.

    python benchmarks/training_free.py --supernet runs/bench-training/supernet.safetensors
    python benchmarks/training_free.py              digits and tiny, from the committed results
    python benchmarks/training_free.py --quick      the same with few networks, seconds

The first needs Fashion-MNIST (Debian: dataset-fashion-mnist) and a supernet of mbv3-28 that
benchmarks/training.py trained; 100 of its subnets are measured, and kept in --cache. Networks are
scored on 64 training images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sampling import evaluations

from hwnas.images import tensors
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors.fit import fit_predictor
from hwnas.settings.config import DataConfig
from hwnas.supernet.activation_score import ActivationScore, naswot
from hwnas.supernet.evaluation import to_measure
from hwnas.supernet.training_free import Scores, rank_scores, score_all
from hwnas.tables.validation import kendall_tau

N_TINY, N_QUICK = 120, 24
LEAST = 100  # subnets of a claim
SHARES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # of the number of units, tried for D / B + share ln N


class Setting(NamedTuple):
    """Images, a space, and measured accuracies of some of its networks."""

    dataset: tensors.Dataset
    space: SearchSpace
    top1: dict[Architecture, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="training-free scores against accuracy")
    parser.add_argument("--quick", action="store_true", help="few networks, seconds")
    parser.add_argument("--supernet", type=Path, help="of mbv3-28, to measure subnets of")
    parser.add_argument("--cache", type=Path, help="accuracies measured so far, JSON Lines")
    parser.add_argument("--steps", type=int, default=20, help="of the short training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.supernet:
        cache = arguments.cache or arguments.supernet.with_name("sample-efficiency.jsonl")
        setting = measured(arguments.supernet, cache)
    else:
        setting = of_tiny(N_QUICK if arguments.quick else N_TINY)
    archs = list(setting.top1)
    taus = baselines(setting)
    for steps in (0,) if arguments.quick else (0, arguments.steps):
        scores = score_all(archs, setting.dataset, 0, steps)
        taus |= {f"{name}, {steps} steps": tau for name, tau in parts(setting, scores).items()}
    if not arguments.quick:
        taus["ridge on half of the measurements"] = ridge(setting)
    print(f"{setting.space.name}, {len(archs)} subnets, Kendall's tau within each resolution\n")
    for name, tau in taus.items():
        print(f"{name:<40}{tau:>8.3f}")
    bar = {
        "name": "subnets_compared",
        "value": len(archs),
        "limit": f">= {LEAST}",
        "holds": len(archs) >= LEAST,
    }
    spread = {name: round(tau, 4) for name, tau in taus.items()}
    about = {"space": setting.space.name, "steps": arguments.steps, "images": 64}
    print(json.dumps({"setting": about, "n": len(archs), "spread": spread, "bars": [bar]}))


def measured(supernet: Path, cache: Path) -> Setting:
    """Subnets of mbv3-28 and their accuracy on 2,000 validation images of Fashion-MNIST."""
    space, top1, _ = evaluations.of_supernet("mbv3-28", supernet, 2000, cache)
    archs = to_measure(space, LEAST, np.random.default_rng(0))
    return Setting(tensors.load(evaluations.FASHION), space, {arch: top1(arch) for arch in archs})


def of_tiny(n: int) -> Setting:
    """Random networks of `tiny` at three resolutions."""
    dataset = tensors.load(DataConfig(kind="digits", validation=0.25))
    space, table = evaluations.of_table()
    few = space.restricted([space.resolutions[i] for i in (0, len(space.resolutions) // 2, -1)])
    drawn = few.architectures(few.sample(2 * n, np.random.default_rng(0)))
    archs = [space.architecture(arch.values) for arch in dict.fromkeys(drawn)][:n]
    return Setting(dataset, space, {arch: table[arch] for arch in archs})


def baselines(setting: Setting) -> dict[str, float]:
    """Tau of the counts."""
    costs = [exact_costs(arch) for arch in setting.top1]
    return {
        name: tau(setting, np.array([cost[key] for cost in costs], dtype=float))
        for name, key in (("MACs", "macs"), ("parameters", "params"))
    }


def parts(setting: Setting, scores: Scores) -> dict[str, float]:
    """Tau of each part and of each combination."""
    found, top1 = list(scores.values()), np.array(list(setting.top1.values()))
    half = np.random.default_rng(0).permutation(len(found))[: len(found) // 2]
    share = fitted_share([found[i] for i in half], top1[half])
    ranked = rank_scores(scores)
    values: dict[str, Any] = {
        "distinguishing ability D": [s.distinguishing for s in found],
        "number of units N": [s.n_units for s in found],
        "D / B + ln N (NASWOT)": naswot(found),
        "rank(D) + rank(N)": [ranked[arch] for arch in scores],
        f"D / B + {share:g} ln N (fitted on half)": naswot(found, share),
    }
    return {name: tau(setting, np.array(value, dtype=float)) for name, value in values.items()}


def fitted_share(scores: Sequence[ActivationScore], accuracy: np.ndarray) -> float:
    """The share of SHARES that ranks (n,) measured networks of one resolution best (Kendall's
    tau); of equals the one nearest to 1.
    """
    taus = {share: kendall_tau(naswot(scores, share), accuracy) for share in SHARES}
    return min(SHARES, key=lambda share: (-taus[share], abs(np.log(max(share, 0.1)))))


def ridge(setting: Setting) -> float:
    """Mean tau on the other half of ten random halves."""
    archs, top1 = list(setting.top1), np.array(list(setting.top1.values()))
    found = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(archs))
        half, rest = order[: len(order) // 2], order[len(order) // 2 :]
        fit = fit_predictor(setting.space, [(archs[i], top1[i]) for i in half], 0, "")
        px = np.array([archs[i].resolution for i in rest])
        predicted = fit.predict(setting.space.genome([archs[i] for i in rest]))
        found.append(tau_within(px, -predicted, top1[rest]))
    return float(np.mean(found))


def tau(setting: Setting, values: np.ndarray) -> float:
    px = np.array([arch.resolution for arch in setting.top1])
    return tau_within(px, values, np.array(list(setting.top1.values())))


def tau_within(px: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau of two (n,) arrays within each resolution, weighted by its pairs."""
    taus, weights = [], []
    for group in np.unique(px):
        rows = px == group
        n = int(rows.sum())
        taus.append(kendall_tau(x[rows], y[rows]))
        weights.append(n * (n - 1))
    return float(np.average(taus, weights=weights)) if sum(weights) else 0.0


if __name__ == "__main__":
    main()
