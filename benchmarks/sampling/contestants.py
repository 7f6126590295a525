"""What is compared: the measure-refit loop and every searcher that evaluates networks one by one.

A contestant gives its history: hypervolume after so many evaluations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing import pareto
from hwnas.search import searchers
from hwnas.search.archive import Archive
from hwnas.search.refine import Goal, Loop, hypervolumes, refine
from hwnas.settings.config import RefineConfig, SearchConfig
from hwnas.supernet.evaluation import to_measure
from sampling.evaluations import Top1, corner, problem

FIRST = 50  # networks measured before the loop's first fit
BATCH = 10  # smaller than by default: a refit costs nothing beside ten evaluations
POPULATION = 50  # of the evolutionary searches
ONE_WALK = {"population": 4, "generations": 75}  # of mcd: 300 evaluations
POLICY = {"population": 80, "generations": 25, "sweep": 1}  # of policy-gradient: 2,000 evaluations

History = list[tuple[int, float]]  # evaluations, hypervolume
Contestant = Callable[[SearchSpace, Top1, int], History]


def loop(inner: str, budget: int, first: int = FIRST) -> Contestant:
    """The measure-refit loop, not stopped early."""

    def run(space: SearchSpace, top1: Top1, seed: int) -> History:
        case = problem(space, top1)
        goal = Goal("macs", case.joined["macs"], corner(case))
        config = RefineConfig(budget=budget - first, batch=BATCH, inner=inner, seed=seed)
        whole = Loop(space, (goal,), config)
        known = {a: top1(a) for a in to_measure(space, first, np.random.default_rng(seed))}
        history = [(len(known), float(hypervolumes(whole, known)[0]))]
        for step in refine(whole, known, lambda archs: [top1(arch) for arch in archs]):
            history.append((len(step.measured), float(step.hypervolume[0])))
        return history

    return run


def searcher(name: str, limit: int, **settings: object) -> Contestant:
    """A searcher of hwnas with its default settings but for those given."""
    given = {"population": POPULATION, "generations": limit // POPULATION, **settings}

    def run(space: SearchSpace, top1: Top1, seed: int) -> History:
        case = problem(space, top1)
        config = SearchConfig.model_validate({"algorithm": name, "seed": seed, **given})
        reference = corner(case)
        return [
            (state.evaluations, pareto.hypervolume(state.front.costs, reference))
            for state in searchers.generations(case, config)
        ]

    return run


def least_errors(
    space: SearchSpace, top1: Top1, levels: np.ndarray, settings: dict[str, object]
) -> np.ndarray:
    """(levels,) least error found within each share of the max network's MACs by one search.

    Args:
        space, top1: what is searched.
        levels: shares.
        settings: of the search; its limit of evaluations is population x generations.
    """
    case = problem(space, top1)
    last = searchers.search(case, SearchConfig.model_validate(settings))
    return within(last.front.costs, levels * largest_macs(space, top1))


def least_error_for(
    space: SearchSpace, top1: Top1, level: float, settings: dict[str, object]
) -> float:
    """Least error found within one share of the max network's MACs by a search for it alone."""
    budget = level * largest_macs(space, top1)
    case = problem(space, top1, {"macs": budget})
    last = searchers.search(case, SearchConfig.model_validate(settings))
    return float(within(last.front.costs, np.array([budget]))[0])


def within(costs: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """(budgets,) least error of (n, 2) error and MACs within each budget; 1 if there is none."""
    fits = costs[:, 1] <= budgets[:, None]
    return np.asarray(np.where(fits, costs[:, 0], 1.0).min(axis=1))


def largest_macs(space: SearchSpace, top1: Top1) -> float:
    """MACs of the max network."""
    genome = space.genome([space.largest])
    return float(problem(space, top1).metrics["macs"].evaluate(genome)[0])


def true_front(space: SearchSpace, table: dict) -> np.ndarray:
    """(n, 2) error and MACs of the best networks of a table of all results."""
    case = problem(space, table.__getitem__)
    archive = Archive(case, limit=space.size)
    archive.add(space.genome(table))
    return archive.front.costs
