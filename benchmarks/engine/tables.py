"""Error of latency tables of each engine, beside the noise of measuring again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accuracy.campaigns import QUICK, Place, Setting, evaluated, measured
from accuracy.pooling import pool

from engine.networks import bar

BUDGET_S = {"mbv3-28": 40.0, "tiny": 12.0}
OPENING = {"openvino": 2.5}  # of a budget: it compiles each model anew, three times as long
CAMPAIGNS, RATIO, ERROR = 2, 1.5, 0.02  # either bar will do


def measure(engines: list[str], names: list[str], out: Path, quick: bool) -> dict[str, Any]:
    """The document of this part; campaigns that settled are not measured again."""
    places = [
        place(space, engine, seed, out, quick)
        for seed in range(1 if quick else CAMPAIGNS)
        for space in names or (["tiny"] if quick else list(BUDGET_S))
        for engine in engines
    ]
    for one in places:
        measured(one)
    results = {one: evaluated(one) for one in places}
    rows = [pool(name, results) for name in dict.fromkeys(one.name for one in places)]
    return {
        "n": sum(row["n"] for row in rows),
        "spread": {row["name"]: row.get("intervals") for row in rows},
        "tables": rows,
        "bars": [judged(row, quick) for row in rows],
    }


def place(space: str, engine: str, seed: int, out: Path, quick: bool) -> Place:
    """A campaign of an engine."""
    target, name = f"host.{engine}.fp32.b1.t1", f"{space}-{engine}"
    if quick:
        setting = next(iter(QUICK.values()))._replace(target=target, bars="ratio")
    else:
        sizes = {"tiny": (8, 12, 16), "mbv3-28": (28,)}[space]
        budget_s = BUDGET_S[space] * OPENING.get(engine, 1.0)
        setting = Setting(space, sizes, target, budget_s, "ratio")
    return Place(name, setting, seed, out / name / str(seed))


def judged(row: dict[str, Any], quick: bool) -> dict[str, Any]:
    """The bar of an engine in a space: either will do."""
    values = row.get("values") or {}
    ratio, error = values.get("ratio"), values.get("error")
    told = f"error {error}, over noise {ratio}, estimators {row.get('used')}, {row['unstable']}"
    print(f"{row['name']}: n {row['n']}, {told}", flush=True)
    near = error is not None and error <= ERROR
    value = None if quick else 0.0 if near else ratio
    return {**bar(f"{row['name']}_table", value, RATIO), "error": error, "ratio": ratio}
