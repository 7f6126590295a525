"""`hwnas refine`: measure the most promising subnets and refit, until the front is stable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import Accept, AsJson, ConfigPath, Overrides

Results = Annotated[
    Path | None,
    typer.Option(
        "--from", help="CSV of measured subnets instead of the supernet (accuracy.results)"
    ),
]


def with_results(overrides: list[str] | None, results: Path | None) -> list[str]:
    """Overrides of settings, with the CSV that `--from` names, found from the working folder."""
    chosen = [] if results is None else [f"accuracy.results={results.resolve()}"]
    return [*(overrides or ()), *chosen]


def refine(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    results: Results = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Measure the most promising subnets and refit the predictor until the front is stable.

    With --from it writes the networks to measure next to candidates.csv in the run folder.
    """
    from hwnas.commands import running

    request = running.Request(config, with_results(overrides, results), (), accept, as_json)
    stages = ("data", "evaluate", "refine") if results else ("refine",)
    raise typer.Exit(running.run(stages, request))
