"""Do other blocks compute more a millisecond than inverted residuals, at the shapes of 224 px?

    python benchmarks/blocks.py [chains | networks]    about two minutes, on a quiet machine
    python benchmarks/blocks.py --quick                one shape and engine, seconds

`chains`: six equal blocks one after the other (stride 1, residual), at the width and size of each
stage of `mbv3-224-int8`, in every engine here, in fp32 and int8: MACs and parameters a millisecond
over those of the inverted residual with 3x3 kernels and expand ratio 4. Blocks: inverted residuals;
the universal inverted bottleneck of MobileNetV4 (Qin et al. 2024, arXiv:2404.10518) with
a depthwise convolution before the expansion too (ExtraDW), only there (ConvNeXt-like), with none
(FFN); with a dense expansion (fused); ResNet's two 3x3 convolutions and its bottleneck at full
width. `networks`: MobileNetV4-Conv-S and -M as published, beside networks of once-for-all's spaces
with the MACs of its specialised ones, whose accuracies are published. Weights are seeded. All
sessions of a chain or network take samples in turn. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from device_front import INTEGER, targets
from engine import networks, speed

from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.families import is_residual, make_divisible
from hwnas.networks.families.mbv3 import Head, head
from hwnas.networks.graph import Body
from hwnas.networks.ops import Op, op
from hwnas.networks.placed import PlacedOp, chain
from hwnas.networks.primitives import Shape
from profilers.devices import host
from profilers.schema import target_from_name

STAGES = ((24, 56), (40, 28), (80, 14), (112, 14), (160, 7))  # channels, px
LONG, ROUNDS, LARGE_ROUNDS = 6, 40, 12
CLEAR = 1.3  # times the MACs or parameters a millisecond that count as a win
BASE = "inverted residual 3x3"


# ---- blocks -------------------------------------------------------------------------------------


def fused(body: Body, mid: int, out: int, stride: int = 1, residual: bool = False) -> None:
    """Inverted residual whose expansion is a dense 3x3 convolution."""
    last = body.conv("expand", "in", mid, act="relu", kernel=3, stride=stride)
    last = body.conv("project", last, out)
    if residual:
        body.add("add", "add", last, "in")


def basic(body: Body, out: int) -> None:
    """ResNet's block of two 3x3 convolutions."""
    last = body.conv("first", "in", out, act="relu", kernel=3)
    last = body.conv("second", last, out, kernel=3)
    body.act("add", body.add("add", "add", last, "in"), "relu")


Made = Callable[[Shape], Op]


def blocks() -> dict[str, Made]:
    """Blocks that keep a shape, by name."""

    def inverted(kernel: int, ratio: int) -> Made:
        return lambda given: op("mbconv", given, mid=ratio * given[0], out=given[0],
                                kernel=kernel, residual=True)  # fmt: skip

    def universal(start: int, kernel: int) -> Made:
        return lambda given: op("uib", given, mid=4 * given[0], out=given[0], start=start,
                                kernel=kernel, residual=True)  # fmt: skip

    return {
        BASE: inverted(3, 4),
        "inverted residual 5x5, ratio 6": inverted(5, 6),
        "ExtraDW 3x3, 3x3": universal(3, 3),
        "ConvNeXt-like 3x3": universal(3, 0),
        "FFN": universal(0, 0),
        "fused 3x3": lambda given: op("blocks:fused", given, mid=4 * given[0], out=given[0],
                                      residual=True),
        "two 3x3": lambda given: op("blocks:basic", given, out=given[0]),
        "bottleneck": lambda given: op("bottleneck", given, mid=given[0], out=given[0],
                                       residual=True),
    }  # fmt: skip


# ---- networks -----------------------------------------------------------------------------------

