"""Which defaults of search, refine and accuracy predictor are best? Hypervolume, many seeds each.

    python benchmarks/defaults.py                  every part, 20 seeds, about 15 minutes
    python benchmarks/defaults.py search           one of them
    python benchmarks/defaults.py --quick          two seeds, short, seconds

Parts:

    search      population against generations at equal evaluations, with and without the start from
                the exact front, on four modelled problems: error that is a sum; error of a
                multi-layer predictor; elastic widths (`ofa-resnet50d`); three objectives
    refine      networks measured before the first fit, and between two fits, on `tiny`, whose every
                network was measured once: hypervolume of the measured front, share of the true one
    predictor   kinds of accuracy predictor and `auto` by the margin that it asks for, on `tiny`:
                error on all networks that it was not fitted to, and the true hypervolume of the
                front that a search on it finds

Every variant of a question has the same seeds; a difference is that to the default, seed by seed,
with its 95 % t-interval. Search problems are judged by what is missing to the best hypervolume that
any variant found with any seed. The default variant comes first and is marked with *.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy and torch are loaded

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np  # noqa: E402
from sampling import contestants, evaluations  # noqa: E402
from scipy import stats  # noqa: E402
from searching.problems import (  # noqa: E402
    additive_problem,
    intercept,
    mlp_problem,
    modelled_mlp,
    price,
    volume,
)
from searching.rows import fitted_problem  # noqa: E402

from hwnas.networks import spaces  # noqa: E402
from hwnas.predictors import choice  # noqa: E402
from hwnas.pricing import pareto  # noqa: E402
from hwnas.search import searchers  # noqa: E402
from hwnas.search.problem import Problem, make_problem, metrics_of  # noqa: E402
from hwnas.search.refine import Goal, Loop, hypervolumes, refine  # noqa: E402
from hwnas.settings.config import RefineConfig, SearchConfig  # noqa: E402
from hwnas.supernet.evaluation import to_measure  # noqa: E402

EVALUATIONS = (10_000, 30_000)
POPULATIONS = (100, 25, 50, 200, 400)  # the default first
FIRST, BATCHES = (50, 20, 100, 150), (25, 5, 10, 50)
MEASURED = 200  # networks that refine measures in all
SUBNETS = (50, 150)  # networks that a predictor is fitted to
MARGINS = (0.95, 1.0, 0.9, 0.8)  # share of the ridge's error that `auto` asks for

Values = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="which defaults are best")
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: every part")
    parser.add_argument("--quick", action="store_true", help="two seeds, short")
    arguments = parser.parse_args()
    seeds = range(2 if arguments.quick else 20)
    names = [arguments.part] if arguments.part else list(PARTS)
    spread = {name: PARTS[name](seeds, arguments.quick) for name in names}
    setting = {"parts": names, "measured": MEASURED, "quick": arguments.quick}
    print(json.dumps({"setting": setting, "n": len(seeds), "spread": spread, "bars": []}))


# ---- search -------------------------------------------------------------------------------------


def problems() -> dict[str, Problem]:
    """The four problems, by name."""
    mobile = spaces.load("ofa-mbv3-w10")
    elastic = spaces.load("ofa-resnet50d").restricted([160, 192, 224])
    metrics = metrics_of(mobile, price, intercept, modelled_mlp(mobile))
    names = ("error", "latency_ms", "weight_bytes")
    return {
        "additive error": additive_problem(mobile),
        "multi-layer predictor": mlp_problem(mobile),
        "elastic widths": fitted_problem(elastic),
        "three objectives": make_problem(mobile, SearchConfig(objectives=names), metrics),
    }


def search(seeds: range, quick: bool) -> dict[str, Any]:
    """Missing share of hypervolume and CPU seconds of every variant on every problem."""
    spread: dict[str, Any] = {}
    for name, case in problems().items():
        for n in (1_000,) if quick else EVALUATIONS:
            found: dict[str, list[tuple[float, float]]] = {}
            for seed in seeds:  # variants take turns
                for variant, settings in _searches(n).items():
                    found.setdefault(variant, []).append(_searched(case, settings, seed))
            best = max(volume for pairs in found.values() for volume, _ in pairs)
            missing = {v: [100 * (1 - p[0] / best) for p in pairs] for v, pairs in found.items()}
            title = f"{name}, {n:,} evaluations: % of the best hypervolume that is missing"
            seconds = {v: statistics.mean(p[1] for p in pairs) for v, pairs in found.items()}
            show(title, missing, seconds)
            spread[f"{name}, {n}"] = {"missing_pct": missing, "cpu_s": seconds}
    return spread


def _searches(n: int) -> dict[str, dict[str, Any]]:
    shapes = {p: {"population": p, "generations": n // p} for p in POPULATIONS}
    default, *others = (f"population {p}" for p in POPULATIONS)
    return {
        default: shapes[POPULATIONS[0]],
        **{name: shapes[p] for name, p in zip(others, POPULATIONS[1:], strict=True)},
        "not from the exact front": {**shapes[POPULATIONS[0]], "start_from_dp": False},
        "no local search": {**shapes[POPULATIONS[0]], "local_search": False},
    }


def _searched(case: Problem, settings: dict[str, Any], seed: int) -> tuple[float, float]:
    config = SearchConfig.model_validate({**settings, "seed": seed})
    begun = time.process_time()
    last = searchers.search(case, config)
    return volume(case, last.front.costs), time.process_time() - begun


# ---- refine -------------------------------------------------------------------------------------


def refined(seeds: range, quick: bool) -> dict[str, Any]:
    """Share of the true front's hypervolume after half of the measurements and after all."""
    space, table = evaluations.of_table()
    case = evaluations.problem(space, table.get)
    corner = evaluations.corner(case)
    whole = pareto.hypervolume(contestants.true_front(space, table), corner)
    total = 80 if quick else MEASURED
    found: dict[int, Values] = {total // 2: {}, total: {}}
    for first in FIRST:
        for batch in BATCHES:
            for seed in seeds:
                config = RefineConfig(budget=max(total - first, 1), batch=batch, seed=seed)
                loop = Loop(space, (Goal("macs", case.joined["macs"], corner),), config)
                known = {a: table[a] for a in to_measure(space, first, np.random.default_rng(seed))}
                reached = [(len(known), float(hypervolumes(loop, known)[0]))]
                for step in refine(loop, known, lambda archs: [table[a] for a in archs]):
                    reached.append((len(step.measured), float(step.hypervolume[0])))
                for at, values in found.items():
                    if first < at:
                        most = max(volume for n, volume in reached if n <= at)
                        missing = 100 * (1 - most / whole)
                        values.setdefault(f"first {first}, batch {batch}", []).append(missing)
    for at, values in found.items():
        show(f"refine on tiny, {at} networks measured: % of the true hypervolume missing", values)
    return {str(at): values for at, values in found.items()}


# ---- predictor ----------------------------------------------------------------------------------


def predicted(seeds: range, quick: bool) -> dict[str, Any]:
    """Error on networks left out, points, and missing true hypervolume of the front found."""
    space, table = evaluations.of_table()
    case = evaluations.problem(space, table.get)
    corner = evaluations.corner(case)
    whole = pareto.hypervolume(contestants.true_front(space, table), corner)
    archs = list(table)
    genome, true = space.genome(archs), 1 - np.array([table[a] for a in archs])
    macs = case.metrics["macs"].evaluate(genome)
    spread: dict[str, Any] = {}
    for n in SUBNETS[:1] if quick else SUBNETS:
        error: Values = {}
        missing: Values = {}
        for seed in seeds:
            known = to_measure(space, n, np.random.default_rng(seed))
            rows = [(arch, table[arch]) for arch in known]
            kinds = {k: choice.fit(space, rows, seed, "", k) for k in ("ridge", *choice.names())}
            left_out = np.setdiff1d(np.arange(len(archs)), [archs.index(arch) for arch in known])
            results: dict[str, tuple[float, float]] = {}
            for kind, model in kinds.items():
                guess = model.metric(space).evaluate(genome)
                rmse = 100 * float(np.sqrt(np.mean((guess - true)[left_out] ** 2)))
                front = pareto.non_dominated(np.stack([guess, macs], axis=1))
                reached = pareto.hypervolume(np.stack([true, macs], axis=1)[front], corner)
                results[kind] = (rmse, 100 * (1 - reached / whole))
            scored = {kind: model.scores["rmse"] for kind, model in kinds.items()}
            chosen = {f"auto, margin {m:g}": _chosen(scored, m) for m in MARGINS}
            for name, kind in {**{k: k for k in kinds}, **chosen}.items():
                error.setdefault(name, []).append(results[kind][0])
                missing.setdefault(name, []).append(results[kind][1])
        show(f"predictor of tiny from {n} networks: error of the others, points", error)
        show(f"predictor of tiny from {n} networks: % of the true hypervolume missing", missing)
        spread[str(n)] = {"rmse_points": error, "missing_pct": missing}
    return spread


def _chosen(rmse: dict[str, float], margin: float) -> str:
    best = min((kind for kind in rmse if kind != "ridge"), key=rmse.__getitem__)
    return best if rmse[best] <= margin * rmse["ridge"] else "ridge"


# ---- table --------------------------------------------------------------------------------------


def show(title: str, values: Values, seconds: dict[str, float] | None = None) -> None:
    """Mean of each variant, and its difference to the first one with its 95 % interval."""
    print(f"\n## {title}\n")
    base = next(iter(values.values()))
    for number, (name, given) in enumerate(values.items()):
        mark = "*" if number == 0 else " "
        line = f"{mark} {name:<28}{statistics.mean(given):>9.4f}"
        if number:
            mean, half = _difference(given, base)
            line += f"   {mean:+.4f} ± {half:.4f}{'  differs' if abs(mean) > half else ''}"
        if seconds:
            line += f"   {seconds[name]:.2f} s CPU"
        print(line, flush=True)


def _difference(given: list[float], base: list[float]) -> tuple[float, float]:
    """Mean of paired differences and half of its 95 % t-interval."""
    gaps = np.array(given) - np.array(base)
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return float(gaps.mean()), float(half)


PARTS: dict[str, Callable[[range, bool], dict[str, Any]]] = {
    "search": search,
    "refine": refined,
    "predictor": predicted,
}

if __name__ == "__main__":
    main()
