"""Time of a sandwich step with depthwise gradients in parts beside torch's own.

Question: how much faster is a training step of mbv3-28 (batch 64, one thread) for the gradients of
hwnas/supernet/depthwise.py? Each step is taken both ways, in turns, on the same images; CPU time of
the process, which other work on the machine inflates less than the clock, though not nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.settings.config import TrainConfig
from hwnas.supernet import depthwise, training
from hwnas.supernet.batches import batches_of
from hwnas.supernet.network import Supernet, channels_last
from hwnas.supernet.state import State
from recipes import ladder

LIMIT = 1.15


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.py step", description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="three steps on digits")
    given = parser.parse_args()
    steps = 3 if given.quick else given.steps
    spent = take(ladder.QUICK if given.quick else ladder.PROXY, steps + 2)
    parts, own = (spent[split][2:] for split in (True, False))  # the first two warm up
    ratios = [a / b for a, b in zip(own, parts, strict=True)]
    print(f"sandwich step of mbv3-28, batch 64, one thread, {steps} steps each way, in turns")
    print(f"torch's own gradients   {1e3 * statistics.median(own):7.1f} ms (median)")
    print(f"in parts                {1e3 * statistics.median(parts):7.1f} ms")
    value = statistics.median(ratios)
    print(f"median ratio of pairs   {value:7.2f}, quartiles {statistics.quantiles(ratios)}")
    bar = {"name": "step_speedup", "value": value, "limit": LIMIT, "holds": value >= LIMIT}
    about = {"space": "mbv3-28", "batch": 64, "threads": 1, "torch": torch.__version__}
    print(json.dumps({"setting": about, "n": steps, "spread": {"ratio": ratios}, "bars": [bar]}))


def take(proxy: dict, steps: int) -> dict[bool, list[float]]:
    """CPU seconds of each step, with gradients in parts (True) and torch's own."""
    images = ladder.small(proxy)
    space = spaces.load("mbv3-28").for_data(images.in_channels, images.n_classes)
    settings = TrainConfig(epochs=1000, batch_size=64, max_only=0, threads=1)
    folder = Path(tempfile.mkdtemp(prefix="hwnas-step-"))
    job = training.Job(settings, space, images, "none", folder)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = channels_last(Supernet(space)).to(tensors.compute_device()).train()
    run = training._Run(
        job, State.fresh(job, net), 0, training._Crew(0, 1), threading.Event(), None
    )
    spent: dict[bool, list[float]] = {True: [], False: []}
    for step, batch in zip(range(steps), batches_of(job, net, 0, (0, 1)), strict=False):
        for split in (True, False) if step % 2 else (False, True):
            with depthwise.split_gradients(split):
                started = time.process_time()
                training._step(run, step, batch)
                spent[split].append(time.process_time() - started)
    return spent
