"""Temporal convolutional networks over series: kernel, dilation, width and depth are elastic.

Blocks: Bai et al. 2018, arXiv 1803.01271. That dilation, kernel and width be searched for small
devices: Risso et al. 2021, "Pruning in time (PIT)", DAC; and 2022, "Lightweight neural architecture
search for temporal convolutional networks at the edge". Stages with a stride are ours: they make
later blocks cheap, as in networks for images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hwnas.networks.families import Block, Choice, Gate, blocks_of
from hwnas.networks.ops import Op, op
from hwnas.networks.placed import PlacedOp, chain
from hwnas.networks.primitives import Shape


@dataclass(frozen=True)
class Stage:
    """A run of blocks of one width; the first one has the stride and a projected shortcut.

    Attributes:
        widths: channels offered, ascending.
        depths: how many blocks may be kept, the first ones.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    dilations: tuple[int, ...]
    stride: int = 1
    act: str = "relu"

    @property
    def n_blocks(self) -> int:
        """The most there may be."""
        return self.depths[-1]


@dataclass(frozen=True)
class Tcn:
    """The family, by its stages; the mean over time and a classifier follow."""

    stages: tuple[Stage, ...]
    name: ClassVar[str] = "tcn"

    def blocks(self) -> Iterator[Block]:
        """Every block, in order."""
        return blocks_of(self.stages)

    def choices(self) -> Sequence[Choice]:
        """Of each stage its depth and width, then the options of its blocks."""
        out: list[Choice] = []
        for slot, within, stage, b in self.blocks():
            if not b:
                out.append(Choice(f"{within}.depth", stage.depths))
                out.append(Choice(f"{within}.width", stage.widths))
            out.append(Choice(f"{slot}.kernel_size", stage.kernel_sizes))
            out.append(Choice(f"{slot}.dilation", stage.dilations))
        return out

    def gates(self) -> Mapping[str, Gate]:
        """A depth gates the blocks beyond it."""
        return {
            f"{slot}.{option}": (f"{within}.depth", b + 1)
            for slot, within, _, b in self.blocks()
            for option in ("kernel_size", "dilation")
        }

    def input_shape(self, channels: int, resolution: int) -> Shape:
        """Shape of a series of this many steps."""
        return channels, resolution

    def lower(self, chosen: Mapping[str, int], shape: Shape, n_classes: int) -> Sequence[PlacedOp]:
        """Blocks, mean over time, classifier, in a chain."""
        ops: list[tuple[str, Op]] = []
        for slot, within, stage, b in self.blocks():
            if b < chosen[f"{within}.depth"]:
                block = op(
                    "tcn",
                    ops[-1][1].shape if ops else shape,
                    out=chosen[f"{within}.width"],
                    kernel=chosen[f"{slot}.kernel_size"],
                    dilation=chosen[f"{slot}.dilation"],
                    stride=1 if b else stage.stride,
                    act=stage.act,
                    shortcut=not b,
                )
                ops.append((slot, block))
        ops.append(("pool", op("pool", ops[-1][1].shape)))
        return chain([*ops, ("classifier", op("linear", ops[-1][1].shape, out=n_classes))])

    def depends_on(self) -> Mapping[str, Sequence[str]]:
        """A block on its options, its stage's depth and the widths before and after it."""
        out: dict[str, Sequence[str]] = {}
        before: list[str] = []
        for slot, within, _, b in self.blocks():
            own = [f"{within}.depth", f"{within}.width", f"{slot}.kernel_size", f"{slot}.dilation"]
            out[slot] = own if b else [*before, *own]
            before = [f"{within}.width"]
        return {**out, "pool": before, "classifier": before}

    def constants(self) -> Mapping[str, Any]:
        """Everything but the options offered."""
        return {
            "stages": [
                {"n_blocks": stage.n_blocks, "stride": stage.stride, "act": stage.act}
                for stage in self.stages
            ]
        }
