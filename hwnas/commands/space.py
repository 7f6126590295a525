"""`hwnas space`: which search spaces there are and what they offer."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hwnas.commands.options import AsJson

app = typer.Typer(help="Look at search spaces.", no_args_is_help=True)


@app.command("list")
def list_spaces(as_json: AsJson = False) -> None:
    """The spaces that come with hwnas."""
    from hwnas import spaces

    found = spaces.names()
    print(json.dumps(found, indent=2) if as_json else "\n".join(found))


@app.command()
def show(
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