# Kind (c: convolution, f: fused, u: universal), kernels, stride, expand ratio, channels, of which
# several. As in timm/models/mobilenetv3.py of github.com/huggingface/pytorch-image-models.
SMALL = (
    *(("c", 0, 3, 2, 1, 32), ("c", 0, 1, 1, 1, 32), ("c", 0, 3, 2, 1, 96), ("c", 0, 1, 1, 1, 64)),
    ("u", 5, 5, 2, 3, 96), *(("u", 0, 3, 1, 2, 96),) * 4, ("u", 3, 0, 1, 4, 96),
    ("u", 3, 3, 2, 6, 128), ("u", 5, 5, 1, 4, 128), ("u", 0, 5, 1, 4, 128), ("u", 0, 5, 1, 3, 128),
    *(("u", 0, 3, 1, 4, 128),) * 2,
)  # fmt: skip
MEDIUM = (
    ("f", 0, 3, 2, 4, 48), ("u", 3, 5, 2, 4, 80), ("u", 3, 3, 1, 2, 80),
    ("u", 3, 5, 2, 6, 160), *(("u", 3, 3, 1, 4, 160),) * 2, ("u", 3, 5, 1, 4, 160),
    ("u", 3, 3, 1, 4, 160), ("u", 3, 0, 1, 4, 160), ("u", 0, 0, 1, 2, 160), ("u", 3, 0, 1, 4, 160),
    ("u", 5, 5, 2, 6, 256), ("u", 5, 5, 1, 4, 256), *(("u", 3, 5, 1, 4, 256),) * 2,
    ("u", 0, 0, 1, 4, 256), ("u", 3, 0, 1, 4, 256), ("u", 3, 5, 1, 2, 256), ("u", 5, 5, 1, 4, 256),
    *(("u", 0, 0, 1, 4, 256),) * 2, ("u", 5, 0, 1, 2, 256),
)  # fmt: skip


class Case(NamedTuple):
    """A network, and what is published of it: top-1 on ImageNet, %, at its input size."""

    name: str
    px: int
    top1: float
    ops: tuple[PlacedOp, ...]


def mobilenet_v4(rows: Sequence[tuple[Any, ...]], px: int) -> tuple[PlacedOp, ...]:
    """MobileNetV4-Conv of its blocks, for 1000 classes."""
    ops = [("stem", op("conv", (3, px, px), out=32, kernel=3, stride=2, act="relu"))]
    for n, (kind, start, kernel, stride, ratio, out) in enumerate(rows, start=1):
        given = ops[-1][1].shape
        kept = is_residual(given[0], out, stride)
        if kind == "c":
            made = op("conv", given, out=out, kernel=kernel, stride=stride, act="relu")
        elif kind == "f":
            made = op("blocks:fused", given, mid=ratio * given[0], out=out, stride=stride)
        else:
            made = op("uib", given, mid=ratio * given[0], out=out, start=start,
                      kernel=kernel, stride=stride, residual=kept)  # fmt: skip
        ops.append((f"block{n}", made))
    return chain([*ops, *head(Head(960, 1280, "relu"), ops[-1][1].shape, 1000)])


# Kernel, mid and output channels, stride, squeeze-excite, h-swish (arXiv:1905.02244, table 1).
LARGE = (
    (3, 16, 16, 1, 0, 0), (3, 64, 24, 2, 0, 0), (3, 72, 24, 1, 0, 0), (5, 72, 40, 2, 1, 0),
    *((5, 120, 40, 1, 1, 0),) * 2, (3, 240, 80, 2, 0, 1), (3, 200, 80, 1, 0, 1),
    *((3, 184, 80, 1, 0, 1),) * 2, (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 2, 1, 1), *((5, 960, 160, 1, 1, 1),) * 2,
)  # fmt: skip


def mobilenet_v3(minimalistic: bool) -> tuple[PlacedOp, ...]:
    """MobileNetV3-Large at 224 px; minimalistic: 3x3 kernels and relu alone, no squeeze-excite."""
    last = "relu" if minimalistic else "h_swish"
    ops = [("stem", op("conv", (3, 224, 224), out=16, kernel=3, stride=2, act=last))]
    for n, (kernel, mid, out, stride, se, swish) in enumerate(LARGE, start=1):
        given = ops[-1][1].shape
        made = op("mbconv", given, mid=mid, out=out, kernel=3 if minimalistic else kernel,
                  stride=stride, se=0 if minimalistic else se * make_divisible(mid / 4),
                  act=last if swish else "relu",
                  residual=is_residual(given[0], out, stride))  # fmt: skip
        ops.append((f"block{n}", made))
    return chain([*ops, *head(Head(960, 1280, last), ops[-1][1].shape, 1000)])


def like(space_name: str, macs: float) -> tuple[PlacedOp, ...]:
    """Of many random networks of a space at 224 px the one nearest to some MACs."""
    space = spaces.load(space_name).restricted([224])
    drawn = space.architectures(space.sample(400, np.random.default_rng(0)))
    return min(drawn, key=lambda arch: abs(exact_costs(arch)["macs"] - macs)).ops


