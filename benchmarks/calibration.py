"""How many training images do int8 ranges need, and which way of taking them loses least?

    python benchmarks/calibration.py --out runs/int8      after precision.py --parts accuracy, or
                                                          with its training: an hour
    python benchmarks/calibration.py --quick              digits, seconds

Of each seed of `precision.py --parts accuracy` the same packages along the front; each is written
in int8 with ranges of so many images, and counted on the validation images, never on test images.
Points lost against fp32, of all packages of all seeds; 95 % interval by bootstrap over packages.
Time: of ranges alone, of one network, all cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import precision
import torch

from hwnas.networks import onnx_graph
from hwnas.networks.space import Architecture
from hwnas.run import quantised
from hwnas.run.weights import make_evaluator
from hwnas.settings.int8_config import Int8Config
from hwnas.supernet.evaluation import Evaluator, metric_of
from hwnas.supernet.exported import Exported
from hwnas.supernet.network import folded_weights
from profilers import precisions
from profilers.devices import host

SETTINGS = [("min-max", n) for n in (32, 64, 128, 256, 512)]
SETTINGS += [("percentile", 128), ("percentile", 256), ("entropy", 128), ("entropy", 256)]
LIMIT = 0.05  # points that the default may lose against the best of all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder of precision.py --parts accuracy")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    recipe = precisions.recipe("int8", host.hardware())
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in given.seeds[:1] if given.quick else given.seeds:
            context, archs = precision.trained(given.out or Path(scratch), seed, given.quick)
            evaluator = make_evaluator(context)
            rows += [counted(evaluator, arch, recipe, seed) for arch in archs]
    print(json.dumps(told(rows, given.quick)))


def counted(evaluator: Evaluator, arch: Architecture, recipe: str, seed: int) -> dict[str, Any]:
    """Points that a network loses in int8 by each setting, and seconds that its ranges take."""
    subnet, target = evaluator.subnet(arch), precision.replace(precision.INT8, batch=32)
    split, row = evaluator.dataset.val, {"seed": seed, "network": arch.id}
    data = onnx_graph.to_bytes(onnx_graph.build(arch.ops, folded_weights(subnet), target.batch))
    with torch.no_grad():
        fp32 = metric_of(subnet, evaluator.dataset, split)
    for method, n in SETTINGS:
        config = Int8Config(calibration=method, images=n)
        begun = time.perf_counter()
        images = quantised.images_of(evaluator.dataset, arch.resolution, config)
        made, _ = quantised.quantised(data, target, recipe, images, config)
        took_s = time.perf_counter() - begun
        right = metric_of(Exported(arch, made, target), evaluator.dataset, split)
        row[f"{method}, {n}"] = {"lost": 100 * (fp32 - right), "s": took_s}
    print(row, flush=True)
    return row


def told(rows: list[dict[str, Any]], quick: bool) -> dict[str, Any]:
    """The document: mean loss of each setting with its interval, and median seconds."""
    rng, found = np.random.default_rng(0), {}
    drawn = rng.integers(0, len(rows), (10_000, len(rows)))
    for name in (f"{method}, {n}" for method, n in SETTINGS):
        lost = np.array([row[name]["lost"] for row in rows])
        low, high = np.percentile(lost[drawn].mean(axis=1), (2.5, 97.5))
        seconds = float(np.median([row[name]["s"] for row in rows]))
        found[name] = {"lost": float(lost.mean()), "worst": float(lost.max()), "s": seconds}
        found[name]["interval"] = [float(low), float(high)]
        print(f"{name:<16}{lost.mean():7.3f} ({low:.3f} to {high:.3f}) points, "
              f"worst {lost.max():.2f}, {seconds:.2f} s")  # fmt: skip
    usual = Int8Config()
    default = found.get(f"{usual.calibration}, {usual.images}", {"lost": float("nan")})["lost"]
    value = default - min(row["lost"] for row in found.values())
    bar = {"name": "default over the best, points", "value": value, "limit": LIMIT}
    bar["holds"] = bool(value <= LIMIT)
    setting = {"quick": quick, "settings": SETTINGS}
    intervals = {name: row["interval"] for name, row in found.items()}
    return {"setting": setting, "n": len(rows), "spread": intervals, "found": found, "bars": [bar]}


if __name__ == "__main__":
    main()
