"""The questions of benchmarks/search.py, one function each: what is printed, spread and bars."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from search_cases import enumerate_space, random_space, random_terms

from hwnas.networks import spaces
from hwnas.networks.space import SearchSpace
from hwnas.pricing import pareto
from hwnas.search import searchers
from hwnas.search.archive import Generation
from hwnas.search.problem import Problem, metrics_of
from hwnas.settings.config import SearchConfig
from searching.peers import front_volume, one_by_one, pymoo_nsga2
from searching.problems import THREE, TWO, additive_problem, mlp_problem, volume
from searching.rounds import bar, play, spread_text
from searching.rows import fitted_problem

N_PRICED = 100_000
PLAIN = {"local_search": False, "start_from_dp": False}
CHECKPOINTS = (2_000, 10_000, 100_000)  # evaluations at which plain searches are compared
EQUAL_BUDGET = {"population": 50, "generations": 40}
EQUAL_SIZES = ((50, 40), (100, 50))  # population, generations of SMS-EMOA against NSGA-II
FLOORS = {"nsga2": 0.98, "smsemoa": 0.98, "mcd": 0.95}  # of hypervolume, at that budget


class Part(NamedTuple):
    """What one question gives: rounds, spread by name, bars."""

    n: int
    spread: dict[str, Any]
    bars: list[dict[str, Any]]


def timed(work: Callable[[], Any]) -> float:
    """CPU time in s."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ours(case: Problem, seed: int, **settings: Any) -> tuple[float, Generation]:
    """CPU time in s and last generation of our NSGA-II."""
    config = SearchConfig.model_validate({**settings, "seed": seed})
    start = time.process_time()
    last = searchers.search(case, config)
    return time.process_time() - start, last


# ---- speed --------------------------------------------------------------------------------------


def speed(quick: bool) -> Part:
    """Additive model, two objectives: pricing, the whole NSGA-II loop, the exact front."""
    case = additive_problem(spaces.load("ofa-mbv3-w10"))
    rounds, (small, large) = (1, (40, 10)) if quick else (10, (100, 50))
    genome = case.space.sample(N_PRICED, np.random.default_rng(0)).astype(np.uint8)
    dp, one = SearchConfig(algorithm="dp"), _at_resolutions(case, 1)
    five = _at_resolutions(case, 5)
    resnet = fitted_problem(spaces.load("ofa-resnet50d").restricted([224]))
    widths = resnet.space.sample(N_PRICED, np.random.default_rng(0)).astype(np.uint8)
    contestants: dict[str, Callable[[int], float]] = {
        "price 100,000": lambda seed: timed(lambda: case.evaluate(genome)),
        "dp, one resolution": lambda seed: timed(lambda: searchers.search(one, dp)),
        "dp, five resolutions": lambda seed: timed(lambda: searchers.search(five, dp)),
        "price 100,000, ofa-resnet50d": lambda seed: timed(lambda: resnet.evaluate(widths)),
        "dp, ofa-resnet50d at 224 px": lambda seed: timed(lambda: searchers.search(resnet, dp)),
        "nsga2, population 1,000": lambda seed: ours(
            case, seed, population=1000, generations=large, **PLAIN
        )[0],
        "nsga2, population 100": lambda seed: ours(
            case, seed, population=100, generations=small, **PLAIN
        )[0],
        "pymoo, population 100": lambda seed: pymoo_nsga2(case, 100, small, seed)[0],
        "pymoo, population 1,000": lambda seed: pymoo_nsga2(case, 1000, large, seed)[0],
    }
    found = play(contestants, rounds)
    print(f"\n## speed: additive model, ofa-mbv3-w10, {rounds} rounds, median (least to most)\n")
    for name, seconds in found.items():
        print(f"{name:<30}{spread_text(seconds, '{:.4f}'):>30} s")
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    ratios = [
        p / o
        for p, o in zip(found["pymoo, population 100"], found["nsga2, population 100"], strict=True)
    ]
    rate = 1000 * large / median["nsga2, population 1,000"]
    return Part(
        rounds,
        {name: [min(seconds), max(seconds)] for name, seconds in found.items()},
        [
            bar("priced_100000_s", median["price 100,000"], "<=", 0.2),
            bar("priced_100000_resnet50d_s", median["price 100,000, ofa-resnet50d"], "<=", 0.1),
            bar("nsga2_1000_archs_per_s", rate, ">=", 200_000),
            bar("dp_one_resolution_s", median["dp, one resolution"], "<=", 0.02),
            bar("dp_five_resolutions_s", median["dp, five resolutions"], "<=", 0.1),
            bar("nsga2_100_speedup_over_pymoo", statistics.median(ratios), ">=", 4.0),
        ],
    )


