"""Where a space's ops stand: each over the few choices it depends on, and how genomes address them.

A slot's op depends on a few choices (`SearchSpace.depends_on`). Slots whose choices are among
another slot's share its place, so a network is one cell of each place, and every metric of a space
is looked up by the same index.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.networks.ops import Op
from hwnas.networks.slots import Columns, op_tables, peak_tables
from hwnas.networks.space import SearchSpace
from profilers.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Places:
    """The places of a space and the address of each cell in a flat table of (P, R, ...) cells.

    Attributes:
        space: whose genomes are addressed.
        columns: of each place, the resolution first; no place holds another's.
        shape: (P, R, sizes...): the places' other columns end at the last axis; a place with fewer
            has size 1 at the axes before them.
    """

    space: SearchSpace
    columns: tuple[Columns, ...]
    shape: tuple[int, ...]

    @functools.cached_property
    def _gathered(self) -> np.ndarray:
        """(axes, P) column of each place at each axis but the resolution's; beyond the last choice
        where it has none.
        """
        axes, none = len(self.shape) - 2, len(self.space.choices)
        rows = [(none,) * (axes - len(own) + 1) + own[1:] for own in self.columns]
        return np.array(rows, dtype=np.int64).reshape(len(rows), axes).T

    def index(self, genome: np.ndarray) -> np.ndarray:
        """(P, n) cell of each place, for (n, n_choices) genomes."""
        rows = np.asarray(genome).T
        if self._padded:
            rows = np.concatenate((rows, np.zeros((1, rows.shape[1]), dtype=rows.dtype)))
        first, *others = self._gathered
        cell = rows.take(first, axis=0).astype(np.intp)
        for size, columns in zip(self.shape[3:], others, strict=True):
            cell *= size
            cell += rows.take(columns, axis=0)
        cell += rows[0].astype(np.intp) * self._at_one_resolution
        return np.asarray(np.add(cell, self._starts, out=cell))

    @functools.cached_property
    def _padded(self) -> bool:
        return bool((self._gathered == len(self.space.choices)).any())

    @functools.cached_property
    def _at_one_resolution(self) -> int:
        """Cells of a place at one resolution."""
        return math.prod(self.shape[2:])

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """(P, 1) first cell of each place."""
        return np.arange(self.shape[0])[:, None] * math.prod(self.shape[1:])

    def holder(self, columns: Columns) -> int:
        """The last place that has all these columns.

        Raises:
            ConfigError: none has.
        """
        wanted = {c for c in columns if self.space.n_options[c] > 1 or not c}
        held = [p for p, own in enumerate(self.columns) if wanted <= set(own)]
        if not held:
            names = ", ".join(self.space.choices[c].name for c in sorted(wanted))
            raise ConfigError(
                f"space {self.space.name} has no op that depends on {names} together; such a "
                "metric is searched by evaluating whole networks"
            )
        return held[-1]

    def spread(self, place: int, columns: Columns, values: np.ndarray) -> np.ndarray:
        """Values over some columns of a place, as a view that broadcasts to (R, sizes...)."""
        own = self.columns[place]
        axes = {c: len(self.shape) - len(own) + i - 1 for i, c in enumerate(own)} | {0: 0}
        shape = [1] * (len(self.shape) - 1)
        for column, size in zip(columns, values.shape, strict=True):
            if column in axes:
                shape[axes[column]] = size
        return values.reshape(shape)

    def cells(self, place: int) -> tuple[slice, ...]:
        """The part of (R, sizes...) that a place uses."""
        own = self.columns[place]
        sizes = [self.space.n_options[c] for c in own[1:]]
        ones = [1] * (len(self.shape) - 1 - len(own))
        return tuple(slice(int(n)) for n in (self.space.n_options[0], *ones, *sizes))

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """Flat table of what stands at each place: equal numbers of a place are equal ops."""
        tables = np.zeros(self.shape, dtype=np.int64)
        for own, ops in op_tables(self.space).values():
            known: dict[Op | None, int] = {None: 0}
            flat = [known.setdefault(op, len(known)) for op in ops.reshape(-1)]
            place = self.holder(own)
            table = tables[place][self.cells(place)]
            table *= len(known)
            table += self.spread(place, own, np.array(flat).reshape(ops.shape))
        for table in tables:
            table[:] = np.unique(table, return_inverse=True)[1].reshape(table.shape)
        return tables.reshape(-1).astype(np.uint8 if tables.max() < 256 else "u4")

    def identity(self, genome: np.ndarray) -> list[bytes]:
        """Identity of networks: bytes are equal if and only if `space.canonical` is equal."""
        rows = np.ascontiguousarray(self.codes.take(self.index(genome)).T)
        out: list[bytes] = rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist()
        return out


@functools.lru_cache(maxsize=32)
def places(space: SearchSpace) -> Places:
    """The places of a space, in the order of its slots."""
    slots = list(dict.fromkeys(table.columns for table in op_tables(space).values()))
    slots = list(dict.fromkeys((*slots, *(columns for columns, _ in peak_tables(space).values()))))
    kept = [own for own in slots if not any(set(own) < set(other) for other in slots)]
    sizes = _right_aligned([[int(space.n_options[c]) for c in own[1:]] for own in kept])
    return Places(space, tuple(kept), (len(kept), int(space.n_options[0]), *sizes))


def _right_aligned(rows: Sequence[Sequence[int]]) -> list[int]:
    """Largest size at each axis, rows ending at the last one; at least one axis."""
    axes = max(1, *(len(row) for row in rows))
    padded = [[1] * (axes - len(row)) + list(row) for row in rows]
    return [max(sizes) for sizes in zip(*padded, strict=True)]
