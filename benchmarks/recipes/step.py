"""Time of training steps of mbv3-28 (batch 64, one thread), each two ways in turns.

Questions: how much faster is a sandwich step for the gradients of hwnas/supernet/depthwise.py and
for 1x1 convolutions of small maps as products, hwnas/supernet/forward.py (`training.py step`)? How
much dearer is it than a step of the max network alone, which the same epochs take as many of
(`training.py cost`)? What is a step of ordered dropout beside it (`training.py ordered`)? Compared
is CPU time of the process, which other work on the machine inflates less than the clock, though not
nothing; drawing and augmenting the images counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.settings.config import TrainConfig
from hwnas.supernet import depthwise, forward, training
from hwnas.supernet.network import Subnet, Supernet, channels_last
from profilers.schema import write_json
from recipes import ladder, ordered

FASTER, DEARER = 1.15, 1.6
WARM = 2  # steps that do not count
NORMAL = 1.96  # standard errors of a 95 % interval


class Side(NamedTuple):
    """Steps to take, and whether by torch's own convolutions and gradients alone."""

    steps: Iterator[dict[str, float]]
    plain: bool = False


def main() -> None:
    steps, quick, _ = given_steps("training.py step", 40)
    job = prepared(quick)
    sides = {"plain": Side(taken(job, Supernet(job.space)), True),
             "ours": Side(taken(job, Supernet(job.space)))}  # fmt: skip
    spent = in_turns(sides, steps)
    ratios = [a / b for a, b in zip(spent["plain"], spent["ours"], strict=True)]
    value = statistics.median(ratios)
    print(f"sandwich step of {job.space.name}, batch 64, one thread, {steps} steps in turns")
    print(f"torch's own             {1e3 * statistics.median(spent['plain']):7.1f} ms (median)")
    print(f"ours                    {1e3 * statistics.median(spent['ours']):7.1f} ms")
    print(f"median ratio of pairs   {value:7.2f}, quartiles {statistics.quantiles(ratios)}")
    bar = {"name": "step_speedup", "value": value, "limit": FASTER, "holds": value >= FASTER}
    print(json.dumps(document(job, steps, {"ratio": ratios}, bar)))


def cost() -> None:
    steps, quick, out = given_steps("training.py cost", 150)
    measured = cost_of_supernet(steps, quick)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "cost.json", measured)
    print(json.dumps(measured))


def cost_of_supernet(steps: int, quick: bool) -> dict[str, Any]:
    """CPU time of a sandwich step over that of a step of the max network alone.

    Random subnets differ, so it is means that are compared, of as many steps; the interval is that
    of the sandwich steps, each over the step of the max network that it was taken beside.
    """
    job = prepared(quick)
    sides = {"supernet": Side(taken(job, Supernet(job.space))),
             "alone": Side(taken(job, Subnet(job.space.largest)))}  # fmt: skip
    spent = in_turns(sides, steps)
    mean = {name: statistics.mean(seconds) for name, seconds in spent.items()}
    value = mean["supernet"] / mean["alone"]
    ratios = [a / b for a, b in zip(spent["supernet"], spent["alone"], strict=True)]
    half = NORMAL * statistics.stdev(ratios) / steps**0.5
    print(f"{job.space.name}, batch 64, one thread, {steps} steps in turns, mean CPU time")
    print(f"sandwich step           {1e3 * mean['supernet']:7.1f} ms")
    print(f"max network alone       {1e3 * mean['alone']:7.1f} ms")
    print(f"ratio                   {value:7.3f} +- {half:.3f}")
    limit = f"<= {DEARER}"
    bar = {"name": "supernet_cost", "value": value, "limit": limit, "holds": value <= DEARER}
    return document(job, steps, {"ratio": ratios, "mean_s": mean, "half_width": half}, bar)


def ordered_dropout() -> None:
    """Steps of ordered dropout, with and without a pass of the largest network that teaches."""
    steps, quick, _ = given_steps("training.py ordered", 20)
    job = prepared(quick)
    nets = [channels_last(Supernet(job.space)).train() for _ in range(3)]
    sides = {"sandwich": Side(taken(job, nets[0])),
             "labels": Side(ordered.steps(job, nets[1], False)),
             "taught": Side(ordered.steps(job, nets[2], True))}  # fmt: skip
    spent = in_turns(sides, steps)
    pairs = {
        name: [a / b for a, b in zip(spent[name], spent["sandwich"], strict=True)]
        for name in ("labels", "taught")
    }
    print(f"{job.space.name}, batch 64, one thread, {steps} steps in turns, median CPU time")
    for name, seconds in spent.items():
        ratio = f"{statistics.median(pairs[name]):7.2f} x sandwich" if name in pairs else ""
        print(f"{name:20}{1e3 * statistics.median(seconds):8.1f} ms{ratio}")
    found = {"setting": {"space": job.space.name, "batch": 64, "threads": 1}, "n": steps}
    print(json.dumps({**found, "spread": pairs, "bars": []}))


def given_steps(prog: str, steps: int) -> tuple[int, bool, Path | None]:
    """What the command line says: how many steps, whether quick, and the folder of results."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--out", type=Path, help="folder that keeps the result")
    parser.add_argument("--quick", action="store_true", help="three steps on digits")
    given = parser.parse_args()
    return 3 if given.quick else given.steps, given.quick, given.out


def prepared(quick: bool) -> training.Job:
    """A run of the default recipe on few images."""
    images = ladder.small(ladder.QUICK if quick else ladder.PROXY)
    space = spaces.load("mbv3-28").for_data(images.in_channels, images.n_classes)
    settings = TrainConfig(epochs=1000, threads=1)
    folder = Path(tempfile.mkdtemp(prefix="hwnas-step-"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return training.Job(settings, space, images, "none" if quick else "flip", folder)


def taken(job: training.Job, net: Supernet | Subnet) -> Iterator[dict[str, float]]:
    """The steps of a network where networks are trained."""
    return training.steps(job, channels_last(net).to(tensors.compute_device()).train())


def in_turns(sides: Mapping[str, Side], steps: int) -> dict[str, list[float]]:
    """CPU seconds of so many steps of each side, the first of them another one each time."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(steps + WARM):
        for name in sorted(sides, reverse=bool(step % 2)):
            with as_torch(sides[name].plain):
                started = time.process_time()
                next(sides[name].steps)
                spent[name].append(time.process_time() - started)
    return {name: seconds[WARM:] for name, seconds in spent.items()}


def document(job: training.Job, n: int, spread: dict[str, Any], bar: Any) -> dict[str, Any]:
    about = {"space": job.space.name, "batch": 64, "threads": 1, "torch": torch.__version__}
    return {"setting": about, "n": n, "spread": spread, "bars": [bar]}


@contextmanager
def as_torch(plain: bool) -> Iterator[None]:
    """Convolutions and their gradients by torch alone, or as they are trained."""
    few = forward.FEW_PIXELS
    forward.FEW_PIXELS = 0 if plain else few
    try:
        with depthwise.split_gradients(not plain):
            yield
    finally:
        forward.FEW_PIXELS = few
