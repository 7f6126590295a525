"""How good is the measured front after so many evaluations? Every algorithm, same problem.

An evaluation is a real one: a subnet cut out of a supernet, its BatchNorm calibrated, its accuracy
measured on images that training did not see. Objectives: measured error against MACs, hypervolume
under the reference point of front.json. On `tiny` every network was evaluated once and the results
are in benchmarks/data/tiny-results.npz (made by benchmarks/data/make_tiny_results.py), so the true
front is known and 100 %. There MCD must reach ten budgets (12 % to 90 % of the max network's MACs)
in one run, policy gradient one budget a run.

    python benchmarks/sample_efficiency.py                  10 seeds, minutes
    python benchmarks/sample_efficiency.py --quick          one seed, shorter, seconds
    python benchmarks/sample_efficiency.py --plot FILE.svg  with the figure
    python benchmarks/sample_efficiency.py --space mbv3-28 --supernet F --cache FILE --seeds 3

The last needs a supernet that was trained on Fashion-MNIST, by benchmarks/training.py or by
`hwnas train` with `data: {kind: idx, validation: 0.1, augment: flip}`; its evaluations are kept in
--cache, so that it can be stopped and run again. There the share is of the best front of all runs,
and the fronts are measured again on the validation images that no searcher saw.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sampling import contestants, evaluations, held_out, plot
from sampling.contestants import History, loop, searcher
from sampling.held_out import Recorder

from hwnas.networks.space import SearchSpace
from hwnas.pricing import pareto

LOOP, PEER = (
    150,
    500,
)  # most evaluations of the loop, and those of NSGA-II whose volume it must reach
WITHIN = {"tiny": 100}  # evaluations that it may take; of other spaces:
ELSE_WITHIN = 125
AT = (50, 75, 100, 125, 150, 300, 500, 2000)  # evaluations of the table's columns
LEVELS = np.geomspace(0.12, 0.9, 10)  # budgets, shares of the max network's MACs
POLICY_LEVELS = (0.15, 0.3, 0.6)
POINTS = 0.003  # of accuracy that an algorithm may stay behind the best


class Setting(NamedTuple):
    """What is compared: space, accuracies, seeds, and how many evaluations searchers may spend."""

    space: SearchSpace
    top1: evaluations.Top1
    seeds: range
    limit: int
    quick: bool


def main() -> None:
    parser = argparse.ArgumentParser(description="hypervolume against evaluations")
    parser.add_argument("--quick", action="store_true", help="one seed, shorter")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each algorithm")
    parser.add_argument("--plot", type=Path, help="SVG file to draw")
    parser.add_argument("--space", default="tiny", help="tiny, or the space of --supernet")
    parser.add_argument("--supernet", type=Path, help="supernet.safetensors to measure")
    parser.add_argument("--images", type=int, default=2000, help="validation images")
    parser.add_argument("--cache", type=Path, help="accuracies measured so far, JSON Lines")
    arguments = parser.parse_args()
    seeds = range(1 if arguments.quick else arguments.seeds)
    if arguments.supernet is None:
        space, table = evaluations.of_table()
        setting = Setting(space, table.__getitem__, seeds, 2000, arguments.quick)
        histories = play(setting)
        costs = contestants.true_front(space, table)
        whole = pareto.hypervolume(costs, evaluations.corner(evaluations.problem(space, table.get)))
        bars = [sample_bar(space.name, histories), *budget_bars(setting, table)]
    else:
        cache = arguments.cache or arguments.supernet.with_name("sample-efficiency.jsonl")
        space, top1, other = evaluations.of_supernet(
            arguments.space, arguments.supernet, arguments.images, cache
        )
        setting = Setting(space, top1, seeds, PEER, arguments.quick)
        recorders: dict[str, list[Recorder]] = {}
        histories = play(setting, ("refine (dp)", "nsga2"), recorders)
        whole = max(h[-1][1] for runs in histories.values() for h in runs)
        bars = [sample_bar(space.name, histories)]
    show(setting, histories, whole)
    if arguments.supernet:
        after = {"refine (dp)": (ELSE_WITHIN, LOOP), "nsga2": (LOOP, PEER)}
        again = held_out.show(space, recorders, after, other)
    if arguments.plot:
        draw(arguments.plot, space.name, histories, whole)
    spread: dict[str, Any] = {name: extent(runs, LOOP, whole) for name, runs in histories.items()}
    if arguments.supernet:
        spread["on other images"] = again
    print(
        json.dumps(
            {
                "setting": {"space": space.name, "objectives": ["error", "macs"], "at": LOOP},
                "n": len(seeds),
                "spread": spread,
                "bars": bars,
            }
        )
    )


def play(
    setting: Setting,
    only: tuple[str, ...] = (),
    recorders: dict[str, list[Recorder]] | None = None,
) -> dict[str, list[History]]:
    """The histories of every contestant, seed by seed; what each measured goes to `recorders`."""
    limit = PEER if setting.quick else setting.limit
    field = {
        "refine (dp)": loop("dp", 80 if setting.quick else LOOP),
        "refine (nsga2)": loop("nsga2", LOOP),
        "nsga2": searcher("nsga2", limit),
        "nsga2, plain": searcher("nsga2", limit, local_search=False),
        "smsemoa": searcher("smsemoa", limit),
        "mcd": searcher("mcd", limit, population=20, generations=limit // 20),
        "evolution": searcher("evolution", limit),
        "policy-gradient": searcher("policy-gradient", limit),
        "random": searcher("random", limit),
    }
    chosen = {name: run for name, run in field.items() if not only or name in only}
    histories: dict[str, list[History]] = {name: [] for name in chosen}
    for seed, name in itertools.product(setting.seeds, chosen):
        if setting.quick and name == "refine (nsga2)":
            continue
        recorder = Recorder(setting.top1)
        histories[name].append(chosen[name](setting.space, recorder, seed))
        if recorders is not None:
            recorders.setdefault(name, []).append(recorder)
    return {name: runs for name, runs in histories.items() if runs}


def at(history: History, n: int) -> float:
    """Hypervolume after at most n evaluations; NaN before the first record or after the end."""
    before = [volume for count, volume in history if count <= n]
    return before[-1] if before and n <= history[-1][0] * 1.25 else float("nan")


def extent(runs: list[History], n: int, whole: float) -> list[float] | None:
    """Least and most share after n evaluations; None where a run ended long before."""
    shares = [at(history, n) / whole for history in runs]
    return None if np.isnan(shares).any() else [round(min(shares), 5), round(max(shares), 5)]


def sample_bar(space: str, histories: dict[str, list[History]]) -> dict[str, Any]:
    """Evaluations after which the loop's mean hypervolume is that of NSGA-II after PEER; None if
    they do not suffice.
    """
    theirs = statistics.mean(at(history, PEER) for history in histories["nsga2"])
    loops = histories["refine (dp)"]
    ours = {
        n: statistics.mean(at(history, n) for history in loops) / theirs
        for n in sorted({n for history in loops for n, _ in history})
    }
    enough = [n for n, ratio in ours.items() if ratio >= 1]
    limit = WITHIN.get(space, ELSE_WITHIN)
    print(
        f"\nloop over NSGA-II after {PEER}, means: "
        + ", ".join(f"{ratio:.5f} after {n}" for n, ratio in ours.items())
    )
    value = min(enough, default=None)
    name = f"refine_evaluations_to_nsga2_{PEER}"
    holds = value is not None and value <= limit
    return {"name": name, "value": value, "limit": f"<= {limit}", "holds": holds}


def budget_bars(setting: Setting, table: dict[Any, float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How far MCD and policy gradient stay behind the best network of each budget, in points."""
    space, top1 = setting.space, setting.top1
    largest = contestants.largest_macs(space, top1)
    front = contestants.true_front(space, table)
    best = contestants.within(front, LEVELS * largest)
    behind, policy = [], []
    for seed in setting.seeds:
        walk = {"algorithm": "mcd", "seed": seed, **contestants.ONE_WALK}
        behind.append((contestants.least_errors(space, top1, LEVELS, walk) - best).max())
        for level in POLICY_LEVELS[: 1 if setting.quick else None]:
            one = {"algorithm": "policy-gradient", "seed": seed, **contestants.POLICY}
            found = contestants.least_error_for(space, top1, level, one)
            policy.append(found - contestants.within(front, np.array([level * largest]))[0])
    rows = (("mcd, worst of ten budgets, 300", behind), ("policy gradient, 2,000", policy))
    for name, gaps in rows:
        gaps = np.array(gaps) * 100
        print(
            f"{name} evaluations: behind the best by {gaps.mean():.2f} points "
            f"({gaps.min():.2f} to {gaps.max():.2f})"
        )
    return (
        bar("mcd_300_worst_budget_points", 100 * float(np.mean(behind)), "<=", 100 * POINTS),
        bar("policy_gradient_2000_points", 100 * float(np.mean(policy)), "<=", 100 * POINTS),
    )


