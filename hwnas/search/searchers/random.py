"""Random search: networks drawn uniformly, each choice by itself. What every search must beat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hwnas.search.archive import Archive, Generation
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig

NEEDS = ()
GOES_ON = False


def run(problem: Problem, config: SearchConfig, rng: np.random.Generator) -> Iterator[Generation]:
    """Generations of up to `config.population` new random networks.

    Raises:
        InfeasibleError: no network within the budgets was found.
    """
    archive = Archive(problem, limit=config.population * config.generations)
    for number in range(config.generations):
        added = archive.add(problem.space.sample(config.population, rng))
        yield archive.state(number, added)
        if archive.full:
            break
    archive.check()
