"""Families of networks: one file each, a dataclass of data that a space is made of.

A family says which choices there are, which of them gate others, how option values become placed
ops, and for each slot which choices its op depends on. All else follows from that: canonical
architectures, kits, tables, pricing, the elastic network, exports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from hwnas.networks.placed import PlacedOp
from hwnas.networks.primitives import Shape


class Choice(NamedTuple):
    """One searchable dimension and its option values, ascending."""

    name: str
    options: tuple[int, ...]


Gate = tuple[str, int]  # a choice, and its least value: what it gates is dead below


class Family(Protocol):
    """What a family defines. The resolution is not among its choices: every space offers it."""

    name: ClassVar[str]

    def choices(self) -> Sequence[Choice]:
        """Every searchable dimension, in the order of an architecture's values."""

    def gates(self) -> Mapping[str, Gate]:
        """For each choice that may be dead, what gates it."""

    def input_shape(self, channels: int, resolution: int) -> Shape:
        """Of the network's input, without the batch: (channels, px, px) for images."""

    def lower(self, chosen: Mapping[str, int], shape: Shape, n_classes: int) -> Sequence[PlacedOp]:
        """The network of option values by choice (0 where a choice is dead), in order.

        Args:
            chosen: canonical option values.
            shape: of the input.
            n_classes: of the output.
        """

    def depends_on(self) -> Mapping[str, Iterable[str]]:
        """For each slot, the choices that its op (or absence) depends on besides the resolution;
        a slot that is left out depends on none.
        """

    def constants(self) -> Mapping[str, Any]:
        """What decides a network besides the options, as JSON values; `geometry` hashes it."""


class Block(NamedTuple):
    """The place of a block: its slot, the name of its stage, the stage, its position in it."""

    slot: str
    within: str
    stage: Any
    position: int


def blocks_of(stages: Iterable[Any]) -> Iterator[Block]:
    """Every block of stages that have `n_blocks`, in order: `stage1.block1`, ..."""
    for s, stage in enumerate(stages, start=1):
        for b in range(stage.n_blocks):
            yield Block(f"stage{s}.block{b + 1}", f"stage{s}", stage, b)


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of divisor nearest to value, at least divisor and never more than 10 % below
    value. Source: ofa/utils/common_tools.py of github.com/mit-han-lab/once-for-all.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def is_residual(in_channels: int, out_channels: int, stride: int) -> bool:
    """Whether a block adds its input to its output."""
    return stride == 1 and in_channels == out_channels
