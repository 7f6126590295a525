"""Target files of a board: one for each engine that works there; a file that is there stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hwnas.boards import catalog
from hwnas.boards.advice import has_provider, usable
from hwnas.boards.ask import Board
from hwnas.measuring import cpus
from hwnas.settings.config_file import read_yaml
from profilers import runtimes, schema
from profilers.errors import ConfigError
from profilers.schema import Target, target_from_json, write_atomic

FOLDER = "targets"
MOST_THREADS = 4  # by default: more is seldom faster at batch 1
GPU_METERS = ("nvml", "hwmon")
CPU_METERS = ("pi5-pmic", "hwmon", "rapl")


class Outcome(NamedTuple):
    """What happened to one file: `written`, `unchanged`, `replaced` or `kept`, and what differs."""

    target: Target
    path: Path
    state: str
    differences: tuple[str, ...] = ()


def targets_of(board: Board, name: str, threads: int = 0) -> list[Target]:
    """A target for each engine of a board that works and that a runtime exists for.

    Args:
        board: as it answered.
        name: of the device.
        threads: for engines on the CPU; 0: the fast cores, at most 4.

    Raises:
        ConfigError: the name or the number of threads is not allowed.
    """
    found = []
    for runtime in _runtimes(board):
        on_cpu = not runtimes.engine(runtime).gpu
        found.append(
            Target(
                device=name,
                hardware=_hardware(board, name, on_cpu),
                runtime=runtime,
                threads=(threads or _threads(board)) if on_cpu else 1,
                meter=_meter(board, CPU_METERS if on_cpu else GPU_METERS),
                connection=_connection(board),
            )
        )
        cpus.check_threads(found[-1], board.survey)
    return found


def _runtimes(board: Board) -> list[str]:
    return [
        name
        for name, engine in catalog.engines().items()
        if usable(board, engine) and has_provider(board, engine)
    ]


def _hardware(board: Board, name: str, on_cpu: bool) -> str:
    """Probes of the device; empty where its name is theirs. For the CPU no card is woken."""
    kind = str(board.survey["hardware"])
    kind = "host" if on_cpu and kind == "nvidia" else kind
    return "" if kind == name else kind


def _threads(board: Board) -> int:
    cores = cpus.usable(board.survey)
    return min(board.survey["big_cores"] or cores, cores, MOST_THREADS)


def _meter(board: Board, wanted: Sequence[str]) -> str:
    """The first of these meters that would work there and that we have."""
    folder = Path(schema.__file__).parent / "energy" / "meters"
    ours = {path.stem.replace("_", "-") for path in folder.glob("*.py")}
    works = {meter["name"] for meter in board.survey["meters"] if not meter["problem"]}
    return next((name for name in wanted if name in ours & works), "none")


def _connection(board: Board) -> dict[str, Any]:
    way = board.way
    if way is None:
        return {"kind": "local"}
    given = {"address": way.address, "config": way.config, "cache": way.cache}
    given = {key: value for key, value in given.items() if value}
    if way.python != type(way).python:
        given["python"] = way.python
    return {"ssh": way.address if len(given) == 1 else given}


# ---- files -------------------------------------------------------------------------------------


def put(target: Target, folder: Path, comment: str, force: bool) -> Outcome:
    """Write the file of a target, unless another one is there.

    Args:
        target: what to write.
        folder: of hwnas.yaml; files are in its `targets`.
        comment: first line of the file.
        force: replace a file that differs.

    Raises:
        ConfigError: the folder may not be written.
        DiskFullError: no space is left.
    """
    path = folder / FOLDER / f"{target.name}.yaml"
    differences = difference(path, target) if path.exists() or path.is_symlink() else None
    if differences is None or (differences and force):
        text = yaml.safe_dump(_fields(target), sort_keys=False, default_flow_style=None)
        write_atomic(path, f"# {comment}\n{text}".encode())
        state = "written" if differences is None else "replaced"
        return Outcome(target, path, state, differences or ())
    return Outcome(target, path, "kept" if differences else "unchanged", differences)


def difference(path: Path, target: Target) -> tuple[str, ...]:
    """Differences between a file and a target, a line each."""
    try:
        known = target_from_json(read_yaml(path)).to_json()
    except (ConfigError, TypeError) as error:
        return (f"it cannot be read as a target: {error}",)
    wanted = target.to_json()
    return tuple(
        f"{key}: {known[key]!r} there, {value!r} now"
        for key, value in wanted.items()
        if known[key] != value
    )


def _fields(target: Target) -> dict[str, Any]:
    """What the file says: what a target is driven by, without what is empty."""
    fields = target.to_json()
    for key in ("name", "optimisation"):
        del fields[key]
    return {key: value for key, value in fields.items() if value not in ("", [], {})}


def known_devices(folder: Path) -> dict[str, list[tuple[Path, Target]]]:
    """Target files of a project by device; files that are no targets are left out.

    Args:
        folder: of hwnas.yaml.
    """
    found: dict[str, list[tuple[Path, Target]]] = {}
    for path in sorted((folder / FOLDER).glob("*.yaml")):
        try:
            target = target_from_json(read_yaml(path))
        except (ConfigError, TypeError):
            continue
        found.setdefault(target.device, []).append((path, target))
    return found


def check_free(name: str, board: Board, folder: Path) -> None:
    """Refuse the name of a device that another board has.

    Raises:
        ConfigError: it is in use; the message holds where.
    """
    for path, target in known_devices(folder).get(name, []):
        if target.connection != _connection(board):
            raise ConfigError(
                f"device {name} is reached another way in {path} ({target.connection}); give this "
                "one another name with --name, or remove that file"
            )
