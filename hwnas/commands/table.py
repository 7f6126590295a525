"""`hwnas table`: look at tables, make them again, check them, compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import (
    BUDGETS,
    AsJson,
    Budget,
    end_with,
    keep_apart,
    without_settings,
)
from hwnas.commands.table_words import (
    cell,
    print_about,
    print_check,
    print_contest,
    print_difference,
    print_made,
    print_trust,
    refuse_stale,
    with_interval,
)

app = typer.Typer(
    help="Latency tables: look at them, check and compare them.", no_args_is_help=True
)

TablePath = Annotated[Path, typer.Argument(help="table file", metavar="TABLE")]
Space = Annotated[
    str, typer.Option(help="the kit's space, where it is module:NAME or RUN/space.json")
]
Out = Annotated[Path, typer.Option("--out", help="where the table goes")]


@app.command("list")
def list_tables(as_json: AsJson = False) -> None:
    """The tables that ship with hwnas: they serve a search for their space and target."""
    from hwnas.commands import console
    from hwnas.tables import shipped
    from hwnas.tables.table import load_table

    found = [(path, load_table(path)) for path in shipped.paths()]
    rows = [
        {
            "space": table.space,
            "target": table.target["name"],
            "resolutions": list(table.resolutions),
            "device": str(table.environment.get("cpu") or table.environment.get("board") or ""),
            "verdict": table.verdict,
            "error": (table.validation["error"] or {}).get("value"),
            "file": str(path),
        }
        for path, table in found
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("space", "target", "resolutions", "device", "verdict", "error")
    lines = [tuple(with_interval(name, row[name], None) for name in columns) for row in rows]
    console.print_table(f"in {found[0][0].parents[1]}", columns, lines)


@app.command("show")
def show(
    path: TablePath,
    ops: Annotated[int, typer.Option(min=0, help="how many expensive ops to list")] = 10,
    whole: Annotated[
        bool, typer.Option("--all", help="every statistic, and the errors of other estimators")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Whether a table can be trusted, and where the time goes; with --all all that is known."""
    from hwnas.commands import console
    from hwnas.tables import about, table

    found = table.load_table(path)
    rows = about.op_rows(found)[:ops]
    if as_json:
        told = {**about.describe(found), "contest": about.contest(found)}
        print(json.dumps({**told, "ops_dearest_first": rows}, indent=2))
        return
    print_trust(path, found)
    if whole:
        print_about("all of it", found)
        print()
        print_contest(about.contest(found))
    known = {name for row in rows for name, value in row.items() if value is not None}
    columns = [name for name in rows[0] if name in known - {"key"}] if rows else []
    lines = [(row["key"], *(cell(name, row.get(name)) for name in columns)) for row in rows]
    heads = [name.replace("_", " ") for name in columns]
    console.print_table("most expensive ops", ("op", *heads), lines)


@app.command("fit")
def fit(
    measurements: Annotated[
        list[Path],
        typer.Argument(help="measurements of campaigns on one target", metavar="MEASUREMENTS"),
    ],
    kit: Annotated[
        list[Path], typer.Option(help="folder of a kit that was measured; may be repeated")
    ],
    out: Out,
    space: Space = "",
    seed: Annotated[int, typer.Option(min=0, help="of splits; as profile.seed")] = 0,
    rounds: Annotated[
        int, typer.Option(min=5, help="undisturbed rounds that are enough; as profile.rounds")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Make a table from measurements again, without measuring; of several files, one table."""
    from hwnas.commands.campaigns import read_campaign
    from hwnas.measuring.campaign import unsettled
    from hwnas.measuring.kit import space_of
    from hwnas.networks import spaces
    from hwnas.tables import fit, table
    from profilers.errors import TableError

    keep_apart(out, measurements)
    campaigns = [read_campaign(path, kit) for path in measurements]
    items = [item for campaign in campaigns for item in campaign.kit["items"]]
    whole = {**campaigns[0].kit, "items": items}
    offered = space_of(whole, space or spaces.beside(whole["space"], measurements[0]))
    reasons = [unsettled(c.kit, c.records, rounds) for c in campaigns]
    found = fit.fit_campaigns(offered, campaigns, seed, "; ".join(filter(None, reasons)))
    table.save(found, out)
    print_made(out, found, as_json)
    if found.verdict == "unreliable":
        end_with(TableError(f"{out} is unreliable: {found.validation['reason']}"))


@app.command("check")
def check(
    path: TablePath,
    target: Annotated[
        str, typer.Option(help="where it was made, if not the target of its name")
    ] = "",
    kit: Annotated[
        Path | None, typer.Option(help="folder of the table's kit; by default it is made again")
    ] = None,
    space: Space = "",
    budget_s: Budget = 30,
    as_json: AsJson = False,
) -> None:
    """Time a few networks of a table again: does it still hold?"""
    from hwnas.commands import console
    from hwnas.measuring.scratch import scratch
    from hwnas.networks import spaces
    from hwnas.settings.config import ProfileConfig
    from hwnas.settings.targets import full_name, load_target
    from hwnas.tables.check import check_table, kits_of
    from hwnas.tables.table import load_table

    found = load_table(path)
    driven = load_target(full_name(target or found.target["name"], Path()), Path())
    settings = ProfileConfig(budget_s=budget_s)
    with scratch("check") as folder:
        infos = kits_of(found, kit, folder, space or spaces.beside(found.space, path))
        with console.reporter(quiet=as_json) as report, without_settings(BUDGETS):
            say = report.progress(f"check {driven.name}")
            result = check_table(
                found, infos, driven, settings, lambda text, share: say(min(share, 0.999), text)
            )
            say(1.0, "")
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print_check(result)
    refuse_stale(path, result)


@app.command("counts")
def counts(
    space: Annotated[
        str, typer.Argument(help="search space, module:NAME or space.json", metavar="SPACE")
    ],
    out: Out,
    resolutions: Annotated[str, typer.Option(help="px, with commas; default: all")] = "",
    as_json: AsJson = False,
) -> None:
    """Make the table of exact MACs, parameters, bytes and activation memory of a space's ops."""
    from hwnas.networks import spaces
    from hwnas.tables import table
    from hwnas.tables.exact import count_table
    from profilers.errors import ConfigError

    asked = [size for size in resolutions.split(",") if size]
    if not all(size.isdecimal() for size in asked):
        raise ConfigError(f"--resolutions {resolutions!r}: expected px with commas, as 128,160")
    whole = spaces.load(space)
    found = count_table(whole.restricted(map(int, asked)) if asked else whole)
    table.save(found, out)
    print_made(out, found, as_json)


@app.command("diff")
def diff(
    a: Annotated[Path, typer.Argument(help="table file", metavar="A")],
    b: Annotated[Path, typer.Argument(help="table file", metavar="B")],
    ops: Annotated[int, typer.Option(help="how many of the ops that differ most to list")] = 10,
    as_json: AsJson = False,
) -> None:
    """What differs between two tables."""
    from hwnas.tables.difference import difference
    from hwnas.tables.table import load_table

    found = difference(load_table(a), load_table(b), ops)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print_difference(found)
