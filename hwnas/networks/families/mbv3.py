"""Inverted residuals after a plain stem: MobileNetV2, MobileNetV3, once-for-all's MobileNets.

Stages either have a depth choice, or their residual blocks may be absent one by one (expand ratio
0). Rules of widths and squeeze-excite are once-for-all's, ofa/utils/layers.py and
ofa/utils/pytorch_modules.py of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from hwnas.networks.families import Block, Choice, Gate, blocks_of, is_residual, make_divisible
from hwnas.networks.ops import Op, op
from hwnas.networks.placed import PlacedOp, chain
from hwnas.networks.primitives import Shape


@dataclass(frozen=True)
class Stem:
    """First convolution, and a fixed block of expand ratio 1 and kernel 3 after it.

    Attributes:
        first_width: output channels of that block; 0: there is none.
        first_act: its activation.
    """

    width: int
    kernel_size: int
    stride: int
    act: str
    first_width: int = 0
    first_act: str = "relu"


@dataclass(frozen=True)
class Stage:
    """A run of blocks at one resolution.

    Attributes:
        width: output channels.
        se: whether squeeze-excite follows the depthwise convolution.
        expand_ratios: mid channels over the input's.
        depths: how many blocks may be kept (the first ones); empty: residual blocks may be absent
            one by one instead.
    """

    width: int
    n_blocks: int
    stride: int
    act: str
    se: bool
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Head:
    """What follows the last stage: convolution, global average pool, `mix`, classifier.

    Attributes:
        expand: output channels of a 1x1 convolution with BatchNorm; 0: there is none.
        width: output channels of the 1x1 `mix` after the pool; 0: there is none.
    """

    expand: int
    width: int
    act: str


@dataclass(frozen=True)
class MbV3:
    """The family, by its stem, stages and head."""

    stem: Stem
    stages: tuple[Stage, ...]
    head: Head
    name: ClassVar[str] = "mbv3"

    def blocks(self) -> Iterator[Block]:
        """Every elastic block, in order."""
        return blocks_of(self.stages)

    def choices(self) -> Sequence[Choice]:
        """Of each stage its depth, then kernel size and expand ratio of its blocks."""
        out: list[Choice] = []
        given = self.stem.first_width or self.stem.width
        for slot, within, stage, b in self.blocks():
            if stage.depths and not b:
                out.append(Choice(f"{within}.depth", stage.depths))
            stride = 1 if b else stage.stride
            may_miss = not stage.depths and is_residual(given, stage.width, stride)
            out.append(Choice(f"{slot}.kernel_size", stage.kernel_sizes))
            out.append(Choice(f"{slot}.expand_ratio", (0,) * may_miss + stage.expand_ratios))
            given = stage.width
        return out

    def gates(self) -> Mapping[str, Gate]:
        """A depth gates the blocks beyond it; expand ratio 0 the block's kernel size."""
        out: dict[str, Gate] = {}
        for slot, within, stage, b in self.blocks():
            if stage.depths:
                gate = f"{within}.depth", b + 1
                out |= {f"{slot}.kernel_size": gate, f"{slot}.expand_ratio": gate}
            else:
                out[f"{slot}.kernel_size"] = f"{slot}.expand_ratio", 1
        return out

    def input_shape(self, channels: int, resolution: int) -> Shape:
        """A square image."""
        return channels, resolution, resolution

    def lower(self, chosen: Mapping[str, int], shape: Shape, n_classes: int) -> Sequence[PlacedOp]:
        """Stem, blocks, head, in a chain."""
        ops = _stem(self.stem, shape)
        for slot, _, stage, b in self.blocks():
            if ratio := chosen[f"{slot}.expand_ratio"]:
                kernel, given = chosen[f"{slot}.kernel_size"], ops[-1][1].shape
                ops.append((slot, mbconv(given, stage, ratio, kernel, 1 if b else stage.stride)))
        return chain([*ops, *head(self.head, ops[-1][1].shape, n_classes)])

    def depends_on(self) -> Mapping[str, Sequence[str]]:
        """A block on its own options and its stage's depth."""
        return {
            slot: [
                *([f"{within}.depth"] if stage.depths else ()),
                f"{slot}.kernel_size",
                f"{slot}.expand_ratio",
            ]
            for slot, within, stage, _ in self.blocks()
        }

    def constants(self) -> Mapping[str, Any]:
        """Everything but the options offered."""
        offered = ("kernel_sizes", "expand_ratios", "depths")
        stages = [{k: v for k, v in asdict(s).items() if k not in offered} for s in self.stages]
        return {"stem": asdict(self.stem), "stages": stages, "head": asdict(self.head)}


def mbconv(shape: Shape, stage: Stage, ratio: int, kernel: int, stride: int) -> Op:
    """The block of a stage after something of a shape; expand ratio 1 means no expansion."""
    channels = shape[0]
    mid = channels if ratio == 1 else make_divisible(round(channels * ratio))
    return op(
        "mbconv",
        shape,
        mid=mid,
        out=stage.width,
        kernel=kernel,
        stride=stride,
        se=make_divisible(mid // 4) if stage.se else 0,
        act=stage.act,
        residual=is_residual(channels, stage.width, stride),
    )


def _stem(stem: Stem, shape: Shape) -> list[tuple[str, Op]]:
    first = op(
        "conv", shape, out=stem.width, kernel=stem.kernel_size, stride=stem.stride, act=stem.act
    )
    ops = [("stem", first)]
    if stem.first_width:
        block = Stage(stem.first_width, 1, 1, stem.first_act, se=False, kernel_sizes=(),
                      expand_ratios=())  # fmt: skip
        ops.append(("stage0.block1", mbconv(first.shape, block, 1, 3, 1)))
    return ops


def head(given: Head, shape: Shape, n_classes: int) -> list[tuple[str, Op]]:
    """The ops of a head after something of a shape."""
    ops: list[tuple[str, Op]] = []
    if given.expand:
        ops.append(("expand", op("conv", shape, out=given.expand, act=given.act)))
    ops.append(("pool", op("pool", ops[-1][1].shape if ops else shape)))
    if given.width:
        ops.append(("mix", op("mix", ops[-1][1].shape, out=given.width, act=given.act)))
    return [*ops, ("classifier", op("linear", ops[-1][1].shape, out=n_classes))]