def _at_resolutions(case: Problem, n: int) -> Problem:
    space = case.space.restricted(case.space.resolutions[-n:])
    return additive_problem(space)


# ---- predictor ----------------------------------------------------------------------------------


def mlp(quick: bool) -> Part:
    """Population 100 with a multi-layer predictor: ours, pymoo with our costs, one by one."""
    case = mlp_problem(spaces.load("ofa-mbv3-w10"))
    rounds, generations = (1, 8) if quick else (3, 1000)
    contestants: dict[str, Callable[[int], float]] = {
        "nsga2": lambda seed: ours(case, seed, generations=generations, **PLAIN)[0],
        "pymoo, our costs": lambda seed: pymoo_nsga2(case, 100, generations, seed)[0],
        "pymoo, one by one": lambda seed: one_by_one(case, 100, generations, seed),
    }
    found = play(contestants, rounds, warm=False)
    print(
        f"\n## predictor 142-400-400-400-1, population 100 x {generations}, {rounds} rounds, "
        "median (least to most)\n"
    )
    for name, seconds in found.items():
        print(f"{name:<28}{spread_text(seconds, '{:.3f}'):>30} s")
    ratio = {
        name: statistics.median(
            peer / own for peer, own in zip(found[name], found["nsga2"], strict=True)
        )
        for name in ("pymoo, our costs", "pymoo, one by one")
    }
    return Part(
        rounds,
        {f"mlp {name}": [min(seconds), max(seconds)] for name, seconds in found.items()},
        [
            bar("mlp_speedup_over_one_by_one", ratio["pymoo, one by one"], ">=", 12),
            bar("mlp_speedup_over_pymoo_with_our_costs", ratio["pymoo, our costs"], ">=", 3.5),
        ],
    )


# ---- quality ------------------------------------------------------------------------------------


def quality(quick: bool) -> Part:
    """Hypervolume at equal evaluations, and of the default search in a quarter of pymoo's time."""
    space = spaces.load("ofa-mbv3-w10")
    cases = {"additive": additive_problem(space), "predictor": mlp_problem(space)}
    seeds, checkpoints = (1, CHECKPOINTS[:1]) if quick else (20, CHECKPOINTS)
    spread: dict[str, Any] = {}
    bars = []
    for name, case in cases.items():
        found = play({"round": functools.partial(_round, case, checkpoints)}, seeds, warm=False)
        rounds = found["round"]
        best = _best_known(case, rounds, checkpoints)
        _show_quality(name, rounds, checkpoints, best)
        for at in checkpoints:
            own, peer = ([r[who][at] for r in rounds] for who in ("plain", "pymoo"))
            bars.append(bar(f"{name}_{at}_over_pymoo", _mean_ratio(own, peer), ">=", 1.0))
            spread[f"{name}_{at}"] = {"nsga2": own, "pymoo": peer}
            spread[f"{name}_{at}_missing"] = {
                "nsga2": _missing(own, best),
                "pymoo": _missing(peer, best),
            }
        worst = min(r["default"] / r["pymoo"][checkpoints[-1]] for r in rounds)
        slowest = max(r["default_s"] / r["pymoo_s"] for r in rounds)
        bars.append(bar(f"{name}_default_over_pymoo_worst_seed", worst, ">=", 1.0))
        bars.append(bar(f"{name}_default_share_of_pymoo_time", slowest, "<=", 0.25))
        spread[f"{name}_default"] = [r["default"] for r in rounds]
        spread[f"{name}_default_missing"] = _missing(spread[f"{name}_default"], best)
    return Part(seeds, spread, bars)


