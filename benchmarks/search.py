"""Search speed and quality on the once-for-all MobileNetV3 space (46 choices), against pymoo.

Questions: how many architectures a second does the search go through when two objectives are table
sums, how near does it come to the exact front, and how long does the exact front take? Both
searchers are given the same vectorised costs, so the difference is the search itself. Latency is
modelled (MACs times a seeded factor for each op), error is a seeded sum of choices through a
monotone link: shapes and sizes are those of a real search, values are not measured anywhere.

    python benchmarks/search.py             10 rounds, about a minute
    python benchmarks/search.py --quick     3 short rounds, seconds
    python benchmarks/search.py --searchers every searcher instead, 2,000 evaluations, seconds

One process, one thread. Every round runs every contestant once, in random order, with a new seed;
the table shows the median over rounds and the range. Hypervolume is a share of the exact front's,
reference point: error of guessing, 1.1 x latency of the max network.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from hwnas import searchers, spaces
from hwnas.config import SearchConfig
from hwnas.search import front, pareto
from hwnas.search.cost import AdditiveTerms, MonotoneLink
from hwnas.search.layout import layout
from hwnas.search.problem import Problem, make_problem, metrics_of
from hwnas.space import SearchSpace
from profilers import counts
from profilers.schema import OpSpec

Outcome = tuple[float, float]  # duration in s, hypervolume as a share of the exact front's
N_PRICED = 100_000
ERROR_RANGE = (0.2, 0.5)  # of the modelled error: max network, no block at all
EQUAL_BUDGET = {"population": 50, "generations": 40}
FLOORS = {"nsga2": 0.98, "smsemoa": 0.98, "mcd": 0.95}  # of hypervolume, at that budget
LIMITS = {
    "priced_100000_s": ("<=", 0.2),
    "nsga2_1000_archs_per_s": (">=", 200_000),
    "nsga2_100_speedup_over_pymoo": (">=", 5.0),
    "nsga2_1000_speedup_over_pymoo": (">=", 5.0),
    "nsga2_100_hypervolume_over_pymoo": (">=", 1.0),
    "nsga2_1000_hypervolume": (">=", 0.99),
    "dp_s": ("<=", 0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="search speed and quality against pymoo")
    parser.add_argument("--quick", action="store_true", help="3 short rounds")
    parser.add_argument("--searchers", action="store_true", help="compare every searcher instead")
    parser.add_argument("--space", default="ofa-mbv3-w10", help="search space")
    arguments = parser.parse_args()
    if arguments.searchers:
        return compare_searchers(arguments.space, 3 if arguments.quick else 10)
    rounds, generations = (3, (40, 10)) if arguments.quick else (10, (100, 50))
    case = modelled_problem(spaces.load(arguments.space))
    exact = searchers.search(case, SearchConfig(algorithm="dp"))
    genome = case.space.sample(N_PRICED, np.random.default_rng(0)).astype(np.uint8)
    contestants: dict[str, Callable[[int], Outcome]] = {
        "priced_100000": lambda seed: timed(lambda: case.evaluate(genome)),
        "dp": lambda seed: timed(lambda: searchers.search(case, SearchConfig(algorithm="dp"))),
    }
    for population, number in zip((100, 1000), generations, strict=True):
        budget = SearchConfig(population=population, generations=number, start_from_dp=False)
        contestants[f"nsga2_{population}"] = lambda seed, b=budget: ours(case, b, seed)
        contestants[f"pymoo_{population}"] = lambda seed, b=budget: pymoo_nsga2(case, b, seed)
    outcomes = play(contestants, rounds)
    scale = share_of(case, exact.front.costs)
    sizes = {
        f"{who}_{p}": p * g
        for who in ("nsga2", "pymoo")
        for p, g in zip((100, 1000), generations, strict=True)
    }
    show(arguments.space, outcomes, sizes, scale, len(exact.front))


def compare_searchers(space: str, rounds: int) -> None:
    """Every searcher with the same limit of evaluations, none started from the exact front."""
    case = modelled_problem(spaces.load(space))
    exact = share_of(case, searchers.search(case, SearchConfig(algorithm="dp")).front.costs)
    evaluations: dict[str, list[int]] = {name: [] for name in searchers.names()}

    def one(name: str, seed: int) -> Outcome:
        config = SearchConfig.model_validate(
            {"algorithm": name, **EQUAL_BUDGET, "seed": seed, "start_from_dp": False}
        )
        start = time.perf_counter()
        last = searchers.search(case, config)
        duration = time.perf_counter() - start
        evaluations[name].append(last.evaluations)
        return duration, share_of(case, last.front.costs) / exact

    outcomes = play({n: functools.partial(one, n) for n in searchers.names()}, rounds)
    print(f"{space}, error against modelled latency, {rounds} rounds, median (least to most)\n")
    print(f"{'searcher':<17}{'evaluations':>12}{'seconds':>28}{'hypervolume':>26}")
    for name, given in outcomes.items():
        seconds = spread_text([duration for duration, _ in given], "{:.3f}")
        volume = spread_text([share for _, share in given], "{:.4f}")
        number = statistics.median(evaluations[name][1:])
        print(f"{name:<17}{number:>12,.0f}{seconds:>28}{volume:>26}")
    values = {name: statistics.median(share for _, share in outcomes[name]) for name in FLOORS}
    bars = [
        {
            "name": n,
            "value": round(values[n], 5),
            "limit": f">= {floor:g}",
            "holds": holds(values[n], ">=", floor),
        }
        for n, floor in FLOORS.items()
    ]
    print(json.dumps({"setting": {"space": space, **EQUAL_BUDGET}, "n": rounds, "bars": bars}))


# ---- the problem -------------------------------------------------------------------------------


def modelled_problem(space: SearchSpace) -> Problem:
    """Error against latency, both modelled from fixed seeds."""

    def price(spec: OpSpec) -> float:
        factor = np.random.default_rng(list(spec.key.encode())).uniform(0.7, 1.5)
        return float(0.01 + 2e-8 * factor * counts.macs(spec))

    metrics = metrics_of(space, price, lambda px: 1e-3 * px, modelled_error(space))
    return make_problem(space, SearchConfig(), metrics)


def modelled_error(space: SearchSpace) -> AdditiveTerms:
    """An error that falls with every option, each time by less."""
    rng = np.random.default_rng(0)
    n_blocks, n_resolutions, _, n_kernels, n_expands = layout(space).shape
    kernel = 0.3 * np.sort(rng.exponential(size=(n_blocks, n_kernels, 1)), axis=1)
    expand = np.sort(rng.exponential(size=(n_blocks, 1, n_expands)), axis=2)
    gain = rng.exponential(size=(n_blocks, 1, 1)) + kernel + expand
    block = np.broadcast_to(-gain, (n_resolutions, *gain.shape))
    terms = AdditiveTerms(space, -3 * np.sort(rng.exponential(size=n_resolutions)), block)
    low = float(terms.evaluate(space.genome([space.largest]))[0])
    knots, (best, worst) = np.linspace(low, 0, 33), ERROR_RANGE
    value = best + (worst - best) * np.expm1(3 * (1 - knots / low)) / np.expm1(3)
    return AdditiveTerms(space, terms.fixed, block, link=MonotoneLink(knots, value))


def share_of(case: Problem, costs: np.ndarray) -> float:
    """Hypervolume of costs under the reference point of front.json."""
    largest = case.predict(case.space.genome([case.space.largest]))
    corner = {name: float(values[0]) for name, values in largest.items()}
    reference = front.reference_point(case.objectives, corner, case.space.n_classes)
    return pareto.hypervolume(costs, reference)


# ---- contestants -------------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> Outcome:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, float("nan")


def ours(case: Problem, budget: SearchConfig, seed: int) -> Outcome:
    """NSGA-II of this project."""
    start = time.perf_counter()
    last = searchers.search(case, budget.model_copy(update={"seed": seed}))
    duration = time.perf_counter() - start
    if last.evaluations != budget.population * budget.generations:
        raise AssertionError(f"{last.evaluations} evaluations are not what was asked for")
    return duration, share_of(case, last.front.costs)


def pymoo_nsga2(case: Problem, budget: SearchConfig, seed: int) -> Outcome:
    """NSGA2 of pymoo with its documented operators for integers and our vectorised costs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize

    class Vectorised(PymooProblem):
        def __init__(self) -> None:
            top = case.space.n_options - 1
            super().__init__(n_var=len(top), n_obj=2, xl=np.zeros(len(top)), xu=top, vtype=int)
            self.seen: list[np.ndarray] = []

        def _evaluate(self, genome: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = case.evaluate(genome)
            self.seen.append(out["F"])

    algorithm = NSGA2(
        pop_size=budget.population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    problem = Vectorised()
    start = time.perf_counter()
    minimize(problem, algorithm, ("n_gen", budget.generations), seed=seed, verbose=False)
    duration = time.perf_counter() - start
    costs = np.concatenate(problem.seen)  # its archive too: everything that it evaluated
    return duration, share_of(case, costs[pareto.non_dominated(costs)])


def play(contestants: dict[str, Callable[[int], Outcome]], rounds: int) -> dict[str, list[Outcome]]:
    """Outcomes of every contestant, one a round, after a round that only warms up."""
    order, names = np.random.default_rng(0), list(contestants)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in order.permutation(names).tolist():
            outcome = contestants[name](number)
            if number:
                outcomes[name].append(outcome)
    return outcomes


# ---- result ------------------------------------------------------------------------------------


def show(
    space: str,
    outcomes: dict[str, list[Outcome]],
    sizes: dict[str, int],
    exact: float,
    front_size: int,
) -> None:
    """A table for people, then one JSON document on the last line."""
    durations = {name: [duration for duration, _ in given] for name, given in outcomes.items()}
    shares = {name: [volume / exact for _, volume in given] for name, given in outcomes.items()}
    n = len(durations["dp"])
    print(f"{space}, error against modelled latency, {n} rounds, median (least to most)\n")
    print(f"{'contestant':<15}{'evaluations':>12}{'seconds':>28}{'archs/s':>12}{'hypervolume':>26}")
    for name, given in durations.items():
        size = sizes.get(name, N_PRICED if name == "priced_100000" else 0)
        rate = f"{size / statistics.median(given):,.0f}" if size else ""
        volume = "" if np.isnan(shares[name]).any() else spread_text(shares[name], "{:.4f}")
        seconds = spread_text(given, "{:.4f}")
        print(f"{name:<15}{size or '':>12}{seconds:>28}{rate:>12}{volume:>26}")
    print(f"\nexact front: {front_size} networks (hypervolume 1 by definition)")
    values = measured_bars(durations, shares, sizes)
    bars = [
        {"name": name, "value": values[name], "limit": limit, "holds": holds(values[name], *rule)}
        for name, rule in LIMITS.items()
        for limit in [f"{rule[0]} {rule[1]:g}"]
    ]
    setting = {"space": space, "evaluations": sizes, "front": front_size, "threads": 1}
    spread = {name: [min(given), max(given)] for name, given in durations.items()}
    print(json.dumps({"setting": setting, "n": n, "spread": {"seconds": spread}, "bars": bars}))


def spread_text(values: list[float], form: str) -> str:
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})"


def measured_bars(
    durations: dict[str, list[float]], shares: dict[str, list[float]], sizes: dict[str, int]
) -> dict[str, float]:
    """Value of each bar; ratios are medians over rounds, in which both ran."""
    median = statistics.median
    values = {
        "priced_100000_s": median(durations["priced_100000"]),
        "nsga2_1000_archs_per_s": sizes["nsga2_1000"] / median(durations["nsga2_1000"]),
        "nsga2_1000_hypervolume": median(shares["nsga2_1000"]),
        "nsga2_100_hypervolume_over_pymoo": median(shares["nsga2_100"])
        / median(shares["pymoo_100"]),
        "dp_s": median(durations["dp"]),
    }
    for population in (100, 1000):
        pairs = zip(durations[f"pymoo_{population}"], durations[f"nsga2_{population}"], strict=True)
        values[f"nsga2_{population}_speedup_over_pymoo"] = median(p / o for p, o in pairs)
    return {name: round(values[name], 5) for name in LIMITS}


def holds(value: float, sign: str, limit: float) -> bool:
    return value <= limit if sign == "<=" else value >= limit


if __name__ == "__main__":
    main()
