"""The space of a torch model, as the stage `space` wrote it, and whether it is the settings'.

Needs no torch and runs no code of the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.networks import spaces
from hwnas.networks.space import SearchSpace
from hwnas.run.folder import RunFolder, Work, state
from hwnas.settings import versions
from hwnas.settings.config import SpaceConfig
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import read_json, sha256_file

SPACE_VERSION = 1
_MAKE = "run `hwnas space analyse` first"


def load_space(settings: SpaceConfig, run: RunFolder) -> SearchSpace:
    """The space of the settings, not yet fitted to data: the named one, or that of the run's model.

    Raises:
        ConfigError: there is no such space, or the model was not analysed yet.
    """
    if not settings.model:
        return spaces.load(settings.name)
    if not run.space.exists():
        raise ConfigError(f"{run.space} does not exist; {_MAKE}")
    return spaces.load(str(run.space))


def check_current(settings: SpaceConfig, base: Path, run: RunFolder) -> None:
    """Refuse a space that is not that of the model as settings and files say it now.

    Raises:
        ConfigError: it was never made, or something changed since.
        FileFormatError: it was edited, or the weights are gone.
    """
    found = state(run, space_work(settings, base, run))
    if not found.current:
        raise ConfigError(f"the space of {settings.model}: {found.words}; {_MAKE}")


def space_work(settings: SpaceConfig, base: Path, run: RunFolder) -> Work:
    """What the space of a model is made from: settings, weights, and the sources that were read.

    Raises:
        FileFormatError: there is no file of weights.
    """
    weights = base / settings.weights
    if settings.weights and not weights.is_file():
        raise FileFormatError(f"{weights} does not exist; check space.weights")
    inputs = {
        "space": settings.model_dump(mode="json"),
        "weights": sha256_file(weights) if settings.weights else "",
        "sources": _sources(base, run),
    }
    made_by = versions.of("torch", settings.model.partition(":")[0].partition(".")[0])
    return Work("space", SPACE_VERSION, inputs, (run.space, run.start), made_by, costly=True)


def _sources(base: Path, run: RunFolder) -> dict[str, str]:
    """Present hashes of the source files that the user's function was loaded from."""
    try:
        names = read_json(run.space, spaces.FORMAT)["sources"]
        known = [(str(name), base / str(name)) for name in names]
    except (FileFormatError, KeyError, TypeError):
        return {}
    return {name: sha256_file(path) if path.is_file() else "" for name, path in known}


def origin(settings: SpaceConfig, run: RunFolder) -> dict[str, Any] | None:
    """What may be published of the model that a run's networks come from; None: of none."""
    return dict(read_json(run.space, spaces.FORMAT)["origin"]) if settings.model else None


def in_words(origin: Mapping[str, Any]) -> str:
    """A model that networks come from: its function and weights."""
    weights = origin["weights_sha256"]
    told = f"weights of sha256 {weights[:12]}" if weights else "weights of its own"
    return f"the model {origin['model']} with {told}"
