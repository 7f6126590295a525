"""One file per search space, each data only: `SPACE`. A name is its file's name with `_` written
`-`.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import numpy as np

from hwnas.networks.slots import check_family
from hwnas.networks.space import SearchSpace
from profilers.errors import ConfigError
from profilers.plugins import import_object, select

CHECKED = 100  # random networks of a user's own space


def names() -> list[str]:
    """The spaces that come with hwnas."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(path.stem.replace("_", "-") for path in files)


def load(name: str) -> SearchSpace:
    """The space of a name, or of a user's own `module:NAME`, whose family is compared with random
    networks of it.

    Raises:
        ConfigError: no such space, or one whose family contradicts itself or `lower`.
    """
    if ":" in name:
        space = import_object(name, "search space")
        if isinstance(space, SearchSpace):
            _check(space)
    else:
        module = select(name, names(), "search space").replace("-", "_")
        space = importlib.import_module(f"hwnas.networks.spaces.{module}").SPACE
    if not isinstance(space, SearchSpace):
        raise ConfigError(f"{name} is a {type(space).__name__}, expected a hwnas SearchSpace")
    return space


@functools.lru_cache(maxsize=8)
def _check(space: SearchSpace) -> None:
    check_family(space, CHECKED, np.random.default_rng(0))