def cases() -> Iterator[Case]:
    """Networks whose accuracies are published: of MobileNetV4 in its paper, of MobileNetV3 in
    Keras's documentation (tensorflow.org), of once-for-all's specialised networks in its README.
    """
    yield Case("MobileNetV3-Large minimalistic", 224, 72.3, mobilenet_v3(minimalistic=True))
    yield Case("MobileNetV4-Conv-S", 224, 73.8, mobilenet_v4(SMALL, 224))
    yield Case("MobileNetV3-Large", 224, 75.6, mobilenet_v3(minimalistic=False))
    yield Case("MobileNetV4-Conv-M", 256, 79.9, mobilenet_v4(MEDIUM, 256))
    yield Case("once-for-all, 595 million MACs", 224, 80.0, like("ofa-mbv3-w12", 595e6))
    yield Case("once-for-all ResNet50D, 4.1 billion MACs", 224, 79.8, like("ofa-resnet50d", 4.1e9))


# ---- timing -------------------------------------------------------------------------------------


def timed(ops: tuple[PlacedOp, ...], names: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Samples of a network on every target, ms, in turn."""
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as scratch:
        path = networks.write(ops, Path(scratch) / "network.onnx")
        ways = [target_from_name(name) for name in names]
        opened = {
            name: networks.opened(way.runtime, path, way.precision)
            for name, way in zip(names, ways, strict=True)
        }
        return speed.in_turn(opened, rounds)


def chains(names: Sequence[str], quick: bool) -> list[dict[str, Any]]:
    """Rates of every block at every shape, on every target."""
    rows = []
    for channels, px in STAGES[-1:] if quick else STAGES:
        for name, made in blocks().items():
            given = made((channels, px, px))
            ops = chain((f"block{n}", given) for n in range(LONG))
            found = timed(ops, names, 3 if quick else ROUNDS)
            ms = {target: speed.p10(each) / LONG for target, each in found.items()}
            about = {"channels": channels, "px": px, "block": name}
            rows.append({**about, "macs": given.macs, "params": given.params, "ms": ms})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def rates(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each block and target: MACs and parameters a millisecond over those of BASE at the same
    shape, the least, the geometric mean and the most over shapes.
    """
    base = {(row["channels"], row["px"]): row for row in rows if row["block"] == BASE}
    found = []
    for block in dict.fromkeys(row["block"] for row in rows):
        mine = [row for row in rows if row["block"] == block]
        for target in mine[0]["ms"]:
            told = {"block": block, "target": target}
            for what in ("macs", "params"):
                ratios = [
                    row[what] / row["ms"][target] / (other[what] / other["ms"][target])
                    for row in mine
                    for other in [base[row["channels"], row["px"]]]
                ]
                told[what] = [min(ratios), float(np.exp(np.log(ratios).mean())), max(ratios)]
            found.append(told)
            print(json.dumps(told), flush=True)
    return found


def whole(names: Sequence[str]) -> list[dict[str, Any]]:
    """Latency of the networks of `cases` on every target."""
    rows = []
    for case in cases():
        found = timed(case.ops, names, LARGE_ROUNDS)
        about = {"network": case.name, "px": case.px, "top1": case.top1}
        counts = {what: sum(getattr(p.op, what) for p in case.ops) for what in ("macs", "params")}
        rows.append(
            {**about, **counts, "ms": {name: speed.p10(each) for name, each in found.items()}}
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("chains", "networks"))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    hardware = host.hardware()
    features = sorted(set(INTEGER) & set(hardware["cpu_features"] or ()))
    setting = f"{hardware['cpu']} ({', '.join(features)}), one thread, batch 1"
    print(setting, flush=True)
    names = [name for name in targets() if not args.quick or "ort-cpu.fp32" in name]
    rows = [] if args.part == "networks" else chains(names, args.quick)
    compared = rates(rows)
    made = [] if args.part == "chains" or args.quick else whole(names)
    n = {"chains": len(rows), "networks": len(made)}
    told = {"setting": setting, "n": n, "spread": {}, "chains": rows, "rates": compared}
    print(json.dumps({**told, "networks": made, "bars": bars_of(compared)}))


def bars_of(compared: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether the best other block computes clearly more a millisecond, over all targets."""
    others = [row for row in compared if row["block"] != BASE]
    found = []
    for what in ("macs", "params") if others else ():
        best = max(others, key=lambda row: row[what][1])
        found.append({
            "name": f"{what} a ms over the inverted residual's: {best['block']}, {best['target']}",
            "value": best[what][1], "limit": CLEAR, "holds": bool(best[what][1] >= CLEAR),
        })  # fmt: skip
    return found


if __name__ == "__main__":
    main()
