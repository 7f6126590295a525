"""The command line. Commands import what they need when they run: `--help` must be quick.

Errors are one line on standard error; the exit codes are in docs/formats.md.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands import table
from hwnas.commands.measure import measure
from hwnas.commands.options import AsJson
from profilers.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.pipeline import Outcome
    from hwnas.stages.context import Context

app = typer.Typer(
    name="hwnas",
    help="Train a once-for-all supernet once, ship the best measured model for each device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
space_app = typer.Typer(help="Look at search spaces.", no_args_is_help=True)
app.add_typer(table.app, name="table")
app.add_typer(space_app, name="space")

ConfigPath = Annotated[Path, typer.Argument(help="settings file", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="replace a setting: train.epochs=20")
]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="only this target; may be repeated")
]
Accept = Annotated[
    str, typer.Option(help="use tables that are: unreliable,emulated,estimated (comma-separated)")
]
DEFAULT_CONFIG = Path("hwnas.yaml")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
) -> None:
    if debug:
        os.environ["HWNAS_DEBUG"] = "1"


# ---- stages ------------------------------------------------------------------------------------


def _run(
    stages: Sequence[str],
    config_path: Path,
    overrides: list[str] | None,
    targets: list[str] | None,
    accept: str,
    as_json: bool,
) -> None:
    """Run stages and end with the exit code that docs/formats.md gives for what happened."""
    from hwnas import console, pipeline
    from hwnas.config import load_config
    from hwnas.run_folder import locked
    from hwnas.stages.context import Context

    config = load_config(config_path, overrides)
    base = config_path.resolve().parent
    names = _accepted(accept)
    with locked(base / config.run) as run, console.reporter(quiet=as_json) as report:
        context = Context(config, base, run, report, names)
        for name in {*config.targets, *(targets or ())}:
            context.target(name)  # a wrong name fails before hours of training
        outcome = pipeline.run_stages(context, stages, targets or ())
    if as_json:
        print(json.dumps(_summary(context, outcome), indent=2))
    else:
        _show(context, outcome, stages)
    raise typer.Exit(outcome.exit_code)


def _accepted(text: str) -> frozenset[str]:
    """The refusals that `--accept` names."""
    from profilers.plugins import select

    known = ("unreliable", "emulated", "estimated")
    return frozenset(
        select(word.strip(), known, "--accept word") for word in text.split(",") if word
    )


def _summary(context: Context, outcome: Outcome) -> dict[str, Any]:
    from hwnas import pipeline

    failures = [
        {"work": name, "exit_code": error.exit_code, "error": str(error)}
        for name, error in outcome.failures
    ]
    return {
        "run": str(context.run.root),
        "done": outcome.done,
        "up_to_date": outcome.skipped,
        "failures": failures,
        "exit_code": outcome.exit_code,
        "packages": pipeline.package_rows(context),
        "report": str(context.run.report) if context.run.report.exists() else None,
    }


def _show(context: Context, outcome: Outcome, stages: Sequence[str]) -> None:
    from hwnas import console, pipeline

    if not outcome.done and not outcome.failures:
        print("everything is up to date", file=sys.stderr)
    rows = pipeline.package_rows(context) if "export" in stages or "verify" in stages else []
    if rows:
        columns = ("package", "px", "test accuracy", "predicted ms", "measured ms", "gap", "kB")
        for target in context.config.targets:
            lines = [_package_line(row) for row in rows if row["target"] == target]
            if lines:
                print()
                console.print_table(target, columns, lines)
    if "report" in stages and context.run.report.exists():
        print(f"\nreport: {_short(context.run.report)}")
    if rows and "report" in stages:
        _say_next(rows)
    for name, error in outcome.failures:
        print(f"hwnas: {name}: {error}", file=sys.stderr)


def _short(path: Path) -> str:
    """A path as one would type it here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _say_next(rows: list[dict[str, Any]]) -> None:
    """Three things to try after a run."""
    program = _short(Path(sys.executable).parent / "hwnas")
    python = _short(Path(sys.executable).parent / "python")
    example = _short(Path(rows[0]["path"]) / "example.py")
    print("\ntry next:")
    print(f"  {python} {example} IMAGE.png    classify an image with the first package")
    print(f"  {program} init mine.yaml    settings for your own images, then: hwnas run mine.yaml")
    print(f"  {program} doctor    what else can be profiled here, and what is missing")


def _package_line(row: dict[str, Any]) -> tuple[str, ...]:
    measured = row["latency_ms"]
    share = "" if measured is None else f"{measured / row['predicted_latency_ms'] - 1:+.1%}"
    accuracy = row["test_accuracy"]
    return (
        row["package"],
        str(row["resolution"]),
        "" if accuracy is None else f"{accuracy:.2%}",
        f"{row['predicted_latency_ms']:.4f}",
        "" if measured is None else f"{measured:.4f}",
        share,
        f"{row['size_bytes'] / 1000:.0f}",
    )


