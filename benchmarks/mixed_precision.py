"""Would a precision for each stage pay? What tables allow, networks measured, accuracy.

    python benchmarks/mixed_precision.py tables --pair FP32.json INT8.json --error predictor.npz
    python benchmarks/mixed_precision.py speed --pair FP32.json INT8.json --error predictor.npz
    python benchmarks/mixed_precision.py accuracy --run runs/device/budgets/run
    python benchmarks/mixed_precision.py --quick        drawn tables of `tiny`, seconds

Pairs are tables of one space, device and engine; `device_front.py` leaves them. `tables`: networks
where each stage costs what it does in the better precision and the boundaries between them cost
nothing, at the accuracy of fp32. That favours mixing: the gain is an upper bound. `speed`: networks
along the front in fp32, in int8 and with the stages in int8 that the tables say, interleaved, in
the engine. `accuracy`: the networks of a run that lost most in int8, on validation images that did
not choose them, with one stage after the other left in fp32. A stage is what slots call so; what
stands before the first and after the last are two more. Times need a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from engine import networks, speed
from mixing.accuracy import INT8, accuracy
from mixing.pairs import Pair, by_stage, error_of, found_front, least, pair_of
from mixing.partly import partly, recipe_of

import hwnas
from hwnas.measuring import coverage
from hwnas.networks import spaces
from hwnas.networks.space import Architecture
from hwnas.tables.table import load_table
from profilers.devices import host
from profilers.schema import target_from_name

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the range of errors on the front
PAYS = 0.1  # share of latency that a choice of the space has to save
NETWORKS, ROUNDS = 3, 60


# ---- tables -------------------------------------------------------------------------------------


def tables(pair: Pair, error: Any) -> dict[str, Any]:
    """Ratios of rows, and what mixing would save at equal accuracy if boundaries cost nothing."""
    ratio = np.array([pair.fp32.row(key) / pair.int8.row(key) for key in pair.fp32.rows])
    fronts = {
        "fp32": found_front(pair, pair.fp32, error),
        "int8": found_front(pair, pair.int8, error),
        "by_op": found_front(pair, pair.mixed(pair.quicker), error),
    }
    rows = [by_stage(pair, arch) for name in ("fp32", "int8") for arch, _, _ in fronts[name]]
    saved = [1 - row["mixed_ms"] / min(row["fp32_ms"], row["int8_ms"]) for row in rows]
    errors = [point[1] for points in fronts.values() for point in points]
    low = max(min(point[1] for point in points) for points in fronts.values())
    limits = [low + share * (max(errors) - low) for share in reversed(SHARES)]
    at = {name: [least(points, limit) for limit in limits] for name, points in fronts.items()}
    best = np.minimum(at["fp32"], at["int8"])
    chosen = [row["in_int8"] for row in rows]
    common = max(set(chosen), key=chosen.count)
    found = {
        "pair": pair.name,
        "rows": len(ratio),
        "fp32_over_int8": {
            f"p{share}": float(np.percentile(ratio, share)) for share in (5, 50, 95)
        },
        "stages": stage_ratios(rows),
        "networks": len(rows),
        "saved_by_stage": {"median": float(np.median(saved)), "most": max(saved)},
        "stages_in_int8": [common, chosen.count(common) / len(chosen)],
        "front": {"errors": limits, **at},
        "saved_by_op": (1 - np.array(at["by_op"]) / best).tolist(),
    }
    print(json.dumps(found, default=float), flush=True)
    return found


def stage_ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """fp32 over int8 of each stage, median over networks."""
    names = dict.fromkeys(stage for row in rows for stage in row["stages"])
    return {
        name: float(np.median([row["stages"][name] for row in rows if name in row["stages"]]))
        for name in names
    }


# ---- speed --------------------------------------------------------------------------------------


def timed(pair: Pair, error: Any, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Networks along the front of fp32 in three ways: what mixing saves, measured."""
    front = sorted(found_front(pair, pair.fp32, error), key=lambda point: point[2])
    at = np.linspace(0, len(front) - 1, NETWORKS + 2)[1:-1].astype(int)
    return [compared(pair, front[n][0], rounds) for n in at]


