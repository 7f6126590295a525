"""`hwnas refine`: measure the most promising subnets and refit, until the front is stable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import Accept, AsJson, ConfigPath, Overrides
from profilers.errors import ConfigError

Results = Annotated[
    Path | None,
    typer.Option(
        "--from", help="CSV of measured subnets instead of the supernet (accuracy.results)"
    ),
]


Workers = Annotated[
    int | None,
    typer.Option(min=1, help="processes that measure subnets at once (accuracy.workers)"),
]
Cluster = Annotated[
    str,
    typer.Option(
        help="Dask scheduler whose workers measure subnets, tcp://host:8786 (accuracy.cluster)"
    ),
]


def measured_by(
    overrides: list[str] | None, results: Path | None, workers: int | None, cluster: str
) -> list[str]:
    """Overrides of settings, with who measures: the CSV that `--from` names, found from the working
    folder, some processes, or a cluster.

    Raises:
        ConfigError: that are several.
    """
    given = {"--from": results, "--workers": workers, "--cluster": cluster}
    named = [option for option, value in given.items() if value]
    if len(named) > 1:
        raise ConfigError(f"{named[0]} and {named[1]} both say who measures subnets; give one")
    chosen = list(overrides or ())
    if results is not None:
        chosen.append(f"accuracy.results={results.resolve()}")
    if workers or cluster:
        chosen += [f"accuracy.workers={workers or 1}", f"accuracy.cluster={cluster}"]
    return chosen


def refine(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    results: Results = None,
    workers: Workers = None,
    cluster: Cluster = "",
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Measure the most promising subnets and refit the predictor until the front is stable.

    With --from it writes the networks to measure next to candidates.csv in the run folder.
    """
    from hwnas.commands import running

    chosen = measured_by(overrides, results, workers, cluster)
    request = running.Request(config, chosen, (), accept, as_json)
    stages = ("data", "evaluate", "refine") if results else ("refine",)
    raise typer.Exit(running.run(stages, request))
