"""NSGA-II over option indices, with constraint domination.

Source: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II". Different
here: generation 0 and a few later ones hold networks of `hwnas.search.starts`, mates are near each
other along the front, mutation draws from the *other* options and half of the time from the
neighbouring ones, no network is evaluated twice, a share of each generation is one-choice
neighbours of the front (Pareto local search), a population that no longer gains starts again
(`_Line`; Hadka and Reed 2013, "Borg", restart for the same reason), and the result is the front of
everything evaluated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing import pareto
from hwnas.search.archive import Archive, Generation, Population
from hwnas.search.problem import Problem
from hwnas.search.starts import (
    ATTEMPTS,
    SKETCH,
    first_networks,
    known_networks,
    sketched,
    with_sketch,
)
from hwnas.settings.config import SearchConfig

NEEDS = ()
GOES_ON = True
SKETCHES = 10  # how often the sums that stand for other objectives are fitted again
LOCAL_SHARE = 0.15  # of a generation that is neighbours of the front, where local search is on
SPARE, LEAST_FRESH = 1.1, 0.1  # children made for each that is wanted and new; least share of new
FEW_MISSING = 0.05  # of a generation, for which no further children are made
NEAR_SHARE = 0.5  # of the mutations that step to a neighbouring option
STALLED, WITHIN = 0.003, 40  # least gain of hypervolume, a share, in so many generations
APART = 100  # generations at most of a new line before it meets the front
MATE_SPREAD = 0.05  # how far apart mates are along the second objective, share of the population


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """Generations of `config.population` candidates until `population x generations` networks
    (besides those it starts from) were evaluated or nothing new comes up.

    Raises:
        InfeasibleError: no network within the budgets was found.
    """
    known = known_networks(problem, config)
    archive = Archive(problem, config.population * config.generations + len(known))
    first = with_sketch(archive, first_networks(archive, known, config, rng), config, rng)
    line = _Line(first, survivors(first, config.population))
    yield archive.state(0, line.population)
    for number in range(1, 2 * config.generations):
        front = line.front(archive)
        moved = _near(problem.space, front, config, rng)
        added = offspring(archive, line.population, config.population, moved, rng)
        if not len(added):
            break
        if number % _sketch_interval(config) == 0:
            near = front.joined(line.population).joined(line.first)
            added = added.joined(sketched(archive, near, config))
        line.population = survivors(line.population.joined(added), config.population)
        yield archive.state(number, line.population)
        line = _next_line(line, archive, config, rng)
    archive.check()


class _Line:
    """A population, the networks it began with, and what it gained so far.

    Evolution ends in one of many local optima, which no single move leaves, and its luck is told
    early. So a population that has stalled is left for a line that begins at random and evolves
    apart: the front of all would draw it to where the other one is. When it stalls, or after APART
    generations, both are joined.
    """

    def __init__(self, first: Population, population: Population, apart: bool = False) -> None:
        self.first, self.population, self.apart = first, population, apart
        finite = np.isfinite(first.costs).all(axis=1)
        self._corner = first.costs[finite].max(axis=0, initial=0.0)
        self._volumes: list[float] = []  # after each generation

    @property
    def age(self) -> int:
        """Generations that were looked at."""
        return len(self._volumes)

    def front(self, archive: Archive) -> Population:
        """The best networks that this line may know."""
        if self.apart or not len(archive.front):
            ranks = pareto.ranks(self.population.costs, self.population.violation)
            return self.population.take(ranks == 0)
        return archive.front

    def stalled(self) -> bool:
        """Whether too little was gained lately. Call it once a generation."""
        feasible = self.population.costs[self.population.violation == 0]
        self._volumes.append(pareto.hypervolume(feasible, self._corner))
        now = self._volumes[-1]
        return self.age > WITHIN and now - self._volumes[-1 - WITHIN] <= STALLED * now


def _next_line(
    line: _Line, archive: Archive, config: SearchConfig, rng: np.random.Generator
) -> _Line:
    """The same line, or the one that goes on in its place."""
    stalled = line.stalled()
    if line.apart and (stalled or line.age >= APART):
        both = archive.front.joined(line.population)
        return _Line(both, survivors(both, config.population))
    left = (archive.limit - archive.evaluations) / config.population
    if line.apart or not stalled or left < APART:
        return line
    space = archive.problem.space
    first = archive.add(space.sample(max(SKETCH, config.population), rng))
    if not len(first):  # of a small space nearly every network was evaluated
        return line
    first = first.joined(sketched(archive, first, config))
    return _Line(first, survivors(first, config.population), apart=True)


def _sketch_interval(config: SearchConfig) -> int:
    """Generations between two sketches, each of which may take as many evaluations as one: of all
    of them a tenth at most.
    """
    return max(math.ceil(config.generations / SKETCHES), 10)


def _near(
    space: SearchSpace, front: Population, config: SearchConfig, rng: np.random.Generator
) -> np.ndarray:
    """(n, n_choices) neighbours of a front, the share of a generation that local search makes."""
    n = round(LOCAL_SHARE * config.population) if config.local_search else 0
    return neighbours(space, front.genome, n, rng) if n else front.genome[:0]


def offspring(
    archive: Archive,
    parents: Population,
    wanted: int,
    children: np.ndarray,
    rng: np.random.Generator,
) -> Population:
    """Networks that were not evaluated before, evaluated at once: of those given, then of children
    of parents; a few less than are wanted, or none if nothing new comes up.

    Args:
        archive: evaluates them.
        parents: as `crossed` takes them.
        wanted: how many at most.
        children: (n, n_choices) genomes that come first.
        rng: source of chance.
    """
    space = archive.problem.space
    found: list[np.ndarray] = []
    missing = wanted
    for _ in range(ATTEMPTS):
        n = math.ceil(SPARE * missing / max(archive.fresh_share, LEAST_FRESH))
        crosses = crossed(parents, max(n - len(children), 0), rng)
        children = np.concatenate((children, mutated(space, crosses, rng)))
        found.append(archive.reserve(children, missing))
        missing, children = missing - len(found[-1]), children[:0]
        if missing <= FEW_MISSING * wanted or archive.full:
            break
    return archive.evaluate(np.concatenate(found))


def survivors(candidates: Population, size: int) -> Population:
    """The best candidates by non-dominated rank, then crowding distance; the best one first."""
    rank = pareto.ranks(candidates.costs, candidates.violation)
    crowding = pareto.crowding_distance(candidates.costs, rank)
    return candidates.take(np.lexsort((-crowding, rank))[:size])


def crossed(parents: Population, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, n_choices) children by uniform crossover.

    The first parent wins a binary tournament, the second is near it along the second objective:
    halves of a small and of a large network rarely make a good one.

    Args:
        parents: the best one first, so a tournament is won by the lower row.
        n: how many.
        rng: source of chance.
    """
    size = len(parents)
    along = np.argsort(parents.costs[:, 1], kind="stable")
    place = np.empty(size, dtype=np.int64)
    place[along] = np.arange(size)
    first = rng.integers(0, size, size=(2, n)).min(axis=0)
    reach = rng.normal(scale=max(MATE_SPREAD * size, 1), size=n)
    step = np.copysign(np.ceil(np.abs(reach)), reach).astype(np.int64)
    second = along[np.minimum(np.maximum(place[first] + step, 0), size - 1)]
    from_first = rng.integers(0, 2, size=(n, parents.genome.shape[1]), dtype=bool)
    one, other = (parents.genome.take(rows, axis=0) for rows in (first, second))
    return np.asarray(other ^ ((one ^ other) * from_first))  # quicker than np.where


