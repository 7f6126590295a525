"""SMS-EMOA: one child at a time; the network that adds least hypervolume is dropped.

Source: Beume, Naujoks, Emmerich 2007, "SMS-EMOA: Multiobjective selection based on dominated
hypervolume". Different here: first networks, mates and mutation are those of nsga2, the parents are
tournament winners, the reference point stands still (that of front.json), no network is evaluated
twice, and the result is the front of everything evaluated. With three and more objectives it keeps
a more even front than crowding does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hwnas.pricing import pareto
from hwnas.search.archive import Archive, Generation, Population
from hwnas.search.front import reference_point
from hwnas.search.problem import Problem
from hwnas.search.searchers.nsga2 import crossed, mutated, survivors
from hwnas.search.starts import first_networks, known_networks, with_sketch
from hwnas.settings.config import SearchConfig

NEEDS = ()
GOES_ON = True
ATTEMPTS = 8  # draws of children until one was not evaluated before
DRAWN = 8  # children of one draw; the first new one is evaluated


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """Generations of `config.population` steps, one child each, until `population x generations`
    networks (besides those it starts from) were evaluated or nothing new comes up.

    Raises:
        InfeasibleError: no network within the budgets was found.
    """
    known = known_networks(problem, config)
    archive = Archive(problem, config.population * config.generations + len(known))
    first = with_sketch(archive, first_networks(archive, known, config, rng), config, rng)
    largest = dict(zip(problem.objectives, first.costs[0].tolist(), strict=True))
    reference = reference_point(problem.objectives, largest, problem.space.n_classes)
    population = survivors(first, config.population)
    yield archive.state(0, population)
    for number in range(1, config.generations):
        for _ in range(config.population):
            child = _child(archive, population, rng)
            if not len(child):
                break
            population = kept(population.joined(child), config.population, reference)
        yield archive.state(number, population)
        if not len(child):
            break
    archive.check()


def _child(archive: Archive, population: Population, rng: np.random.Generator) -> Population:
    """One network that was not evaluated before; none if none comes up."""
    space = archive.problem.space
    none = np.zeros(0, dtype=np.int64)
    for _ in range(0 if archive.full else ATTEMPTS):
        added = archive.add(mutated(space, crossed(population, DRAWN, rng), rng), 1)
        if len(added):
            return added
    return population.take(none)


def kept(candidates: Population, size: int, reference: np.ndarray) -> Population:
    """At most size candidates, the best first: by non-dominated rank; within the worst rank by the
    number of candidates that dominate one, or by hypervolume contribution if it is the only rank.

    Args:
        candidates: at most one more than size.
        size: how many stay.
        reference: (m,) of the hypervolume.
    """
    rank = pareto.ranks(candidates.costs, candidates.violation)
    last = rank == rank.max()
    burden = np.zeros(len(candidates))
    if last.all():
        burden = -pareto.contributions(candidates.costs, reference)
    else:
        burden[last] = _dominators(candidates.costs, candidates.costs[last])
    return candidates.take(np.lexsort((burden, rank))[:size])


def _dominators(costs: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(k,) how many of (n, m) costs dominate each of (k, m) points."""
    no_worse = (costs[None] <= points[:, None]).all(axis=2)
    better = (costs[None] < points[:, None]).any(axis=2)
    return np.asarray((no_worse & better).sum(axis=1))
