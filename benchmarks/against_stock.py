"""Against what a user would do instead: public networks trained alone, at equal training time.

    python benchmarks/against_stock.py --out runs/stock                  hours; cut, it goes on
    python benchmarks/against_stock.py --out runs/stock --epochs 4       a shorter training
    python benchmarks/against_stock.py --out runs/stock --targets 10     what 10 targets would cost
    python benchmarks/against_stock.py --out runs/stock --stock resnet8-16   all the time for one
    python benchmarks/against_stock.py --out runs/stock --table          what is there, no training
    python benchmarks/against_stock.py --quick                           digits, a minute

`hwnas run` trains one supernet of `mbv3-28` on Fashion-MNIST (Debian: dataset-fashion-mnist),
measures subnets, picks six networks for each target and fine-tunes them. All CPU time of that but
for profiling is what the other side gets for its training: MobileNetV3-small with strides for 28 px
and ResNets of CIFAR-10, in several widths (`stock/models.py`), each for the same number of steps.
Each rate of RATES is tried for a tenth of those steps; the best on validation images is used. The
last tenth of a training takes the images as they are, as our fine-tuning does. With
`--targets 10` the time is that of one supernet and of ten times the fine-tuning of one target.

Every network, ours and theirs, becomes ONNX by the same code and is measured in turns on each
target. A ratio is their latency over ours at our accuracy: along the line through their front, by
validation accuracy, in the logarithm of latency. Above their best accuracy that network counts;
below their least, nothing. Test images are read once for each network, at the end. The result of
each step is a file in --out.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
import yaml
from stock.loop import Plain, top1, trained
from stock.models import STOCK

from hwnas.images import tensors
from hwnas.networks import onnx_graph
from hwnas.networks.spaces import of_model
from hwnas.pricing import pareto
from hwnas.settings import fakes
from hwnas.settings.config import DataConfig
from hwnas.supernet.network import extract, folded_weights
from hwnas.traced.analyse import analyse
from hwnas.traced.lowering import lowered
from hwnas.traced.weights import importance, orders, own_supernet
from profilers import runtimes
from profilers.open_models import calibrate
from profilers.schema import read_json, target_from_name, write_json

TARGETS = ("host.ort-cpu.fp32.b1.t1", "host.litert.fp32.b1.t1")
RATES, TRIED = (0.05, 0.15, 0.4), 0.1  # share of the steps that each rate is tried for
PLAIN = 0.1  # share of a network's steps, the last ones, without augmentation
TIMED, ROUNDS, WANTED = 20, 40, 1.3
ACCEPTED = "unreliable,gap,budget,untimed,emulated"


class Setting(NamedTuple):
    """What is compared."""

    out: Path
    data: DataConfig
    run: dict[str, Any]
    targets: tuple[str, ...]
    stock: tuple[str, ...]
    counted: int  # targets that the time of training is for
    most_steps: int = 1_000_000_000

    @property
    def other_side(self) -> str:
        """Names the trainings of the public networks: the targets that the time is for, and which
        networks share it, where it is not all.
        """
        every = self.stock == tuple(STOCK)
        return "-".join([str(self.counted), *(() if every else self.stock)])


def main() -> None:
    parser = argparse.ArgumentParser(description="against public networks trained alone")
    parser.add_argument("--out", type=Path, help="folder that keeps the result of each step")
    parser.add_argument("--epochs", type=int, default=12, help="of the supernet")
    parser.add_argument("--targets", type=int, default=1, help="that the time is counted for")
    parser.add_argument("--seed", type=int, default=0, help="of the supernet")
    parser.add_argument("--stock", default=",".join(STOCK), help="public networks that share it")
    parser.add_argument("--table", action="store_true", help="train nothing: show what is there")
    parser.add_argument("--quick", action="store_true", help="digits, a minute")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="hwnas-stock-") as scratch:
        out = given.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        setting = quick(out) if given.quick else full(out, given)
        if not given.table:
            ours(setting)
            theirs(setting)
        there, file = done(setting), out / f"compared-{setting.other_side}.json"
        work = functools.partial(compared, setting, there)
        rows = kept(file, work) if there == setting.stock else work()
    show(setting, rows, there)


def full(out: Path, given: argparse.Namespace) -> Setting:
    """Fashion-MNIST and two engines of this machine."""
    stock = tuple(given.stock.split(","))
    if strange := [name for name in stock if name not in STOCK]:
        raise SystemExit(f"unknown network {strange[0]!r} (known: {', '.join(STOCK)})")
    data = {"kind": "idx", "validation": 0.1, "augment": "flip"}
    train = {"epochs": given.epochs, "threads": 1, "seed": given.seed}  # all else as a user gets it
    run = {
        "data": data,
        "space": {"name": "mbv3-28"},
        "train": train,
        "accuracy": {"measure": 100, "images": 4000},
        "finetune": {"epochs": 1},
        "pick": [{"rule": "spread", "k": 6}],
    }
    return Setting(out, DataConfig.model_validate(data), run, TARGETS, stock, given.targets)


def quick(out: Path) -> Setting:
    """Digits and modelled times: bars that say nothing."""
    fakes.provide()
    run = {
        "data": {"kind": "digits"},
        "space": {"name": "tiny", "resolutions": [8]},
        "train": {"epochs": 2, "threads": 1},
        "accuracy": {"measure": 12, "bn_images": 256, "training_free": 0},
        "profile": {"budget_s": 5, "heldout": 5, "rounds": 5},
        "pick": [{"rule": "spread", "k": 2}],
    }
    stock = ("resnet8-8", "resnet8-16")
    return Setting(out, DataConfig(kind="digits"), run, ("fake.fake.fp32.b1.t1",), stock, 1, 30)


def kept(path: Path, work: Callable[[], Any]) -> Any:
    """The result of a step, from its file if it was done."""
    if not path.exists():
        write_json(path, work())
    return read_json(path)


# ---- ours ---------------------------------------------------------------------------------------

COMMANDS = {  # by the name that their CPU time is kept under
    "train": ("train",),
    "evaluate": ("evaluate",),
    "run": ("run", "--accept", ACCEPTED),
    "finetune": ("run", "--accept", ACCEPTED, "--set", "finetune.in_run=true"),
}
COUNTED = ("train", "evaluate", "finetune")


def ours(setting: Setting) -> None:
    """The run; CPU seconds of each command are added up in a file, those of a cut one as well."""
    settings = setting.out / "hwnas.yaml"
    settings.write_text(
        yaml.safe_dump({**setting.run, "run": "run", "targets": [*setting.targets]})
    )
    for name, (command, *options) in COMMANDS.items():
        spent = setting.out / f"cpu-{name}.json"
        before = read_json(spent) if spent.exists() else {"cpu_s": 0.0, "done": False}
        if before["done"]:
            continue
        start, code = children_s(), 1
        try:
            words = [sys.executable, "-m", "hwnas", command, str(settings), *options]
            code = subprocess.run(words, check=False).returncode
        finally:
            spent_s = before["cpu_s"] + children_s() - start
            write_json(spent, {"cpu_s": spent_s, "done": not code})
        if code:
            sys.exit(f"hwnas {command} ended with {code}; run this again to go on")


def children_s() -> float:
    """CPU seconds of processes that this one waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def training_s(setting: Setting) -> dict[str, float]:
    """CPU seconds of our side: supernet, measured subnets, and fine-tuning for all targets."""
    spent = {name: read_json(setting.out / f"cpu-{name}.json")["cpu_s"] for name in COUNTED}
    return {**spent, "finetune": setting.counted * spent["finetune"] / len(setting.targets)}


