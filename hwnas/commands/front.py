"""`hwnas front`, `pick` and `fleet`: fronts of targets and devices, what is picked, few models for
many.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import Accept, AsJson, ConfigPath, Devices, Overrides, Targets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwnas.run.context import Context
    from hwnas.run.devices import DeviceFront
    from hwnas.run.joint import Served
    from hwnas.search.front import Front
    from hwnas.search.joint import Mode
    from profilers.errors import HwnasError

MODES: dict[str, Mode] = {"worst": "worst", "mean": "mean"}
Weights = Annotated[
    list[str] | None,
    typer.Option("--weight", help="how many there are of a target: TARGET=20; may be repeated"),
]


@contextmanager
def run_context(
    config: Path, overrides: Sequence[str] | None, accept: str, quiet: bool
) -> Iterator[Context]:
    """The run of a settings file, for commands that only look at it."""
    from hwnas.commands import console
    from hwnas.commands.running import accepted
    from hwnas.run.context import Context
    from hwnas.run.folder import RunFolder
    from hwnas.settings.config_file import load_config

    settings = load_config(config, list(overrides or ()))
    base = config.resolve().parent
    with console.reporter(quiet=quiet) as reporter:
        yield Context(settings, base, RunFolder(base / settings.run), reporter, accepted(accept))


def front(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    target: Targets = None,
    device: Devices = None,
    together: Annotated[
        str, typer.Option(help="one front for all targets: by the `worst` or the `mean` share")
    ] = "",
    weight: Weights = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="write CSV here; - is standard output")
    ] = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Show the front of each target, or of a device over all its targets; or search one for
    several targets together.
    """
    from hwnas.run import devices
    from hwnas.run.joint import joint_front
    from hwnas.run.search import load_front
    from hwnas.search.front import to_json
    from hwnas.search.front_csv import to_csv
    from profilers.errors import ConfigError
    from profilers.plugins import select

    _one_way(device=device, target=target, together=together)
    if as_json and csv is not None:
        raise ConfigError("--json and --csv are two forms of one answer; leave one out")
    if weight and not together:
        raise ConfigError("--weight goes with --together mean; leave it out, or name --together")
    with run_context(config, overrides, accept, quiet=as_json or csv == Path("-")) as context:
        names = _targets(context, target)
        found: list[DeviceFront] = []
        failed: dict[str, HwnasError] = {}
        if together:
            mode = MODES[select(together, tuple(MODES), "--together")]
            fronts = [joint_front(context, names, mode, numbers(weight, "--weight"))]
        elif device:
            found, failed = _fronts_of(context, device)
            fronts = [each.union for each in found]
        else:
            fronts = [load_front(context, name) for name in names]
        told = [devices.to_json(context, each) for each in found] or list(map(to_json, fronts))
        sure = _sure(context)
    if csv is not None:
        _write(csv, to_csv(fronts))
    elif as_json:
        print(json.dumps(told, indent=2))
    else:
        for each in fronts:
            _show(each)
        print(sure)
    _end_with(failed)


