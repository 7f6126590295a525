"""Placed ops: how ops form a network, and what follows from that alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple, TypeVar

from hwnas.networks.graph import INPUTS
from hwnas.networks.ops import BYTES, Op
from hwnas.networks.primitives import Shape
from profilers.errors import ConfigError

T = TypeVar("T")
START = ""  # what reads the network's input reads this slot


class Cut(NamedTuple):
    """What an op takes of an axis of its slot's largest weight, where that is no leading part.

    Attributes:
        primitive, role: which weight; the statistics of a norm follow its `scale`.
        places: (start, stop) of each part, ascending.
    """

    primitive: str
    role: str
    axis: int
    places: tuple[tuple[int, int], ...]


class PlacedOp(NamedTuple):
    """An op and its place: weights and names come from the slot, costs from the op.

    Attributes:
        slot: unique in the network.
        op: what stands there.
        reads: slots whose outputs it takes, or START, in the order of the op's inputs.
        cuts: of its weights; it takes the leading part of every other axis.
    """

    slot: str
    op: Op
    reads: tuple[str, ...]
    cuts: tuple[Cut, ...] = ()


Network = tuple[PlacedOp, ...]


def chain(ops: Iterable[tuple[str, Op]]) -> Network:
    """Ops of which each reads the one before."""
    out: list[PlacedOp] = []
    for slot, op in ops:
        out.append(PlacedOp(slot, op, (out[-1].slot if out else START,)))
    return tuple(out)


def checked(ops: Sequence[PlacedOp], shape: Shape) -> Network:
    """The ops, if they are a network over an input of a shape.

    Raises:
        ConfigError: two ops in one slot, an op that reads a slot that is not there before it (a
            cycle) or whose shape it does not take, or outputs besides the last one.
    """
    shapes = {START: shape}
    for slot, op, reads, _ in ops:
        if slot in shapes:
            raise ConfigError(f"slot {slot!r} has two ops; give one of them another slot")
        missing = [name for name in reads if name not in shapes]
        if missing:
            raise ConfigError(
                f"slot {slot} reads {missing[0]!r}, which is not before it; put it before, and "
                "let no slot read what follows from it (a cycle)"
            )
        if tuple(shapes[name] for name in reads) != op.inputs:
            given = [shapes[name] for name in reads]
            raise ConfigError(f"slot {slot} takes {list(op.inputs)}, what it reads gives {given}")
        shapes[slot] = op.shape
    read = {name for _, _, reads, _ in ops for name in reads}
    unread = [op.slot for op in ops[:-1] if op.slot not in read]
    if unread or not ops:
        raise ConfigError(
            f"nothing reads slot {unread[0]}; a network has one output, its last op's"
            if ops
            else "a network without an op; lower to one at least"
        )
    return tuple(ops)


def peaks(ops: Sequence[PlacedOp]) -> dict[str, int]:
    """Most fp32 bytes of activations alive at once while each slot's op runs, at batch 1: of the
    op, and what earlier ops wrote for later ones.
    """
    last = {name: i for i, placed in enumerate(ops) for name in placed.reads}
    first = ops[0].op.inputs[ops[0].reads.index(START)] if START in ops[0].reads else ()
    elements: dict[str, int] = {START: math.prod(first)}
    out: dict[str, int] = {}
    for i, (slot, op, reads, _) in enumerate(ops):
        held = sum(
            n for name, n in elements.items() if name not in reads and last.get(name, -1) > i
        )
        kept = [n for n, name in zip(INPUTS, reads, strict=False) if last[name] > i]
        peak = op.peak_bytes(tuple(kept)) if kept else op.peak_activation_bytes
        out[slot] = peak + BYTES * held
        elements[slot] = math.prod(op.shape)
    return out


def holders(ops: Sequence[PlacedOp]) -> Mapping[str, tuple[str, ...]]:
    """For each slot, the earlier slots whose outputs later ones still need while it runs, except
    those it reads itself.
    """
    last = {name: i for i, placed in enumerate(ops) for name in placed.reads}
    return {
        placed.slot: tuple(
            other.slot
            for other in ops[:i]
            if last[other.slot] > i and other.slot not in placed.reads
        )
        for i, placed in enumerate(ops)
    }


def merging(
    slots: Sequence[str], reads: Mapping[str, Sequence[str]], empties: Mapping[str, Set[T]]
) -> set[T]:
    """What decides whether two of some slots are one: an empty slot is what it would read.

    Args:
        reads: of every slot of the network.
        empties: of every slot, what decides whether it is empty; nothing: it never is.
    """
    ends = {*slots, START}

    @functools.cache
    def towards(name: str) -> frozenset[T]:
        """What may lead from a slot to one of the ends."""
        own, found = frozenset(empties[name]), frozenset[T]()
        for read in reads[name] if own else ():
            further = own if read in ends else towards(read)
            found |= own | further if further else further
        return found

    return set().union(*(towards(name) for name in slots if name != START))