def packages(setting: Setting, target: str) -> dict[str, dict[str, Any]]:
    """Of each package of a target: its ONNX file, and its accuracy on all test images."""
    dataset, found = tensors.load(setting.data), {}
    for path in sorted((setting.out / "run" / "packages" / target).glob("*/manifest.json")):
        file = path.parent / "model.onnx"
        found[read_json(path)["name"]] = {"file": file, "test": top1_of_file(file, dataset)}
    return found


def top1_of_file(path: Path, dataset: tensors.Dataset) -> float:
    """Share of the test images that a model of batch 1 gets right in ONNX Runtime."""
    session = onnxruntime.InferenceSession(path.read_bytes())
    given = session.get_inputs()[0]
    right = 0
    for images, labels in tensors.batches(dataset.test, px := given.shape[-1], 256):
        inputs = tensors.prepare(images, px, dataset).contiguous().numpy()
        answers = [
            session.run(None, {given.name: inputs[i : i + 1]})[0] for i in range(len(labels))
        ]
        right += int((np.concatenate(answers).argmax(1) == labels.numpy()).sum())
    return right / len(dataset.test)


# ---- theirs -------------------------------------------------------------------------------------


def theirs(setting: Setting) -> None:
    """Each public network, trained at the rate that was best on validation images."""
    dataset = tensors.load(setting.data)
    folder = setting.out / f"stock-{setting.other_side}"
    folder.mkdir(exist_ok=True)
    planned = kept(folder / "plan.json", lambda: plan(setting, dataset))
    steps = planned["steps"]
    few = max(round(TRIED * steps), 1)
    for name in setting.stock:
        right = {}
        for rate in RATES:
            work = functools.partial(tried, setting, dataset, name, rate, few)
            right[rate] = kept(folder / f"{name}-{rate:g}.json", work)["validation"]
        best = max(right, key=right.__getitem__)
        work = functools.partial(whole, setting, dataset, name, best, steps)
        kept(folder / f"{name}.json", work)


