"""Error of latency tables of traced models, beside the noise of measuring again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accuracy.campaigns import ONE, Place, Setting, evaluated, measured
from accuracy.pooling import pool
from own_models.spaces import own

from hwnas.networks import spaces

MODELS = {"resnet18": 60.0, "mobilenetv3_small_100": 40.0}  # device time of a campaign, s
PX, CAMPAIGNS = 128, 1
RATIO, ERROR = 1.5, 0.02


def rows(out: Path, quick: bool) -> list[dict[str, Any]]:
    """One row a model; what is in the folder is not measured again."""
    names = list(MODELS)[1:] if quick else list(MODELS)
    places = [place(name, seed, out, quick) for seed in range(CAMPAIGNS) for name in names]
    for one in places:
        measured(one)
    results = {one: evaluated(one) for one in places}
    return [pool(name, results) for name in names]


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


def bars(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is judged: either will do."""
    out = []
    for row in found:
        values = row.get("values") or {}
        ratio, error = values.get("ratio"), values.get("error")
        holds = error is not None and (error <= ERROR or (ratio is not None and ratio <= RATIO))
        name = f"{row['name']}: error over noise, at most {RATIO:g}, or error at most {ERROR:.0%}"
        out.append({"name": name, "value": ratio, "error": error, "limit": RATIO, "holds": holds})
    return out
