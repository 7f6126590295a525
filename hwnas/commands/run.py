"""`hwnas run`: every stage for every target, for people and for pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import Accept, AsJson, ConfigPath, Overrides, Targets

DEFAULT = Path("hwnas.yaml")


def run(
    config: ConfigPath = DEFAULT,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    ci: Annotated[
        Path | None,
        typer.Option(help="folder for what a pipeline reads: results, JUnit, sums, packages"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything and say what would be done")
    ] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="print the targets as a matrix of jobs")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Every stage for every target; what is up to date is skipped."""
    from hwnas.commands import running, status
    from hwnas.commands.pipeline import STAGES

    request = running.Request(config, overrides or (), target or (), accept, as_json, ci=ci)
    if matrix:
        print(json.dumps(running.matrix(request)))
        return
    raise typer.Exit(status.show(request) if dry_run else running.run(STAGES, request))
