"""A user's residual CNN at half its measured latency: what is lost, and what other ways lose.

Fashion-MNIST (Debian: dataset-fashion-mnist). The CNN is trained as its user would train it, its
last epoch without augmentation, as every way's last one is. Then, with a third of those epochs for
each way, the same loop and the same teacher (the CNN itself):

    hwnas        `hwnas run`: supernet (one epoch), table, front; of the front's networks the one
                 that is best on validation images, and the other epochs of it alone
    uniform      the same share of every group's channels goes, those of least magnitude
    pruned       the channels of least magnitude go, wherever they are

The last two are done by Torch-Pruning (pip install --no-deps torch-pruning==1.6.1), channels in
multiples of 4 or 8; of those that measure at most half the latency of the CNN in ONNX Runtime the
one of the most MACs is trained on. All are measured together, in turns. Test images are read once,
at the end. Each step is kept in FOLDER and is not done again: a run that was cut goes on.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stock import loop
from stock.loop import Plain, steps_of
from torch import nn

from hwnas import cli
from hwnas.images import tensors
from hwnas.networks import onnx_graph, spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.networks.spaces import of_model
from hwnas.settings.config import AccuracyConfig, DataConfig, FinetuneConfig
from hwnas.supernet.evaluation import Evaluator, metric_of
from hwnas.supernet.files import load_supernet
from hwnas.supernet.job import Job
from hwnas.supernet.network import Subnet, extract, folded_weights
from hwnas.supernet.training import Teacher, train
from hwnas.traced.analyse import analyse
from hwnas.traced.lowering import lowered
from hwnas.traced.weights import importance, orders, own_supernet
from own_model.analysis import bar
from profilers import runtimes
from profilers.schema import target_from_name

sys.path.append(str(Path(__file__).parent.parent.parent / "tests"))
from user_models import ResNet

FOLDER = Path("runs/bench-own-model/smaller")
TARGET = "host.ort-cpu.fp32.b1.t1"
SEEDS, EPOCHS, SUPERNET_EPOCHS, LAST_EPOCHS = 3, 9, 1, 2  # last and supernet: a third of EPOCHS
BATCH, RATE, TUNING_RATE, AUGMENT = 64, 0.1, 0.05, "shift"
HALF, AIM, NEAREST, SHARES, MULTIPLES = 0.5, 0.48, 12, 24, (4, 8)
QUICK_SHARE = 0.95  # of the latency of digits, most of which is overhead
ROUNDS, LOOPS = 60, 20
MOST_LOST = 0.01
WAYS = ("hwnas", "uniform", "pruned")
T_95 = {2: 4.303, 3: 3.182, 4: 2.776}  # of Student, by degrees of freedom


def measure(models: list[str], quick: bool) -> dict[str, Any]:
    """The document of this part; `--models` names the steps to do, of train, choose, tune, test."""
    seeds = range(1 if quick else SEEDS)
    steps = models or ["train", "choose", "tune", "test"]
    places = [Place(seed, quick) for seed in seeds]
    for step in steps:
        for place in places:
            getattr(place, step)()
    rows = [place.rows for place in places if place.rows]
    return document(rows, quick)


def document(rows: Sequence[Mapping[str, Any]], quick: bool) -> dict[str, Any]:
    """What was found with every seed whose test images were read."""
    lost = {way: [row["whole"]["test"] - row[way]["test"] for row in rows] for way in WAYS}
    ahead = {way: [row["hwnas"]["test"] - row[way]["test"] for row in rows] for way in WAYS[1:]}
    for row in rows:
        print(f"seed {row['seed']}: whole {row['whole']['test']:.2%}, " + ", ".join(
            f"{way} {row[way]['test']:.2%} at {row[way]['ms'] / row['whole']['ms']:.2f}"
            for way in WAYS))  # fmt: skip
    for name, values in [*(("lost by " + w, lost[w]) for w in WAYS), *ahead.items()]:
        print(f"{name}: {interval(values)}")
    full = len(rows) == SEEDS and not quick
    return {
        "setting": f"Fashion-MNIST, {EPOCHS} epochs, {SUPERNET_EPOCHS + LAST_EPOCHS} of tuning, "
        f"{TARGET}, at most {HALF:.0%} of the latency",
        "n": len(rows),
        "spread": {"lost": {w: interval(v) for w, v in lost.items()},
                   "ahead": {w: interval(v) for w, v in ahead.items()}},
        "seeds": list(rows),
        "bars": [
            bar("points_lost_at_half_latency", mean(lost["hwnas"], full), "<=", MOST_LOST),
            *(bar(f"ahead_of_{w}", mean(v, full), ">=", 0.0) for w, v in ahead.items()),
        ],
    }  # fmt: skip


def mean(values: Sequence[float], full: bool) -> float | None:
    """Of all seeds; None where some are missing."""
    return statistics.mean(values) if full else None


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval of it, Student's t."""
    if len(values) < 2:
        return f"{values[0]:+.2%}" if values else "nothing yet"
    half = T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):+.2%} ± {half:.2%}"


