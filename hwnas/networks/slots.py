"""What may stand at each slot of a space: every op, by the choices it depends on.

Read off `lower` of as few networks as show all of it; `check_family` compares with random ones.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hwnas.networks.ops import Op
from hwnas.networks.placed import Network, PlacedOp, holders, merging, peaks
from hwnas.networks.space import SearchSpace
from profilers.errors import ConfigError

Columns = tuple[int, ...]  # of choices, ascending


class OpTable(NamedTuple):
    """What stands at a slot at every combination of some choices.

    Attributes:
        columns: of those choices; the resolution is always the first.
        ops: one axis for each column, of Op; None where the slot is empty.
    """

    columns: Columns
    ops: np.ndarray


@functools.lru_cache(maxsize=16)
def op_tables(space: SearchSpace) -> Mapping[str, OpTable]:
    """Every slot of a space with its ops."""
    columns = {slot: _varying(space, own) for slot, own in space.depends_on.items()}
    found = _read_off(space, columns, lambda ops: {placed.slot: placed.op for placed in ops})
    return {slot: OpTable(columns[slot], table) for slot, table in found.items()}


@functools.lru_cache(maxsize=16)
def peak_tables(space: SearchSpace) -> Mapping[str, tuple[Columns, np.ndarray]]:
    """For each slot the most activation bytes alive while its op runs (0 where it is empty), by
    the choices these depend on: its own, those of the slots whose outputs wait meanwhile, and those
    that decide whether what it reads, or what waits, is one and the same.
    """
    tables, network = op_tables(space), space.largest.ops
    if all(placed.reads == (before.slot,) for before, placed in itertools.pairwise(network)):
        return {slot: (table.columns, _bytes(table)) for slot, table in tables.items()}
    held, reads = holders(network), {placed.slot: placed.reads for placed in network}
    empties = {slot: _deciding(table) for slot, table in tables.items()}
    columns = {}
    for slot in tables:
        own = {c for name in (slot, *held[slot]) for c in tables[name].columns}
        if held[slot]:
            own |= merging((*reads[slot], *held[slot]), reads, empties)
        columns[slot] = tuple(sorted(own))
    found = _read_off(space, columns, peaks)
    return {slot: (columns[slot], _numbers(table)) for slot, table in found.items()}


def _deciding(table: OpTable) -> set[int]:
    """Choices that decide whether a slot is empty."""
    there = table.ops != None  # noqa: E711  # of each element
    return {
        column
        for axis, column in enumerate(table.columns)
        if (there != there.take([0], axis)).any()
    }


def _bytes(table: OpTable) -> np.ndarray:
    """Peaks of a slot's ops where nothing but their own inputs is alive beside them."""
    flat = [0 if op is None else op.peak_activation_bytes for op in table.ops.reshape(-1)]
    return np.array(flat, dtype=np.float64).reshape(table.ops.shape)


def _numbers(table: np.ndarray) -> np.ndarray:
    flat = [0 if value is None else value for value in table.reshape(-1)]
    return np.array(flat, dtype=np.float64).reshape(table.shape)


def _varying(space: SearchSpace, columns: Columns) -> Columns:
    """The resolution, and of the others those that offer more than one option."""
    return (0, *(c for c in columns if c and space.n_options[c] > 1))


def _read_off(
    space: SearchSpace, columns: Mapping[str, Columns], read: Callable[[Network], Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """For each slot what a function of networks says of it, at every combination of its columns.

    Each network is put together slot by slot: a slot takes its first combination not yet seen that
    agrees with the choices fixed so far.
    """
    shapes = {slot: space.n_options[list(own)] for slot, own in columns.items()}
    values = {slot: np.full(shape, None, dtype=object) for slot, shape in shapes.items()}
    unseen = {slot: np.ones(shape, dtype=bool) for slot, shape in shapes.items()}
    while unseen:
        genome = space.n_options - 1
        fixed: set[int] = set()
        for slot, own in [(slot, columns[slot]) for slot in unseen]:
            at = tuple(genome[c] if c in fixed else slice(None) for c in own)
            free = [c for c in own if c not in fixed]
            found = np.argwhere(unseen[slot][at])
            if len(found):
                genome[free] = found[0]
                fixed.update(own)
        here = read(space.architectures(genome[None])[0].ops)
        for slot, own in columns.items():
            cell = tuple(genome[list(own)])
            values[slot][cell] = here.get(slot)
            if slot in unseen:
                unseen[slot][cell] = False
        unseen = {slot: left for slot, left in unseen.items() if left.any()}
    return values


def distinct_ops(space: SearchSpace) -> dict[str, PlacedOp]:
    """Every op key of the space and the first place where it occurs, slot by slot."""
    reads = {placed.slot: placed.reads for placed in space.largest.ops}
    found: dict[str, PlacedOp] = {}
    for slot, table in op_tables(space).items():
        for op in table.ops.reshape(-1):
            if op is not None:
                found.setdefault(op.key, PlacedOp(slot, op, reads[slot]))
    return found


@functools.lru_cache(maxsize=16)
def kernel_sizes(space: SearchSpace) -> Mapping[tuple[str, str], list[tuple[int, ...]]]:
    """For each slot and convolution of it, the kernel sizes that are offered, the largest first.

    Asked at one resolution: all of them share one weight.
    """
    found: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    for slot, table in op_tables(space.restricted(space.resolutions[-1:])).items():
        for op in set(table.ops.reshape(-1)) - {None}:
            for p in op.graph.primitives:
                if p.kind == "conv":
                    found.setdefault((slot, p.name), set()).add(p.args["kernel"])
    return {at: sorted(kernels, reverse=True) for at, kernels in found.items()}


def check_family(space: SearchSpace, n: int, rng: np.random.Generator) -> None:
    """Compare what a family says its slots depend on with n random networks.

    Raises:
        ConfigError: an op, or what is alive beside it, differs where no choice does that its slot
            depends on: names slot and op.
    """
    tables, alive = op_tables(space), peak_tables(space)
    for genome in space.sample(n, rng):
        network = space.architectures(genome[None])[0].ops
        ops: dict[str, Op] = {placed.slot: placed.op for placed in network}
        strange = sorted(set(ops) - set(tables))
        if strange:
            raise ConfigError(
                f"space {space.name}: slot {strange[0]!r} is in a network, not in the largest one; "
                f"let family {space.family.name} place every slot in the largest"
            )
        for slot, table in tables.items():
            expected, found = table.ops[tuple(genome[list(table.columns)])], ops.get(slot)
            if expected != found:
                named = ", ".join(space.choices[c].name for c in table.columns)
                raise ConfigError(
                    f"space {space.name}: slot {slot} has {found.key if found else 'no op'} where "
                    f"{expected.key if expected else 'no op'} was seen with the same {named}; name "
                    f"every choice it depends on in depends_on of family {space.family.name}"
                )
        for slot, peak in peaks(network).items():
            columns, expected = alive[slot]
            if expected[tuple(genome[list(columns)])] != peak:
                raise ConfigError(
                    f"space {space.name}: what is alive while slot {slot} runs depends on more "
                    f"than family {space.family.name} says in depends_on of the slots before it"
                )
