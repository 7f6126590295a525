"""A problem as searchers of one network see it: one quality to improve, one cost to stay below.

Several costs become one, relative to their budgets: a network costs 1 if its worst metric is
exactly at its budget. Costs are positive.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing.places import places
from hwnas.pricing.terms import Terms
from hwnas.search.archive import Archive, Population
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig

LEAST_ROUNDS = 2  # generations of each budget of a sweep


@dataclass(frozen=True, eq=False)
class OneBudget:
    """A problem's quality and relative cost.

    Attributes:
        problem: with all its objectives and budgets.
        quality: column of the objective to be best: the error, or the first one.
        scales: by name of every other objective and budgeted metric, the value that costs 1: its
            budget, or the max network's value where there is none.
    """

    problem: Problem
    quality: int
    scales: Mapping[str, float]

    def cost(self, genome: np.ndarray) -> np.ndarray:
        """(n,) largest share of any scale that (n, n_choices) genomes use, dimensionless."""
        metrics = self.problem.metrics
        shares = [metrics[name].evaluate(genome) / scale for name, scale in self.scales.items()]
        return np.asarray(np.max(shares, axis=0))

    def levels(self, config: SearchConfig) -> np.ndarray:
        """(k,) relative costs to search below, evenly spaced from above the min network's to the
        largest one allowed: `config.sweep` of them, fewer where the generations are few.
        """
        n = max(min(config.sweep, config.generations // LEAST_ROUNDS), 1)
        space = self.problem.space
        low, high = self.cost(space.genome([space.smallest, space.largest]))
        top = min(high, 1.0)
        return np.linspace(min(low, top), top, n + 1)[1:]


def one_budget(problem: Problem) -> OneBudget:
    """The quality and the relative cost of a problem."""
    largest = problem.space.genome([problem.space.largest])
    scales = {
        name: problem.budgets.get(name) or float(problem.metrics[name].evaluate(largest)[0])
        for name in _costs(problem)
    }
    return OneBudget(problem, _quality(problem), scales)


def _quality(problem: Problem) -> int:
    return problem.objectives.index("error") if "error" in problem.objectives else 0


def _costs(problem: Problem) -> list[str]:
    """Every objective and budgeted metric besides the quality."""
    best = problem.objectives[_quality(problem)]
    return [n for n in dict.fromkeys((*problem.objectives, *problem.budgets)) if n != best]


def why_no_tables(problem: Problem) -> str:
    """Why costs cannot be looked up before a network is evaluated; empty when they can."""
    for name in _costs(problem):
        if not isinstance(problem.metrics[name], Terms):
            return f"{name} is not priced by a table"
    return ""


class Ledger:
    """Evaluates through an archive and remembers, so that a network may be drawn again for free."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._rows: dict[bytes, int] = {}
        self._known = archive.front

    def look(self, genome: np.ndarray) -> Population:
        """The networks of (n, n_choices) genomes in the order given, evaluated now or before; those
        that the archive's limit leaves no room for are left out.
        """
        plan = places(self.archive.problem.space)
        added = self.archive.add(genome)
        for row, name in enumerate(plan.identity(added.genome), start=len(self._known)):
            self._rows[name] = row
        self._known = self._known.joined(added)
        rows = [self._rows[name] for name in plan.identity(genome) if name in self._rows]
        return self._known.take(np.array(rows, dtype=np.int64))


@functools.lru_cache(maxsize=32)
def units(space: SearchSpace) -> np.ndarray:
    """(n_units, n_choices) whether a choice belongs to a unit: the choices that one op alone
    depends on together (a block's kernel size and expand ratio), every other choice by itself.
    """
    columns = list(space.depends_on.values())
    uses = Counter(itertools.chain(*columns))
    once = [[c for c in own if uses[c] == 1] for own in columns]
    together = [own for own in once if len(own) > 1]
    alone = set(range(len(space.choices))) - {c for own in together for c in own}
    groups = [[column] for column in sorted(alone)] + together
    return np.array([[c in group for c in range(len(space.choices))] for group in groups])
