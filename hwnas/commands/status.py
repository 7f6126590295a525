"""`hwnas status` and `run --dry-run`: what is wrong, what is stale and why, how long; `gc`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.commands.options import Accept, AsJson, ConfigPath, Overrides, Targets
from profilers.errors import HwnasError

DEFAULT = Path("hwnas.yaml")


def status(
    config: ConfigPath = DEFAULT,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """What a run would do and why, about how long, and what is wrong; nothing is written."""
    from hwnas.commands.running import Request

    raise typer.Exit(show(Request(config, overrides or (), target or (), accept, as_json)))


def gc(
    config: ConfigPath = DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list them")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove packages that the settings no longer ask for, and weights that others replaced."""
    from hwnas.commands import console
    from hwnas.run import leftovers
    from hwnas.run.context import Context
    from hwnas.run.folder import locked
    from hwnas.settings.config_file import load_config

    settings, base = load_config(config, []), config.resolve().parent
    with locked(base / settings.run) as folder, console.reporter(as_json) as report:
        found = leftovers.leftovers(Context(settings, base, folder, report))
        for each in found if not dry_run else ():
            leftovers.remove(each)
    if as_json:
        told = [{"path": str(each.path), "size_bytes": each.size_bytes} for each in found]
        print(json.dumps({"removed": not dry_run, "found": told}, indent=2))
        return
    for each in found:
        print(f"{each.size_bytes / 1e6:9.2f} MB  {each.path.relative_to(folder.root)}")
    print(f"{'there are' if dry_run else 'removed'} {leftovers.in_words(found)}", file=sys.stderr)


def show(request: Any) -> int:
    """Print what a run would do, and return the exit code of what is wrong; 0 for nothing."""
    from hwnas.commands import console, running
    from hwnas.commands.pipeline import stages_of
    from hwnas.run import leftovers, plan

    with console.reporter(quiet=True) as report:
        context, targets = running.opened(request, report)
        wrong: dict[str, HwnasError] = {}
        try:
            plan.check_settings(context)
        except HwnasError as found:
            wrong["settings"] = found
        wrong |= plan.problems(context, targets)
        steps = plan.steps(context, stages_of(context), targets)
        kept = leftovers.leftovers(context)
        shared = _devices(context, targets)
    for step in steps:
        if step.error is not None and str(step.error) not in map(str, wrong.values()):
            wrong[step.name] = step.error
    code = min((error.exit_code for error in wrong.values()), default=0)
    total_s = sum(step.about_s or 0.0 for step in steps)
    if request.as_json:
        print(json.dumps({**_told(steps, wrong, kept, code), "devices": shared}, indent=2))
    else:
        for step in steps:
            takes = "" if step.about_s is None else f"about {plan.in_words(step.about_s)}"
            state = "current" if step.current else "stale"
            print(f"{step.name:<34} {state:<8} {takes:<13} {step.why}".rstrip())
        if all(step.current for step in steps):
            print("everything is up to date")
        elif total_s:
            print(f"about {plan.in_words(total_s)} in all, as far as known")
        for device in shared:
            print(_device_words(device))
        if kept:
            print(f"{leftovers.in_words(kept)}; `hwnas gc {request.config}` removes them")
    for name, error in wrong.items():
        print(f"hwnas: {name}: {error}", file=sys.stderr)
    return code


def _devices(context: Any, targets: Any) -> list[dict[str, Any]]:
    """Devices that are driven in several ways: how many networks of their fronts are whose."""
    from hwnas.run import devices

    told = []
    for name, mine in devices.devices(targets).items():
        if len(mine) < 2:
            continue
        with contextlib.suppress(HwnasError):
            found = devices.device_front(context, name, mine)
            networks = {target: found.points_of(target) for target in found.fronts}
            left_out = devices.left_out_fields(found)
            told.append({"device": name, "networks": networks, "left_out": left_out})
    return told


def _device_words(device: dict[str, Any]) -> str:
    """The front of a device in one line."""
    parts = [f"{n} of {target}" for target, n in device["networks"].items()]
    parts += [f"{out['target']} is left out" for out in device["left_out"]]
    return f"front of {device['device']}: {', '.join(parts)}"


def _told(steps: Any, wrong: dict[str, HwnasError], kept: Any, code: int) -> dict[str, Any]:
    return {
        "stages": [
            {"name": s.name, "current": s.current, "why": s.why, "about_s": s.about_s}
            for s in steps
        ],
        "problems": [
            {"work": name, "exit_code": error.exit_code, "error": str(error)}
            for name, error in wrong.items()
        ],
        "kept": [{"path": str(k.path), "size_bytes": k.size_bytes} for k in kept],
        "exit_code": code,
    }
