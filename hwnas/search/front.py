"""The front of one target as a file, and the rules that pick networks from it.

A search makes a front; to meet a budget is to look it up there. Predicted values come from table
and predictor; measured ones are added beside them later. Format: docs/formats.md,
"Front".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.pricing import pareto
from hwnas.pricing.terms import UNITS
from hwnas.search import front_shape
from hwnas.search.archive import Generation
from hwnas.search.problem import Problem
from hwnas.settings.amounts import amount
from hwnas.settings.config import PickConfig, SearchConfig
from profilers.errors import ConfigError, FileFormatError, InfeasibleError, TableError
from profilers.schema import canonical_json, read_json, sha256_text, write_json

FORMAT = "hwnas-front-1"
COST_OF_MAX = 1.1  # reference point: this times the max network's cost
_WHOLE = ("MACs", "parameters", "bytes")  # units of which there are no fractions


@dataclass(frozen=True)
class Point:
    """One network of a front.

    Attributes:
        arch: the network.
        predicted: every metric known by name, in its unit.
        measured: on the target, or None.
        target: whose it is, on a front of several targets; else empty.
    """

    arch: Architecture
    predicted: dict[str, float]
    measured: dict[str, float] | None = None
    target: str = ""

    @property
    def id(self) -> str:
        """Of the architecture."""
        return self.arch.id

    def to_json(self) -> dict[str, Any]:
        """As front.json holds it."""
        return {
            **({"target": self.target} if self.target else {}),
            "id": self.id,
            "arch": self.arch.to_json(),
            "predicted": self.predicted,
            "measured": self.measured,
        }


@dataclass(frozen=True)
class Front:
    """Networks of which none beats another, for one target.

    Attributes:
        target: its name.
        space: that was searched, maybe restricted.
        objectives: names of metrics, all minimised.
        reference_point: (m,) of the hypervolume, in the objectives' units.
        hypervolume: of the predicted objectives.
        max_network: every metric of the max network; shares of budgets are of these.
        settings: of the search, whole.
        seeds: by what they seed.
        hashes: sha256 of table, predictor and supernet.
        accepted: refusals that were overridden by name.
        evaluations: networks priced by the search.
        points: ascending by the second objective.
    """

    target: str
    space: SearchSpace
    objectives: tuple[str, ...]
    reference_point: tuple[float, ...]
    hypervolume: float
    max_network: dict[str, float]
    settings: dict[str, Any]
    seeds: dict[str, int]
    hashes: dict[str, str]
    accepted: tuple[str, ...]
    evaluations: int
    points: tuple[Point, ...]

    @property
    def identity(self) -> str:
        """Hash of everything but what was measured since the search."""
        return sha256_text(canonical_json(to_json(self.with_measured({}, keep=False))))

    def values(self, names: tuple[str, ...]) -> np.ndarray:
        """(n, len(names)) predicted values of metrics: measuring changes no basis of picking.

        Raises:
            ConfigError: the front does not hold a metric.
        """
        columns = []
        for name in names:
            column = [point.predicted.get(name) for point in self.points]
            if None in column:
                known = ", ".join(sorted(self.points[0].predicted))
                raise ConfigError(f"front of {self.target} does not hold {name}; it holds {known}")
            columns.append(column)
        return np.array(columns, dtype=np.float64).T.reshape(len(self.points), len(names))

    def with_measured(
        self, measured: Mapping[str, Mapping[str, float]], keep: bool = True
    ) -> Front:
        """The same front with the measured values of networks, given by id.

        Args:
            measured: what was measured.
            keep: whether networks not named keep what was measured before.
        """
        points = [
            replace(point, measured=dict(measured[point.id]))
            if point.id in measured
            else replace(point, measured=point.measured if keep else None)
            for point in self.points
        ]
        return replace(self, points=tuple(points))


def make_front(
    target: str,
    problem: Problem,
    result: Generation,
    settings: SearchConfig,
    hashes: Mapping[str, str],
    accepted: tuple[str, ...] = (),
) -> Front:
    """The front of a finished search.

    Args:
        target: its name.
        problem: what was searched.
        result: the last generation.
        settings: of the search.
        hashes: sha256 of table, predictor and supernet.
        accepted: refusals that were overridden by name.
    """
    space, found = problem.space, result.front
    largest = named_metrics({n: np.array([v]) for n, v in problem.max_network.items()}, 0)
    reference = reference_point(problem.objectives, largest, space.n_classes)
    predicted = problem.predict(found.genome)
    points = [
        Point(arch, named_metrics(predicted, row))
        for row, arch in enumerate(space.architectures(found.genome))
    ]
    return Front(
        target,
        space,
        problem.objectives,
        tuple(reference.tolist()),
        pareto.hypervolume(found.costs, reference),
        largest,
        settings.model_dump(mode="json"),
        {"search": settings.seed},
        dict(hashes),
        tuple(sorted(accepted)),
        result.evaluations,
        tuple(points),
    )


def named_metrics(metrics: Mapping[str, np.ndarray], row: int) -> dict[str, float]:
    """Metrics of one network by name.

    Args:
        metrics: (n,) values by name.
        row: of the network.

    Returns:
        plain numbers; counts are whole.
    """
    return {
        name: int(values[row]) if UNITS.get(name) in _WHOLE else float(values[row])
        for name, values in metrics.items()
    }


def reference_point(
    objectives: tuple[str, ...], max_network: Mapping[str, float], n_classes: int
) -> np.ndarray:
    """(m,) error of guessing, and 1.1 x what the max network costs."""
    guess = 1 - 1 / max(n_classes, 2)
    return np.array([guess if n == "error" else COST_OF_MAX * max_network[n] for n in objectives])


# ---- file ---------------------------------------------------------------------------------------


def save(front: Front, path: Path) -> None:
    """Write front.json atomically, with the sha256 of its content."""
    content = to_json(front)
    write_json(Path(path), {**content, "sha256": sha256_text(canonical_json(content))})


def to_json(front: Front) -> dict[str, Any]:
    """The content of front.json."""
    kept = ("target", "hypervolume", "max_network", "settings", "seeds", "hashes", "evaluations")
    return {
        "format": FORMAT,
        **{name: getattr(front, name) for name in kept},
        "space": front.space.name,
        "geometry": front.space.geometry,
        "objectives": [{"name": n, "unit": UNITS.get(n, "")} for n in front.objectives],
        "reference_point": list(front.reference_point),
        "accepted": list(front.accepted),
        "points": [point.to_json() for point in front.points],
    }


def load(path: Path, space: SearchSpace) -> Front:
    """The front of a file.

    Args:
        path: front.json.
        space: whose networks it must hold.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
        TableError: it was searched in another geometry.
        ConfigError: a network is not offered by the space.
    """
    content = read_json(Path(path), FORMAT)
    stated = content.pop("sha256", None)
    if stated != sha256_text(canonical_json(content)):
        raise FileFormatError(
            f"{path} was edited (sha256 differs); delete it and run `hwnas search` again"
        )
    geometry = content.get("geometry")
    if geometry != space.geometry:
        raise TableError(
            f"{path} was searched in space {content.get('space')} of geometry {geometry}, not in "
            f"{space.name} of geometry {space.geometry}; run `hwnas search` again"
        )
    try:
        front_shape.check(content)
    except ValueError as error:
        raise FileFormatError(
            f"{path} is not a valid front: {' '.join(str(error).split())}; run `hwnas search` again"
        ) from None
    front = _from_json(content, space)
    if [point.id for point in front.points] != [point["id"] for point in content["points"]]:
        raise FileFormatError(f"{path} names networks by ids that are not theirs; search again")
    return front


def _from_json(content: dict[str, Any], space: SearchSpace) -> Front:
    """The front of the content of a file."""
    points = [
        Point(space.from_json(p["arch"]), dict(p["predicted"]), p["measured"])
        for p in content["points"]
    ]
    return Front(
        content["target"],
        space,
        tuple(objective["name"] for objective in content["objectives"]),
        tuple(content["reference_point"]),
        content["hypervolume"],
        dict(content["max_network"]),
        dict(content["settings"]),
        dict(content["seeds"]),
        dict(content["hashes"]),
        tuple(content["accepted"]),
        content["evaluations"],
        tuple(points),
    )


# ---- rules --------------------------------------------------------------------------------------


def pick(
    front: Front, config: PickConfig, max_values: Mapping[str, float] | None = None
) -> list[tuple[str, Point]]:
    """The networks that one rule picks, with the names of their packages.

    Args:
        front: of one target.
        config: a budget or a rule.
        max_values: shares of budgets are of these; None: of the max network's predictions.

    Raises:
        InfeasibleError: no network of the front is within the budget; names the smallest value.
        ConfigError: the front does not hold a metric.
    """
    name = config.package
    match config.rule:
        case "spread":
            rows = np.sort(spread(front, config.k))
            return [(f"{name}-{n}", front.points[row]) for n, row in enumerate(rows, start=1)]
        case "knee":
            chosen = knee(front)
        case "best":
            chosen = best(front)
        case "cheapest":
            chosen = cheapest(front, config.within)
        case _:
            chosen = within_budget(front, _limits(front, config, max_values or front.max_network))
    return [(name, front.points[chosen])]


def _limits(front: Front, config: PickConfig, max_values: Mapping[str, float]) -> dict[str, float]:
    """The budgets of a rule, each in the unit of its metric."""
    front.values(tuple(config.budget))  # an unknown metric is refused with those there are
    return {name: amount(value, max_values[name]) for name, value in config.budget.items()}


def quality(front: Front) -> str:
    """The objective that a budget leaves to be best: error, or the first one."""
    return "error" if "error" in front.objectives else front.objectives[0]


def _others(front: Front) -> tuple[str, ...]:
    return tuple(name for name in front.objectives if name != quality(front))


def _least(front: Front, first: str, rows: np.ndarray | None = None) -> int:
    """Row of the smallest value of a metric, of equal ones the least of the other objectives."""
    names = (first, *(name for name in front.objectives if name != first))
    values = front.values(names)
    candidates = np.arange(len(values)) if rows is None else rows
    return int(candidates[np.lexsort(values[candidates].T[::-1])[0]])


def best(front: Front) -> int:
    """Row of the least error."""
    return _least(front, quality(front))


def within_budget(front: Front, budgets: Mapping[str, float]) -> int:
    """Row of the least error within budgets, each in the unit of its metric.

    Raises:
        InfeasibleError: none is; names the smallest value on the front.
    """
    names, limits = tuple(budgets), np.array(list(budgets.values()))
    values = front.values(names)
    rows = np.flatnonzero((values <= limits).all(axis=1))
    if len(rows):
        return _least(front, quality(front), rows)
    for name, limit, least in zip(names, limits, values.min(axis=0), strict=True):
        if least > limit:
            hint = "" if name in front.objectives else "; make it an objective or a search budget"
            unit = UNITS.get(name, "").replace("fraction", "")  # a share needs no word
            raise InfeasibleError(
                f"budget {name} = {limit:.6g} cannot be met on {front.target}: the smallest on its "
                f"front is {least:.6g} {unit}".rstrip()
                + hint
            )
    nearest = values[(values / limits).max(axis=1).argmin()]
    stated = zip(names, nearest, limits, strict=True)
    reached = ", ".join(f"{name} {value:.6g} (budget {limit:.6g})" for name, value, limit in stated)
    raise InfeasibleError(
        f"budgets cannot be met together on {front.target}; the nearest network has {reached}"
    )


def knee(front: Front) -> int:
    """Row farthest from the line through the two ends, after each objective is scaled to [0, 1].

    With more than two objectives, a plane through their ends stands for the line.
    """
    values = front.values(front.objectives)
    extent = np.ptp(values, axis=0)
    scaled = (values - values.min(axis=0)) / np.where(extent > 0, extent, 1)
    return int(scaled.sum(axis=1).argmin())


def cheapest(front: Front, within: float) -> int:
    """Row of the least cost (the first objective besides the error) whose error is within `within`
    of the best.
    """
    error = front.values((quality(front),))[:, 0]
    rows = np.flatnonzero(error <= error.min() + within)
    return _least(front, _others(front)[0], rows)


def spread(front: Front, k: int) -> np.ndarray:
    """Rows of at most k networks that together dominate the most hypervolume, chosen greedily."""
    reference = np.array(front.reference_point)
    rows = pareto.spread_subset(front.values(front.objectives), reference, k)
    return rows if len(rows) else np.array([best(front)])
