"""once-for-all's evolution: one quality, one budget kept by rejection. A baseline.

Source: Cai et al. 2020, "Once-for-All: Train One Network and Specialize it for Efficient
Deployment" (arXiv 1908.09791), and its authors' code. Different here: rejection is bounded (where
chance finds no network within the budget, it starts from the min network), no network is evaluated
twice, and without a budget several are searched one after the other.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing.places import places
from hwnas.search.archive import Archive, Generation, Population
from hwnas.search.one_budget import Ledger, OneBudget, one_budget, units
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig

NEEDS = ("tables",)
GOES_ON = False
ATTEMPTS = 20  # draws of a whole round until enough candidates are within the budget
PARENT_SHARE = 0.25  # of a population that survives and has children
MUTATED_SHARE = 0.5  # of a round; the others are crossed
MUTATION = 0.1  # probability that a depth or a block is drawn again
RESOLUTION_MUTATION = 0.5  # probability that the resolution is drawn again
PATIENCE = 5  # rounds without anything new after which a budget is left


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """Generations of up to `config.population` new networks, for the problem's budgets; without
    any, for `config.sweep` budgets of an equal share of the generations each.

    Raises:
        InfeasibleError: no network within the budgets was found.
    """
    view = one_budget(problem)
    levels = view.levels(config)[-1 if problem.budgets else 0 :]
    ledger = Ledger(Archive(problem, limit=config.population * config.generations))
    number = itertools.count()
    for level in levels.tolist():
        rounds = _rounds(ledger, view, level, config, rng)
        for population in itertools.islice(rounds, config.generations // len(levels)):
            yield ledger.archive.state(next(number), population)
    ledger.archive.check()


def _rounds(
    ledger: Ledger, view: OneBudget, level: float, config: SearchConfig, rng: np.random.Generator
) -> Iterator[Population]:
    """Populations of one budget, the best network first, until nothing new comes up."""
    space, size = view.problem.space, config.population
    n_mutated = round(MUTATED_SHARE * size)

    def within(draw: Callable[[int], np.ndarray], n: int) -> np.ndarray:
        return drawn_within(draw, n, lambda genome: view.cost(genome) <= level)

    start = within(functools.partial(space.sample, rng=rng), size)
    start = start if len(start) else space.genome([space.smallest])
    population = _best(view, ledger.look(start), size)
    idle = 0
    for _ in range(config.generations):
        if not len(population) or idle > PATIENCE:
            return
        yield population
        before = ledger.archive.evaluations
        parents = population.take(np.arange(len(population))[: max(round(PARENT_SHARE * size), 1)])
        mutants = within(functools.partial(mutated, space, parents.genome, rng=rng), n_mutated)
        crosses = within(functools.partial(crossed, parents.genome, rng=rng), size - n_mutated)
        children = ledger.look(np.concatenate((mutants, crosses)))
        idle = idle + 1 if ledger.archive.evaluations == before else 0
        population = _best(view, parents.joined(children), size)


def _best(view: OneBudget, candidates: Population, size: int) -> Population:
    """The best candidates, each once, the best one first."""
    names = places(view.problem.space).identity(candidates.genome)
    first: dict[bytes, int] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
    rows = np.fromiter(first.values(), np.int64)
    order = np.argsort(candidates.costs[rows, view.quality], kind="stable")
    return candidates.take(rows[order[:size]])


def drawn_within(
    draw: Callable[[int], np.ndarray], n: int, fits: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(at most n, n_choices) drawn genomes that fit, after a bounded number of draws.

    Args:
        draw: so many genomes.
        n: how many are wanted.
        fits: (k,) mask of (k, n_choices) genomes.
    """
    kept = draw(0)
    for _ in range(ATTEMPTS):
        if len(kept) >= n:
            break
        candidates = draw(n)
        kept = np.concatenate((kept, candidates[fits(candidates)]))
    return np.asarray(kept[:n])


def mutated(
    space: SearchSpace, parents: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(n, n_choices) copies of random parents; each stage's depth and each block (kernel size and
    expand ratio together) is drawn again with probability `MUTATION`, the resolution with
    `RESOLUTION_MUTATION`.
    """
    groups = units(space)
    rate = np.where(groups[:, 0], RESOLUTION_MUTATION, MUTATION)  # the resolution is the first
    again = (rng.random((n, len(groups))) < rate) @ groups
    chosen = parents[rng.integers(0, len(parents), size=n)]
    return np.asarray(np.where(again, space.sample(n, rng), chosen))


def crossed(parents: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, n_choices) children of two random parents each, every choice from either one."""
    pairs = rng.integers(0, len(parents), size=(2, n))
    from_first = rng.integers(0, 2, size=(n, parents.shape[1]), dtype=bool)
    return np.asarray(np.where(from_first, parents[pairs[0]], parents[pairs[1]]))
