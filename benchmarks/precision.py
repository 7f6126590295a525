"""int8 beside fp32 in ONNX Runtime: speed, size, what ranges do to time, parity, accuracy.

    python benchmarks/precision.py                      speed, size and parity; about 20 minutes
    python benchmarks/precision.py --parts speed        speed and size alone
    python benchmarks/precision.py --parts export       how long a package takes; four minutes
    python benchmarks/precision.py --runs runs/a runs/b accuracy of the fronts of finished runs
    python benchmarks/precision.py --parts accuracy --out runs/int8 --seeds 0 1 2
                                                        accuracy of Fashion-MNIST; a seed takes
                                                        about 20 minutes on one core, and goes on
                                                        where it was stopped
    python benchmarks/precision.py --quick              few networks and rounds, seconds

Speed: of each space the largest network and random ones at the largest resolution, weights as in
kits. Sessions of one network are open together and take samples in turn; a round visits all, in an
order drawn anew. Numbers are 10th percentiles over rounds, batch 1, 1 thread. `by_rule` has the
ranges of kits, `of_images` those of its own activations: the same but for the ranges.
Parity: random networks with ranges of their own activations; the file in integer kernels against
the same file computed as ONNX says (largest difference, share of the largest output), and against
fp32. Export: of the largest network of a space, seconds to write it and to compare it with torch,
in int8 to take ranges of 256 images besides; all cores. Accuracy: of networks of a run's front, the
package's file as it ships against the fp32 file,
on all test images. Of Fashion-MNIST, `mbv3-28-int8` is trained for each seed, a front of predicted
error against MACs searched (no clock decides anything), and six packages picked along it. The last
line is one JSON document.
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

import hwnas
from hwnas.measuring import kit, parity
from hwnas.networks import onnx_graph, ranges, spaces
from hwnas.networks.space import Architecture
from hwnas.run.context import Context, Reporter
from hwnas.run.folder import RunFolder
from hwnas.search import front
from hwnas.settings.config import Config
from hwnas.settings.targets import REFERENCE
from profilers import precisions, runtimes
from profilers.devices import host
from profilers.schema import Target, append_lines, read_json, read_lines

SPEED = ("mbv3-224-int8", "mbv4-224", "ofa-resnet50d", "mbv3-28-int8", "ofa-proxyless-w10",
         "ofa-mbv3-w10", "mbv3-28")  # fmt: skip
ROUNDS, SAMPLE_MS, RANDOM = 30, 20.0, 2
PARITY = 100
PART = precisions.load("int8")
FP32, INT8 = Target("host", REFERENCE), Target("host", REFERENCE, precision="int8")
MEGABYTE = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["speed", "parity"])
    parser.add_argument("--runs", nargs="+", type=Path, default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/int8"), help="for accuracy")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="for accuracy")
    parser.add_argument("--networks", type=int, default=PARITY, help="of each space, for parity")
    parser.add_argument("--spaces", nargs="+", default=spaces.names(), help="for speed, parity")
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
        found["accuracy"] = [accuracy(*finished(folder), recipe) for folder in given.runs]
    else:
        if "accuracy" in given.parts:
            made = [(seed, trained(given.out, seed, given.quick)) for seed in given.seeds]
            found["accuracy"] = [{"seed": seed, **accuracy(*run, recipe)} for seed, run in made]
            mean = float(np.mean([row["mean_points"] for row in found["accuracy"]]))
            bar = {"name": "accuracy lost by int8, points", "value": mean, "limit": 0.3}
            found["bars"].append({**bar, "holds": mean <= 0.3})
        if "speed" in given.parts:
            found["speed"] = speed(recipe, given.spaces, given.quick)
            found["bars"] += bars(found["speed"], "vnni" in str(about["int8_instructions"]))
        if "export" in given.parts:
            found["export"] = [exported(name, recipe) for name in (EXPORT, ["tiny"])[given.quick]]
            for precision, limit in (("fp32", 3.0), ("int8", 20.0)):
                value = max(row[f"{precision}_s"] for row in found["export"])
                bar = {"name": f"export in {precision}, s", "value": value, "limit": limit}
                found["bars"].append({**bar, "holds": value <= limit})
        if "parity" in given.parts:
            found["parity"] = [parity_of(name, recipe, given) for name in given.spaces]
    parts = {
        name: found[name] for name in ("accuracy", "speed", "export", "parity") if name in found
    }
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


def speed(recipe: str, names: list[str], quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name in ["mbv3-28-int8"] if quick else [name for name in SPEED if name in names]:
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
    least_224 = 1.8 if has_vnni else 1.25
    wanted = {"mbv3-224-int8": least_224, "mbv4-224": least_224, "ofa-resnet50d": 1.6}
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


# ---- export --------------------------------------------------------------------------------------

EXPORT = ["ofa-resnet50d", "ofa-mbv3-w12", "mbv3-224-int8"]
IMAGES = 256


def exported(name: str, recipe: str) -> dict[str, Any]:
    """Seconds that the largest network of a space takes to a package, in fp32 and in int8."""
    import torch

    from hwnas.images.tensors import Dataset, Split
    from hwnas.run import model, package, quantised
    from hwnas.settings.int8_config import Int8Config
    from hwnas.supernet.network import Subnet, folded_weights

    space, config = spaces.load(name), Int8Config()
    arch, rng = space.largest, np.random.default_rng(0)
    shape = (IMAGES, *space.input_shape(arch.resolution))
    pixels = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    split = Split(pixels, torch.zeros(IMAGES, dtype=torch.int64))
    classes, ones = tuple(map(str, range(space.n_classes))), (0.25,) * shape[1]
    images, subnet = Dataset(split, split, split, classes, ones, ones, ""), Subnet(arch).eval()
    with tempfile.TemporaryDirectory() as text:
        folder, begun = Path(text), [time.monotonic()]
        data = package.write_model(folder, arch, folded_weights(subnet), 1, {})
        begun.append(time.monotonic())
        model.compare(subnet, folder / package.MODEL, FP32, images)
        begun.append(time.monotonic())
        given = quantised.images_of(images, arch.resolution, config)
        made, _ = quantised.quantised(data, INT8, recipe, given, config)
        (folder / package.MODEL).write_bytes(made)
        begun.append(time.monotonic())
        checked = model.compare(subnet, folder / package.MODEL, INT8, images)
        begun.append(time.monotonic())
    write_s, fp32_check_s, quantise_s, int8_check_s = map(float, np.diff(begun))
    row = {
        **{"space": name, "px": arch.resolution, "checked_images": checked["images"]},
        **{"fp32_s": write_s + fp32_check_s, "int8_s": write_s + quantise_s + int8_check_s},
        **{"write_s": write_s, "quantise_s": quantise_s},
    }
    print(row)
    return row


# ---- accuracy ------------------------------------------------------------------------------------


FASHION = {
    "data": {"kind": "idx", "validation": 0.1, "augment": "flip"},
    "space": {"name": "mbv3-28-int8", "resolutions": [28]},
    "accuracy": {"measure": 40, "images": 2000, "bn_images": 1024},
}
DIGITS = {
    "data": {"kind": "digits"},
    "space": {"name": "tiny", "resolutions": [8]},
    "accuracy": {"measure": 12, "bn_images": 256},
}
TRAINED = {"batch_size": 64, "learning_rate": 0.12, "weight_decay": 3e-4, "max_only": 0.2}
EPOCHS, PACKAGES = 4, 6


def context_of(folder: Path, settings: dict[str, Any]) -> Context:
    """A run in a folder, which prints what it says."""
    say = Reporter(lambda name: lambda share, text: None, print, print)
    return Context(Config(**settings), Path(), RunFolder(folder), say)


def finished(folder: Path) -> tuple[Context, list[Architecture]]:
    """A run, and the networks of its fronts."""
    context = context_of(folder, read_json(RunFolder(folder).config))
    paths = sorted((folder / "fronts").glob("*.json"))
    points = [point for path in paths for point in front.load(path, context.space).points]
    return context, list(dict.fromkeys(point.arch for point in points))


def trained(out: Path, seed: int, quick: bool) -> tuple[Context, list[Architecture]]:
    """A run that trains and evaluates now, or goes on with that; networks along its front."""
    from hwnas.run.data import describe_data
    from hwnas.run.evaluate import evaluate
    from hwnas.run.train import train_supernet

    given = DIGITS if quick else FASHION
    folder = out / f"{given['space']['name']}-{seed}"
    how = {**TRAINED, "epochs": 2 if quick else EPOCHS, "seed": seed, "threads": 1}
    targets = [FP32.name]
    context = context_of(folder, {**given, "run": str(folder), "train": how, "targets": targets})
    begin_s = time.monotonic()
    for stage in (describe_data, train_supernet, evaluate):
        stage(context)
    print(f"seed {seed}: trained and evaluated in {time.monotonic() - begin_s:.0f} s")
    error = hwnas.load_predictor(context.run.predictor, context.space)
    found = hwnas.search_front(context.space, error=error, objectives=("error", "macs"))
    picked = hwnas.pick(found, rule="spread", k=2 if quick else PACKAGES)
    return context, [point.arch for point in picked]


def accuracy(context: Context, archs: list[Architecture], recipe: str) -> dict[str, Any]:
    """Accuracy that int8 loses on test images; networks that were measured before are not again."""
    from hwnas.run.weights import make_evaluator

    evaluator, known = make_evaluator(context), context.run.root / f"int8-{recipe}.jsonl"
    about = {"supernet": evaluator.supernet_sha256, "recipe": recipe}
    lines = read_lines(known)[0] if known.exists() else []
    rows = []
    for arch in archs:
        named = {**about, "network": arch.id}
        found = [line for line in lines if named.items() <= line.items()]
        if not found:
            found = [{**named, **tested(evaluator, arch, recipe, context.config.int8)}]
            append_lines(known, found)
        rows.append({name: found[0][name] for name in ("network", "fp32", "int8")})
        print(rows[-1])
    lost = np.array([100 * (row["fp32"] - row["int8"]) for row in rows])
    summary = {
        **{"run": context.run.root.name, "space": context.space.name, "networks": len(rows)},
        **{"test_images": len(evaluator.dataset.test), "mean_points": float(lost.mean())},
        **{"worst_points": float(lost.max()), "worst": rows[int(lost.argmax())]},
        "met": float(lost.mean()) <= 0.3,
    }
    print(summary)
    return summary


def tested(evaluator: Any, arch: Architecture, recipe: str, config: Any) -> dict[str, float]:
    """Top-1 of a network on the test images, in fp32 and as it is exported in int8."""
    import torch

    from hwnas.run.quantised import images_of, quantised
    from hwnas.supernet.evaluation import metric_of
    from hwnas.supernet.exported import BATCH, Exported
    from hwnas.supernet.network import folded_weights

    subnet, target = evaluator.subnet(arch), replace(INT8, batch=BATCH)
    data = onnx_graph.build(arch.ops, folded_weights(subnet), BATCH)
    given = images_of(evaluator.dataset, arch.resolution, config)
    made, _ = quantised(onnx_graph.to_bytes(data), target, recipe, given, config)
    test = evaluator.dataset.test
    with torch.no_grad():
        whole = metric_of(subnet, evaluator.dataset, test)
    return {"fp32": whole, "int8": metric_of(Exported(arch, made, target), evaluator.dataset, test)}


if __name__ == "__main__":
    main()
