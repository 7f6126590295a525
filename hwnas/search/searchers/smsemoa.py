"""SMS-EMOA: the network that adds least hypervolume is dropped, one after the other.

Source: Beume, Naujoks, Emmerich 2007, "SMS-EMOA: Multiobjective selection based on dominated
hypervolume". Different here: half a population of children is made and priced at once, then as many
networks are dropped; first networks, mates and mutation are those of nsga2, the parents are
tournament winners, the reference point stands still (that of front.json), no network is evaluated
twice, and the result is the front of everything evaluated. With three and more objectives it keeps
a more even front than crowding does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hwnas.pricing import pareto
from hwnas.search.archive import Archive, Generation, Population
from hwnas.search.front import reference_point
from hwnas.search.problem import Problem
from hwnas.search.searchers.nsga2 import offspring, survivors
from hwnas.search.starts import first_networks, known_networks, with_sketch
from hwnas.settings.config import SearchConfig

NEEDS = ()
GOES_ON = True
STEPS = 2  # of a generation; more learn sooner from good children, fewer take less time


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """Generations of `config.population` children until `population x generations` networks
    (besides those it starts from) were evaluated or nothing new comes up.

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
    wanted, none = math.ceil(config.population / STEPS), population.genome[:0]
    for number in range(1, 2 * config.generations):
        before = archive.evaluations
        for _ in range(STEPS):
            added = offspring(archive, population, wanted, none, rng)
            population = kept(population.joined(added), config.population, reference)
        if archive.evaluations == before:
            break
        yield archive.state(number, population)
    archive.check()


def kept(candidates: Population, size: int, reference: np.ndarray) -> Population:
    """At most size candidates, the best first: the worst one is dropped, one after the other, by
    non-dominated rank; within the worst rank by the number of candidates that dominate one, or by
    hypervolume contribution if it is the only rank.

    Args:
        candidates: that compete.
        size: how many stay.
        reference: (m,) of the hypervolume.
    """
    rank = pareto.ranks(candidates.costs, candidates.violation)
    order = np.argsort(rank, kind="stable")
    cut = rank[order[:size]].max(initial=0)  # the worst rank of which one stays
    better, last = order[rank[order] < cut], order[rank[order] == cut]
    if cut:
        burden = _dominators(candidates.costs[rank <= cut], candidates.costs[last])
        last = last[np.argsort(burden, kind="stable")]
    else:
        last = last[pareto.without_least(candidates.costs[last], reference, size)]
    return candidates.take(np.concatenate((better, last))[:size])


def _dominators(costs: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(k,) how many of (n, m) costs dominate each of (k, m) points."""
    no_worse = (costs[None] <= points[:, None]).all(axis=2)
    better = (costs[None] < points[:, None]).any(axis=2)
    return np.asarray((no_worse & better).sum(axis=1))
