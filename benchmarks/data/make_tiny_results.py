"""Accuracy of every network of `tiny`: benchmarks/sample_efficiency.py looks evaluations up in it.

Digits, settings as in examples/digits.yaml but with all five resolutions: 10,000 networks cut out
of one supernet, BatchNorm calibrated on 1,024 training images, measured on the validation images
and on the test images. Networks that begin alike share the work of their beginning, which changes
nothing: a BatchNorm's statistics depend on what comes before it only (--check N compares N networks
with their evaluation one by one). Can be stopped and run again.

    hwnas train tiny.yaml
    python benchmarks/data/make_tiny_results.py tiny.yaml --scratch /tmp/tiny --check 20
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.commands import console
from hwnas.images import tensors
from hwnas.networks.ops import Op
from hwnas.networks.space import Architecture, PlacedOp, SearchSpace
from hwnas.run.context import Context
from hwnas.run.folder import RunFolder
from hwnas.run.weights import make_evaluator
from hwnas.settings.config_file import load_config
from hwnas.supernet.evaluation import BATCH, Evaluator, metric_of
from hwnas.supernet.network import Subnet, calibrate, channels_last, extract, layers_of, run

TABLE = Path(__file__).with_name("tiny-results.npz")
HEAD = ("expand", "pool", "mix", "classifier")
OPS: dict[tuple[str, Op], Any] = {}  # with the supernet's weights; each use calibrates it anew


class State(NamedTuple):
    """What ops have made of the images so far: calibration batches, then evaluated batches."""

    calibration: list[Tensor]
    evaluated: list[Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description="measure every network of a small space")
    parser.add_argument("config", type=Path, help="settings file of a trained supernet")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of finished parts")
    parser.add_argument("--resolutions", default="", help="px, comma-separated; all by default")
    parser.add_argument("--check", type=int, default=0, help="networks to evaluate once more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(arguments.config, [])
    base = arguments.config.resolve().parent
    with console.reporter(quiet=True) as report:
        context = Context(config, base, RunFolder(base / config.run), report)
    evaluator = make_evaluator(context)
    space = context.space
    if arguments.resolutions:
        space = space.restricted(map(int, arguments.resolutions.split(",")))
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    rows: dict[Architecture, tuple[int, int]] = {}
    for px, first in itertools.product(space.resolutions, range(4)):
        rows |= part(evaluator, px, first, arguments.scratch / f"{px}-{first}.npz")
        print(f"{len(rows):,} of {space.size:,} networks", flush=True)
    check(evaluator, rows, arguments.check)
    write(evaluator, space, rows)


def part(
    evaluator: Evaluator, px: int, first: int, path: Path
) -> dict[Architecture, tuple[int, int]]:
    """Right answers on validation and test images of the networks of one resolution and one option
    of the first block, from their file if it is there.
    """
    space = evaluator.supernet.space
    if not path.exists():
        found = list(every_network(evaluator, px, first))
        np.savez(path, values=[arch.values for arch, _ in found], right=[r for _, r in found])
    with np.load(path) as data:
        archs = [space.architecture(values) for values in data["values"]]
        return dict(zip(archs, map(tuple, data["right"].tolist()), strict=True))


@torch.no_grad()
def every_network(
    evaluator: Evaluator, px: int, first: int
) -> Iterator[tuple[Architecture, tuple[int, int]]]:
    """Every network of a resolution and an option of its first block, with its right answers."""
    space, dataset = evaluator.supernet.space, evaluator.dataset
    splits = (evaluator.validation, dataset.test)
    images = [b for split in splits for b in torch.split(split.images, BATCH)]
    truth = [torch.cat([split.labels for split in splits])]
    sizes = [len(split) for split in splits]
    start = State(
        list(evaluator._calibration(px)), [tensors.prepare(batch, px, dataset) for batch in images]
    )
    start = through(evaluator, (px,), "stem", start)

    def options(option: str, slot: str) -> tuple[int, ...]:
        return space.choices[space.columns[f"{slot}.{option}"]].options

    slots = [slot for slot, *_ in space.family.blocks()]
    choices = [
        [
            (k, e)
            for e in options("expand_ratio", slot)
            for k in options("kernel_size", slot)
            if e or k == options("kernel_size", slot)[0]
        ]
        for slot in slots
    ]

    def walk(chosen: tuple[int, ...], state: State) -> Iterator[tuple[Architecture, State]]:
        depth = len(chosen) // 2
        if depth == len(slots):
            for slot in HEAD:
                state = through(evaluator, chosen, slot, state)
            yield space.architecture(chosen), state
            return
        options = choices[depth] if depth else choices[0][first : first + 1]
        for kernel, expand in options:
            longer = (*chosen, kernel, expand)
            slot = slots[depth]
            yield from walk(longer, through(evaluator, longer, slot, state) if expand else state)

    for arch, state in walk((px,), start):
        right = torch.cat(state.evaluated).argmax(1) == truth[0]
        yield arch, (int(right[: sizes[0]].sum()), int(right[sizes[0] :].sum()))


class Alone(nn.Module):
    """One op of a network."""

    def __init__(self, subnet: Subnet, placed: PlacedOp) -> None:
        super().__init__()
        self.layers, self.graph = layers_of(subnet, placed.slot), placed.op.graph

    def forward(self, x: Tensor) -> Tensor:
        """What it gives of a batch."""
        return run(self.graph, self.layers, [x])


def through(evaluator: Evaluator, chosen: tuple[int, ...], slot: str, state: State) -> State:
    """The images behind one op of a network that begins with the chosen values.

    The values that are not chosen yet are the smallest ones: what comes later changes no op.
    """
    space = evaluator.supernet.space
    arch = space.architecture((*chosen, *space.smallest.values[len(chosen) :]))
    placed = next(placed for placed in arch.ops if placed.slot == slot)
    at = slot, placed.op
    if at not in OPS:
        OPS[at] = Alone(channels_last(extract(evaluator.supernet, arch)), placed)
    op, made = OPS[at], []
    hook = op.register_forward_hook(lambda module, inputs, output: made.append(output))
    calibrate(op, state.calibration)
    hook.remove()
    return State(made, [op(batch) for batch in state.evaluated])


def check(evaluator: Evaluator, rows: dict[Architecture, tuple[int, int]], n: int) -> None:
    """Evaluate n random networks once more, each by itself."""
    splits = (evaluator.validation, evaluator.dataset.test)
    archs = list(rows)
    off = 0
    for row in np.random.default_rng(0).permutation(len(archs))[:n].tolist():
        subnet = evaluator.subnet(archs[row])
        alone = tuple(round(metric_of(subnet, evaluator.dataset, s) * len(s)) for s in splits)
        off += alone != rows[archs[row]]
    print(f"{off} of {n} networks evaluated by themselves differ")
    if off:
        raise SystemExit("the table would not hold what evaluations give")


def write(
    evaluator: Evaluator, space: SearchSpace, rows: dict[Architecture, tuple[int, int]]
) -> None:
    """Write the table of a space whose every network is known."""
    if len(rows) != space.size:
        raise SystemExit(f"{len(rows)} networks, the space has {space.size}")
    archs = sorted(rows, key=lambda arch: arch.values)
    right = np.array([rows[arch] for arch in archs], dtype=np.uint16)
    np.savez_compressed(
        TABLE,
        space=np.array(space.name),
        geometry=np.array(space.geometry),
        supernet_sha256=np.array(evaluator.supernet_sha256),
        resolutions=np.array(space.resolutions),
        genome=space.genome(archs).astype(np.uint8),
        validation_right=right[:, 0],
        test_right=right[:, 1],
        n_images=np.array([len(evaluator.validation), len(evaluator.dataset.test)]),
    )
    print(f"{TABLE}: {len(archs):,} networks, {TABLE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
