"""The Python interface: what `from hwnas import ...` gives, for notebooks and other programs.

Everything here works on files that commands made (tables, predictors, fronts) or on objects made
from them, and loads neither torch nor scikit-learn. Other names may change between versions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.networks import spaces
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors import predictor
from hwnas.search import front as fronts
from hwnas.search import problem, searchers
from hwnas.search.front import Front, Point
from hwnas.search.problem import Metric
from hwnas.settings import shipped
from hwnas.settings.config import PickConfig, SearchConfig
from hwnas.settings.config_file import explained
from hwnas.tables import table
from hwnas.tables.table import CostTable, network_latency
from profilers.errors import HwnasError, InfeasibleError, TableError

__all__ = [
    "Architecture",
    "CostTable",
    "Front",
    "HwnasError",
    "InfeasibleError",
    "Metric",
    "Point",
    "SearchSpace",
    "TableError",
    "load_front",
    "load_predictor",
    "load_space",
    "load_table",
    "network_latency",
    "pick",
    "search_front",
    "to_csv",
]


def load_space(
    name: str, resolutions: Sequence[int] = (), channels: int = 0, classes: int = 0
) -> SearchSpace:
    """A search space.

    Args:
        name: one of `hwnas space list`, module:NAME of your own, or a path of `space.json`.
        resolutions: px to keep; empty: all that the space offers.
        channels: of the images, 1 or 3; 0: as the space has it.
        classes: 0: as the space has it. Tables and predictors of a run fit only the channels and
            classes of its data.

    Raises:
        ConfigError: no such space, or a resolution that it does not offer.
    """
    space = spaces.load(name)
    space = space.for_data(channels or space.in_channels, classes or space.n_classes)
    return space.restricted(tuple(resolutions)) if resolutions else space


def load_table(path: str | Path) -> CostTable:
    """The table of a file, or one that ships with hwnas.

    Args:
        path: of the file; `<space>/<target>` of `hwnas table list` where there is no such file.

    Raises:
        TableFormatError: missing, truncated, edited or of another kind.
    """
    own, known = Path(path), shipped.folder("latency_tables") / f"{path}.json"
    return table.load_table(known if known.is_file() and not own.exists() else own)


def load_predictor(path: str | Path, space: SearchSpace) -> Metric:
    """The predicted error of a space's networks, from a predictor.npz.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
        TableError: it was fitted for another space.
    """
    return predictor.load(Path(path), space).metric(space)


def search_front(
    space: SearchSpace,
    costs: CostTable | None = None,
    error: Metric | None = None,
    *,
    metrics: Mapping[str, Metric] | None = None,
    accept: Sequence[str] = (),
    **settings: Any,
) -> Front:
    """The front of a space.

    Args:
        space: the search space.
        costs: a target's table; its resolutions are those searched. None: counts only.
        error: what prices the error: `load_predictor`, or anything with
            `evaluate(genome (n, n_choices)) -> (n,)`.
        metrics: others in place of, or besides, those of table and predictor.
        accept: refusals of tables to override: unreliable, emulated, estimated.
        settings: fields of `search` in hwnas.yaml: objectives, budgets, algorithm, population,
            generations, seed and so on.

    Raises:
        ConfigError: a setting is unknown, or an objective has no metric.
        TableError: the table does not serve the space, or is not accepted.
        InfeasibleError: a budget cannot be met; names the smallest reachable value.
    """
    config = explained(SearchConfig, settings, "search")
    known = {**_metrics(space, costs, error, accept), **(metrics or {})}
    stated = problem.make_problem(space, config, known)
    found = searchers.search(stated, config)
    hashes = {"table": costs.sha256} if costs else {}
    target = str(costs.target["name"]) if costs else "no target"
    return fronts.make_front(target, stated, found, config, hashes, tuple(accept))


def _metrics(
    space: SearchSpace, costs: CostTable | None, error: Metric | None, accept: Sequence[str]
) -> dict[str, Metric]:
    if costs is None:
        return problem.metrics_of(space, error=error)
    table.check_serves(costs, space, frozenset(accept))
    return problem.metrics_of(
        space, lambda op: costs.row(op.key), costs.intercept, error, costs.link
    )


def load_front(path: str | Path, space: SearchSpace) -> Front:
    """The front of a file that `hwnas search` wrote.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
        TableError: it was searched in another geometry.
    """
    return fronts.load(Path(path), space)


def pick(found: Front, **rule: Any) -> list[Point]:
    """The networks that a rule of `pick` in hwnas.yaml chooses: `budget={"latency_ms": 4.5}`,
    `rule="knee"`, `rule="spread", k=5`.

    Raises:
        ConfigError: an unknown rule or metric.
        InfeasibleError: no network is within the budget; names the smallest value.
    """
    return [point for _, point in fronts.pick(found, explained(PickConfig, rule, "pick"))]


def to_csv(found: Sequence[Front]) -> str:
    """Fronts of one space as CSV: a line for each network with its target, id, every choice,
    predicted and measured metrics.
    """
    points = [(front, point) for front in found for point in front.points]
    predicted = list(dict.fromkeys(name for _, p in points for name in p.predicted))
    measured = list(dict.fromkeys(name for _, p in points for name in p.measured or {}))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    choices = [choice.name for choice in found[0].space.choices]
    heads = [f"predicted_{name}" for name in predicted] + [f"measured_{name}" for name in measured]
    writer.writerow(["target", "id", *choices, *heads])
    for front, point in points:
        values = [point.predicted.get(name, "") for name in predicted]
        values += [(point.measured or {}).get(name, "") for name in measured]
        writer.writerow([front.target, point.id, *point.arch.values, *values])
    return out.getvalue()
