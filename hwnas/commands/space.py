"""`hwnas space`: which search spaces there are and what they offer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.analyse import analyse
from hwnas.commands.options import Accept, AsJson, Overrides
from hwnas.commands.rank import rank

if TYPE_CHECKING:
    from hwnas.networks.space import SearchSpace
    from hwnas.predictors.predictor import ErrorModel
    from hwnas.search.problem import Metric
    from hwnas.search.space_profile import MetricProfile

    # metrics of networks that may be searched, and of the max network of the whole space
    _Priced = tuple[dict[str, Metric], dict[str, float]]

app = typer.Typer(help="Look at search spaces.", no_args_is_help=True)
app.command()(rank)
app.command()(analyse)


@app.command("list")
def list_spaces(as_json: AsJson = False) -> None:
    """The spaces that come with hwnas, a line of facts on each."""
    from hwnas.networks import spaces

    found = [_facts(spaces.load(name)) for name in spaces.names()]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for each in found:
        low, high = (
            f"{macs / 1e6:.3g}" if macs < 1e8 else f"{macs / 1e6:,.0f}" for macs in each["macs"]
        )
        px = f"{each['resolutions'][0]} to {each['resolutions'][-1]} {each['unit']}"
        n, params = each["networks"], f"{each['params'] / 1e6:.3g}"
        size = f"{n:,}" if n < 1e6 else f"{n:.1e}"
        print(
            f"{each['space']:<19}{each['inputs']:<13}{px:<17}{size:>7} networks, {low} to {high} "
            f"million MACs, at most {params} million parameters"
        )


def _facts(space: SearchSpace) -> dict[str, Any]:
    """What a space offers, in short: its MACs from the smallest to the largest network."""
    from hwnas.networks.counts import exact_costs

    least, most = exact_costs(space.smallest), exact_costs(space.largest)
    serial = len(space.input_shape(1)) == 2
    return {
        "space": space.name,
        "inputs": "time series" if serial else "images",
        "resolutions": list(space.resolutions),
        "unit": "steps" if serial else "px",
        "networks": space.size,
        "macs": [least["macs"], most["macs"]],
        "params": most["params"],
    }


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="a space of `hwnas space list`, module:NAME, or RUN/space.json")
    ],
    as_json: AsJson = False,
) -> None:
    """What a space offers: choices, size, and the costs of its ends."""
    from hwnas.commands import console
    from hwnas.networks import spaces
    from hwnas.networks.counts import exact_costs

    space = spaces.load(name)
    ends = {"smallest": exact_costs(space.smallest), "largest": exact_costs(space.largest)}
    in_float = _in_float(space)
    about = {
        "space": space.name,
        "networks": space.size,
        "geometry": space.geometry,
        "choices": space.offered(),
        **ends,
        "int8_in_float": in_float,
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
    left = ", ".join(f"{n} {op}" for op, n in in_float.items())
    print(f"\nin int8 the largest network leaves in float: {left or 'nothing'}\n")
    choices = [(n, ", ".join(map(str, options))) for n, options in space.offered().items()]
    console.print_table("choices", ("choice", "options"), choices)


def _in_float(space: SearchSpace) -> dict[str, int]:
    """How many nodes of each op of the largest network have no integer kernel."""
    from hwnas.networks import onnx_graph
    from profilers import precisions

    ops = space.largest.ops
    offsets = {weight.name: 0 for weight in onnx_graph.weights_of(ops)}
    graph = onnx_graph.build_external(ops, offsets)
    return precisions.load("int8").in_float(onnx_graph.to_bytes(graph))


@app.command("profile")
def profile_space(
    name: Annotated[
        str, typer.Argument(help="a space, or a settings file: its space, tables and budgets")
    ],
    overrides: Overrides = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="largest value: latency_ms=4.5 or macs=60%; may be repeated"),
    ] = None,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Least, median and most of each metric, and at once whether budgets can be met."""
    from hwnas.commands.front import amounts
    from hwnas.search.space_profile import profile

    space, known, budgets = _metrics(name, overrides or (), accept, as_json)
    budgets.update(amounts(budget))
    found: dict[str, list[MetricProfile]] = {
        of: profile(space, metrics, budgets, whole) for of, (metrics, whole) in known.items()
    }
    if as_json:
        rows = {of: [{**asdict(r), "reachable": r.reachable} for r in f] for of, f in found.items()}
        print(json.dumps(rows, indent=2))
    else:
        for of, profiled in found.items():
            _show_profile(of, profiled)
    if not all(row.reachable for profiled in found.values() for row in profiled):
        raise typer.Exit(3)


def _metrics(
    name: str, overrides: Sequence[str], accept: str, quiet: bool
) -> tuple[SearchSpace, dict[str, _Priced], dict[str, float | str]]:
    """The space, its metrics by target (counts alone before anything is profiled), budgets."""
    from hwnas.commands.front import run_context
    from hwnas.networks import spaces
    from hwnas.networks.narrowing import narrowed
    from hwnas.run.imported import has_images
    from hwnas.run.own import load_space
    from hwnas.run.search import max_values, metrics_with, run_error, usable_table

    if not name.endswith((".yaml", ".yml")):
        space = spaces.load(name)
        return space, {space.name: _counted(space, space)}, {}
    with run_context(Path(name), overrides, accept, quiet) as context:
        budgets = {str(n): b for n, b in context.config.search.budgets.items()}
        run, targets = context.run, context.config.targets
        if has_images(context.config) and not run.data.exists():
            whole = load_space(context.config.space, run)
            space = narrowed(whole, context.config.search.only)
            return space, {space.name: _counted(space, whole)}, budgets
        ready = [target for target in targets if run.table(target).exists()]
        error, space = run_error(context), context.searched
        tables = {target: usable_table(context, target) for target in ready}
        known: dict[str, _Priced] = {
            target: (metrics_with(context, table, error), max_values(context, table, error))
            for target, table in tables.items()
        }
        return space, known or {space.name: _counted(space, context.space, error)}, budgets


def _counted(space: SearchSpace, whole: SearchSpace, error: ErrorModel | None = None) -> _Priced:
    """What is known before anything is profiled."""
    from hwnas.search.problem import metrics_of, of_largest

    mine, all_of_it = (
        metrics_of(each, error=error.metric(each) if error else None) for each in (space, whole)
    )
    return mine, of_largest(whole, all_of_it)


def _show_profile(of: str, profiled: Sequence[MetricProfile]) -> None:
    from hwnas.commands import console

    lines = []
    for row in profiled:
        budget = "" if row.budget is None else f"{row.budget:,.6g}"
        within = "" if row.within is None else f"{row.within:.1%}"
        verdict = "" if row.budget is None else "can be met" if row.reachable else "CANNOT BE MET"
        values = (f"{value:,.6g}" for value in (row.least, row.median, row.p90, row.most))
        lines.append((f"{row.name}, {row.unit}", *values, budget, within, verdict))
    columns = ("metric", "least", "median", "90 %", "most", "budget", "within", "")
    console.print_table(of, columns, lines)