def pick(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    target: Targets = None,
    device: Devices = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Show which networks of each front the settings pick; nothing is written.

    Of a device: which engine, precision and threads as well, and what its other targets offer.
    """
    from hwnas.commands import console, device_table
    from hwnas.run import picking

    _one_way(device=device, target=target)
    with run_context(config, overrides, accept, quiet=as_json) as context:
        if device or (context.config.export.per == "device" and not target):
            found, failed = _fronts_of(context, device or [])
            _end_with({**failed, **_show_picked(context, found, as_json)})
            return
        rows: list[dict[str, Any]] = [
            {"target": name, **chosen.to_json()}
            for name in _targets(context, target)
            for chosen in picking.packages_of(context, name)
        ]
        sure = _sure(context)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    lines = [(r["package"], r["target"], r["id"], *device_table.predicted(r)) for r in rows]
    columns = ("package", "target", "network", "predicted error", "predicted ms")
    console.print_table("picked", columns, lines)
    print(sure)


def _sure(context: Context) -> str:
    """How far predicted errors are off; that the predictor cannot rank is a warning."""
    from hwnas.run.search import predictor_doubts, predictor_words

    if doubts := predictor_doubts(context, context.config.targets):
        context.report.warn(doubts)
    return predictor_words(context, context.config.targets)


def _targets(context: Context, named: Sequence[str] | None) -> list[str]:
    """Targets by their names or by those of their devices; all of the settings if none is named."""
    from hwnas.commands.running import meant

    if not named:
        return list(context.config.targets)
    return list(dict.fromkeys(found for name in named for found in meant(context, name)))


# ---- devices ------------------------------------------------------------------------------------


def _one_way(**given: Any) -> None:
    """Refuse options that answer different questions.

    Raises:
        ConfigError: `--device` is there with another one.
    """
    from profilers.errors import ConfigError

    others = [name for name, value in given.items() if value and name != "device"]
    if given["device"] and others:
        raise ConfigError(
            f"--device is over all targets of a device; leave out --{others[0]}, or leave out "
            "--device"
        )


def _fronts_of(
    context: Context, names: Sequence[str]
) -> tuple[list[DeviceFront], dict[str, HwnasError]]:
    """The front of each device that names mean, and why a device or a target of one has none.

    Raises:
        HwnasError: no device has one.
    """
    from hwnas.run import devices
    from profilers.errors import HwnasError

    found: list[DeviceFront] = []
    failed: dict[str, HwnasError] = {}
    for name, targets in devices.named(context, names).items():
        try:
            found.append(devices.device_front(context, name, targets))
            failed |= found[-1].left_out
        except HwnasError as error:
            failed[name] = error
    if not found:
        raise min(failed.values(), key=lambda error: error.exit_code)
    return found, failed


def _end_with(failed: Mapping[str, HwnasError]) -> None:
    """Say which targets and devices are no part of the answer, and end with their exit code."""
    for name, error in failed.items():
        print(f"hwnas: {name} is left out: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(min(error.exit_code for error in failed.values()))


def _show_picked(
    context: Context, found: Sequence[DeviceFront], as_json: bool
) -> dict[str, HwnasError]:
    """Show what the settings pick of devices, and what their other targets offer in its place;
    which devices have no network within a budget.

    Raises:
        InfeasibleError: none has.
    """
    from hwnas.commands import device_table
    from hwnas.run import picking
    from profilers.errors import InfeasibleError

    rows: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, HwnasError] = {}
    for each in found:
        try:
            rows[each.name] = picking.device_rows(context, each)
        except InfeasibleError as error:
            failed[each.name] = error
    if not rows:
        raise next(iter(failed.values()))
    if as_json:
        print(json.dumps([row for mine in rows.values() for row in mine], indent=2))
        return failed
    for each in found:
        if each.name in rows:
            title = f"picked for {each.name}, of {len(each.fronts)} targets"
            device_table.show(title, rows[each.name])
    print(_sure(context))
    return failed


def _write(path: Path, text: str) -> None:
    from profilers.schema import write_atomic

    if path == Path("-"):
        sys.stdout.write(text)
        return
    write_atomic(path, text.encode())
    print(f"wrote {path}")


def _show(found: Front) -> None:
    from hwnas.commands import console

    known = (name for point in found.points for name in point.predicted)
    names = list(dict.fromkeys((*found.objectives, *known)))
    whose = [point.target.partition(".")[2] for point in found.points]
    lines = [
        (
            *([way] if way else []),
            point.id,
            str(point.arch.resolution),
            *(_text(name, point.predicted.get(name)) for name in names),
        )
        for way, point in zip(whose, found.points, strict=True)
    ]
    title = f"{found.target}: {len(found.points)} networks, hypervolume {found.hypervolume:.6g}"
    heads = ("network", "input", *names)
    console.print_table(title, ("target", *heads) if any(whose) else heads, lines)


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "error":
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def fleet(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    target: Targets = None,
    device: Devices = None,
    models: Annotated[int, typer.Option(help="most different networks", min=1, max=100)] = 2,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="of each one: latency_ms=60% or latency_ms=4.5"),
    ] = None,
    weight: Weights = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Choose few networks for many targets, or for many devices, each driven the best way; shows
    what each loses by sharing.
    """
    from hwnas.run import joint
    from profilers.errors import ConfigError

    limits = amounts(budget)
    _one_way(device=device, target=target)
    if not limits:
        raise ConfigError("a fleet needs a budget, for example --budget latency_ms=60%")
    with run_context(config, overrides, accept, quiet=as_json) as context:
        failed: dict[str, HwnasError] = {}
        if device or (context.config.export.per == "device" and not target):
            found, failed = _fronts_of(context, device or [])
            units = list(map(joint.unit_of, found))
        else:
            units = joint.units_of(context, target or context.config.targets, per_device=False)
        if not units:
            raise ConfigError("no target has a front yet; run `hwnas search` first")
        served = joint.fleet(context, units, limits, models, numbers(weight, "--weight"))
        sure = _sure(context)
    if as_json:
        print(json.dumps([s.to_json() for s in served], indent=2))
    else:
        _show_fleet(served, models)
        print(sure)
    _end_with(failed)


def _show_fleet(served: Sequence[Served], models: int) -> None:
    from hwnas.commands import console

    lines = [
        (
            s.target,
            s.point.id,
            f"{s.point.predicted['error']:.2%}",
            f"{s.alone:.2%}",
            f"{100 * (s.point.predicted['error'] - s.alone):.2f}",
            ", ".join(f"{n} {s.point.predicted[n]:.4g} of {b:.4g}" for n, b in s.budgets.items()),
        )
        for s in served
    ]
    different = len({s.point.id for s in served})
    columns = ("target", "network", "error", "alone", "loss, points", "budget")
    served_by = "devices" if any(s.name != s.target for s in served) else "targets"
    title = f"{different} network(s) of at most {models} for {len(served)} {served_by}, predicted"
    console.print_table(title, columns, lines)
    print("\npackages: add to pick in the settings: {rule: fleet, k: N, budget: {…}}")


def amounts(given: Sequence[str] | None) -> dict[str, float | str]:
    """`name=60%` or `name=4.5` texts as budgets.

    Raises:
        ConfigError: not of that form, or a name appears twice.
    """
    from hwnas.settings.amounts import check_amount
    from profilers.errors import ConfigError

    found: dict[str, float | str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        try:
            amount: float | str = value if value.rstrip().endswith("%") else float(value)
            check_amount(amount, f"budget {name}")
        except ValueError:
            raise ConfigError(
                f"budget {text!r}: give METRIC=NUMBER or METRIC=SHARE% (at most 100), "
                "for example latency_ms=60%"
            ) from None
        if not equals or not name:
            raise ConfigError(f"budget {text!r}: give METRIC=NUMBER or METRIC=SHARE%")
        if name.strip() in found:
            raise ConfigError(f"budget {text!r}: {name.strip()} appears twice; keep one")
        found[name.strip()] = amount
    return found


def numbers(given: Sequence[str] | None, option: str) -> Mapping[str, float]:
    """`NAME=NUMBER` texts by name.

    Raises:
        ConfigError: not of that form, or a name appears twice.
    """
    from profilers.errors import ConfigError

    found: dict[str, Any] = {}
    for text in given or ():
        name, _, value = text.rpartition("=")
        if name in found:
            raise ConfigError(f"{option} {text!r}: {name} appears twice; keep one")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"{option} {text!r}: give NAME=NUMBER") from None
    return found
