"""`hwnas devices`: boards and this machine: what they are, what they lack, their target files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import AsJson, end_with
from profilers.errors import DeviceError

if TYPE_CHECKING:
    from hwnas.boards.ask import Board
    from hwnas.boards.doctor import Finding
    from hwnas.boards.target_files import Outcome
    from hwnas.measuring.openssh import Ssh
    from profilers.schema import Target

FORMAT = "hwnas-device-1"
app = typer.Typer(help="Boards and this machine as devices to measure on.", no_args_is_help=True)

Address = Annotated[str, typer.Argument(help="user@host, a Host of your ssh configuration, local")]


@app.command()
def add(
    address: Address,
    name: Annotated[str, typer.Option(help="of the device; by default its family")] = "",
    threads: Annotated[
        int, typer.Option(min=0, max=4096, help="of engines on the CPU; 0: its cores, at most 4")
    ] = 0,
    python: Annotated[str, typer.Option(help="command of the board's Python")] = "",
    ssh_config: Annotated[str, typer.Option(help="ssh configuration file to use")] = "",
    cache: Annotated[str, typer.Option(help="folder on the board for worker and kits")] = "",
    force: Annotated[bool, typer.Option(help="replace target files that differ")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a board what it is and has; write a target file for each engine that works there."""
    from hwnas.boards import advice, target_files

    _check_name(name)
    board = _ask(address, _way(address, python, ssh_config, cache), as_json)
    device = name or _usual_name(board)
    targets = target_files.targets_of(board, device, threads)
    if targets:
        target_files.check_free(device, board, Path())
    comment = f"written by `hwnas devices add`: {_title(board)}"
    outcomes = [target_files.put(target, Path(), comment, force) for target in targets]
    found = advice.findings(board)
    if as_json:
        print(json.dumps(_document(device, board, found, outcomes), indent=2))
    else:
        _print_findings(f"{device}: {_title(board)}", found)
        _print_outcomes(outcomes)
    _end(board, found, outcomes)


@app.command("list")
def list_devices(as_json: AsJson = False) -> None:
    """The devices of the target files here; none is asked anything."""
    from hwnas.boards import target_files
    from hwnas.commands import console
    from hwnas.settings.targets import REFERENCE

    known = target_files.known_devices(Path())
    rows = [
        {
            "device": device,
            "hardware": target.hardware or target.device,
            "connection": _reached(target.connection),
            "target": target.name,
            "file": str(path),
        }
        for device, files in sorted(known.items())
        for path, target in files
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        columns = ("device", "hardware", "connection", "target")
        console.print_table("devices", columns, [tuple(row[c] for c in columns) for row in rows])
    else:
        print("no target files in targets/; `hwnas devices add user@host` writes them")
        print(f"this machine needs none: host.{REFERENCE}.fp32.b1.t1")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="a device of `hwnas devices list`, or local")],
    as_json: AsJson = False,
) -> None:
    """Ask a device again: what it is, what it lacks, which of its targets work now."""
    from hwnas.boards import advice, target_files
    from hwnas.boards.ask import LOCAL

    known = target_files.known_devices(Path())
    way = None if name == LOCAL else _known_way(*_known(name, known)[0])
    board = _ask(name, way, as_json)
    found = advice.findings(board)
    works = {target.runtime for target in target_files.targets_of(board, "any")}
    driven = [
        {"target": target.name, "works": target.runtime in works}
        for _, target in known.get(name, [])
    ]
    if as_json:
        document = {**_document(name, board, found, []), "targets": driven}
        print(json.dumps(document, indent=2))
    else:
        _print_findings(f"{name}: {_title(board)}", found)
        for row in driven:
            print(f"{'works  ' if row['works'] else 'missing'}  {row['target']}")
    _end(board, found, [])


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="a device of `hwnas devices list`, or local")],
    out: Annotated[
        Path | None, typer.Option(help="file to write; default: hwnas-check-<family>.json")
    ] = None,
    budget_s: Annotated[
        float, typer.Option("--budget", min=20, max=3600, help="time for all of it, seconds")
    ] = 600,
    as_json: AsJson = False,
) -> None:
    """Check a device and write the results into one anonymous file that can be sent."""
    from hwnas.boards import check
    from hwnas.commands import console
    from hwnas.measuring.scratch import scratch
    from profilers.schema import write_json

    board, targets = _to_check(name, as_json)
    path = out or Path(f"hwnas-check-{board.family.name}.json")
    with scratch("check-device") as folder, console.reporter(quiet=as_json) as report:
        say = report.progress(f"check {name}")
        found = check.check_device(
            board,
            targets,
            folder,
            budget_s,
            lambda document: write_json(path, document),
            lambda text, share: say(share, text),
        )
        say(1.0, "")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print_checks(found)
        print(f"wrote {path}: attach it to a report; `python docs/verified.py` reads it")
    wrong = check.failed(found)
    if wrong:
        end_with(DeviceError(f"{name}: {len(wrong)} checks do not hold: {', '.join(wrong)}"))