@app.command()
def run(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Every stage for every target; what is up to date is skipped."""
    from hwnas.pipeline import STAGES

    _run(STAGES, config, overrides, target, accept, as_json)


@app.command()
def train(
    config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Train the supernet, or resume it."""
    _run(("data", "train"), config, overrides, None, "", as_json)


@app.command()
def profile(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Measure the targets and build their latency tables."""
    _run(("data", "profile"), config, overrides, target, accept, as_json)


@app.command()
def evaluate(
    config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Measure subnets' accuracy and fit the predictor."""
    _run(("evaluate",), config, overrides, None, "", as_json)


@app.command()
def search(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Search the front of each target over its table."""
    _run(("search",), config, overrides, target, accept, as_json)


@app.command()
def export(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Make the ONNX packages that the settings pick of each front."""
    _run(("export",), config, overrides, target, accept, as_json)


@app.command()
def verify(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Measure every package on its target and hold it against its prediction."""
    _run(("verify",), config, overrides, target, accept, as_json)


@app.command()
def report(config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Write report.html from what the run folder holds."""
    _run(("report",), config, overrides, None, "", False)


@app.command()
def pick(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    as_json: AsJson = False,
) -> None:
    """Show which networks of each front the settings pick; nothing is written."""
    from hwnas import console
    from hwnas.config import load_config
    from hwnas.run_folder import RunFolder
    from hwnas.stages.context import Context
    from hwnas.stages.picking import load_front, picked

    settings = load_config(config, overrides)
    base = config.resolve().parent
    with console.reporter(quiet=as_json) as reporter:
        context = Context(settings, base, RunFolder(base / settings.run), reporter)
        found: list[dict[str, Any]] = []
        for name in target or settings.targets:
            for chosen in picked(context, load_front(context, name)):
                found.append({"target": name, **chosen.to_json()})
    if as_json:
        print(json.dumps(found, indent=2))
        return
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


# ---- looking at things -------------------------------------------------------------------------


@app.command()
def init(
    config: ConfigPath = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option(help="replace a file that is there")] = False,
) -> None:
    """Write a settings file to start from."""
    from profilers.errors import ConfigError
    from profilers.schema import write_atomic

    if config.exists() and not force:
        raise ConfigError(f"{config} exists; --force replaces it")
    starter = Path(__file__).parent / "templates" / "hwnas.yaml"
    write_atomic(config, starter.read_bytes())
    print(f"wrote {config}; next: hwnas run {config}")


@space_app.command("list")
def space_list() -> None:
    """The spaces that come with hwnas."""
    from hwnas import spaces

    for name in spaces.names():
        print(name)


@space_app.command("show")
def space_show(
    name: Annotated[str, typer.Argument(help="a space of `hwnas space list`, or module:NAME")],
    as_json: AsJson = False,
) -> None:
    """What a space offers: choices, size, and the costs of its ends."""
    from hwnas import console, spaces
    from hwnas.counting import exact_costs

    space = spaces.load(name)
    ends = {"smallest": exact_costs(space.smallest), "largest": exact_costs(space.largest)}
    about = {
        "space": space.name,
        "networks": space.size,
        "geometry": space.geometry,
        "choices": space.offered(),
        **ends,
    }
    if as_json:
        print(json.dumps(about, indent=2))
        return
    print(f"{space.name}: {space.size:,} networks, geometry {space.geometry[:12]}\n")
    lines = [
        (metric, f"{ends['smallest'][metric]:,}", f"{ends['largest'][metric]:,}")
        for metric in ends["smallest"]
    ]
    console.print_table("cost", ("", "smallest", "largest"), lines)
    print()
    choices = [(n, ", ".join(map(str, options))) for n, options in space.offered().items()]
    console.print_table("choices", ("choice", "options"), choices)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What works here, and what is missing with the command that fixes it."""
    from hwnas.doctor import findings

    found = findings()
    if as_json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            print(f"{'ok     ' if finding.ok else 'missing'}  {finding.what}: {finding.state}")
            if finding.fix:
                print(f"         fix: {finding.fix}")
    raise typer.Exit(0 if all(f.ok or not f.needed for f in found) else 4)


app.command()(measure)


# ---- entry point -------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error becomes one line and its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="hwnas")
    except HwnasError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; run the same command again to go on", 130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        _fail(f"internal error: {error!r}; run again with --debug and report it", 1)


def _fail(message: str, code: int) -> None:
    if os.environ.get("HWNAS_DEBUG"):
        traceback.print_exc()
    print(f"hwnas: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
