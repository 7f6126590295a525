"""Reader of the user's own `module:function`, which returns named arrays."""

from __future__ import annotations

from collections.abc import Mapping

from hwnas.images.arrays import NAMES, from_arrays
from hwnas.images.raw import RawData
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError
from profilers.plugins import import_object


def read(config: DataConfig) -> RawData:
    """The arrays that the user's own `module:function` returns."""
    function = import_object(config.root, "data factory")
    if not callable(function):
        raise ConfigError(f"data factory {config.root!r} is not a function")
    arrays = function()
    if not isinstance(arrays, Mapping):
        raise ConfigError(
            f"data factory {config.root!r} returned a {type(arrays).__name__}, "
            f"expected a dict of {', '.join(NAMES)}"
        )
    return from_arrays(arrays, f"data factory {config.root!r}")
