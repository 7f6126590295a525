"""One file per search space, each data only: `SPACE`. A name is its file's name with `_` written
`-`. Spaces of the users' own are `module:NAME`, or the `space.json` of a torch model.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.networks.families.traced import Traced
from hwnas.networks.slots import check_family
from hwnas.networks.space import SearchSpace
from profilers.errors import ConfigError, FileFormatError
from profilers.plugins import code_of_others, import_object, select
from profilers.schema import canonical_json, read_json, sha256_text

FORMAT = "hwnas-space-1"
FILE = "space.json"  # in the run folder of a torch model of the user's own
_OWN = "own-"  # names of such spaces begin so
CHECKED = 100  # random networks of a user's own space


def names() -> list[str]:
    """The spaces that come with hwnas."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(path.stem.replace("_", "-") for path in files)


def load(name: str) -> SearchSpace:
    """The space of a name, of the `space.json` that a run made of a torch model, or of a user's own
    `module:NAME`, whose family is compared with random networks of it.

    Raises:
        ConfigError: no such space, or one whose family contradicts itself or `lower`.
        FileFormatError: the file cannot be read or was edited.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    if name.startswith(_OWN):
        raise ConfigError(
            f"{name} is the space of a torch model; name the file that says what it is in place of "
            f"its name: RUN/{FILE}"
        )
    if ":" in name:
        space = import_object(name, "search space")
        if isinstance(space, SearchSpace):
            with code_of_others(name, "search space"):
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


# ---- of torch models -----------------------------------------------------------------------------


def of_model(family: Traced, resolutions: Sequence[int], bn_eps: float) -> SearchSpace:
    """The space of a torch model; equal geometries have equal names."""
    name = _OWN + sha256_text(canonical_json(dict(family.constants())))[:8]
    sizes = tuple(sorted(set(resolutions)))
    return SearchSpace(name, family, sizes, sizes, family.input[0], family.n_classes, bn_eps)


def to_json(space: SearchSpace, family: Traced) -> dict[str, Any]:
    """What `load` needs of a file to give the space of a torch model."""
    return {
        "format": FORMAT,
        "name": space.name,
        "geometry": space.geometry,
        "resolutions": list(space.resolutions),
        "bn_eps": space.bn_eps,
        "family": family.to_json(),
    }


def beside(name: str, near: Path) -> str:
    """The file that says what the space of a name is, where that is one of a torch model whose run
    folder holds a file or folder; else the name itself.
    """
    for folder in near.resolve().parents if name.startswith(_OWN) else ():
        if (folder / FILE).is_file() and _read(folder / FILE).name == name:
            return str(folder / FILE)
    return name


def _read(path: Path) -> SearchSpace:
    data = read_json(path, FORMAT)
    try:
        family = Traced.from_json(data["family"])
        space = of_model(family, [int(size) for size in data["resolutions"]], float(data["bn_eps"]))
        is_whole = (space.name, space.geometry) == (data["name"], data["geometry"])
    except (KeyError, TypeError, ValueError, FileFormatError) as error:
        raise FileFormatError(
            f"{path} holds no space ({error}); delete it and run `hwnas space analyse`"
        ) from error
    if not is_whole or not space.resolutions:
        raise FileFormatError(
            f"{path} was edited: its geometry is another one; delete it and run `hwnas space "
            "analyse`"
        )
    return space
