"""Error of latency tables of traced models, beside the noise of measuring again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from accuracy.campaigns import ONE, Place, Setting, evaluated, measured
from accuracy.pooling import pool

from hwnas.networks import spaces
from own_model.analysis import bar
from own_model.spaces import own

MODELS = {"resnet18": 120.0, "mobilenetv3_small_100": 40.0}  # device time of a campaign, s
PX, CAMPAIGNS = 128, 1
RATIO, ERROR = 1.5, 0.02  # either will do
FOLDER = Path("runs/bench-own-model")  # keeps kits, measurements, tables


def measure(models: list[str], quick: bool) -> dict[str, Any]:
    """The document of this part; what is in FOLDER is not measured again."""
    names = models or list(MODELS)[1 if quick else 0 :]
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as scratch:
        out = Path(scratch) if quick else FOLDER
        places = [place(name, seed, out, quick) for seed in range(CAMPAIGNS) for name in names]
        for one in places:
            measured(one)
        results = {one: evaluated(one) for one in places}
    rows = [pool(name, results) for name in names]
    return {
        "setting": f"{CAMPAIGNS} campaign of each model at {PX} px on {ONE}",
        "n": sum(row["n"] for row in rows),
        "spread": {row["name"]: row.get("intervals") for row in rows},
        "models": rows,
        "bars": [judged(row, quick) for row in rows],
    }


def place(name: str, seed: int, out: Path, quick: bool) -> Place:
    """A campaign; writes the space that it is of."""
    space = own(name, PX).space
    path = out / name / spaces.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spaces.to_json(space, space.family)))
    setting = Setting(str(path), (PX,), ONE, MODELS[name], "ratio")
    if quick:
        setting = setting._replace(budget_s=3.0, heldout=8, rounds=5)
    return Place(name, setting, seed, out / name / str(seed))


def judged(row: dict[str, Any], quick: bool) -> dict[str, Any]:
    """The bar of a model: either will do."""
    values = row.get("values") or {}
    ratio, error = values.get("ratio"), values.get("error")
    print(f"{row['name']}: n {row['n']}, error {error}, over noise {ratio}; {row['unstable']}")
    near = error is not None and error <= ERROR
    name = f"{row['name']}_table_error_over_noise"
    told = None if quick else 0.0 if near else ratio
    return {**bar(name, told, "<=", RATIO), "error": error, "ratio": ratio}
