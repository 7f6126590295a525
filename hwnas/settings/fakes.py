"""Fakes by name, for the worker on this machine: where they lie, and which targets name one."""

from __future__ import annotations

import importlib
from pathlib import Path

from profilers.errors import ConfigError
from profilers.plugins import names_in
from profilers.schema import Target

# Packages of the worker, and the folder with our fakes for each.
_FOLDERS = {
    f"profilers.{package}": str(Path(__file__).parents[1] / "fakes" / folder)
    for package, folder in (
        ("runtimes", "runtimes"),
        ("devices", "devices"),
        ("energy.meters", "meters"),
    )
}


def provide() -> None:
    """Let this process find the fakes as it finds the worker's own parts."""
    for package, folder in _FOLDERS.items():
        path = importlib.import_module(package).__path__
        if folder not in path:
            path.append(folder)


def named(target: Target) -> list[str]:
    """The fakes that a target names."""
    given = (target.runtime, target.hardware or target.device, target.meter)
    return [
        name
        for name, folder in zip(given, _FOLDERS.values(), strict=True)
        if name in names_in([folder])
    ]


def refuse(target: Target) -> None:
    """Refuse a target of a board that names a fake.

    Raises:
        ConfigError: it does.
    """
    found = named(target)
    if found:
        raise ConfigError(
            f"target {target.name} is a board's and names {found[0]!r}, which runs on this machine "
            "only; name what the board has, or a part of your own as module:NAME with its file in "
            "plugins"
        )
