"""Which networks to measure: covering sets, random spreads over size, distinct ops.

What a slot may hold is read off the space (`hwnas.networks.slots`), by the choices it depends on.
Nothing here knows a family.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

import numpy as np

from hwnas.networks.slots import distinct_ops, op_tables
from hwnas.networks.space import Architecture, SearchSpace
from profilers.errors import ConfigError

__all__ = ["covering", "distinct_ops", "macs", "middling", "share_out", "stratified"]

TILT = 4.0  # log odds of the largest against the smallest option, at most
POOL = 20  # candidates drawn for each network of a stratified sample
POOL_MIN = 200  # ... and at least


def macs(arch: Architecture) -> int:
    """Multiply-accumulates of one input."""
    return sum(placed.op.macs for placed in arch.ops)


def covering(
    space: SearchSpace, resolution: int, repeats: int, rng: np.random.Generator
) -> list[Architecture]:
    """Networks in which every op of one resolution occurs: each in at least `repeats` of them.

    A greedy covering array: slot by slot, each network takes what was seen least so far and agrees
    with the choices made, ties at random; the slot that lacks most goes first. So about (options of
    one slot) x repeats networks. What gates others (depths) is balanced too.
    """
    slots = _Slots(space, resolution)
    seen: Counter[str] = Counter()
    out = []
    while slots.wanted and min(seen[key] for key in slots.wanted) < repeats:
        arch = slots.least_seen(seen, rng)
        seen.update(slots.marks(arch))
        out.append(arch)
    return out


class _Slots:
    """What each slot of a space holds at one resolution, by the options of its choices."""

    def __init__(self, space: SearchSpace, resolution: int) -> None:
        self._space, self._at = space, space.resolutions.index(resolution)
        self._gating = sorted({gate for gates in space.gates for gate in gates})
        self._columns: dict[str, tuple[int, ...]] = {}
        self._keys: dict[str, np.ndarray] = {}
        for slot, (columns, ops) in op_tables(space).items():
            names = [op.key if op else f"no {slot}" for op in ops[[self._at]].reshape(-1)]
            if len(set(names)) > 1:
                self._columns[slot] = columns[1:]
                self._keys[slot] = np.array(names, dtype=object).reshape(ops.shape[1:])
        found = {key for keys in self._keys.values() for key in keys.reshape(-1).tolist()}
        self.wanted = {key for key in found if not key.startswith("no ")}

    def least_seen(self, seen: Counter[str], rng: np.random.Generator) -> Architecture:
        """The next network of a covering set."""
        used = Counter(seen)
        genome = rng.integers(0, self._space.n_options)
        genome[0] = self._at
        fixed: set[int] = set()
        lacking = {slot: min(seen[key] for key in set(k.flat)) for slot, k in self._keys.items()}
        for slot in sorted(self._columns, key=lambda slot: lacking[slot]):
            columns = self._columns[slot]
            free = [c for c in columns if c not in fixed]
            at = tuple(genome[c] if c in fixed else slice(None) for c in columns)
            cells = self._keys[slot][at] if free else None
            if cells is not None:
                options = self._rarest(cells, free, used, rng)
                genome[free] = options
                fixed.update(free)
            used[self._keys[slot][tuple(genome[list(columns)])]] += 1
        return self._space.architectures(genome[None])[0]

    def _rarest(
        self, cells: np.ndarray, free: list[int], used: Counter[str], rng: np.random.Generator
    ) -> np.ndarray:
        """The options of some choices whose cell was seen least, then whose gates were."""
        index = np.argwhere(np.ones(cells.shape, dtype=bool))
        counts = [used[key] for key in cells.reshape(-1)]
        gating = [(i, c) for i, c in enumerate(free) if c in self._gating]
        gates = [sum(used[self._gate(c, row[i])] for i, c in gating) for row in index]
        order = list(zip(counts, gates, strict=True))
        least = min(order)
        return np.asarray(index[rng.choice([i for i, pair in enumerate(order) if pair == least])])

    def _gate(self, column: int, option: int) -> str:
        choice = self._space.choices[column]
        return f"{choice.name}={choice.options[option]}"

    def marks(self, arch: Architecture) -> set[str]:
        """What a network holds: op keys, absences, options of what gates others."""
        there = {placed.slot: placed.op.key for placed in arch.ops if placed.slot in self._columns}
        gates = {f"{self._space.choices[c].name}={arch.values[c]}" for c in self._gating}
        return {*there.values(), *(f"no {slot}" for slot in self._columns.keys() - there), *gates}


def stratified(
    space: SearchSpace,
    per_resolution: dict[int, int],
    taken: Iterable[Architecture],
    rng: np.random.Generator,
) -> list[Architecture]:
    """Random networks spread evenly over the range of MACs, without those already taken.

    Args:
        per_resolution: how many networks of each resolution.
        taken: networks that may not be drawn.

    Raises:
        ConfigError: the space holds too few other networks.
    """
    used = set(taken)
    out: list[Architecture] = []
    for resolution, n in per_resolution.items():
        chosen = _spread(_pool(space, resolution, n, used, rng), n, rng)
        used.update(chosen)
        out += chosen
    return out


def middling(
    space: SearchSpace, resolution: int, taken: Iterable[Architecture], rng: np.random.Generator
) -> Architecture:
    """A random network of middle size, not one of those taken; errors as `stratified`."""
    pool = _pool(space, resolution, 1, set(taken), rng)
    middle = (macs(pool[0]) + macs(pool[-1])) / 2
    return min(pool, key=lambda arch: abs(macs(arch) - middle))


def share_out(n: int, resolutions: Iterable[int]) -> dict[int, int]:
    """n networks dealt to the resolutions as evenly as possible."""
    sizes = list(resolutions)
    return {size: n // len(sizes) + (i < n % len(sizes)) for i, size in enumerate(sizes)}


def _pool(
    space: SearchSpace,
    resolution: int,
    n: int,
    used: set[Architecture],
    rng: np.random.Generator,
) -> list[Architecture]:
    """Unused random networks of one resolution sorted by MACs, n at least."""
    drawn = set(_leaning(space, resolution, max(POOL * n, POOL_MIN), rng)) - used
    if len(drawn) < n:
        raise ConfigError(
            f"space {space.name} has too few networks at {resolution} px: {n} more were wanted "
            f"beside {len(used)} others; lower profile.heldout, or offer more networks (of a model "
            "of yours by more space.widths, a smaller space.round_to)"
        )
    return sorted(drawn, key=lambda arch: (macs(arch), arch.id))


def _leaning(
    space: SearchSpace, resolution: int, size: int, rng: np.random.Generator
) -> list[Architecture]:
    """Random networks of one resolution, from the smallest sizes to the largest.

    Options drawn uniformly would crowd round the mean size. Here each network leans to small or to
    large options by an amount of its own.
    """
    n_options = space.n_options
    index = np.arange(space.option_values.shape[1])
    position = index[None, :] / np.maximum(n_options - 1, 1)[:, None]
    position[index[None, :] >= n_options[:, None]] = np.nan
    tilt = rng.uniform(-TILT, TILT, (size, 1, 1))
    genome = np.nanargmax(tilt * position + rng.gumbel(size=(size, *position.shape)), axis=2)
    genome[:, space.columns["resolution"]] = space.resolutions.index(resolution)
    return space.architectures(genome)


def _spread(pool: list[Architecture], n: int, rng: np.random.Generator) -> list[Architecture]:
    """n networks of a pool sorted by MACs, one of each of n strata of equal width.

    An empty stratum takes the free network nearest to its middle.
    """
    sizes = np.array([macs(arch) for arch in pool], dtype=float)
    edges = np.linspace(sizes[0], sizes[-1], n + 1)
    free = np.ones(len(pool), dtype=bool)
    chosen = []
    for low, high in itertools.pairwise(edges):
        inside = np.flatnonzero(free & (sizes >= low) & (sizes <= high))
        if not len(inside):
            distance = np.where(free, np.abs(sizes - (low + high) / 2), np.inf)
            inside = np.array([int(np.argmin(distance))])
        pick = int(rng.choice(inside))
        free[pick] = False
        chosen.append(pool[pick])
    return chosen
