"""The command line. Commands import what they need when they run: `--help` must be quick.

Errors are one line on standard error; the exit codes are in docs/formats.md.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hwnas.commands import devices, imports, space, table
from hwnas.commands.accept import accept, compare
from hwnas.commands.demo import demo
from hwnas.commands.explain import explain
from hwnas.commands.finetune import finetune
from hwnas.commands.front import fleet, front, pick
from hwnas.commands.init import init
from hwnas.commands.measure import measure
from hwnas.commands.on_devices import profile, verify
from hwnas.commands.options import Accept, AsJson, ConfigPath, Overrides, Targets
from hwnas.commands.refine import Cluster, Results, Workers, measured_by, refine
from hwnas.commands.report import report
from hwnas.commands.run import run
from hwnas.commands.status import gc, status
from profilers import __version__
from profilers.errors import DiskFullError, HwnasError
from profilers.schema import write_error

app = typer.Typer(
    name="hwnas",
    help="Train a once-for-all supernet once, ship the best measured model for each device.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(table.app, name="table")
app.add_typer(space.app, name="space")
app.add_typer(imports.app, name="import")
app.add_typer(devices.app, name="devices")

DEFAULT_CONFIG = Path("hwnas.yaml")
# Exit codes of Ctrl-C, of SIGTERM and where the reader of our output is gone, as shells tell them.
STOPPED, TERMINATED, UNHEARD = 128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + 13


PLAIN = {  # of typer, in words that are not a programmer's
    r"('.*'|Input) (is not|should be) a valid (integer|int)\b.*": "must be a whole number",
    r"('.*'|Input) (is not|should be) a valid (float|number)\b.*": "must be a number",
    r"Input should be\b": "must be",
}


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"hwnas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="show the traceback of an error; may stand anywhere")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="show the version", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """`--debug` is taken out before; it is here for the help."""


# ---- stages ------------------------------------------------------------------------------------


def _run(
    stages: Sequence[str],
    config: Path,
    overrides: list[str] | None,
    targets: list[str] | None = None,
    accept: str = "",
    as_json: bool = False,
    resume: bool = False,
) -> None:
    """Run stages and end with their exit code."""
    from hwnas.commands import running

    request = running.Request(config, overrides or (), targets or (), accept, as_json, resume)
    raise typer.Exit(running.run(stages, request))


app.command()(run)
app.command()(demo)
app.command()(status)


@app.command()
def train(
    config: ConfigPath = DEFAULT_CONFIG, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Train the supernet, or resume it."""
    _run(("data", "train"), config, overrides, as_json=as_json)


app.command()(profile)


@app.command()
def evaluate(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    results: Results = None,
    workers: Workers = None,
    cluster: Cluster = "",
    as_json: AsJson = False,
) -> None:
    """Measure subnets' accuracy and fit the predictor."""
    stages = ("data", "evaluate") if results else ("evaluate",)
    chosen = measured_by(overrides, results, workers, cluster)
    _run(stages, config, chosen, as_json=as_json)


@app.command()
def search(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the fronts that are there")
    ] = False,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Search the front of each target over its table."""
    _run(("search",), config, overrides, target, accept, as_json, resume)


@app.command()
def export(
    config: ConfigPath = DEFAULT_CONFIG,
    overrides: Overrides = None,
    target: Targets = None,
    imported_statistics: Annotated[
        bool,
        typer.Option(
            "--imported-statistics",
            help="keep an imported supernet's BatchNorm statistics: export.statistics=imported",
        ),
    ] = False,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Make the ONNX packages that the settings pick of each front."""
    added = ["export.statistics=imported"] if imported_statistics else []
    _run(("export",), config, [*(overrides or []), *added], target, accept, as_json)


app.command()(verify)


app.command()(report)