def _to_check(name: str, quiet: bool) -> tuple[Board, list[Target]]:
    """A device as it answers, and its targets: those of its files, or what works here.

    Raises:
        DeviceError: it cannot be asked, or no engine works there.
    """
    from hwnas.boards import advice, target_files
    from hwnas.boards.ask import LOCAL

    files = [] if name == LOCAL else _known(name, target_files.known_devices(Path()))
    board = _ask(name, _known_way(*files[0]) if files else None, quiet)
    targets = [target for _, target in files] or target_files.targets_of(board, _usual_name(board))
    if not targets:
        missing = next(f for f in advice.findings(board) if f.needed and not f.ok)
        raise DeviceError(f"{name}: {missing.what}: {missing.state}; {missing.fix}")
    return board, targets


def _print_checks(found: dict[str, Any]) -> None:
    words = {True: "holds  ", False: "FAILS  ", None: "unknown"}
    for row in found["checks"]:
        what = " of ".join(filter(None, (row["check"], row["target"])))
        print(f"{words[row['holds']]}  {what}" + (f": {row['reason']}" if row["reason"] else ""))


@app.command()
def clean(
    name: Annotated[str, typer.Argument(help="a device of `hwnas devices list`, or local")],
    as_json: AsJson = False,
) -> None:
    """Remove the worker and the kits that were sent to a device."""
    from hwnas.boards import target_files
    from hwnas.boards.ask import LOCAL
    from hwnas.measuring import here
    from hwnas.settings.targets import REFERENCE
    from profilers.schema import Target

    known = target_files.known_devices(Path())
    target = Target("host", REFERENCE)
    if name != LOCAL:
        target = _known(name, known)[0][1]
    folder, freed_bytes = here.clean(target)
    if as_json:
        print(json.dumps({"device": name, "folder": folder, "freed_bytes": freed_bytes}))
    else:
        print(f"{name}: removed {folder} there, {freed_bytes / 1e6:.1f} MB")


def _ask(title: str, way: Ssh | None, quiet: bool) -> Board:
    """What a machine answers; someone who watches sees what it is asked."""
    from hwnas.boards.ask import ask
    from hwnas.commands import console

    with console.reporter(quiet=quiet or not console.is_terminal()) as report:
        say = report.progress(f"ask {title}")
        board = ask(way, lambda text, share: say(share, text))
        say(1.0, "")
    return board


def _known(name: str, known: dict[str, list[tuple[Path, Target]]]) -> list[tuple[Path, Target]]:
    """The target files of a device, of those by device.

    Raises:
        ConfigError: there is none of that name.
    """
    from profilers.errors import ConfigError
    from profilers.plugins import select

    if not known:
        raise ConfigError(
            f"device {name!r}: targets/ here describes no device yet; `hwnas devices add` does, "
            "and local is this machine"
        )
    return known[select(name, known, "device")]