def _round(case: Problem, checkpoints: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Hypervolumes of one seed: ours plain and pymoo at each checkpoint, ours by default."""
    generations = checkpoints[-1] // 100
    seconds, costs = pymoo_nsga2(case, 100, generations, seed)
    config = SearchConfig.model_validate({"generations": generations, "seed": seed, **PLAIN})
    plain: dict[int, float] = {}
    for state in searchers.generations(case, config):
        for at in checkpoints:
            if at not in plain and state.evaluations >= at:
                plain[at] = volume(case, state.front.costs)
    few = max(generations * 12 // 20, 20)  # of the default search, to stay within a quarter of time
    default_s, default = ours(case, seed, generations=few)
    return {
        "pymoo": {at: front_volume(case, costs[:at]) for at in checkpoints},
        "pymoo_s": seconds,
        "plain": plain,
        "default": volume(case, default.front.costs),
        "default_s": default_s,
        "default_evaluations": default.evaluations,
    }


def _best_known(case: Problem, rounds: list[dict[str, Any]], checkpoints: tuple[int, ...]) -> float:
    """Largest hypervolume that anything reached; that of the exact front where there is one."""
    if set(case.objectives) <= set(case.joined):
        return volume(case, searchers.search(case, SearchConfig(algorithm="dp")).front.costs)
    found = [r[who][at] for r in rounds for who in ("plain", "pymoo") for at in checkpoints]
    return max(*found, *(r["default"] for r in rounds))


def _missing(values: list[float], best: float) -> float:
    """Median of what is missing to the best known hypervolume, a share. Ratios flatter: the volume
    is taken from the error of guessing on, so that random search has most of it.
    """
    return statistics.median(1 - value / best for value in values)


def _mean_ratio(own: list[float], peer: list[float]) -> float:
    return statistics.mean(own) / statistics.mean(peer)


def _show_quality(
    name: str, rounds: list[dict[str, Any]], checkpoints: tuple[int, ...], best: float
) -> None:
    print(
        f"\n## quality: {name} problem, {len(rounds)} seeds, hypervolume, median (range), "
        "and what is missing to the best known\n"
    )
    for at in checkpoints:
        for who in ("plain", "pymoo"):
            values = [r[who][at] for r in rounds]
            print(
                f"{at:>9,} evaluations, {who:<8}{spread_text(values, '{:.5f}'):>34}"
                f"{_missing(values, best):>10.3%}"
            )
    evaluations = statistics.median(r["default_evaluations"] for r in rounds)
    values = [r["default"] for r in rounds]
    share = [r["default_s"] / r["pymoo_s"] for r in rounds]
    print(
        f"{evaluations:>9,.0f} evaluations, default {spread_text(values, '{:.5f}'):>34}"
        f"{_missing(values, best):>10.3%}"
    )
    print(f"          time of the default, share of pymoo's {spread_text(share, '{:.3f}')}")


# ---- exactness ----------------------------------------------------------------------------------


def exact(quick: bool) -> Part:
    """The exact front against enumeration: random spaces of every family, terms of any sign, one
    and two costs, without and with a budget of peak memory.
    """
    number = 4 if quick else 300
    equal, sizes = 0, []
    for seed in range(number):
        space = random_space(np.random.default_rng(seed))
        genome = enumerate_space(space)
        sizes.append(len(genome))
        equal += all(_equal_to_enumeration(space, genome, seed, costs) for costs in (1, 2))
    print(
        f"\n## exact front against enumeration: {equal} of {number} random spaces equal, "
        f"{min(sizes):,} to {max(sizes):,} networks each, one and two costs, peak budgets"
    )
    return Part(
        number,
        {"networks": [min(sizes), max(sizes)]},
        [bar("exact_share_equal", equal / number, ">=", 1.0)],
    )


def _equal_to_enumeration(space: SearchSpace, genome: np.ndarray, seed: int, costs: int) -> bool:
    rng = np.random.default_rng([seed, costs])
    names = ("error", "latency_ms", "macs")[: costs + 1]
    metrics = {**metrics_of(space), **{name: random_terms(space, rng) for name in names}}
    peak = metrics["peak_activation_bytes"].evaluate(genome)
    for budgets in ({}, {"peak_activation_bytes": float(np.quantile(peak, rng.random()))}):
        case = Problem(space, names, metrics, budgets)
        every = case.evaluate(genome)[case.violation(genome) == 0]
        true = np.unique(every[pareto.non_dominated(every)], axis=0)
        found = searchers.search(case, SearchConfig(algorithm="dp")).front.costs
        if not np.array_equal(np.unique(found, axis=0), true):
            return False
    return True


# ---- every searcher -----------------------------------------------------------------------------


def every_searcher(quick: bool) -> Part:
    """Every searcher with the same limit of evaluations, none started from the exact front."""
    rounds = 1 if quick else 10
    case = additive_problem(spaces.load("ofa-mbv3-w10"))
    top = volume(case, searchers.search(case, SearchConfig(algorithm="dp")).front.costs)
    settings = {**EQUAL_BUDGET, "start_from_dp": False}

    def one(name: str, seed: int) -> tuple[float, float, int]:
        seconds, last = ours(case, seed, algorithm=name, **settings)
        return seconds, volume(case, last.front.costs) / top, last.evaluations

    found = play({n: functools.partial(one, n) for n in searchers.names()}, rounds)
    print(f"\n## every searcher, {rounds} rounds, median (least to most)\n")
    print(
        f"{'searcher':<17}{'evaluations':>12}{'seconds':>28}{'share of exact':>26}{'missing':>10}"
    )
    for name, given in found.items():
        seconds, shares, evaluations = (list(column) for column in zip(*given, strict=True))
        print(
            f"{name:<17}{statistics.median(evaluations):>12,.0f}"
            f"{spread_text(seconds, '{:.3f}'):>28}{spread_text(shares, '{:.4f}'):>26}"
            f"{1 - statistics.median(shares):>10.2%}"
        )
    medians = {name: statistics.median(share for _, share, _ in found[name]) for name in FLOORS}
    return Part(
        rounds,
        {name: [share for _, share, _ in given] for name, given in found.items()},
        [
            bar(f"{name}_share_of_exact", medians[name], ">=", floor)
            for name, floor in FLOORS.items()
        ],
    )


def smsemoa(quick: bool) -> Part:
    """SMS-EMOA against NSGA-II at equal evaluations, two and three objectives: CPU time and
    hypervolume.
    """
    rounds = 1 if quick else 20
    space = spaces.load("ofa-mbv3-w10")
    print(f"\n## SMS-EMOA by NSGA-II's time and hypervolume, {rounds} rounds, median (range)\n")
    spread, bars = {}, []
    for objectives in (TWO, THREE):
        case = additive_problem(space, objectives)
        for population, generations in EQUAL_SIZES:
            setting = f"{len(objectives)}_objectives_population_{population}"
            settings = {"population": population, "generations": generations}
            found = play(
                {
                    name: functools.partial(_time_and_volume, case, name, settings)
                    for name in ("nsga2", "smsemoa")
                },
                rounds,
            )
            (base_s, base), (own_s, own) = (
                zip(*found[name], strict=True) for name in ("nsga2", "smsemoa")
            )
            times = [a / b for a, b in zip(own_s, base_s, strict=True)]
            more = statistics.median(own) / statistics.median(base) - 1
            print(
                f"{setting:<28}{statistics.median(base_s):.4f} {statistics.median(own_s):.4f} s, "
                f"times {spread_text(times, '{:.2f}')}, hypervolume {more:+.2%}"
            )
            spread[setting] = {"times": times, "nsga2": base, "smsemoa": own}
            bars.append(bar(f"smsemoa_times_nsga2_{setting}", statistics.median(times), "<=", 3))
            if objectives == THREE and not quick:
                bars.append(bar(f"smsemoa_hypervolume_gain_{setting}", more, ">=", 0))
    return Part(rounds, spread, bars)


def _time_and_volume(
    case: Problem, name: str, settings: dict[str, int], seed: int
) -> tuple[float, float]:
    """CPU time in s and hypervolume of a search that does not start from the exact front."""
    seconds, last = ours(case, seed, algorithm=name, start_from_dp=False, **settings)
    return seconds, volume(case, last.front.costs)
