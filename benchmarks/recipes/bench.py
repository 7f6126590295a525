"""Settings and results of training.py: each phase keeps its result in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hwnas.images import tensors
from hwnas.networks.space import SearchSpace
from hwnas.settings.config import AccuracyConfig, DataConfig, TrainConfig
from hwnas.supernet import training
from hwnas.supernet.network import Subnet
from profilers.schema import read_json, read_lines, write_json


class Setting(NamedTuple):
    """What is compared.

    Attributes:
        points: of the predicted front whose accuracy is measured.
        networks: that are compared.
        rates: tried for networks alone, for `tried` epochs.
        cost_steps: of `training.py cost` that are taken here; 0: none.
        plain: last epochs without augmentation, of the supernet and of networks alone.
    """

    data: DataConfig
    space: str
    epochs: int
    accuracy: AccuracyConfig
    points: int
    networks: int
    rates: tuple[float, ...]
    tried: int
    cost_steps: int = 0
    plain: int = 0


FULL = Setting(
    DataConfig(kind="idx", validation=0.1, augment="flip"),
    "mbv3-28",
    12,
    AccuracyConfig(measure=60),
    10,
    6,
    (0.1, 0.2, 0.4),
    3,
)
QUICK = Setting(
    DataConfig(kind="digits", augment="none"),
    "tiny",
    2,
    AccuracyConfig(measure=12, bn_images=256),
    3,
    3,
    (0.1, 0.2),
    1,
    3,
)


class Bench(NamedTuple):
    """A comparison under way, in a folder."""

    setting: Setting
    out: Path
    images: tensors.Dataset
    space: SearchSpace
    threads: int

    def folder(self, seed: int) -> Path:
        """Of a seed's results."""
        return self.out / f"s{seed}"

    def settings(self, seed: int) -> TrainConfig:
        """Of the supernet, and of a network alone but for its rate."""
        own = self.setting
        return TrainConfig(epochs=own.epochs, plain_epochs=own.plain, seed=seed)

    def job(self, settings: TrainConfig, folder: Path, start: str = "") -> training.Job:
        """A training in a folder of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = settings.model_copy(update={"threads": self.threads})
        augment = self.setting.data.augment
        return training.Job(settings, self.space, self.images, augment, folder, start)


def kept(path: Path, made_of: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a phase, from its file if it was done."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"made_of": made_of, **work()})
        print(f"{path.parent.name}/{path.name} is there", flush=True)
    found: dict[str, Any] = read_json(path)
    if found["made_of"] != made_of:
        raise SystemExit(f"{path} is of other settings; delete it, or give another --out")
    return found


def timed(
    job: training.Job, network: Subnet | None, teacher: training.Teacher | None = None
) -> tuple[Any, dict[str, Any]]:
    """A trained network, and what training it cost; of a cut one that is not known."""
    whole, wall, cpu = not job.checkpoint.exists(), time.perf_counter(), time.process_time()
    torch.manual_seed(job.config.seed)
    net = training.train(job, lambda share, text: None, network, teacher)
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    events, _ = read_lines(job.folder / "events.jsonl")
    cost = spent if whole else dict.fromkeys(spent)
    return net, {**cost, "threads": events[-1]["threads"], "torch": torch.__version__}