def done(setting: Setting) -> tuple[str, ...]:
    """Public networks that are trained so far; refused where there is none."""
    folder = setting.out / f"stock-{setting.other_side}"
    if there := tuple(name for name in setting.stock if (folder / f"{name}.json").exists()):
        return there
    raise SystemExit(f"{folder} holds no trained network yet; run this without --table first")


def plan(setting: Setting, dataset: tensors.Dataset) -> dict[str, Any]:
    """Steps that each network gets for the CPU time of our side."""
    seconds = {}
    for name in setting.stock:
        trained(made(name, dataset), dataset, Plain(3, RATES[0]), dataset.size)
        begun = time.process_time()
        trained(made(name, dataset), dataset, Plain(TIMED, RATES[0]), dataset.size)
        seconds[name] = (time.process_time() - begun) / TIMED
    budget = training_s(setting)
    steps = sum(budget.values()) / (sum(seconds.values()) * (1 + TRIED * len(RATES)))
    print(f"{sum(budget.values()):.0f} CPU s of ours are {steps:.0f} steps of each of theirs")
    return {
        "steps": min(max(round(steps), 1), setting.most_steps),
        "step_s": seconds,
        "budget_s": budget,
    }


def made(name: str, dataset: tensors.Dataset) -> torch.nn.Module:
    torch.manual_seed(0)
    return STOCK[name](dataset.in_channels, dataset.n_classes)


def fitted(
    setting: Setting, dataset: tensors.Dataset, name: str, rate: float, steps: int
) -> torch.nn.Module:
    plain = round(PLAIN * steps)
    how = Plain(steps, rate, augment=setting.data.augment, plain_steps=plain)
    return trained(made(name, dataset), dataset, how, dataset.size)


def tried(
    setting: Setting, dataset: tensors.Dataset, name: str, rate: float, steps: int
) -> dict[str, Any]:
    """Validation accuracy of a rate after few steps."""
    model = fitted(setting, dataset, name, rate, steps)
    right = top1(model, dataset, dataset.val, dataset.size)
    print(f"{name} at {rate:g}, {steps} steps: {right:.2%} of validation images", flush=True)
    return {"validation": right}


def whole(
    setting: Setting, dataset: tensors.Dataset, name: str, rate: float, steps: int
) -> dict[str, Any]:
    """A network trained in full, as ONNX, with its accuracies."""
    model, px = fitted(setting, dataset, name, rate, steps), dataset.size
    analysis = analyse(model, (dataset.in_channels, px, px))
    low = lowered(analysis, 1, 1)
    space = of_model(low.family, [px], low.bn_eps)
    net = extract(own_supernet(space, low, analysis, orders(importance(analysis, "none"))),
                  space.largest).eval()  # fmt: skip
    path = setting.out / f"stock-{setting.other_side}" / f"{name}.onnx"
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(net.arch.ops, folded_weights(net), 1)))
    right = top1(model, dataset, dataset.val, px)
    print(f"{name} at {rate:g}, {steps} steps: {right:.2%} of validation images", flush=True)
    test = top1(model, dataset, dataset.test, px)
    return {"rate": rate, "steps": steps, "validation": right, "test": test}


# ---- compared -----------------------------------------------------------------------------------


