"""Tables of one engine in fp32 and int8, and what they say of networks between the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hwnas
from hwnas.measuring import coverage
from hwnas.networks import spaces
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors import predictor
from hwnas.tables.table import CostTable

ACCEPTED = ("unreliable", "emulated")


class Pair(NamedTuple):
    """Tables of one engine, whose rows add up; the space; the stage of each op."""

    fp32: CostTable
    int8: CostTable
    space: SearchSpace
    stages: dict[str, str]

    @property
    def name(self) -> str:
        """Space and target."""
        return f"{self.space.name} {self.fp32.target['name'].partition('.fp32')[0]}"

    def mixed(self, in_int8: Callable[[str], bool]) -> CostTable:
        """A table of rows of both, by the op."""
        rows = {key: (self.int8 if in_int8(key) else self.fp32).rows[key] for key in self.fp32.rows}
        return replace(self.fp32, rows=rows)

    def quicker(self, key: str) -> bool:
        """Whether an op takes less in int8."""
        return bool(self.int8.row(key) < self.fp32.row(key))


def pair_of(fp32: CostTable, int8: CostTable) -> Pair:
    """A pair, of straightened tables."""
    space = spaces.load(fp32.space).restricted(fp32.resolutions)
    return Pair(straight(fp32), straight(int8), space, stages_of(space))


def straight(table: CostTable) -> CostTable:
    """The same rows without a bend: right at the reference latency, and additive."""
    return replace(table, calibration={**table.calibration, "bend": 0.0})


def stages_of(space: SearchSpace) -> dict[str, str]:
    """The stage of each op of a space by its key."""
    rng, found = np.random.default_rng(0), {}
    wanted = coverage.distinct_ops(space)
    while set(found) != set(wanted):
        arch, last = space.random(rng), "stem"
        for placed in arch.ops:
            slot = placed.slot.partition(".")[0]
            last = slot if slot.startswith("stage") else "stem" if last == "stem" else "head"
            found[placed.op.key] = last
    return found


def error_of(path: Path, space: SearchSpace, like: str) -> Any:
    """Predicted errors of a space's networks; of a space of the same choices, if so told."""
    if not like:
        return hwnas.load_predictor(path, space)
    other = spaces.load(like).restricted(space.resolutions)
    return predictor.load(path, other).metric(other)


def found_front(
    pair: Pair, table: CostTable, error: Any
) -> list[tuple[Architecture, float, float]]:
    """Networks along the front of error and latency: (network, error, ms)."""
    found = hwnas.search_front(pair.space, table, metrics={"error": error}, accept=ACCEPTED)
    return [(p.arch, p.predicted["error"], p.predicted["latency_ms"]) for p in found.points]


def least(points: list[tuple[Architecture, float, float]], limit: float) -> float:
    """Latency of the fastest network within an error."""
    return min((ms for _, error, ms in points if error <= limit), default=float("nan"))


def by_stage(pair: Pair, arch: Architecture) -> dict[str, Any]:
    """What a network costs in both precisions, and with each stage in the better one."""
    sums: dict[str, list[float]] = {}
    for placed in arch.ops:
        both = sums.setdefault(pair.stages[placed.op.key], [0.0, 0.0])
        both[0] += pair.fp32.row(placed.op.key)
        both[1] += pair.int8.row(placed.op.key)
    quicker = [stage for stage, (fp32, int8) in sums.items() if int8 < fp32]
    bare = [table.intercept(arch.resolution) for table in (pair.fp32, pair.int8)]
    return {
        "fp32_ms": bare[0] + sum(fp32 for fp32, _ in sums.values()),
        "int8_ms": bare[1] + sum(int8 for _, int8 in sums.values()),
        "mixed_ms": min(bare) + sum(map(min, sums.values())),
        "in_int8": " ".join(quicker),
        "stages": {stage: fp32 / int8 for stage, (fp32, int8) in sums.items()},
    }
