"""The tables that come with hwnas: which there are, and the one that serves a space on a target."""

from __future__ import annotations

from pathlib import Path

from hwnas.networks.space import SearchSpace
from hwnas.settings import shipped
from hwnas.tables.table import load_table
from profilers.errors import ConfigError


def paths() -> list[Path]:
    """Every shipped table: `<space>/<target>.json`.

    Raises:
        ConfigError: hwnas was installed without them.
    """
    folder = shipped.folder("latency_tables")
    found = sorted(folder.glob("*/*.json"))
    if not found:
        raise ConfigError(f"hwnas is incomplete: {folder} holds no table; install it again")
    return found


def serving(space: SearchSpace, target: str) -> Path | None:
    """The shipped table of this very geometry on a target of this name, if there is one."""
    path = shipped.folder("latency_tables") / space.name / f"{target}.json"
    if not path.is_file():
        return None
    table = load_table(path)
    same = table.geometry == space.geometry and set(space.resolutions) <= set(table.resolutions)
    return path if same else None