def bar(name: str, value: float, sense: str, limit: float) -> dict[str, Any]:
    holds = value >= limit if sense == ">=" else value <= limit
    return {
        "name": name,
        "value": round(value, 5),
        "limit": f"{sense} {limit:g}",
        "holds": bool(holds),
    }


def show(setting: Setting, histories: dict[str, list[History]], whole: float) -> None:
    """Hypervolume share after so many evaluations: median (least to most)."""
    seeds = len(setting.seeds)
    print(f"\n{setting.space.name}, measured error against MACs, {seeds} seeds")
    print("hypervolume share after so many evaluations, median (least to most)\n")
    print(f"{'':<17}" + "".join(f"{n:>25,}" for n in AT))
    for name, runs in histories.items():
        cells = []
        for n in AT:
            shares = [at(history, n) / whole for history in runs]
            known = not np.isnan(shares).any()
            text = f"{statistics.median(shares):.4f} ({min(shares):.4f}-{max(shares):.4f})"
            cells.append(f"{text if known else '':>25}")
        print(f"{name:<17}" + "".join(cells))
    print("\nmissing to the best hypervolume, median\n")
    for name in histories:
        print(f"{name:<17}" + "".join(f"{_missing(histories[name], n, whole):>25}" for n in AT))


def _missing(runs: list[History], n: int, whole: float) -> str:
    """What is missing after n evaluations, empty where a run ended before. Shares flatter: the
    volume is taken from the error of guessing on, so that random networks have most of it.
    """
    missing = [1 - at(history, n) / whole for history in runs]
    return "" if np.isnan(missing).any() else f"{statistics.median(missing):.3%}"


def draw(path: Path, space: str, histories: dict[str, list[History]], whole: float) -> None:
    lines = []
    for name, runs in histories.items():
        xs = [n for n in range(50, PEER + 1, 25) if all(not np.isnan(at(h, n)) for h in runs)]
        shares = np.array([[at(h, n) / whole for n in xs] for h in runs])
        low, middle, high = (np.quantile(shares, q, axis=0).tolist() for q in (0, 0.5, 1))
        lines.append(plot.Line(name, [float(x) for x in xs], middle, low, high))
    axes = ("evaluations", "missing to the best hypervolume, median and range")
    plot.write(path, f"{space}: measured front against evaluations", axes, lines)


if __name__ == "__main__":
    main()
