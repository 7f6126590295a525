"""Search algorithms, one file each: `run(problem, config, rng)` yields generations, `NEEDS` says
what it needs of the problem, `GOES_ON` whether it starts from networks that the problem names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from hwnas.search.archive import Generation
from hwnas.search.one_budget import why_no_tables
from hwnas.search.problem import Problem
from hwnas.settings.config import SearchConfig
from profilers.errors import ConfigError
from profilers.plugins import select


def names() -> list[str]:
    """The searchers that come with hwnas."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(path.stem.replace("_", "-") for path in files)


def load(name: str) -> ModuleType:
    """The module of a searcher.

    Raises:
        ConfigError: no such searcher.
    """
    module = select(name, names(), "searcher").replace("-", "_")
    return importlib.import_module(f"hwnas.search.searchers.{module}")


def generations(problem: Problem, config: SearchConfig) -> Iterator[Generation]:
    """The generations of the searcher that the settings name; the last one holds the result.

    Raises:
        ConfigError: the problem lacks what the searcher needs; names the reason.
    """
    module = load(config.algorithm)
    for need in module.NEEDS:
        reason = _LACKS[need](problem)
        if reason:
            raise ConfigError(f"searcher {config.algorithm} cannot be used: {reason}; use nsga2")
    if problem.start is not None and not module.GOES_ON:
        raise ConfigError(
            f"searcher {config.algorithm} cannot go on from an earlier front; use nsga2 or smsemoa"
        )
    run: Iterator[Generation] = module.run(problem, config, np.random.default_rng(config.seed))
    return run


_LACKS: dict[str, Callable[[Problem], str]] = {
    "exact": lambda problem: problem.why_not_exact,
    "tables": why_no_tables,
}


def search(
    problem: Problem, config: SearchConfig, say: Callable[[Generation], None] | None = None
) -> Generation:
    """The last generation of a search: its `front` is the result.

    Args:
        problem: what is wanted.
        config: searcher, population, generations, seed.
        say: called with each generation.

    Raises:
        ConfigError: the searcher does not fit the problem.
        InfeasibleError: no network within the budgets was found.
    """
    last = None
    for last in generations(problem, config):
        if say is not None:
            say(last)
    if last is None:
        raise AssertionError(f"searcher {config.algorithm} yielded nothing")
    return last
