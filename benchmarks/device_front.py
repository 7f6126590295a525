"""Is what a device's front recommends the best of what its engines and precisions measure?

    python benchmarks/device_front.py budgets --out runs/device   Fashion-MNIST, 5 latency budgets
    python benchmarks/device_front.py engines --out runs/device   5 networks of a 224-px space
    python benchmarks/device_front.py --quick                     drawn numbers, seconds

`budgets` makes a package of every target (engine and precision) for every budget it can meet, and
runs each in its engine on the validation images: the one that `hwnas pick --device` names is to be
the most accurate of all that measure within the budget, or within that one's 95 % interval.
`engines` profiles every target, and holds the engine of least predicted latency in each precision
against samples of all engines, interleaved. What is in --out is not made again: stopped, it goes
on. Times need a quiet machine; `budgets` takes about 25 minutes on two cores, `engines` about ten.
OpenVINO needs its time to open models: with 20 s a campaign it has no table.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from engine import networks, speed

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.run import tested
from hwnas.settings.config import DataConfig
from hwnas.tables.table import load_table, network_latency
from profilers import runtimes
from profilers.devices import host
from profilers.errors import HwnasError
from profilers.schema import Target, read_json, target_from_name

DEVICE = "host.b1"
INTEGER = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")  # of interest
ACCEPTED = "emulated,unreliable,gap,budget,untimed"
FASHION = """
run: run
data: {kind: idx, validation: 0.1, augment: flip}
space: {name: mbv3-28, resolutions: [28]}
train: {epochs: 2, batch_size: 64, learning_rate: 0.12, weight_decay: 0.0003, max_only: 0.2}
accuracy: {measure: 150, images: 2000, bn_images: 1024}
int8: {measure: 60}
profile: {budget_s: 60}
"""
LARGE = """
run: run
data: {kind: none}
space: {name: ofa-mbv3-w10, resolutions: [224]}
profile: {budget_s: 60}
search: {objectives: [macs, latency_ms]}
"""
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the range of latencies on the device's front
NETWORKS, ROUNDS, SURE = 5, 25, 1.96


@dataclass(frozen=True)
class Package:
    """What a budget buys on one target: measured latency and accuracy of the file itself."""

    target: str
    budget: str
    network: str
    latency_ms: float
    accuracy: float
    images: int

    @property
    def interval(self) -> float:
        """Half the 95 % interval of the accuracy, a share of images that were right."""
        return SURE * math.sqrt(self.accuracy * (1 - self.accuracy) / self.images)


def targets() -> list[str]:
    """Every way to drive this machine with one thread: runtimes that are installed, and their
    precisions.
    """
    return [target.name for target in _ways()]


def _ways() -> Iterator[Target]:
    for name in runtimes.names():
        about = runtimes.engine(name)
        if about.modelled or about.gpu:
            continue
        try:
            runtimes.load(name).version()
        except HwnasError as error:
            print(f"left out: {name}: {error}")
            continue
        yield from (Target("host", name, precision) for precision in about.precisions)


# ---- runs ---------------------------------------------------------------------------------------


def hwnas(folder: Path, command: str, *words: str) -> Any:
    """What a command prints as JSON; what fails is told, and the rest goes on."""
    line = [sys.executable, "-m", "hwnas", command, str(folder / "hwnas.yaml"), "--json", *words]
    ended = subprocess.run([*line, "--accept", ACCEPTED], capture_output=True, text=True)
    for told in ended.stderr.splitlines():
        if told.startswith("hwnas:"):
            print(told, flush=True)
    if not ended.stdout:
        sys.exit(f"hwnas {command} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout)


def begun(folder: Path, settings: str, names: list[str]) -> Path:
    """A folder with settings for some targets."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {**yaml.safe_load(settings), "targets": names}
    (folder / "hwnas.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    return folder


# ---- budgets ------------------------------------------------------------------------------------


def budgets(out: Path) -> list[dict[str, Any]]:
    """A bar: budgets whose recommended package is the best one."""
    folder = begun(out / "budgets", FASHION, targets())
    hwnas(folder, "run", "--set", "pick=[{rule: best}]")
    (front,) = hwnas(folder, "front", "--device", DEVICE)
    limits = _limits([point["predicted"]["latency_ms"] for point in front["points"]])
    least = _least(folder, front)
    rules = [
        {"name": name, "budget": {"latency_ms": limit}, "target": target}
        for target in least
        for name, limit in limits.items()
        if least[target] <= limit
    ]
    hwnas(folder, "run", "--set", f"pick={json.dumps(rules)}")
    made = list(_measured(folder, limits))
    shared = [{"name": n, "budget": {"latency_ms": limit}} for n, limit in limits.items()]
    picked = hwnas(folder, "pick", "--device", DEVICE, "--set", f"pick={json.dumps(shared)}")
    chosen = {row["package"]: row["target"] for row in picked}
    best = [_holds(name, limit, chosen[name], made) for name, limit in limits.items()]
    return [bar("budgets whose recommended package is the best", sum(best), len(best))]


def _limits(latencies: list[float]) -> dict[str, float]:
    """Budgets over the range of a front, ms, by name."""
    low, high = math.log(min(latencies)), math.log(max(latencies))
    return {f"b{n}": math.exp(low + s * (high - low)) for n, s in enumerate(SHARES, start=1)}


def _least(folder: Path, front: Mapping[str, Any]) -> dict[str, float]:
    """The least latency on each target's own front, ms."""
    found = {}
    for about in front["targets"]:
        points = read_json(folder / "run" / "fronts" / f"{about['target']}.json")["points"]
        found[about["target"]] = min(point["predicted"]["latency_ms"] for point in points)
    return found


def _measured(folder: Path, names: Iterable[str]) -> Iterator[Package]:
    """Every package of some names that was timed, its file run on the validation images in the
    engine of its target.
    """
    data = tensors.load(DataConfig(**yaml.safe_load(FASHION)["data"]))
    validation = replace(data, test=data.val)
    for path in sorted(folder.glob("run/packages/*/*/manifest.json")):
        manifest = read_json(path)
        latency_ms = (manifest["measured"] or {}).get("latency_ms")
        if latency_ms is None or path.parent.name not in names:
            continue
        target = target_from_name(path.parent.parent.name)
        model = path.parent / manifest["model"]
        told, _ = tested.accuracy_on_test(model, manifest, target, validation)
        yield Package(
            target.name,
            path.parent.name,
            manifest["id"],
            latency_ms,
            told["test_accuracy"],
            told["test_images"],
        )


def _holds(name: str, limit: float, target: str, made: Iterable[Package]) -> bool:
    """Whether the recommended package is the best of all that measure within a budget."""
    within = [each for each in made if each.latency_ms <= limit]
    ours = [each for each in within if (each.target, each.budget) == (target, name)]
    best = max(within, key=lambda each: each.accuracy, default=None)
    print(f"{name}: {limit:.4f} ms, {len(within)} packages within; recommended {target}")
    for each in sorted(within, key=lambda each: -each.accuracy)[:4]:
        print(
            f"    {each.accuracy:.2%} ± {each.interval:.2%}  {each.latency_ms:.4f} ms  "
            f"{each.target} {each.budget} {each.network}"
        )
    if not ours or best is None:
        print("    the recommended package does not measure within the budget", flush=True)
        return False
    return ours[0].accuracy >= best.accuracy - best.interval


# ---- engines ------------------------------------------------------------------------------------


def engines(out: Path) -> list[dict[str, Any]]:
    """A bar: networks whose recommended engine is the fastest in each precision."""
    names = targets()
    folder = begun(out / "engines", LARGE, names)
    hwnas(folder, "profile")
    paths = {name: folder / "run" / "tables" / f"{name}.json" for name in names}
    tables = {name: load_table(path) for name, path in paths.items() if path.exists()}
    about = yaml.safe_load(LARGE)["space"]
    space = spaces.load(about["name"]).restricted(about["resolutions"])
    rng, right = np.random.default_rng(7), []
    drawn = space.architectures(space.sample(NETWORKS, rng))
    for arch in sorted(drawn, key=lambda arch: exact_costs(arch)["macs"]):
        path = networks.write(arch.ops, folder / "network.onnx")
        samples = _samples(path, list(tables))
        predicted = {name: network_latency(table, arch) for name, table in tables.items()}
        right.append(_fastest(arch.id, predicted, samples))
    return [bar("networks whose recommended engines are the fastest", sum(right), len(right))]


def _samples(path: Path, names: list[str]) -> dict[str, list[float]]:
    """Latencies of a network on every target, ms: a sample of each in turn."""
    sessions = {}
    for name in names:
        target = target_from_name(name)
        sessions[name] = networks.opened(target.runtime, path, target.precision)
    return speed.in_turn(sessions, ROUNDS)


def _fastest(
    network: str, predicted: Mapping[str, float], samples: Mapping[str, list[float]]
) -> bool:
    """Whether in each precision the engine of least predicted latency is the fastest measured, or
    its ratio to that one has 1 in its 95 % interval.
    """
    ms = {name: speed.p10(each) for name, each in samples.items()}
    holds = []
    for precision in dict.fromkeys(target_from_name(name).precision for name in ms):
        mine = [name for name in ms if target_from_name(name).precision == precision]
        ours, best = min(mine, key=predicted.__getitem__), min(mine, key=ms.__getitem__)
        low, high = speed.interval(samples[ours], samples[best])
        holds.append(ours == best or low <= 1.0)
        told = ", ".join(f"{n} {predicted[n]:.4g} ({ms[n]:.4g})" for n in mine)
        print(f"{network} {precision}: predicted (measured) ms: {told}; {ours} over the fastest "
              f"{low:.3f} to {high:.3f}", flush=True)  # fmt: skip
    return all(holds)


# ---- all of it ----------------------------------------------------------------------------------


def drawn() -> list[dict[str, Any]]:
    """The bars of drawn numbers: predictions that are right within a hundredth."""
    rng, names = np.random.default_rng(0), [f"host.e{n}.fp32.b1.t1" for n in range(3)]
    best, fastest = [], []
    for n, limit in enumerate((1.0, 2.0, 3.0, 4.0, 5.0)):
        told = [(name, limit * rng.uniform(0.7, 1.1), rng.uniform(0.8, 0.9)) for name in names]
        told.append((names[0], 0.5 * limit, 0.7))
        made = [Package(name, "b", "drawn", ms, top1, 1000) for name, ms, top1 in told]
        within = [each for each in made if each.latency_ms <= limit]
        best.append(_holds("b", limit, max(within, key=lambda p: p.accuracy).target, made))
        ms = dict(zip(names, rng.uniform(1, 2, 3).tolist(), strict=True))
        samples = {name: (value * rng.normal(1, 0.02, 25)).tolist() for name, value in ms.items()}
        predicted = {name: value * rng.uniform(0.99, 1.01) for name, value in ms.items()}
        fastest.append(_fastest(str(n), predicted, samples))
    return [bar("budgets", sum(best), len(best)), bar("networks", sum(fastest), len(fastest))]


PARTS = {"budgets": budgets, "engines": engines}


def bar(name: str, value: int, limit: int) -> dict[str, Any]:
    """A bar that every case has to hold."""
    return {"name": name, "value": value, "limit": limit, "holds": value == limit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("--out", type=Path, help="folder that keeps what was made")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    hardware = host.hardware()
    features = sorted(set(INTEGER) & set(hardware["cpu_features"] or ()))
    setting = f"{hardware['cpu']} ({', '.join(features)}), {', '.join(targets())}"
    print(setting, flush=True)
    with tempfile.TemporaryDirectory(prefix="hwnas-device-") as scratch:
        out, parts = args.out or Path(scratch), [args.part] if args.part else list(PARTS)
        found = drawn() if args.quick else [each for name in parts for each in PARTS[name](out)]
    n = {each["name"]: each["limit"] for each in found}
    print(json.dumps({"setting": setting, "n": n, "spread": {}, "bars": found}))


if __name__ == "__main__":
    main()
