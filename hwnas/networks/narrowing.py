"""A space of which a search may take some options only: locked to one, or without those forbidden.

Geometry, weights, tables and predictors stay those of the space. It knows nothing of searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from hwnas.networks.space import RESOLUTION, SearchSpace
from profilers.errors import ConfigError
from profilers.plugins import select


def narrowed(space: SearchSpace, only: Mapping[str, Sequence[int]]) -> SearchSpace:
    """The space with some options of its choices left.

    Args:
        space: it may be narrowed already.
        only: options by name of a choice or pattern of names (`*.kernel_size`); each choice that is
            named keeps those of its options that are among them.

    Raises:
        ConfigError: no choice has that name, or one would be left without options.
    """
    left = space.offered()
    for pattern, wanted in only.items():
        names = [name for name in left if fnmatchcase(name, pattern)]
        for name in names or [select(pattern, tuple(left), "search.only: choice")]:
            kept = [option for option in left[name] if option in wanted]
            if not kept:
                raise ConfigError(
                    f"search.only leaves {name} without options: {list(wanted)} are none of "
                    f"{left[name]}"
                )
            left[name] = kept
    whole = space.offered()
    changed = {name: tuple(options) for name, options in left.items() if options != whole[name]}
    if RESOLUTION in changed:
        space = space.restricted(changed.pop(RESOLUTION))
    return replace(space, only={**space.only, **changed}) if changed else space
