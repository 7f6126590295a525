"""Universal inverted bottlenecks after plain convolutions: MobileNetV4 without attention.

Source: Qin et al. 2024, "MobileNetV4: universal models for the mobile ecosystem",
arXiv:2404.10518.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from hwnas.networks.families import Block, Choice, Gate, blocks_of, is_residual, make_divisible
from hwnas.networks.families.mbv3 import Head, head
from hwnas.networks.ops import Op, op
from hwnas.networks.placed import PlacedOp, chain
from hwnas.networks.primitives import Shape


class Conv(NamedTuple):
    """A convolution before the stages."""

    width: int
    kernel_size: int
    stride: int


@dataclass(frozen=True)
class Stage:
    """A run of blocks at one resolution.

    Attributes:
        width: output channels.
        depths: how many blocks may be kept, the first ones.
        start_sizes: kernels of the depthwise convolution before the expansion; 0: absent.
        kernel_sizes: of the one after it; a block that has the stride offers no 0.
        expand_ratios: mid channels over the input's.
    """

    width: int
    n_blocks: int
    stride: int
    depths: tuple[int, ...]
    start_sizes: tuple[int, ...] = (0, 3, 5)
    kernel_sizes: tuple[int, ...] = (0, 3, 5)
    expand_ratios: tuple[int, ...] = (2, 3, 4, 6)


OPTIONS = ("start_size", "kernel_size", "expand_ratio")  # of a block


@dataclass(frozen=True)
class MbV4:
    """The family, by its first convolutions, stages and head."""

    convs: tuple[Conv, ...]
    stages: tuple[Stage, ...]
    head: Head
    act: str = "relu"
    name: ClassVar[str] = "mbv4"

    def blocks(self) -> Iterator[Block]:
        """Every elastic block, in order."""
        return blocks_of(self.stages)

    def choices(self) -> Sequence[Choice]:
        """Of each stage its depth, then both kernels and the expand ratio of its blocks."""
        out: list[Choice] = []
        for slot, within, stage, b in self.blocks():
            if not b:
                out.append(Choice(f"{within}.depth", stage.depths))
            strided = not b and stage.stride > 1
            kernels = tuple(n for n in stage.kernel_sizes if n or not strided)
            offered = stage.start_sizes, kernels, stage.expand_ratios
            out += [Choice(f"{slot}.{o}", n) for o, n in zip(OPTIONS, offered, strict=True)]
        return out

    def gates(self) -> Mapping[str, Gate]:
        """A depth gates the blocks beyond it."""
        return {
            f"{slot}.{option}": (f"{within}.depth", b + 1)
            for slot, within, _, b in self.blocks()
            for option in OPTIONS
        }

    def input_shape(self, channels: int, resolution: int) -> Shape:
        """A square image."""
        return channels, resolution, resolution

    def lower(self, chosen: Mapping[str, int], shape: Shape, n_classes: int) -> Sequence[PlacedOp]:
        """Convolutions, blocks, head, in a chain."""
        ops, given = [], shape
        for n, (width, kernel, stride) in enumerate(self.convs, start=1):
            made = op("conv", given, out=width, kernel=kernel, stride=stride, act=self.act)
            ops.append((f"stem.conv{n}", made))
            given = made.shape
        for slot, within, stage, b in self.blocks():
            if b < chosen[f"{within}.depth"]:
                options = [chosen[f"{slot}.{option}"] for option in OPTIONS]
                made = self._block(given, stage, 1 if b else stage.stride, options)
                ops.append((slot, made))
                given = made.shape
        return chain([*ops, *head(self.head, given, n_classes)])

    def _block(self, shape: Shape, stage: Stage, stride: int, options: Sequence[int]) -> Op:
        """The block of a stage after something of a shape."""
        start, kernel, ratio = options
        return op(
            "uib",
            shape,
            mid=make_divisible(ratio * shape[0]),
            out=stage.width,
            start=start,
            kernel=kernel,
            stride=stride,
            act=self.act,
            residual=is_residual(shape[0], stage.width, stride),
        )

    def depends_on(self) -> Mapping[str, Sequence[str]]:
        """A block on its own options and its stage's depth."""
        return {
            slot: [f"{within}.depth", *(f"{slot}.{option}" for option in OPTIONS)]
            for slot, within, _, _ in self.blocks()
        }

    def constants(self) -> Mapping[str, Any]:
        """Everything but the options offered."""
        stages = [{"width": s.width, "n_blocks": s.n_blocks, "stride": s.stride}
                  for s in self.stages]  # fmt: skip
        return {"convs": [list(conv) for conv in self.convs], "stages": stages,
                "head": asdict(self.head), "act": self.act}  # fmt: skip