def mutated(space: SearchSpace, genome: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Copies of genomes in which each choice moves to another option with probability 1/n_choices.

    Half of the moves go to a neighbouring option, because kernel size, expand ratio, depth and
    resolution are ordered; the others to any other option.
    """
    rows, columns = np.divmod(_hits(genome.size, 1 / genome.shape[1], rng), genome.shape[1])
    can = space.n_options[columns] > 1
    rows, columns = rows[can], columns[can]
    old, n = genome[rows, columns].astype(np.int64), space.n_options[columns]
    far = (old + 1 + np.floor(rng.random(len(rows)) * (n - 1)).astype(np.int64)) % n
    step = old + rng.integers(0, 2, size=len(rows)) * 2 - 1
    near = np.where(step < 0, 1, np.where(step >= n, n - 2, step))
    out = genome.copy()
    out[rows, columns] = np.where(rng.random(len(rows)) < NEAR_SHARE, near, far)
    return out


def _hits(n: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Which of n trials succeed, each with the same probability: the gaps between them are
    geometric, and there are fewer of them than trials.
    """
    most = int(n * rate + 4 * math.sqrt(n * rate)) + 8
    at = np.cumsum(rng.geometric(rate, size=most)) - 1
    while at[-1] < n:
        at = np.concatenate((at, at[-1] + np.cumsum(rng.geometric(rate, size=most))))
    return at[: np.searchsorted(at, n)]


def neighbours(
    space: SearchSpace, genome: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(n, n_choices) random genomes that differ from one of the given ones in one choice; none if
    no choice has two options.
    """
    moves, shifts = _moves(space)
    out = genome[rng.integers(0, len(genome), size=n if len(moves) else 0)]
    move = rng.integers(0, max(len(moves), 1), size=len(out))
    rows, columns = np.arange(len(out)), moves[move]
    out[rows, columns] = (out[rows, columns] + shifts[move]) % space.n_options[columns]
    return out


@functools.lru_cache(maxsize=32)
def _moves(space: SearchSpace) -> tuple[np.ndarray, np.ndarray]:
    """Column and shift of every move of one choice to another option; all are as likely."""
    others = space.n_options - 1
    shifts = [np.arange(1, n + 1) for n in others]
    return np.repeat(np.arange(len(others)), others), np.concatenate(shifts)