class Place:
    """One seed: its folder, and the steps in their order."""

    def __init__(self, seed: int, quick: bool) -> None:
        self.seed, self.quick = seed, quick
        self.folder = FOLDER / (f"quick{seed}" if quick else f"seed{seed}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = DataConfig(
            kind="digits" if quick else "idx", validation=0.1, augment=AUGMENT, seed=seed
        )
        self._dataset: tensors.Dataset | None = None

    @property
    def dataset(self) -> tensors.Dataset:
        """Images, read when they are first needed."""
        if self._dataset is None:
            self._dataset = tensors.load(self.data)
        return self._dataset

    @property
    def rows(self) -> dict[str, Any]:
        """What the last step wrote; empty before it."""
        return read(self.folder / "test.json")

    def train(self) -> None:
        """The user's CNN, and the supernet that starts from it."""
        path = self.folder / "original.pt"
        if not path.exists():
            torch.save(self._trained(), path)
        shutil.copy(sys.modules[ResNet.__module__].__file__ or "", self.folder)
        (self.folder / "hwnas.yaml").write_text(json.dumps(self._settings()))
        self._command("train")
        self._command("evaluate")

    def choose(self) -> None:
        """The network of each way: measured at half the latency; hwnas' best on validation."""
        path = self.folder / "chosen.json"
        if path.exists():
            return
        self._command("run")
        whole = self._whole()
        near = {f"hwnas-{arch.id}": self._found(arch) for arch in self._near_half()}
        names = [f"{w}-{n}-{m}" for w in WAYS[1:] for n in range(2, SHARES) for m in MULTIPLES]
        models = {shapes(model): (name, model) for name in names for model in [self._pruned(name)]}
        cut = {name: self._largest(model) for name, model in models.values()}
        ms = times({"whole": whole, **near, **cut}, self.quick)
        macs = {name: exact_costs(net.arch)["macs"] for name, net in cut.items()}
        most = QUICK_SHARE if self.quick else HALF
        fits = {name for name in ms if ms[name] <= most * ms["whole"]}
        right = {name: self._validated(near[name]) for name in near if name in fits}
        chosen = {"hwnas": max(right, key=lambda name: right[name])}
        for way in WAYS[1:]:
            fitting = [name for name in cut if name in fits and name.startswith(way)]
            chosen[way] = max(fitting, key=lambda name: macs[name])
        path.write_text(json.dumps({"chosen": chosen, "ms": ms, "validation": right}))

    def tune(self) -> None:
        """Each way's network is trained on, the CNN teaching."""
        for way in WAYS:
            path = self.folder / f"{way}.pt"
            if path.exists():
                continue
            epochs = LAST_EPOCHS + (0 if way == "hwnas" else SUPERNET_EPOCHS)
            config = FinetuneConfig(
                epochs=epochs, batch_size=BATCH, learning_rate=TUNING_RATE, seed=self.seed
            )
            net = self._chosen(way)
            folder = self.folder / way
            folder.mkdir(exist_ok=True)
            job = Job(config, net.arch.space, self.dataset, AUGMENT, folder, f"{way}{self.seed}")
            teacher = Teacher(self._whole().requires_grad_(False), 1.0)
            tuned = train(job, lambda share, words: None, net, teacher).eval()
            torch.save(tuned.state_dict(), path)
            print(f"seed {self.seed}: {way} tuned", flush=True)

    def test(self) -> None:
        """Latency of all in turns, and the only look at the test images."""
        if self.rows:
            return
        nets = {"whole": self._whole()}
        for way in WAYS:
            nets[way] = self._chosen(way)
            nets[way].load_state_dict(torch.load(self.folder / f"{way}.pt"))
            nets[way].eval()
        ms = times(nets, self.quick)
        rows = {
            name: {
                "ms": ms[name],
                "val": metric_of(net, self.dataset, self.dataset.val),
                "test": metric_of(net, self.dataset, self.dataset.test),
            }
            for name, net in nets.items()
        }
        named = read(self.folder / "chosen.json")["chosen"]
        (self.folder / "test.json").write_text(
            json.dumps({"seed": self.seed, **rows, "chosen": named})
        )

    # ---- the CNN and the ways ---------------------------------------------------------------

    def _trained(self) -> dict[str, torch.Tensor]:
        """The CNN as its user would train it: SGD, one cycle, shifted and mirrored images."""
        torch.manual_seed(self.seed)
        epochs = 1 if self.quick else EPOCHS
        steps, last = (steps_of(self.dataset, n, BATCH) for n in (epochs, 1))
        how = Plain(steps, RATE, BATCH, 5e-4, AUGMENT, self.seed, last)
        say = lambda n: print(f"seed {self.seed}: epoch {n}/{epochs}", flush=True)  # noqa: E731
        return loop.trained(ResNet(), self.dataset, how, self.dataset.size, say).state_dict()

    def _settings(self) -> dict[str, Any]:
        px = self.dataset.size
        data = {"kind": self.data.kind, "validation": 0.1, "augment": AUGMENT, "seed": self.seed}
        model = {"model": "user_models:ResNet", "weights": "original.pt"}
        fast = {"profile": {"budget_s": 3, "heldout": 5, "rounds": 5}} if self.quick else {}
        return {
            "run": "run",
            "data": data,
            "space": {**model, "input": [1, px, px], "resolutions": [px], "widths": 4},
            "finetune": {"epochs": SUPERNET_EPOCHS, "batch_size": BATCH,
                         "learning_rate": TUNING_RATE, "seed": self.seed},
            "accuracy": {"measure": 12 if self.quick else 100, "images": 2000},
            "search": {"objectives": ["error", "latency_ms"]},
            "targets": [TARGET],
            "pick": [{"budget": {"latency_ms": "50%"}}],
            **fast,
        }  # fmt: skip

    def _command(self, name: str) -> None:
        """A command of hwnas on the folder of this seed."""
        accepted = ["--accept", "unreliable"] if self.quick and name == "run" else []
        try:
            cli.main([name, str(self.folder / "hwnas.yaml"), *accepted])
        except SystemExit as ended:
            if ended.code:
                sys.exit(f"hwnas {name} ended with {ended.code}")

    def _model(self) -> nn.Module:
        model = ResNet()
        model.load_state_dict(torch.load(self.folder / "original.pt"))
        return model.eval()

    def _whole(self) -> Subnet:
        """The CNN itself, in the form that all ways give."""
        return self._largest(self._model())

    def _largest(self, model: nn.Module) -> Subnet:
        px = self.dataset.size
        analysis = analyse(model, (1, px, px))
        low = lowered(analysis, 1, 1)
        space = of_model(low.family, [px], low.bn_eps)
        net = own_supernet(space, low, analysis, orders(importance(analysis, "none")))
        return extract(net, space.largest)

    def _pruned(self, name: str) -> nn.Module:
        """What Torch-Pruning leaves: `WAY-SHARE-MULTIPLE`, the share of channels that go."""
        import torch_pruning as tp

        way, share, multiple = name.split("-")
        model, px = self._model(), self.dataset.size
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        tp.pruner.BasePruner(
            model,
            torch.zeros(1, 1, px, px),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=way == "pruned",
            pruning_ratio=int(share) / SHARES,
            round_to=int(multiple),
            ignored_layers=[model.head],
        ).step()
        return model.eval()

    def _near_half(self) -> list[Architecture]:
        """Networks of the front whose predicted latency is nearest to a little less than half."""
        space = self._space()
        front = read(self.folder / "run" / "fronts" / f"{TARGET}.json")
        aim = AIM * front["max_network"]["latency_ms"]
        points = sorted(
            front["points"], key=lambda point: abs(point["predicted"]["latency_ms"] - aim)
        )
        return [space.from_json(point["arch"]) for point in points[:NEAREST]]

    def _space(self) -> SearchSpace:
        return spaces.load(str(self.folder / "run" / "space.json"))

    def _found(self, arch: Architecture) -> Subnet:
        """A network of the run's supernet, calibrated."""
        net = load_supernet(self.folder / "run" / "supernet.safetensors", arch.space)
        config = AccuracyConfig(images="all", bn_images=2048)
        return Evaluator(net, self.dataset, config, "").subnet(arch).eval()

    def _validated(self, net: Subnet) -> float:
        return metric_of(net, self.dataset, self.dataset.val)

    def _chosen(self, way: str) -> Subnet:
        """The network of a way as it was before it was trained on."""
        name = read(self.folder / "chosen.json")["chosen"][way]
        if way != "hwnas":
            return self._largest(self._pruned(name))
        return self._found(next(arch for arch in self._near_half() if name == f"hwnas-{arch.id}"))


def shapes(model: nn.Module) -> tuple[tuple[int, ...], ...]:
    """Of all parameters: models of the same ones are as fast as each other."""
    return tuple(tuple(p.shape) for p in model.parameters())


def read(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def times(nets: Mapping[str, Subnet], quick: bool) -> dict[str, float]:
    """ms of one inference of each, 10th percentile of rounds in which all take turns."""
    target = target_from_name(TARGET)
    folder = FOLDER / "onnx"
    folder.mkdir(exist_ok=True)
    sessions = {}
    for name, net in nets.items():
        path = folder / f"{name}.onnx"
        model = onnx_graph.build(net.arch.ops, folded_weights(net), 1)
        path.write_bytes(onnx_graph.to_bytes(model))
        sessions[name] = runtimes.load(target.runtime).load(path, target)
    found: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(5 if quick else ROUNDS):
        for name in random.sample(list(nets), len(nets)):
            sessions[name].time(3)
            found[name].append(sessions[name].time(LOOPS) / LOOPS)
    return {name: float(np.quantile(values, 0.1)) for name, values in found.items()}
