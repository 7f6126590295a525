"""int8 beside fp32 in ONNX Runtime: speed, size, what ranges do to time, parity, accuracy.

    python benchmarks/precision.py                      speed, size and parity; about 20 minutes
    python benchmarks/precision.py --parts speed        speed and size alone
    python benchmarks/precision.py --runs runs/a runs/b accuracy of the fronts of finished runs
    python benchmarks/precision.py --quick              few networks and rounds, seconds

Speed: of each space the largest network and random ones at the largest resolution, weights as in
kits. Sessions of one network are open together and take samples in turn; a round visits all, in an
order drawn anew. Numbers are 10th percentiles over rounds, batch 1, 1 thread. `by_rule` has the
ranges of kits, `of_images` those of its own activations: the same but for the ranges.
Parity: random networks with ranges of their own activations; the file in integer kernels against
the same file computed as ONNX says (largest difference, share of the largest output), and against
fp32. Accuracy: of networks of a run's front, the package's file as it ships against the fp32 file,
on all test images. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import kit, parity
from hwnas.networks import onnx_graph, ranges, spaces
from hwnas.networks.space import Architecture
from hwnas.settings.targets import REFERENCE
from profilers import precisions, runtimes
from profilers.devices import host
from profilers.schema import Target

SPEED = ("mbv3-224-int8", "ofa-resnet50d", "mbv3-28-int8", "ofa-proxyless-w10", "ofa-mbv3-w10",
         "mbv3-28")  # fmt: skip
ROUNDS, SAMPLE_MS, RANDOM = 30, 20.0, 2
PARITY = 100
PART = precisions.load("int8")
FP32, INT8 = Target("host", REFERENCE), Target("host", REFERENCE, precision="int8")
MEGABYTE = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["speed", "parity"])
    parser.add_argument("--runs", nargs="+", type=Path, default=[])
    parser.add_argument("--networks", type=int, default=PARITY, help="of each space, for parity")
    parser.add_argument("--spaces", nargs="+", default=spaces.names(), help="for parity")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    facts = host.hardware()
    recipe = precisions.recipe("int8", facts)
    about = {"cpu": facts["cpu"], "int8_instructions": [f for f in facts["cpu_features"] if "vnni"
             in f or "int8" in f or f in ("avx2", "asimddp", "i8mm")], "recipe": recipe,
             "engine": runtimes.load(REFERENCE).version()}  # fmt: skip
    print(about)
    found: dict[str, Any] = {"setting": {**about, "quick": given.quick}, "bars": []}
    if given.runs:
        found["accuracy"] = [accuracy(folder, recipe) for folder in given.runs]
    else:
        if "speed" in given.parts:
            found["speed"] = speed(recipe, given.quick)
            found["bars"] = bars(found["speed"], "vnni" in str(about["int8_instructions"]))
        if "parity" in given.parts:
            found["parity"] = [parity_of(name, recipe, given) for name in given.spaces]
    parts = {name: found[name] for name in ("accuracy", "speed", "parity") if name in found}
    found["n"] = {name: len(rows) for name, rows in parts.items()}
    told = [abs(row["rule_over_images"] - 1) for row in parts.get("speed", [])]
    found["spread"] = {"time_by_rule": max(told, default=None)}
    print(json.dumps(found))


# ---- networks ------------------------------------------------------------------------------------


def networks(name: str, n: int, smallest_input: bool) -> Iterator[Architecture]:
    """The largest network of a space at one resolution, then random ones."""
    space = spaces.load(name)
    px = min(space.resolutions) if smallest_input else max(space.resolutions)
    space, rng = space.restricted([px]), np.random.default_rng(0)
    yield space.largest
    for _ in range(n):
        yield space.random(rng)


def file_of(arch: Architecture) -> bytes:
    """fp32, with weights as kits have them."""
    rng = np.random.default_rng(1)
    values = {
        weight.name: rng.uniform(-1, 1, weight.shape) * kit.scale(placed.op, weight)
        for placed in arch.ops
        for weight in onnx_graph.weights_of([placed])
    }
    return onnx_graph.to_bytes(onnx_graph.build(arch.ops, values))


def inputs_of(arch: Architecture, n: int) -> np.ndarray:
    shape = (n, *arch.space.input_shape(arch.resolution))
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def own_ranges(model: bytes, images: np.ndarray) -> ranges.Ranges:
    """Ranges of a network's activations on some inputs."""
    watched = ranges.watched(model, PART.ranged(model))
    session = opened(watched.model, FP32)
    rows = [images[i : i + 1] for i in range(len(images))]
    return ranges.ranges(session.run, lambda: rows, watched.sizes, "min-max", 100.0)


def opened(model: bytes, target: Target) -> runtimes.Session:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        return runtimes.load(REFERENCE).load(path, target)


# ---- speed ---------------------------------------------------------------------------------------


