"""`hwnas front`, `pick` and `fleet`: fronts as tables or CSV, what is picked of them, few models
for many targets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import Accept, AsJson, ConfigPath, Overrides, Targets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwnas.run.context import Context
    from hwnas.run.joint import Served
    from hwnas.search.front import Front
    from hwnas.search.joint import Mode

MODES: dict[str, Mode] = {"worst": "worst", "mean": "mean"}
Weights = Annotated[
    list[str] | None,
    typer.Option("--weight", help="devices of a target: TARGET=20; may be repeated"),
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
    """Show the front of each target, or search one for several targets together."""
    from hwnas.api import to_csv
    from hwnas.run.joint import joint_front
    from hwnas.run.search import load_front
    from profilers.plugins import select

    with run_context(config, overrides, accept, quiet=as_json or csv == Path("-")) as context:
        names = list(target or context.config.targets)
        if together:
            mode = MODES[select(together, tuple(MODES), "--together")]
            fronts = [joint_front(context, names, mode, numbers(weight, "--weight"))]
        else:
            fronts = [load_front(context, name) for name in names]
    if csv is not None:
        _write(csv, to_csv(fronts))
    elif as_json:
        from hwnas.search.front import to_json

        print(json.dumps([to_json(found) for found in fronts], indent=2))
    else:
        for found in fronts:
            _show(found)


def pick(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Show which networks of each front the settings pick; nothing is written."""
    from hwnas.run.picking import picked
    from hwnas.run.search import load_front

    with run_context(config, overrides, accept, quiet=as_json) as context:
        found: list[dict[str, Any]] = [
            {"target": name, **chosen.to_json()}
            for name in target or context.config.targets
            for chosen in picked(context, load_front(context, name))
        ]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from hwnas.commands import console

    lines = [
        (
            row["package"],
            row["target"],
            row["id"],
            f"{row['predicted']['error']:.2%}",
            f"{row['predicted']['latency_ms']:.4f}",
        )
        for row in found
    ]
    columns = ("package", "target", "network", "predicted error", "predicted ms")
    console.print_table("picked", columns, lines)


def _write(path: Path, text: str) -> None:
    from profilers.schema import write_atomic

    if path == Path("-"):
        sys.stdout.write(text)
        return
    write_atomic(path, text.encode())
    print(f"wrote {path}")


def _show(found: Front) -> None:
    from hwnas.commands import console

    names = list(dict.fromkeys((*found.objectives, *found.points[0].predicted)))
    lines = [
        (point.id, str(point.arch.resolution), *(_text(n, point.predicted[n]) for n in names))
        for point in found.points
    ]
    title = f"{found.target}: {len(found.points)} networks, hypervolume {found.hypervolume:.6g}"
    console.print_table(title, ("network", "input", *names), lines)


def _text(name: str, value: float) -> str:
    if name == "error":
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def fleet(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    target: Targets = None,
    models: Annotated[int, typer.Option(help="most different networks", min=1, max=100)] = 2,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="of every target: latency_ms=60% or latency_ms=4.5"),
    ] = None,
    weight: Weights = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Choose few networks for many targets; shows what each target loses by sharing."""
    from hwnas.run.joint import fleet as choose
    from hwnas.run.joint import fronts_of
    from profilers.errors import ConfigError

    limits = amounts(budget)
    if not limits:
        raise ConfigError("a fleet needs a budget, for example --budget latency_ms=60%")
    with run_context(config, overrides, accept, quiet=as_json) as context:
        fronts = fronts_of(context, target or context.config.targets)
        if not fronts:
            raise ConfigError("no target has a front yet; run `hwnas search` first")
        served = choose(context, fronts, limits, models, numbers(weight, "--weight"))
    if as_json:
        print(json.dumps([s.to_json() for s in served], indent=2))
        return
    _show_fleet(served, models)


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
    title = f"{different} network(s) of at most {models} for {len(served)} targets, predicted"
    console.print_table(title, columns, lines)
    print("\npackages: add to pick in the settings: {rule: fleet, k: N, budget: {…}}")


def amounts(given: Sequence[str] | None) -> dict[str, float | str]:
    """`name=60%` or `name=4.5` texts as budgets.

    Raises:
        ConfigError: not of that form, or a name is there twice.
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
            raise ConfigError(f"budget {text!r}: {name.strip()} is there twice; keep one")
        found[name.strip()] = amount
    return found


def numbers(given: Sequence[str] | None, option: str) -> Mapping[str, float]:
    """`NAME=NUMBER` texts by name.

    Raises:
        ConfigError: not of that form, or a name is there twice.
    """
    from profilers.errors import ConfigError

    found: dict[str, Any] = {}
    for text in given or ():
        name, _, value = text.rpartition("=")
        if name in found:
            raise ConfigError(f"{option} {text!r}: {name} is there twice; keep one")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"{option} {text!r}: give NAME=NUMBER") from None
    return found
