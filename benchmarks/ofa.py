"""Public once-for-all supernets: are they read exactly, and does working with them cost little?

Questions: do subnets of an imported supernet equal once-for-all's own; what does our supernet cost
against theirs and against the plain subnet; how long do an import, an export and a search take?
Needs the package `ofa` (`pip install ofa`), whose networks are the oracle. No public
checkpoint is used: weights are generated, files written as once-for-all writes them.

    python benchmarks/ofa.py            all of it, about half an hour on one core
    python benchmarks/ofa.py --quick    few networks and rounds, seconds
    python benchmarks/ofa.py --part equality | speed | export | import | front

Speed: CPU time of one thread, paired medians of interleaved rounds in random order. Theirs runs as
their code does (channels first); ours and the plain subnet channels last, as `hwnas` trains and
evaluates.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml

from hwnas.measuring import coverage
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.ops import Op
from hwnas.networks.space import Architecture
from hwnas.ofa import lookup_tables
from hwnas.ofa.checkpoint import import_supernet
from hwnas.ofa.predictor import import_predictor
from hwnas.run import package
from hwnas.run.model import run_model
from hwnas.search import problem, searchers
from hwnas.settings.config import SearchConfig
from hwnas.supernet.files import load_supernet
from hwnas.supernet.network import Supernet, channels_last, extract, folded_weights
from profilers.schema import target_from_name

# In place of this folder, where a file has the name of the package that is the oracle.
sys.path[0] = str(Path(__file__).parent.parent / "tests")
import ofa_oracle  # noqa: E402

NAME = "ofa-mbv3-w10"
FULL = {"networks": 100, "resolution": 128, "batch": 32, "rounds": 15, "exports": 5, "imports": 3}
QUICK = {"networks": 1, "resolution": 128, "batch": 2, "rounds": 1, "exports": 1, "imports": 1}
SPEED_PX = 128
TARGET = target_from_name("host.ort-cpu.fp32.b1.t1")
Bar = dict[str, Any]


def main() -> None:
    parts: dict[str, Callable[[Path, dict[str, int]], list[Bar]]] = {
        "import": importing,
        "export": exporting,
        "front": front,
        "equality": equality,
        "speed": speed,
    }
    parser = argparse.ArgumentParser(description="public once-for-all supernets")
    parser.add_argument("--quick", action="store_true", help="few networks and rounds, seconds")
    parser.add_argument("--part", choices=tuple(parts), help="only this part")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setting = QUICK if arguments.quick else FULL
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as folder:
        for name, part in parts.items():
            if arguments.part in (None, name):
                bars += part(Path(folder), setting)
    print(f"{'bar':<58} {'value':>12} {'limit':>10}  holds")
    for bar in bars:
        print(f"{bar['name']:<58} {bar['value']:>12.4g} {bar['limit']:>10g}  {bar['holds']}")
    document = {
        "setting": {**setting, "threads": 1, "torch": torch.__version__},
        "n": setting["networks"],
        "spread": {bar["name"]: bar["spread"] for bar in bars if bar.get("spread")},
        "bars": bars,
    }
    print(json.dumps(document))


def at_most(name: str, value: float, limit: float, spread: list[float] | None = None) -> Bar:
    """A bar whose value may not be above its limit."""
    return {
        "name": name,
        "value": value,
        "limit": limit,
        "holds": bool(value <= limit),
        "spread": spread,
    }


def at_least(name: str, value: float, limit: float) -> Bar:
    """A bar whose value may not be below its limit."""
    return {"name": name, "value": value, "limit": limit, "holds": bool(value >= limit)}


def print_cpu(what: str, seconds: float) -> None:
    """Print the CPU time of what a bar gives by the clock: other work on the machine inflates it
    less.
    """
    print(f"{what}: {seconds:.2f} s of CPU time")


def pair(folder: Path, name: str) -> tuple[torch.nn.Module, Supernet]:
    """Their supernet of generated weights, and ours imported from its file."""
    theirs, out = ofa_oracle.supernet(name), folder / f"{name}.safetensors"
    if not out.exists():
        ofa_oracle.save(theirs, folder / name)
        import_supernet(folder / name, name, out)
    return theirs, load_supernet(out, spaces.load(name))


# ---- equality -----------------------------------------------------------------------------------


@torch.no_grad()
def equality(folder: Path, setting: dict[str, int]) -> list[Bar]:
    """Outputs, MACs and parameters of random subnets of every space."""
    bars = []
    names = [NAME] if setting is QUICK else list(ofa_oracle.CLASSES)
    for name in names:
        theirs, ours = pair(folder, name)
        rng = np.random.default_rng(7)
        space = spaces.load(name)
        worst, same = 0.0, 0
        for number in range(setting["networks"]):
            arch = space.random(rng)
            ofa_oracle.activate(theirs, arch)
            images = ofa_oracle.images(arch, 1, seed=number)
            expected = theirs(images)
            for found in (ours(images, arch), extract(ours, arch)(images)):
                difference = float((found - expected).abs().max())
                worst = max(worst, difference / max(1.0, float(expected.abs().max())))
            costs = exact_costs(arch)
            counted = ofa_oracle.macs(theirs, arch), ofa_oracle.parameters(theirs)
            same += counted == (costs["macs"], costs["params"])
        bars.append(at_most(f"{name}: largest difference of an output", worst, 1e-5))
        share = same / setting["networks"]
        bars.append(at_least(f"{name}: share with equal MACs and parameters", share, 1.0))
        print(f"equality {name}: {setting['networks']} networks, {worst:.2g}, {share:.0%} equal")
    return bars


# ---- speed --------------------------------------------------------------------------------------


def speed(folder: Path, setting: dict[str, int]) -> list[Bar]:
    """Our supernet against theirs and against the plain subnet, forward and with backward."""
    theirs, ours = pair(folder, NAME)
    bars = []
    chosen = ends()
    for size in ("min",) if setting is QUICK else tuple(chosen):
        arch = chosen[size]
        ofa_oracle.activate(theirs, arch)
        plain = channels_last(extract(ours, arch))
        images = ofa_oracle.images(arch, setting["batch"])
        last = images.contiguous(memory_format=torch.channels_last)
        runs: dict[str, tuple[torch.nn.Module, Callable[[], torch.Tensor]]] = {
            "theirs": (theirs, lambda images=images: theirs(images)),
            "ours": (ours, lambda last=last, arch=arch: ours(last, arch)),
            "plain": (plain, lambda last=last, plain=plain: plain(last)),
        }
        for mode in ("forward", "forward+backward"):
            times = interleaved(runs, mode == "forward", setting["rounds"])
            for other, limit in (("theirs", 1.05), ("plain", 1.15)):
                ratios = [a / b for a, b in zip(times["ours"], times[other], strict=True)]
                spread = [float(q) for q in np.quantile(ratios, [0.25, 0.75])]
                name = (
                    f"{mode} {size}: supernet over {'once-for-all' if other == 'theirs' else other}"
                )
                bars.append(at_most(name, statistics.median(ratios), limit, spread))
            shown = ", ".join(f"{k} {statistics.median(v):.0f}" for k, v in times.items())
            print(f"speed {size} {mode}, ms: {shown}")
    return bars


def ends() -> dict[str, Architecture]:
    """The max, a middle and the min subnet at SPEED_PX."""
    space = spaces.load(NAME).restricted([SPEED_PX])
    middle = space.architectures(np.minimum(1, space.n_options - 1)[None])[0]
    return {"max": space.largest, "middle": middle, "min": space.smallest}


def interleaved(
    runs: dict[str, tuple[torch.nn.Module, Callable[[], torch.Tensor]]], forward: bool, rounds: int
) -> dict[str, list[float]]:
    """CPU ms of each run in each round, the order of a round drawn; one more round first, not kept.

    There is one thread: on a quiet machine CPU time is time by the clock, on a busy one it is
    inflated less.
    """
    rng, out = np.random.default_rng(0), {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in rng.permutation(list(runs)).tolist():
            net, run = runs[name]
            net.train(not forward)
            net.zero_grad(set_to_none=True)
            start = time.process_time()
            with torch.set_grad_enabled(not forward):
                logits = run()
                if not forward:
                    logits.square().mean().backward()
            if number:
                out[name].append(1000 * (time.process_time() - start))
    for net, _ in runs.values():
        net.eval()
    return out


# ---- export, import, front ----------------------------------------------------------------------


@torch.no_grad()
def exporting(folder: Path, setting: dict[str, int]) -> list[Bar]:
    """From supernet to a checked ONNX package at 224 px; calibration and test accuracy aside."""
    _, ours = pair(folder, NAME)
    space, rng = spaces.load(NAME).restricted([224]), np.random.default_rng(3)
    seconds, worst, cpu = [], 0.0, time.process_time()
    for number in range(setting["exports"]):
        arch = space.largest if not number else space.random(rng)
        start = time.perf_counter()
        worst = max(worst, export_one(folder / f"package-{number}", ours, arch))
        seconds.append(time.perf_counter() - start)
    spread = [min(seconds), max(seconds)]
    print_cpu("export of a package, mean", (time.process_time() - cpu) / setting["exports"])
    return [
        at_most("subnet to checked package at 224 px, s", statistics.median(seconds), 2.0, spread),
        at_most("parity of the package with torch", worst, 1e-4),
    ]


def export_one(folder: Path, supernet: Supernet, arch: Architecture) -> float:
    """Write and check a package; the largest difference of a logit between torch and the engine."""
    subnet = extract(supernet, arch)
    folder.mkdir()
    data = package.write_model(folder, arch, folded_weights(subnet), 1, {"arch": arch.to_json()})
    onnx.checker.check_model(data, full_check=True)
    images = ofa_oracle.images(arch, 1)
    found = run_model(folder / package.MODEL, TARGET, images.numpy())
    return float(np.abs(found - subnet(images).numpy()).max())


def importing(folder: Path, setting: dict[str, int]) -> list[Bar]:
    """The command `hwnas import supernet` as a process of its own, its start included."""
    source = folder / "checkpoint"
    ofa_oracle.save(ofa_oracle.supernet(NAME), source)
    seconds, megabytes, cpu = [], [], []
    for _ in range(setting["imports"]):
        out = folder / "imported.safetensors"
        given = [str(source), "--space", NAME, "--out", str(out)]
        command = [sys.executable, "-m", "hwnas", "import", "supernet", *given]
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = status
        seconds.append(time.perf_counter() - start)
        megabytes.append(usage.ru_maxrss / 1024)
        cpu.append(usage.ru_utime + usage.ru_stime)
        if status:
            raise SystemExit("hwnas import supernet failed")
    print_cpu("import", statistics.median(cpu))
    size = source.stat().st_size / 1e6
    return [
        at_most(
            f"import of {size:.0f} MB, s",
            statistics.median(seconds),
            3.0,
            [min(seconds), max(seconds)],
        ),
        at_most(f"import of {size:.0f} MB, MB of memory", max(megabytes), 500.0),
    ]


def front(folder: Path, setting: dict[str, int]) -> list[Bar]:
    """From imported table and predictor to a front, for the space of an imported supernet."""
    space = spaces.load("ofa-mbv3-w12").restricted([160, 192, 224])
    files = [made_table(folder, space.restricted([px])) for px in space.resolutions]
    torch.save(made_predictor(space), folder / "acc_predictor.pth")
    start, cpu = time.perf_counter(), time.process_time()
    costs = lookup_tables.import_tables(files, space.name, TARGET)
    predictor = import_predictor(folder / "acc_predictor.pth", space)
    error = predictor.metric(space)
    metrics = problem.metrics_of(
        space, lambda op: costs.row(op.key), costs.intercept, error, costs.link
    )
    config = SearchConfig(generations=100 if setting is FULL else 10)
    found = searchers.search(problem.make_problem(space, config, metrics), config)
    seconds = time.perf_counter() - start
    print_cpu("front", time.process_time() - cpu)
    return [
        at_most("imported table and predictor to a front, s", seconds, 10.0),
        at_least("networks of that front", len(found.front), 100),
    ]


def made_table(folder: Path, space: Any) -> Path:
    """A look-up file of one resolution; an op takes as long as its MACs and a little more."""
    ops = coverage.distinct_ops(space).values()
    content = {
        lookup_tables.key_of(placed): {"count": 50, "mean": modelled_ms(placed.op), "std": 0.01}
        for placed in ops
    }
    path = folder / f"{space.resolutions[0]}_lookup_table.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def modelled_ms(op: Op) -> float:
    """A made-up latency, ms, that rises with MACs."""
    return 0.02 + op.macs / 5e7


def made_predictor(space: Any) -> dict[str, torch.Tensor]:
    """The tensors of a tutorial's predictor in which larger options give more accuracy."""
    torch.manual_seed(0)
    sizes = [(400, 128), (400, 400), (400, 400), (1, 400)]
    named = {}
    for number, (rows, columns) in zip((0, 2, 4, 6), sizes, strict=True):
        named[f"{number}.weight"] = torch.randn(rows, columns).abs() / columns**0.5 / 10
        named[f"{number}.bias"] = torch.randn(rows).abs() / 10
    rising = torch.tensor([0.0, 1.0, 2.0] * 40 + [float(n) for n in range(8)])
    named["0.weight"] = named["0.weight"] * rising / 10
    return named


if __name__ == "__main__":
    main()