def compared(setting: Setting, there: Sequence[str]) -> list[dict[str, Any]]:
    """Of each target: latency and accuracy of both sides, and ratios at equal accuracy."""
    folder, rows = setting.out / f"stock-{setting.other_side}", []
    stock = {name: read_json(folder / f"{name}.json") for name in there}
    for target in setting.targets:
        mine = packages(setting, target)
        files = {("ours", name): p["file"] for name, p in mine.items()}
        files |= {("theirs", name): folder / f"{name}.onnx" for name in stock}
        ms = times(files, target)
        own = {n: {"ms": ms["ours", n], "test": p["test"]} for n, p in mine.items()}
        other = {n: {"ms": ms["theirs", n], **told} for n, told in stock.items()}
        rows.append({"target": target, "ours": own, "theirs": other, "ratio": ratios(own, other)})
    return rows


def times(files: Mapping[Any, Path], target: str) -> dict[Any, float]:
    """Latency of each file on a target, ms: 10th percentile of rounds in which all take turns."""
    described = target_from_name(target)
    runtime = runtimes.load(described.runtime)
    sessions = {name: runtime.load(path, described) for name, path in files.items()}
    plans = {name: calibrate(session) for name, session in sessions.items()}
    order, names = np.random.default_rng(0), list(sessions)
    samples: dict[Any, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for number in order.permutation(len(names)).tolist():
            name = names[number]
            for _ in range(plans[name].warm):
                sessions[name].time(1)
            samples[name].append(sessions[name].time(plans[name].loops) / plans[name].loops)
    for session in sessions.values():
        session.close()
    return {name: float(np.percentile(values, 10)) for name, values in samples.items()}


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Their latency over ours at the test accuracy of each package of ours."""
    costs = np.array([[1 - t["validation"], t["ms"]] for t in theirs.values()])
    front = np.array([[t["test"], math.log(t["ms"])] for t in theirs.values()])
    front = front[pareto.non_dominated(costs)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    front[:, 1] = np.maximum.accumulate(front[:, 1])
    return {
        name: math.exp(float(np.interp(own["test"], front[:, 0], front[:, 1]))) / own["ms"]
        for name, own in ours.items()
        if own["test"] >= front[0, 0]
    }


def show(setting: Setting, rows: list[dict[str, Any]], there: Sequence[str]) -> None:
    """Tables for people, then one JSON document."""
    if missing := [name for name in setting.stock if name not in there]:
        print(f"\nnot trained yet, so not compared: {', '.join(missing)}")
    planned = read_json_or_nothing(setting.out / f"stock-{setting.other_side}" / "plan.json")
    bars = []
    for row in rows:
        print(f"\n{row['target']}, training time of {setting.counted} target(s)\n")
        print(f"{'network':<28}{'test':>8}{'ms':>9}{'theirs over ours':>18}")
        for name, own in sorted(row["ours"].items(), key=lambda item: item[1]["ms"]):
            ratio = row["ratio"].get(name)
            told = f"{ratio:18.2f}" if ratio else f"{'below theirs':>18}"
            print(f"hwnas {name:<22}{own['test']:8.2%}{own['ms']:9.4f}{told}")
        for name, other in sorted(row["theirs"].items(), key=lambda item: item[1]["ms"]):
            print(f"{name:<28}{other['test']:8.2%}{other['ms']:9.4f}")
        values = list(row["ratio"].values())
        mean = statistics.geometric_mean(values) if values else 0.0
        bars.append({"name": f"faster at equal accuracy on {row['target']}", "value": mean,
                     "limit": WANTED, "holds": mean >= WANTED})  # fmt: skip
        print(f"geometric mean of {len(values)} ratios: {mean:.2f} (≥ {WANTED}: "
              f"{'holds' if mean >= WANTED else 'missed'})")  # fmt: skip
    about = {"run": setting.run, "targets": setting.targets, "counted": setting.counted,
             "stock": setting.stock, "trained": there}  # fmt: skip
    about |= {"plan": planned, "cores": os.cpu_count()}
    spread = {row["target"]: row["ratio"] for row in rows}
    n = {row["target"]: len(row["ratio"]) for row in rows}
    print(json.dumps({"setting": about, "n": n, "spread": spread, "bars": bars}))


def read_json_or_nothing(path: Path) -> Any:
    return read_json(path) if path.exists() else None


if __name__ == "__main__":
    main()
