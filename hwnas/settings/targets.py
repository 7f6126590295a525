"""Targets by name: a file `targets/<name>.yaml` beside hwnas.yaml, or a name that says it all."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hwnas.settings import fakes
from hwnas.settings.config_file import read_yaml
from profilers import runtimes
from profilers.errors import ConfigError
from profilers.plugins import select
from profilers.schema import Target, target_from_json, target_from_name

LOCAL = ("host", "fake")  # devices that a bare name may use: this machine, and modelled times

REFERENCE = "ort-cpu"  # the runtime that exports are compared with torch in, on this machine

TABLE_ONLY = "none"  # kind of connection of a target whose table came from elsewhere; any runtime


def full_name(name: str, folder: Path) -> str:
    """The target that a name means: itself, or the only one of a device of that name.

    Args:
        name: of a target, or of a device that has target files.
        folder: where hwnas.yaml lies.

    Raises:
        ConfigError: the device has several targets.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    found = sorted(path.stem for path in (folder / "targets").glob(f"{name}.*.yaml"))
    if len(found) > 1:
        raise ConfigError(f"device {name!r} has several targets; name one of {', '.join(found)}")
    return found[0] if found else name


def load_target(name: str, folder: Path) -> Target:
    """The target of a name.

    Args:
        name: of a file in `folder`/targets, or like `host.ort-cpu.fp32.b1.t1`.
        folder: where hwnas.yaml lies.

    Raises:
        ConfigError: neither, or the file says something that is not allowed.
    """
    path = folder / "targets" / f"{name}.yaml"
    if path.exists():
        content = read_yaml(path)
        try:
            target = _from_here(target_from_json(content), folder)
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{path}: {error}") from None
        if target.name != name:
            raise ConfigError(f"{path} describes the target {target.name}; name the file after it")
    else:
        target = target_from_name(name)
        if target.device not in LOCAL:
            raise ConfigError(
                f"target {name!r}: no file {path}, and device {target.device!r} is not this "
                f"machine; without a file the device is one of {', '.join(LOCAL)}; "
                f"`hwnas devices add` writes one"
            )
    _check_driven(name, target)
    if "ssh" in target.connection:
        fakes.refuse(target)
    if ":" not in target.runtime and target.connection.get("kind") != TABLE_ONLY:
        fakes.provide()
        select(target.runtime, runtimes.names(), "runtime")
    return target


def _from_here(target: Target, folder: Path) -> Target:
    """The target with its ssh configuration found from where hwnas.yaml lies."""
    way = target.connection.get("ssh")
    if not isinstance(way, dict) or not isinstance(way.get("config"), str):
        return target
    config = str(folder / Path(way["config"]).expanduser()) if way["config"] else ""
    return replace(target, connection={**target.connection, "ssh": {**way, "config": config}})


def _check_driven(name: str, target: Target) -> None:
    """Refuse what a runtime cannot be asked for."""
    engine = runtimes.engine(target.runtime)
    if target.precision not in engine.precisions:
        raise ConfigError(
            f"target {name!r}: precision {target.precision} is not built yet; "
            f"use {' or '.join(engine.precisions)}"
        )
    if not engine.levels and target.optimisation != "all":
        raise ConfigError(
            f"target {name!r}: {engine.title} has no optimisation level {target.optimisation!r}; "
            "use the default, all"
        )
    if target.spinning and not engine.spins:
        raise ConfigError(
            f"target {name!r}: threads of {target.runtime} cannot be told to spin; leave spinning "
            "out"
        )
    if engine.gpu and target.threads != 1:
        raise ConfigError(
            f"target {name!r}: {target.runtime} runs on the GPU, it has one thread; use t1"
        )
