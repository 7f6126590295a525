"""Bottlenecks after a deep stem, with elastic widths: ResNet-D, once-for-all's ResNets.

Source: ofa/imagenet_classification/elastic_nn/networks/ofa_resnets.py of
github.com/mit-han-lab/once-for-all; He et al. 2019, "Bag of tricks for image classification with
convolutional neural networks".
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
class DeepStem:
    """Two or three 3x3 convolutions (the first of stride 2), then a max pool of stride 2.

    The middle one adds its input to its output and may be left out.

    Attributes:
        mid_widths: channels offered after the first convolution, ascending.
        widths: channels offered after the last one, ascending.
        depths: how many convolutions may be kept, of 2 and 3.
    """

    mid_widths: tuple[int, ...]
    widths: tuple[int, ...]
    act: str
    depths: tuple[int, ...] = (2, 3)


@dataclass(frozen=True)
class Stage:
    """A run of bottlenecks at one resolution.

    Attributes:
        widths: output channels offered, ascending.
        expand_percents: mid channels in percent of the output's.
        depths: how many blocks may be kept, the first ones.
    """

    widths: tuple[int, ...]
    n_blocks: int
    stride: int
    depths: tuple[int, ...]
    act: str = "relu"
    kernel_sizes: tuple[int, ...] = (3,)
    expand_percents: tuple[int, ...] = (20, 25, 35)


@dataclass(frozen=True)
class ResNetD:
    """The family, by its stem and stages; pool and classifier follow."""

    stem: DeepStem
    stages: tuple[Stage, ...]
    name: ClassVar[str] = "resnet-d"

    def blocks(self) -> Iterator[Block]:
        """Every block, in order."""
        return blocks_of(self.stages)

    def choices(self) -> Sequence[Choice]:
        """Of the stem, then of each stage its depth and width and the options of its blocks."""
        out = [
            Choice("stem.depth", self.stem.depths),
            Choice("stem.mid_width", self.stem.mid_widths),
            Choice("stem.width", self.stem.widths),
        ]
        for slot, name, stage, b in self.blocks():
            if not b:
                out.append(Choice(f"{name}.depth", stage.depths))
                out.append(Choice(f"{name}.width", stage.widths))
            out.append(Choice(f"{slot}.kernel_size", stage.kernel_sizes))
            out.append(Choice(f"{slot}.expand_percent", stage.expand_percents))
        return out

    def gates(self) -> Mapping[str, Gate]:
        """A depth gates the blocks beyond it."""
        return {
            f"{slot}.{option}": (f"{name}.depth", b + 1)
            for slot, name, _, b in self.blocks()
            for option in ("kernel_size", "expand_percent")
        }

    def input_shape(self, channels: int, resolution: int) -> Shape:
        """A square image."""
        return channels, resolution, resolution

    def lower(self, chosen: Mapping[str, int], shape: Shape, n_classes: int) -> Sequence[PlacedOp]:
        """Stem, blocks, pool and classifier, in a chain."""
        ops = self._stem(chosen, shape)
        for slot, name, stage, b in self.blocks():
            if b < chosen[f"{name}.depth"]:
                options = chosen[f"{slot}.kernel_size"], chosen[f"{slot}.expand_percent"]
                stride, width = 1 if b else stage.stride, chosen[f"{name}.width"]
                given = ops[-1][1].shape
                ops.append((slot, bottleneck(given, width, *options, stride, stage.act)))
        ops.append(("pool", op("pool", ops[-1][1].shape)))
        return chain([*ops, ("classifier", op("linear", ops[-1][1].shape, out=n_classes))])

    def _stem(self, chosen: Mapping[str, int], shape: Shape) -> list[tuple[str, Op]]:
        mid, width, act = chosen["stem.mid_width"], chosen["stem.width"], self.stem.act
        ops = [("stem.conv1", op("conv", shape, out=mid, kernel=3, stride=2, act=act))]
        inner = ops[0][1].shape
        if chosen["stem.depth"] == 3:
            added = op("conv", inner, out=mid, kernel=3, act=act, residual=True)
            ops.append(("stem.conv2", added))
        ops.append(("stem.conv3", op("conv", inner, out=width, kernel=3, act=act)))
        return [*ops, ("stem.pool", op("max-pool", ops[-1][1].shape))]

    def depends_on(self) -> Mapping[str, Sequence[str]]:
        """A block on its options, its stage's depth and the widths before and after it."""
        out = {
            "stem.conv1": ["stem.mid_width"],
            "stem.conv2": ["stem.depth", "stem.mid_width"],
            "stem.conv3": ["stem.mid_width", "stem.width"],
            "stem.pool": ["stem.width"],
        }
        width = "stem.width"
        for slot, name, _, b in self.blocks():
            given, width = width, f"{name}.width"
            options = [f"{slot}.kernel_size", f"{slot}.expand_percent"]
            out[slot] = [*([] if b else [given]), f"{name}.depth", width, *options]
        return {**out, "pool": [width], "classifier": [width]}

    def constants(self) -> Mapping[str, Any]:
        """Everything but the options offered."""
        kept = ("n_blocks", "stride", "act")
        stages = [{k: v for k, v in asdict(s).items() if k in kept} for s in self.stages]
        return {"stem": {"act": self.stem.act}, "stages": stages}


def bottleneck(shape: Shape, width: int, kernel: int, percent: int, stride: int, act: str) -> Op:
    """The block of a width after something of a shape."""
    return op(
        "bottleneck",
        shape,
        mid=make_divisible(round(width * percent / 100)),
        out=width,
        kernel=kernel,
        stride=stride,
        act=act,
        residual=is_residual(shape[0], width, stride),
    )
