"""Lowering: option values of a space to placed ops, the only walk over a network's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hwnas.networks import blocks
from hwnas.networks.family import DeepStem, Stem
from profilers.schema import OpSpec

if TYPE_CHECKING:
    from hwnas.networks.space import SearchSpace


class PlacedOp(NamedTuple):
    """An op and its place: weights and names come from the slot, costs from the spec."""

    slot: str
    spec: OpSpec


class Block(NamedTuple):
    """The place of a block, and where its choices stand in an architecture.

    kernel, expand, depth and width are columns; depth and width (of the whole stage) are -1 where
    the stage has no such choice.
    """

    slot: str
    stage: int
    position: int
    kernel: int
    expand: int
    depth: int
    width: int


def lower(space: SearchSpace, values: Sequence[int]) -> tuple[PlacedOp, ...]:
    """The placed ops, in order, of canonical option values."""
    ops = _deep_stem(space, values) if isinstance(space.stem, DeepStem) else _stem(space, values)
    for block in space.blocks:
        if values[block.expand]:
            ops.append(PlacedOp(block.slot, _block(space, block, values, ops[-1].spec)))
    return (*ops, *_head(space, ops[-1].spec))


def depends_on(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    """For each slot, the columns of the choices that its op depends on, ascending."""
    out: dict[str, set[int]] = {}
    width = -1  # column of the channels that come in; -1: they are fixed
    if isinstance(space.stem, DeepStem):
        depth, mid, width = (space.columns[f"stem.{n}"] for n in ("depth", "mid_width", "width"))
        out["stem.conv1"] = {mid}
        out["stem.conv2"] = {depth, mid}
        out["stem.conv3"] = {mid, width}
        out["stem.pool"] = {width}
    for block in space.blocks:
        given = -1 if block.position else width
        width = block.width if block.width >= 0 else width
        out[block.slot] = {given, block.depth, width, block.kernel, block.expand}
    out |= {slot: {width} for slot in ("expand", "pool", "mix", "classifier")}
    slots = [slot for slot, _ in space.largest.ops]
    return {s: tuple(sorted({0, *(c for c in out.get(s, ()) if c >= 0)})) for s in slots}


def _stem(space: SearchSpace, values: Sequence[int]) -> list[PlacedOp]:
    stem, size = space.stem, values[0]
    assert isinstance(stem, Stem)
    first = blocks.conv(
        size, space.in_channels, stem.width, stem.kernel_size, stem.stride, stem.act
    )
    ops = [PlacedOp("stem", first)]
    if stem.first_width:
        shape = OpSpec(
            "mbconv", first.out_size, stem.width, 0, stem.first_width, 3, 1, act=stem.first_act
        )
        ops.append(PlacedOp("stage0.block1", blocks.mbconv(shape, 1, se=False)))
    return ops


def _deep_stem(space: SearchSpace, values: Sequence[int]) -> list[PlacedOp]:
    stem, size = space.stem, values[0]
    assert isinstance(stem, DeepStem)
    depth, mid, width = (
        values[space.columns[f"stem.{name}"]] for name in ("depth", "mid_width", "width")
    )
    ops = [PlacedOp("stem.conv1", blocks.conv(size, space.in_channels, mid, 3, 2, stem.act))]
    size = ops[-1].spec.out_size
    if depth == 3:
        added = blocks.conv(size, mid, mid, 3, 1, stem.act, residual=True)
        ops.append(PlacedOp("stem.conv2", added))
    ops.append(PlacedOp("stem.conv3", blocks.conv(size, mid, width, 3, 1, stem.act)))
    ops.append(PlacedOp("stem.pool", blocks.max_pool(size, width)))
    return ops


def _block(space: SearchSpace, block: Block, values: Sequence[int], last: OpSpec) -> OpSpec:
    stage = space.stages[block.stage]
    shape = OpSpec(
        stage.block,
        last.out_size,
        last.out_channels,
        0,
        stage.width if block.width < 0 else values[block.width],
        values[block.kernel],
        1 if block.position else stage.stride,
        act=stage.act,
    )
    if stage.block == "bottleneck":
        return blocks.bottleneck(shape, values[block.expand])
    return blocks.mbconv(shape, values[block.expand], stage.se)


def _head(space: SearchSpace, last: OpSpec) -> list[PlacedOp]:
    head, size, width = space.head, last.out_size, last.out_channels
    ops = []
    if head.expand:
        ops.append(PlacedOp("expand", blocks.conv(size, width, head.expand, 1, 1, head.act)))
        width = head.expand
    ops.append(PlacedOp("pool", blocks.pool(size, width)))
    if head.width:
        ops.append(PlacedOp("mix", blocks.mix(width, head.width, head.act)))
        width = head.width
    ops.append(PlacedOp("classifier", blocks.linear(width, space.n_classes)))
    return ops
