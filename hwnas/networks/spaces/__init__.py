"""One file per search space, each data only: `SPACE`. A name is its file's name with `_` written
`-`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from hwnas.networks.space import SearchSpace
from profilers.errors import ConfigError
from profilers.plugins import import_object, select


def names() -> list[str]:
    """The spaces that come with hwnas."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(path.stem.replace("_", "-") for path in files)


def load(name: str) -> SearchSpace:
    """The space of a name, or of a user's own `module:NAME`.

    Raises:
        ConfigError: no such space.
    """
    if ":" in name:
        space = import_object(name, "search space")
    else:
        module = select(name, names(), "search space").replace("-", "_")
        space = importlib.import_module(f"hwnas.networks.spaces.{module}").SPACE
    if not isinstance(space, SearchSpace):
        raise ConfigError(f"{name} is a {type(space).__name__}, expected a hwnas SearchSpace")
    return space