def compared(pair: Pair, arch: Architecture, rounds: int) -> dict[str, Any]:
    """One network in fp32, in int8 and mixed as its table says, samples in turn, ms."""
    told, target = by_stage(pair, arch), target_from_name(pair.int8.target["name"])
    slots = {p.slot for p in arch.ops if pair.stages[p.op.key] in told["in_int8"].split()}
    with tempfile.TemporaryDirectory() as scratch:
        path = networks.write(arch.ops, Path(scratch) / "fp32.onnx")
        other = Path(scratch) / "mixed.onnx"
        other.write_bytes(partly(path.read_bytes(), recipe_of(target), slots))
        ways = {"fp32": (path, "fp32"), "int8": (path, "int8"), "mixed": (other, "int8")}
        opened = {
            name: networks.opened(target.runtime, file, precision)
            for name, (file, precision) in ways.items()
        }
        samples = speed.in_turn(opened, rounds)
    ms = {name: speed.p10(each) for name, each in samples.items()}
    better = min("fp32", "int8", key=ms.__getitem__)
    low, high = speed.interval(samples[better], samples["mixed"])
    row = {
        **{"pair": pair.name, "network": arch.id, "in_int8": told["in_int8"], "ms": ms},
        "predicted_ms": {name: told[f"{name}_ms"] for name in ms},
        "saved": 1 - ms["mixed"] / ms[better],
        "saved_interval": [1 - 1 / low, 1 - 1 / high],
    }
    print(json.dumps(row), flush=True)
    return row


# ---- all of it ----------------------------------------------------------------------------------


def drawn() -> tuple[Pair, Any]:
    """Tables of `tiny` with drawn ratios, and errors that fall with MACs."""
    space = spaces.load("tiny").restricted([8])
    rng, wanted = np.random.default_rng(0), coverage.distinct_ops(space)
    ms = {key: 1e-3 + 1e-7 * each.op.macs for key, each in wanted.items()}
    quicker = {key: value * rng.uniform(0.5, 1.2) for key, value in ms.items()}
    known = [
        hwnas.make_table(space, f"host.ort-cpu.{precision}.b1.t1", costs)
        for precision, costs in (("fp32", ms), ("int8", quicker))
    ]
    macs = {arch: arch_macs(arch) for arch in (space.random(rng) for _ in range(40))}
    most = max(macs.values())
    top1 = {arch: 0.6 + 0.3 * (value / most) ** 0.5 for arch, value in macs.items()}
    return pair_of(*known), hwnas.fit_predictor(space, top1).metric(space)


def arch_macs(arch: Architecture) -> int:
    """Multiply-accumulates of a network."""
    return sum(placed.op.macs for placed in arch.ops)


def bars_of(found: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Whether a choice of the space would pay: for each pair by its table, then measured."""
    bars = []
    for row in found.get("tables", []):
        value = float(np.nanmedian(row["saved_by_op"]))
        bars.append((f"{row['pair']}: saved at equal accuracy, boundaries free, at most", value))
    for row in found.get("speed", []):
        bars.append((f"{row['pair']} {row['network']}: saved, measured", row["saved"]))
    return [
        {"name": name, "value": value, "limit": PAYS, "holds": bool(value >= PAYS)}
        for name, value in bars
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("tables", "speed", "accuracy"))
    parser.add_argument("--pair", nargs=2, type=Path, action="append", default=[])
    parser.add_argument("--error", type=Path, help="predictor.npz of the space")
    parser.add_argument("--like", default="", help="space that it was fitted for, if another one")
    parser.add_argument("--run", type=Path, help="run folder with a supernet, for accuracy")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    hardware = host.hardware()
    print(hardware["cpu"], recipe_of(INT8), flush=True)
    found: dict[str, list[dict[str, Any]]] = {}
    if args.quick:
        pair, error = drawn()
        found = {"tables": [tables(pair, error)], "speed": timed(pair, error, rounds=3)}
    elif args.part == "accuracy":
        found = {"accuracy": accuracy(args.run)}
    elif not (args.pair and args.error):
        sys.exit("name tables with --pair FP32.json INT8.json and a predictor with --error")
    for given in args.pair:
        pair = pair_of(*map(load_table, given))
        error = error_of(args.error, pair.space, args.like)
        if args.part == "tables":
            found.setdefault("tables", []).append(tables(pair, error))
        else:
            found.setdefault("speed", []).extend(timed(pair, error))
    n = {name: len(rows) for name, rows in found.items()}
    told = {"setting": hardware["cpu"], "n": n, "spread": {}, **found, "bars": bars_of(found)}
    print(json.dumps(told, default=float))


if __name__ == "__main__":
    main()