# ---- looking at things -------------------------------------------------------------------------


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What works here, and what is missing with the command that fixes it."""
    from hwnas.boards.doctor import findings

    found = findings()
    if as_json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            print(f"{'ok     ' if finding.ok else 'missing'}  {finding.what}: {finding.state}")
            if finding.fix:
                print(f"         fix: {finding.fix}")
    raise typer.Exit(0 if all(f.ok or not f.needed for f in found) else 4)


app.command()(init)
app.command()(pick)
app.command()(front)
app.command()(fleet)
app.command()(measure)
app.command()(refine)
app.command()(finetune)
app.command()(compare)
app.command()(accept)
app.command()(gc)


# ---- entry point -------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error becomes one line and its exit code.

    With `--json` an error is a JSON document on standard output as well.
    """
    _open_streams()
    given = _undebugged(list(sys.argv[1:] if arguments is None else arguments))
    as_json = "--json" in given
    try:
        with _terminable():
            command = typer.main.get_command(app)
            explain(command)
            code = command(args=given, prog_name="hwnas", standalone_mode=False)
            print(end="", flush=True)
    except HwnasError as error:
        _fail(str(error), error.exit_code, as_json)
    except KeyboardInterrupt:
        code = STOPPED
    except SystemExit as ended:  # click's own end where a reader is gone, or ours at a signal
        code = UNHEARD if isinstance(ended.__context__, BrokenPipeError) else ended.code
    except BrokenPipeError:
        code = UNHEARD
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own: unknown option, missing argument
            _fail(_usage(error), 2, as_json)
        full = _disk_full(error)
        if full is not None:
            _fail(str(full), full.exit_code, as_json)
        _fail(f"internal error: {error!r}; run again with --debug and report it", 1, as_json)
    if code in (STOPPED, TERMINATED):
        _fail("stopped; run the same command again to go on", code, as_json)
    if code == UNHEARD:
        _write_no_more()
    sys.exit(code or 0)


def _undebugged(given: list[str]) -> list[str]:
    """The words of a command line without `--debug`, which counts wherever it stands."""
    end = given.index("--") if "--" in given else len(given)
    if "--debug" in given[:end]:
        os.environ["HWNAS_DEBUG"] = "1"
    return [word for word in given[:end] if word != "--debug"] + given[end:]


def _open_streams() -> None:
    """Give a closed stream a place to write to, and let no stream fail at a letter it lacks.

    Without, the first file that is opened would get the number of standard error, and its messages.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what is going on as Ctrl-C does: files are whole, temporary folders removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _disk_full(error: Exception) -> DiskFullError | None:
    """The error of a full disk that an operation which named no file of its own ran into."""
    if not isinstance(error, OSError):
        return None
    found = write_error(Path(str(error.filename or "standard output")), error)
    return found if isinstance(found, DiskFullError) else None


def _write_no_more() -> None:
    """Let Python's own end write nowhere what is left to write, instead of failing there."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())


def _usage(error: Any) -> str:
    """A usage error in one line; no command at all gets the help instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return "name a command, for example: hwnas run hwnas.yaml"
    context = error.ctx
    words = " ".join(error.format_message().rstrip(".").split())
    for theirs, plain in PLAIN.items():
        words = re.sub(f"(?<=: ){theirs}", plain, words)
    known = getattr(context.command, "commands", {}) if context else {}
    wrong = re.match(r"No such command '([^']*)'", words)
    close = difflib.get_close_matches(wrong[1], known, n=1) if wrong else []
    hint = f"; did you mean {close[0]!r}?" if close and "id you mean" not in words else ""
    told = f"{words}{hint}"
    mark = "" if told.endswith("?") else ";"
    return f"{told}{mark} see `{context.command_path if context else 'hwnas'} --help`"


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    if os.environ.get("HWNAS_DEBUG"):
        traceback.print_exc()
    line = " ".join(message.split())
    try:
        print(f"hwnas: {line}", file=sys.stderr)
        if as_json:
            print(json.dumps({"exit_code": code, "error": line}))
        print(end="", flush=True)
    except OSError:  # nobody reads, or no room: the exit code still tells
        _write_no_more()
    sys.exit(code)
