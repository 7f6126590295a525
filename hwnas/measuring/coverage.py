"""Which networks of a space to time: every op of it, covering networks, stratified samples.

Numpy only. Relies on what every space promises: the op of a block depends on the resolution, on the
block's own options and, where widths are elastic, on those before and after the block. A frame
fixes what several ops depend on: the options of `space.elastic_columns`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hwnas.networks.space import Architecture, PlacedOp, SearchSpace
from profilers import counts
from profilers.errors import ConfigError

TILT = 4.0  # log odds of the largest against the smallest option, at most
POOL = 20  # candidates drawn for each network of a stratified sample
POOL_MIN = 200  # ... and at least


class _Option(NamedTuple):
    """One way to fill a block: its options and what that gives (an op key, or an absence)."""

    kernel_size: int
    expand_ratio: int
    key: str


_Frame = dict[int, int]  # option values by column


def macs(arch: Architecture) -> int:
    """Multiply-accumulates of one image."""
    return sum(counts.macs(op.spec) for op in arch.ops)


def distinct_ops(space: SearchSpace) -> dict[str, PlacedOp]:
    """Every op key of the space and the first place where it occurs, in the order of the walk."""
    found: dict[str, PlacedOp] = {}
    for resolution in space.resolutions:
        for frame in _frames(space):
            for arch in _each_option_once(space, resolution, frame):
                for op in arch.ops:
                    found.setdefault(op.spec.key, op)
    return found


def covering(
    space: SearchSpace, resolution: int, repeats: int, rng: np.random.Generator
) -> list[Architecture]:
    """Networks in which every op of one resolution occurs: each in at least `repeats` of them.

    A greedy covering array: each network gives each slot the option seen least so far, and each
    stage the depth seen least, ties at random; so about (options of one slot) x repeats networks.
    """
    frames = [(frame, _block_options(space, resolution, frame)) for frame in _frames(space)]
    wanted = {o.key for _, slots in frames for slot in slots for o in slot if o.expand_ratio}
    seen: Counter[str] = Counter()
    out = []
    while min(seen[key] for key in wanted) < repeats:
        names = [f"frame {n}" for n in range(len(frames))]
        chosen = _rarest(names, seen, rng) if len(frames) > 1 else 0
        arch, marks = _least_seen(space, resolution, *frames[chosen], seen, rng)
        seen.update(marks | {names[chosen]})
        out.append(arch)
    return out


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


def _frames(space: SearchSpace) -> list[_Frame]:
    """Frames in which every op of the space occurs; one empty frame where widths are fixed.

    Along a network widths alternate between two options, so each pair of neighbours occurs.
    """
    columns = space.elastic_columns
    if not columns:
        return [{}]
    widths = [c for c in columns if space.choices[c].name.endswith("width")]
    others = [c for c in columns if c not in widths]
    most = range(max(len(space.choices[c].options) for c in widths))
    out = []
    for even, odd in itertools.product(most, most):
        pair = {c: _at(space, c, odd if i % 2 else even) for i, c in enumerate(widths)}
        for chosen in itertools.product(*(space.choices[c].options for c in others)):
            out.append({**pair, **dict(zip(others, chosen, strict=True))})
    return out


def _at(space: SearchSpace, column: int, index: int) -> int:
    """The option of a choice at an index, the last one beyond the end."""
    options = space.choices[column].options
    return options[min(index, len(options) - 1)]


def _filled(
    space: SearchSpace, resolution: int, fill: list[_Option], others: dict[int, int]
) -> Architecture:
    """The network of one option for each block; the others, depths and a frame, by column."""
    values = [0] * len(space.choices)
    values[space.columns["resolution"]] = resolution
    for block, option in zip(space.blocks, fill, strict=True):
        values[block.kernel], values[block.expand] = option.kernel_size, option.expand_ratio
    for column, value in others.items():
        values[column] = value
    return space.architecture(values)


def _depth_columns(space: SearchSpace) -> dict[int, tuple[int, ...]]:
    columns = sorted({block.depth for block in space.blocks if block.depth >= 0})
    return {column: space.choices[column].options for column in columns}


def _pairs(space: SearchSpace) -> list[list[_Option]]:
    """The ways to fill each block with an op, without their keys."""
    return [
        [
            _Option(kernel_size, expand_ratio, "")
            for kernel_size, expand_ratio in itertools.product(
                space.choices[block.kernel].options, space.choices[block.expand].options
            )
            if expand_ratio
        ]
        for block in space.blocks
    ]


def _each_option_once(space: SearchSpace, resolution: int, frame: _Frame) -> list[Architecture]:
    """Networks of full depth in a frame; the j-th has the j-th option in every block."""
    pairs = _pairs(space)
    depths = {column: options[-1] for column, options in _depth_columns(space).items()}
    most = max(len(slot) for slot in pairs)
    return [
        _filled(space, resolution, [slot[j % len(slot)] for slot in pairs], {**depths, **frame})
        for j in range(most)
    ]


def _block_options(space: SearchSpace, resolution: int, frame: _Frame) -> list[list[_Option]]:
    """The ways to fill each block in a frame, absence included where it is offered."""
    archs = _each_option_once(space, resolution, frame)
    keys = [{op.slot: op.spec.key for op in arch.ops} for arch in archs]
    out = []
    for block, pairs in zip(space.blocks, _pairs(space), strict=True):
        slot = [o._replace(key=keys[j][block.slot]) for j, o in enumerate(pairs)]
        if 0 in space.choices[block.expand].options:
            slot.append(_Option(0, 0, f"no {block.slot}"))
        out.append(slot)
    return out


def _least_seen(
    space: SearchSpace,
    resolution: int,
    frame: _Frame,
    options: list[list[_Option]],
    seen: Counter[str],
    rng: np.random.Generator,
) -> tuple[Architecture, set[str]]:
    """The next covering network and what it holds: op keys, absences, depths."""
    depths: dict[int, int] = {}
    marks: set[str] = set()
    for column, offered in _depth_columns(space).items():
        names = [f"{space.choices[column].name}={depth}" for depth in offered]
        depths[column] = offered[_rarest(names, seen, rng)]
        marks.add(f"{space.choices[column].name}={depths[column]}")
    used = Counter(seen)
    fill = []
    for block, slot in zip(space.blocks, options, strict=True):
        option = slot[_rarest([o.key for o in slot], used, rng)]
        fill.append(option)
        if block.depth < 0 or block.position < depths[block.depth]:
            used[option.key] += 1
            marks.add(option.key)
    return _filled(space, resolution, fill, {**depths, **frame}), marks


def _rarest(names: list[str], seen: Counter[str], rng: np.random.Generator) -> int:
    """Index of the name seen least, ties at random."""
    least = min(seen[name] for name in names)
    return int(rng.choice([i for i, name in enumerate(names) if seen[name] == least]))


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
            f"beside {len(used)} others; lower profile.heldout"
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
