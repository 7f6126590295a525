"""`hwnas table`: look at tables, make them again, check them, compare them, import them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import AsJson, Budget, end_with

if TYPE_CHECKING:
    from hwnas.tables.table import CostTable

app = typer.Typer(
    help="Latency tables: look at them, check and compare them.", no_args_is_help=True
)

TablePath = Annotated[Path, typer.Argument(help="table file", metavar="TABLE")]
Out = Annotated[Path, typer.Option("--out", help="where the table goes")]


@app.command("show")
def show(
    path: TablePath,
    ops: Annotated[int, typer.Option(help="how many of the dearest ops to list")] = 10,
    as_json: AsJson = False,
) -> None:
    """What a table is, how good it is, and where the time goes."""
    from hwnas import console
    from hwnas.tables import table

    found = table.load_table(path)
    about = table.describe(found)
    rows = table.op_rows(found)[:ops]
    if as_json:
        print(json.dumps({**about, "ops_dearest_first": rows}, indent=2))
        return
    _print_about(str(path), found)
    print()
    lines = [
        (row["key"], _ms(row["latency_ms"]), _ms(row["spread_ms"]), str(row["seen"]))
        for row in rows
    ]
    console.print_table("dearest ops", ("op", "ms", "spread", "seen"), lines)


@app.command("fit")
def fit(
    measurements: Annotated[
        Path, typer.Argument(help="measurements of a campaign", metavar="MEASUREMENTS")
    ],
    kit: Annotated[Path, typer.Option(help="folder of the kit that was measured")],
    out: Out,
    space: Annotated[str, typer.Option(help="the kit's space, where it is module:NAME")] = "",
    seed: Annotated[int, typer.Option(min=0, help="of splits; as profile.seed")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a table from measurements again, without measuring."""
    from hwnas.measuring.kit import load_kit, space_of
    from hwnas.measuring.records import read_log
    from hwnas.tables import fit, table
    from profilers.errors import TableError

    made_from = load_kit(kit).kit
    header, records, broken = read_log(measurements)
    if broken:
        lines = ", ".join(map(str, broken[:5]))
        print(f"warning: {measurements}: {len(broken)} broken lines: {lines}", file=sys.stderr)
    found = fit.fit_table(space_of(made_from, space), made_from, header, records, seed)
    table.save(found, out)
    _print_made(out, found, as_json)
    if found.verdict == "unreliable":
        end_with(TableError(f"{out} is unreliable: {found.validation['reason']}"))


@app.command("check")
def check(
    path: TablePath,
    target: Annotated[str, typer.Option(help="the table's own, where it has a file")] = "",
    kit: Annotated[
        Path | None, typer.Option(help="folder of the table's kit; by default that of its run")
    ] = None,
    budget_s: Budget = 30,
    as_json: AsJson = False,
) -> None:
    """Time a few networks of a table again: does it still hold?"""
    from hwnas import console
    from hwnas.config import ProfileConfig
    from hwnas.measuring.kit import load_kit
    from hwnas.run_folder import RunFolder
    from hwnas.tables.check import check_table
    from hwnas.tables.table import load_table
    from hwnas.targets import load_target
    from profilers.errors import ConfigError
    from profilers.schema import target_from_json

    found = load_table(path)
    driven = load_target(target, Path()) if target else target_from_json(found.target)
    folder = kit or RunFolder(path.resolve().parents[1]).kit(driven.batch)
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist; name the folder of the table's kit with --kit")
    info = load_kit(folder)
    settings = ProfileConfig(budget_s=budget_s)
    with console.reporter(quiet=as_json) as report:
        say = report.progress(f"check {driven.name}")
        result = check_table(
            found, info, driven, settings, lambda text, share: say(min(share, 0.999), text)
        )
        say(1.0, "")
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print_check(result)
    _refuse_stale(path, result)


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
    _print_difference(found)


@app.command("import-ofa")
def import_ofa(
    files: Annotated[
        list[Path], typer.Argument(help="<px>_lookup_table.yaml, any number", metavar="FILE")
    ],
    space: Annotated[str, typer.Option(help="ofa-mbv3-w10 or ofa-mbv3-w12")],
    target: Annotated[
        str, typer.Option(help="what they were measured on, as note10.tflite.fp32.b1.t1")
    ],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Make a table of once-for-all's look-up files; nothing says how good it is."""
    from hwnas.tables import table
    from hwnas.tables.import_ofa import import_tables
    from profilers.schema import target_from_name

    found = import_tables(files, space, target_from_name(target))
    table.save(found, out)
    _print_made(out, found, as_json)


# ---- words -------------------------------------------------------------------------------------


def _print_made(out: Path, table: CostTable, as_json: bool) -> None:
    from hwnas.tables.table import describe

    if as_json:
        print(json.dumps(describe(table), indent=2))
    else:
        _print_about(f"wrote {out}", table)


def _print_about(title: str, table: CostTable) -> None:
    from hwnas import console
    from hwnas.tables.table import describe

    lines = [(name, _text(value)) for name, value in describe(table).items()]
    console.print_table(title, ("", "value"), lines)


def _print_difference(found: dict[str, Any]) -> None:
    from hwnas import console

    for title in ("about", "environment"):
        if found[title]:
            lines = [tuple(map(_text, entry)) for entry in found[title]]
            console.print_table(title, ("", "A", "B"), lines)
        else:
            print(f"{title}: equal")
        print()
    rows = [(name.replace("_", " "), _text(value)) for name, value in found["rows"].items()]
    console.print_table("rows, ratios B over A", ("", "value"), rows)
    print()
    ops = [(op["key"], _ms(op["a_ms"]), _ms(op["b_ms"]), _text(op["ratio"])) for op in found["ops"]]
    console.print_table("ops that differ most", ("op", "A ms", "B ms", "B over A"), ops)


def _print_check(result: dict[str, Any]) -> None:
    """The environment first, then every network, then the answer."""
    from hwnas import console

    if result["environment"]:
        print("the environment is another one than when the table was made:")
        for name, then, now in result["environment"]:
            print(f"  {name}: {_text(then)} then, {_text(now)} now")
    lines = [
        (p["item"], _ms(p["then_ms"]), _ms(p["now_ms"]), f"{p['now_ms'] / p['then_ms'] - 1:+.1%}")
        for p in result["probes"]
    ]
    anchor = result["anchor"]
    gap = anchor["now_ms"] / anchor["predicted_ms"] - 1
    lines.append(
        ("anchor, predicted", _ms(anchor["predicted_ms"]), _ms(anchor["now_ms"]), f"{gap:+.1%}")
    )
    console.print_table("networks", ("", "then ms", "now ms", "change"), lines)
    if result["holds"]:
        print(f"the table holds: networks differ by {_shares(result)}")


def _shares(result: dict[str, Any]) -> str:
    return (
        f"{result['gap']:.1%} on average ({result['limit']:.1%} may be), "
        f"the median by {result['shift']:+.1%}"
    )


def _refuse_stale(path: Path, result: dict[str, Any]) -> None:
    from profilers.errors import TableError

    if not result["holds"]:
        reason = (
            f"{path} is stale: networks differ by {_shares(result)}; stop other work on the device "
            "and check again, or profile again"
        )
        end_with(TableError(reason))


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.5f}"


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
