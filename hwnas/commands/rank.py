"""`hwnas space rank`: networks ranked before any training, beside MACs and parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import AsJson, ConfigPath, Overrides

if TYPE_CHECKING:
    from hwnas.supernet.training_free import Scores

Number = Annotated[int, typer.Option("--n", min=2, max=10_000, help="random networks to rank")]
Steps = Annotated[
    int, typer.Option(min=0, max=10_000, help="training steps before the score; 0: none")
]
Seed = Annotated[int, typer.Option(min=0, help="of networks, weights and images")]


def rank(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    n: Number = 30,
    steps: Steps = 0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Rank random networks by how their activations tell images apart, before any training.

    Within each resolution only. Nothing is written; MACs and parameters are often as good a guess.
    """
    import numpy as np

    from hwnas.commands import console
    from hwnas.images import tensors
    from hwnas.run import own
    from hwnas.run.context import space_for
    from hwnas.run.folder import RunFolder
    from hwnas.settings.config_file import load_config
    from hwnas.supernet.training_free import score_all

    settings = load_config(config, list(overrides or ()))
    given = settings.data
    if given.root and given.kind != "factory":
        given = given.model_copy(update={"root": str(config.resolve().parent / given.root)})
    images = tensors.load(given, identify=False)
    serial = images.preparation == tensors.SERIES
    found = own.load_space(settings.space, RunFolder(config.resolve().parent / settings.run))
    space = space_for(settings.space, found, (images.in_channels, images.n_classes), serial)
    archs = space.architectures(space.sample(n, np.random.default_rng(seed)))
    with console.reporter(quiet=as_json) as report:
        say = report.progress("score")
        scores = score_all(list(dict.fromkeys(archs)), images, seed, steps, say)
    rows = _rows(scores)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("network", "input", "rank score", "MACs", "parameters", "units", "D / images")
    lines = [
        (
            row["id"],
            str(row["resolution"]),
            f"{row['rank_score']:.2f}",
            f"{row['macs']:,}",
            f"{row['params']:,}",
            f"{row['n_units']:,}",
            f"{row['distinguishing'] / row['n_images']:.3f}",
        )
        for row in rows
    ]
    console.print_table("best first, within each resolution", columns, lines)


def _rows(scores: Scores) -> list[dict[str, Any]]:
    """One row for each network: by resolution, then the best first."""
    from hwnas.networks.counts import exact_costs
    from hwnas.supernet.training_free import rank_scores

    ranked = rank_scores(scores)
    rows = []
    for arch in sorted(scores, key=lambda arch: (arch.resolution, -ranked[arch])):
        found, costs = scores[arch], exact_costs(arch)
        rows.append(
            {
                "id": arch.id,
                "arch": arch.to_json(),
                "resolution": arch.resolution,
                "rank_score": ranked[arch],
                "distinguishing": found.distinguishing,
                "n_units": found.n_units,
                "n_images": found.n_images,
                "naswot": found.naswot,
                "macs": costs["macs"],
                "params": costs["params"],
            }
        )
    return rows