def _known_way(path: Path, target: Target) -> Ssh | None:
    """How the device of a target file is reached.

    Raises:
        ConfigError: it is not, or not as the file says.
    """
    from hwnas.measuring import openssh
    from hwnas.settings.targets import TABLE_ONLY
    from profilers.errors import ConfigError

    if target.connection.get("kind") == TABLE_ONLY:
        raise ConfigError(f"{path} describes a table from elsewhere; there is no device to ask")
    return openssh.of_target(target)


def _check_name(name: str) -> None:
    from profilers.errors import ConfigError

    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ConfigError(
            f"--name {name[:80]!r} may hold letters, digits, '-' and '_' only, at most 64"
        )


def _way(address: str, python: str, ssh_config: str, cache: str) -> Ssh | None:
    """How a machine is reached; None for this one.

    Raises:
        ConfigError: the address or a path is not allowed.
    """
    from hwnas.boards.ask import LOCAL
    from hwnas.measuring import openssh
    from profilers.errors import ConfigError

    options = {"config": ssh_config, "python": python, "cache": cache}
    given = {key: value for key, value in options.items() if value}
    if address != LOCAL:
        return openssh.parse({"address": address, **given})
    if given:
        raise ConfigError("--python, --ssh-config and --cache are for boards; leave them out")
    return None


def _usual_name(board: Board) -> str:
    """The name of a device that was given none: its family, or `host` for this machine."""
    if board.way is None and board.survey["hardware"] in ("host", "nvidia"):
        return "host"
    return board.family.name


def _title(board: Board) -> str:
    survey = board.survey
    return f"{survey['board'] or board.family.title}, {survey['os'] or survey['kernel']}"


def _reached(connection: dict[str, Any]) -> str:
    way = connection.get("ssh")
    if isinstance(way, dict):
        return str(way.get("address"))
    return str(way or connection.get("kind"))


def _document(
    device: str, board: Board, found: list[Finding], outcomes: list[Outcome]
) -> dict[str, Any]:
    """The answer of `--json` (docs/formats.md, "Devices")."""
    return {
        "format": FORMAT,
        "device": device,
        "address": board.address,
        "family": board.family.title,
        "survey": board.survey,
        "engines": board.engines,
        "findings": [finding._asdict() for finding in found],
        "targets": [
            {
                "target": outcome.target.name,
                "file": str(outcome.path),
                "state": outcome.state,
                "differences": list(outcome.differences),
            }
            for outcome in outcomes
        ],
    }


def _print_findings(title: str, found: list[Finding]) -> None:
    print(title)
    for finding in found:
        mark = "ok     " if finding.ok else "missing" if finding.needed else "note   "
        print(f"{mark}  {finding.what}: {finding.state}")
        if finding.fix:
            print(f"         fix: {finding.fix}")


def _print_outcomes(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        print(f"{outcome.state}  {outcome.path}")
        for line in outcome.differences:
            print(f"         {line}")
    if outcomes:
        names = " ".join(f"--target {outcome.target.name}" for outcome in outcomes)
        print(
            f"next: name them under targets: in hwnas.yaml, then hwnas profile hwnas.yaml {names}"
        )


def _end(board: Board, found: list[Finding], outcomes: list[Outcome]) -> None:
    """End with an error if a file was kept, or if something is missing that every target needs."""
    from hwnas.boards import catalog
    from profilers.errors import ConfigError, RuntimeMissingError

    kept = [outcome.path for outcome in outcomes if outcome.state == "kept"]
    if kept:
        end_with(ConfigError(f"{kept[0]} differs and was kept; --force replaces it"))
    missing = [finding for finding in found if finding.needed and not finding.ok]
    if missing:
        first = missing[0]
        kind = RuntimeMissingError if first.what in ("numpy", *catalog.modules()) else DeviceError
        end_with(kind(f"{board.address}: {first.what}: {first.state}; {first.fix}"))