def speed(recipe: str, quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name in SPEED[2:3] if quick else SPEED:
        for arch in networks(name, 0 if quick else RANDOM, smallest_input=False):
            model = file_of(arch)
            own = PART.calibrated(model, recipe, own_ranges(model, inputs_of(arch, 4)))
            sessions = {
                "fp32": opened(model, FP32),
                "by_rule": opened(model, INT8),
                "of_images": opened(own, INT8),
            }
            ms = interleaved(sessions, 5 if quick else ROUNDS)
            for session in sessions.values():
                session.close()
            rows.append(
                {
                    **{"space": name, "network": arch.id, "px": arch.resolution},
                    **{f"{key}_ms": round(value, 4) for key, value in ms.items()},
                    "speedup": round(ms["fp32"] / ms["of_images"], 3),
                    "rule_over_images": round(ms["by_rule"] / ms["of_images"], 4),
                    "fp32_bytes": len(model),
                    "size_share": round(len(own) / len(model), 3),
                    "in_float": PART.in_float(model),
                }
            )
            print(rows[-1])
    return rows


def interleaved(sessions: dict[str, runtimes.Session], rounds: int) -> dict[str, float]:
    """10th percentile of ms of one run, over rounds that visit all sessions."""
    loops = {}
    for name, session in sessions.items():
        session.time(1)
        loops[name] = max(1, round(SAMPLE_MS / max(session.time(2) / 2, 1e-3)))
    rng, found = np.random.default_rng(0), {name: [] for name in sessions}
    for _ in range(rounds):
        for name in rng.permutation(list(sessions)):
            sessions[name].time(2)
            found[name].append(sessions[name].time(loops[name]) / loops[name])
    return {name: float(np.quantile(values, 0.1)) for name, values in found.items()}


def bars(rows: list[dict[str, Any]], has_vnni: bool) -> list[dict[str, Any]]:
    """What is asked of networks' speed and of files above a megabyte."""
    wanted = {"mbv3-224-int8": 1.8 if has_vnni else 1.25, "ofa-resnet50d": 1.6}
    found = []
    for space, least in wanted.items():
        told = [row["speedup"] for row in rows if row["space"] == space]
        if told:
            found.append({"name": f"{space}: fp32 / int8", "value": min(told),
                          "limit": f">= {least}", "holds": min(told) >= least})  # fmt: skip
    large = [row["size_share"] for row in rows if row["fp32_bytes"] > MEGABYTE]
    if large:
        found.append({"name": "file, share of fp32", "value": max(large), "limit": "<= 0.28",
                      "holds": max(large) <= 0.28})  # fmt: skip
    return found


# ---- parity --------------------------------------------------------------------------------------


def parity_of(name: str, recipe: str, given: argparse.Namespace) -> dict[str, Any]:
    """Largest differences over random networks of a space."""
    begin_s, engine, loss, n = time.monotonic(), [], [], 2 if given.quick else given.networks
    for arch in list(networks(name, n, smallest_input=True))[1:]:
        model, images = file_of(arch), inputs_of(arch, 4)
        made = PART.calibrated(model, recipe, own_ranges(model, images))
        sessions = [
            opened(made, INT8), opened(made, replace(INT8, optimisation="disable")),
            opened(model, FP32),
        ]  # fmt: skip
        kernels, meant, fp32 = (
            np.concatenate([session.run(images[i : i + 1]) for i in range(len(images))])
            for session in sessions
        )
        for session in sessions:
            session.close()
        engine.append(parity.difference(meant, kernels))
        loss.append(parity.difference(fp32, meant))
    about = PART.PRECISION
    row = {
        **{"space": name, "networks": n, "tolerance": about.tolerance, "loss_allowed": about.loss},
        "engine": {"largest": max(engine), "median": float(np.median(engine))},
        "loss": {"largest": max(loss), "median": float(np.median(loss))},
        "met": max(engine) <= about.tolerance and max(loss) <= about.loss,
        "s": round(time.monotonic() - begin_s, 1),
    }
    print(row)
    return row


# ---- accuracy ------------------------------------------------------------------------------------


def accuracy(folder: Path, recipe: str) -> dict[str, Any]:
    """Accuracy that int8 loses on test images, over the networks of a run's fronts."""
    import torch

    from hwnas.networks.spaces import load
    from hwnas.run.context import Context, Reporter
    from hwnas.run.folder import RunFolder
    from hwnas.run.quantised import BATCH, Exported, images_of, quantised
    from hwnas.run.weights import make_evaluator
    from hwnas.search import front
    from hwnas.settings.config import Config
    from hwnas.supernet.evaluation import top1
    from hwnas.supernet.network import folded_weights
    from profilers.schema import read_json

    run = RunFolder(folder)
    say = Reporter(lambda name: lambda share, text: None, print, print)
    context = Context(Config(**read_json(run.config)), Path(), run, say)
    evaluator, config = make_evaluator(context), context.config.int8
    fronts = [
        front.load(path, context.space) for path in sorted((folder / "fronts").glob("*.json"))
    ]
    archs = list(dict.fromkeys(point.arch for each in fronts for point in each.points))
    rows, target = [], replace(INT8, batch=BATCH)
    for arch in archs:
        subnet = evaluator.subnet(arch)
        data = onnx_graph.build(arch.ops, folded_weights(subnet), BATCH)
        given = images_of(evaluator.dataset, arch.resolution, config)
        made, _ = quantised(onnx_graph.to_bytes(data), target, recipe, given, config)
        with torch.no_grad():
            whole = top1(subnet, evaluator.dataset, evaluator.dataset.test)
        small = top1(Exported(arch, made, target), evaluator.dataset, evaluator.dataset.test)
        rows.append({"network": arch.id, "fp32": whole, "int8": small})
    lost = np.array([100 * (row["fp32"] - row["int8"]) for row in rows])
    worst = rows[int(lost.argmax())]
    found = {
        **{"run": folder.name, "space": load(context.space.name).name, "networks": len(rows)},
        **{"test_images": len(evaluator.dataset.test), "mean_points": float(lost.mean())},
        **{"worst_points": float(lost.max()), "worst": worst, "met": float(lost.mean()) <= 0.3},
    }
    print(found)
    return found


if __name__ == "__main__":
    main()
