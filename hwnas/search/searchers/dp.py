"""The exact Pareto front of costs that tables price, by going through a space's places in order.

Every objective and budget is a sum over a network's ops (the error through a monotone link), or a
maximum; a budget on a maximum is a filter on ops. The front is complete: every non-dominated
point, one network each. Knows nothing of chance: the seed changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hwnas.search.archive import Archive, Generation
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig

NEEDS = ("exact",)
GOES_ON = False


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """One generation: the front.

    Raises:
        InfeasibleError: no network is within the budgets.
    """
    genome = problem.exact_front(list(problem.joined))
    genome = genome[problem.violation(genome) == 0]
    archive = Archive(problem, limit=max(len(genome), 1))
    archive.add(genome)
    archive.check()
    yield archive.state(0, archive.front)
