"""Multi-layer coordinate descent: a walk from the max network down to the cheapest.

Each step takes the cost below a target by shrinking a few blocks at once, in many random ways, and
goes on from the best of them. Every sample is kept, so one walk serves every budget above its end.
It suits objectives of which one evaluation is a real validation.

The idea is NetAdaptV2's (Yang et al. 2021, arXiv 2104.00031), read in its abstract; how a sample is
drawn and how long a step is are this project's. The ratio rule is that of NetAdapt (Yang et al.
2018), from its authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from hwnas.search.archive import Archive, Generation, Population
from hwnas.search.one_budget import Ledger, OneBudget, one_budget, units
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig

NEEDS = ("tables",)
GOES_ON = False
SHRUNK = 4  # units (blocks, depths, resolution) that a sample shrinks; more if the step is too long
# The last step of a walk over the first one: where little is left, every option counts. On `tiny`,
# 50 steps of 6: 0.6 leaves the worst of ten budgets 0.34 points behind the best network, 0.08 0.30.
LAST_STEP = 0.03


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """One generation a step, of `config.population` samples; the steps are so long that a walk
    arrives within `config.generations`, and what is left of these goes to further walks.

    Raises:
        InfeasibleError: no network within the budgets was found.
    """
    view, space = one_budget(problem), problem.space
    archive = Archive(problem, limit=config.population * config.generations)
    ledger = Ledger(archive)
    ends = ledger.look(space.genome([space.largest, space.smallest]))
    yield archive.state(0, ends)
    steps = itertools.islice(_walks(ledger, view, ends, config, rng), config.generations - 1)
    for number, samples in enumerate(steps, start=1):
        yield archive.state(number, samples)
    archive.check()


def _walks(
    ledger: Ledger,
    view: OneBudget,
    ends: Population,
    config: SearchConfig,
    rng: np.random.Generator,
) -> Iterator[Population]:
    """The samples of each step of one walk after the other, until one finds nothing new."""
    for _ in range(config.generations):
        before = ledger.archive.evaluations
        yield from _walk(ledger, view, ends, config, rng)
        if ledger.archive.evaluations == before or ledger.archive.full:
            return


def _walk(
    ledger: Ledger,
    view: OneBudget,
    ends: Population,
    config: SearchConfig,
    rng: np.random.Generator,
) -> Iterator[Population]:
    """The samples of each step from the first of the ends to a cost no higher than the second's."""
    here, (cost, goal) = ends.take(np.array([0])), view.cost(ends.genome)
    n_steps = max(config.generations - 1, 1)
    steps = LAST_STEP ** (np.arange(n_steps) / max(n_steps - 1, 1))
    for step in (cost - goal) * steps / steps.sum():
        target = max(goal, cost - step)
        if cost <= goal:
            return
        samples = ledger.look(proposals(view, here.genome, target, config.population, rng))
        if not len(samples):
            return
        yield samples
        here = winner(view, here, samples, config.winner)
        cost = view.cost(here.genome)[0]


def proposals(
    view: OneBudget, genome: np.ndarray, target: float, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(at most n, n_choices) smaller networks that cost no more than a target; none if shrinking
    everything is not enough.

    Args:
        view: prices them.
        genome: (1, n_choices) the network to shrink.
        target: relative cost.
        n: samples drawn.
        rng: source of chance.
    """
    groups = units(view.problem.space)
    n_shrunk = min(SHRUNK, len(groups))
    while True:
        order = np.argsort(rng.random((n, len(groups))), axis=1)
        free = np.asarray(groups[order[:, :n_shrunk]].any(axis=1))
        found = shrunk(view, np.repeat(genome, n, axis=0), free, target, rng)
        if len(found) or n_shrunk == len(groups):
            return found
        n_shrunk = min(2 * n_shrunk, len(groups))


def shrunk(
    view: OneBudget, genome: np.ndarray, free: np.ndarray, target: float, rng: np.random.Generator
) -> np.ndarray:
    """Genomes after random free choices went down, one option at a time, until the target is met;
    those that do not meet it are dropped.

    The table says when: latency need not fall with every option.

    Args:
        view: prices them.
        genome: (n, n_choices) to start from.
        free: (n, n_choices) choices that may go down.
        target: relative cost.
        rng: source of chance.
    """
    out = genome.astype(np.int64)
    for _ in range(int((view.problem.space.n_options - 1).sum())):
        can = free & (out > 0) & (view.cost(out) > target)[:, None]
        rows = np.flatnonzero(can.any(axis=1))
        if not len(rows):
            break
        lot = 1 - rng.random((len(rows), out.shape[1]))  # never 0, so a free choice wins
        out[rows, (lot * can[rows]).argmax(axis=1)] -= 1
    return np.asarray(out[view.cost(out) <= target])


def winner(view: OneBudget, here: Population, samples: Population, rule: str) -> Population:
    """The sample to go on from: of least error (`acc`), or of least error gained per cost saved
    (`ratio`).

    Args:
        view: prices them.
        here: one network, dearer than every sample.
        samples: to choose from.
        rule: `acc` or `ratio`.
    """
    quality = samples.costs[:, view.quality]
    if rule == "ratio":
        # Small constants of NetAdapt: a sample that loses nothing does not win by that alone.
        gained = quality - here.costs[0, view.quality] + 1e-6
        quality = gained / (view.cost(here.genome) - view.cost(samples.genome) + 1e-5)
    return samples.take(np.argsort(quality, kind="stable")[:1])
