"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from profilers.errors import ConfigError, HwnasError


def each_once(option: typer.CallbackParam, names: list[str] | None) -> list[str]:
    """The names unchanged; a list even if there are none, because older typers expect one.

    Raises:
        ConfigError: one appears twice.
    """
    found = names or []
    for name in found:
        if found.count(name) > 1:
            raise ConfigError(f"--{option.name} {name} appears twice; name each {option.name} once")
    return found


ConfigPath = Annotated[Path, typer.Argument(help="settings file", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="replace a setting: train.epochs=20")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="only this target, or those of this device; may be repeated",
        callback=each_once,
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device", help="over all targets of this device; may be repeated", callback=each_once
    ),
]
Accept = Annotated[
    str,
    typer.Option(
        help="use tables that are: unreliable,emulated,estimated; mute gates: gap,budget,limit,"
        "regression,untimed (comma-separated)"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document for machines")]
Budget = Annotated[
    float,
    typer.Option("--budget", min=2, max=86_400, help="device time to spend, seconds"),
]
EnergyBudget = Annotated[
    float | None,
    typer.Option(
        "--energy-budget", min=0, max=86_400, help="device time of energy windows, seconds; 0: none"
    ),
]


BUDGETS = {  # words of messages about settings, and what they are in commands without any
    "profile.energy_budget_s": "--energy-budget",
    "profile.budget_s": "--budget",
    "wait for it, or set profile.wait_s": "wait for it and run this again",
}
NO_BUDGET = {**BUDGETS, " or raise profile.budget_s": ""}


def keep_apart(out: Path, read: Iterable[Path]) -> None:
    """Refuse to write over a file that is read.

    Raises:
        ConfigError: `out` is one of them.
    """
    for path in read:
        if out.exists() and path.exists() and out.samefile(path):
            raise ConfigError(f"--out {out} is the file that is read; name another one")


@contextmanager
def without_settings(options: Mapping[str, str]) -> Iterator[None]:
    """Context of a command without settings: its error messages name its options instead.

    Args:
        options: words of messages, and what they are here.
    """
    try:
        yield
    except HwnasError as error:
        words = str(error)
        for setting, option in options.items():
            words = words.replace(setting, option)
        error.args = (words, *error.args[1:])
        raise


def end_with(error: HwnasError) -> NoReturn:
    """End with an error's line and exit code after the answer itself was printed."""
    print(f"hwnas: {error}", file=sys.stderr)
    raise typer.Exit(error.exit_code)
