"""`hwnas compare` and `hwnas accept`: compare two results; write the lock."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import AsJson, ConfigPath, Overrides, Targets

DEFAULT = Path("hwnas.yaml")
Given = Annotated[Path, typer.Argument(help="result.json, the folder of --ci, or hwnas.lock")]


def compare(base: Given, new: Given, as_json: AsJson = False) -> None:
    """What changed between two results beyond the noise of both; exit code 3 if something is worse.

    Results of another device, engine, precision or clocks are refused.
    """
    from hwnas.run import compare as comparing
    from hwnas.run import lock, result

    formats = (result.FORMAT, lock.FORMAT)
    old, now = (lock.read(p / "result.json" if p.is_dir() else p, formats) for p in (base, new))
    found = comparing.compared(old, now)
    print(json.dumps(found, indent=2) if as_json else comparing.to_markdown(found))
    for words in comparing.worse(found):
        print(f"hwnas: {words}", file=sys.stderr)
    raise typer.Exit(3 if found["regression"] else 0)


def accept(
    config: ConfigPath = DEFAULT,
    overrides: Overrides = None,
    target: Targets = None,
    as_json: AsJson = False,
) -> None:
    """Write the numbers of the packages that are there into hwnas.lock: later runs must keep them.

    With --target only theirs are moved.
    """
    from hwnas.commands import console, running
    from hwnas.run import lock
    from hwnas.run.devices import device_name
    from hwnas.run.folder import locked
    from hwnas.run.result import result
    from profilers.errors import ConfigError

    request = running.Request(config, overrides or (), target or (), "", as_json)
    with console.reporter(quiet=True) as report:
        context, targets = running.opened(request, report)
        with locked(context.run.root):
            found = result(context, targets)
            place = device_name if "devices" in found else str
            missing = set(map(place, targets)) - set(map(place, found["targets"]))
            if missing:
                names = ", ".join(sorted(missing))
                raise ConfigError(f"no measured packages of {names}; run `hwnas run {config}`")
            path = context.base / lock.NAME
            before = lock.read(path) if path.exists() else None
            now = lock.merged(before, found) if before and target else lock.locked(found)
            lock.write(now, path)
    moved = lock.moved(before, found) if before else ["everything"]
    if as_json:
        print(json.dumps({"lock": str(path), "moved": moved}, indent=2))
    else:
        print(f"wrote {path}; moved: {', '.join(moved) or 'numbers only'}")
