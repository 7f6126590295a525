"""All non-dominated sums of a multiple-choice knapsack whose stages have a choice of depth.

Goes through the blocks and carries the partial sums that no other one beats. What follows adds the
same to two partial sums, so what is dominated now is dominated at the end: the answer is exact for
costs of any sign, and nothing is rounded. Plain arrays; knows no search space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwnas.search import pareto


@dataclass(frozen=True, eq=False)
class Stage:
    """Blocks in order, of which the first `depth` are kept.

    Attributes:
        blocks: for each block its options' costs, (options, m); no row: the block cannot be had,
            which closes the depths beyond it.
        depths: the depths offered.
        depth_costs: (len(depths), m) cost of choosing each depth besides its blocks.
    """

    blocks: tuple[np.ndarray, ...]
    depths: tuple[int, ...]
    depth_costs: np.ndarray


@dataclass(frozen=True, eq=False)
class Labels:
    """Non-dominated sums and the choices that give them.

    Attributes:
        costs: (n, m) sums, ascending by the first.
        depths: (n, S) index of the depth chosen in each stage.
        options: (n, B) option of each block, all stages in a row; -1 beyond the depth.
    """

    costs: np.ndarray
    depths: np.ndarray
    options: np.ndarray


@dataclass(frozen=True, eq=False)
class _Trace:
    """How a stage's labels came about.

    Attributes:
        parents, options: for each block, of each label kept after it: the label before it, the
            option taken.
        depth: of each label at the stage's end: index of its depth.
        placed: how many blocks that depth keeps.
        place: its label in the list after that many blocks.
    """

    parents: tuple[np.ndarray, ...]
    options: tuple[np.ndarray, ...]
    depth: np.ndarray
    placed: np.ndarray
    place: np.ndarray


def front(base: np.ndarray, stages: Sequence[Stage], limits: np.ndarray | None = None) -> Labels:
    """Every non-dominated sum once, with one way to get it.

    Args:
        base: (m,) costs that every choice has, m >= 2, all minimised.
        stages: in order.
        limits: (m,) largest sums wanted, infinite for none; None: no limits.

    Returns:
        Labels; none of them if no choice meets the limits.
    """
    sums = np.asarray(base, dtype=np.float64)[:, None]
    to_come = _least_to_come(stages, len(sums))
    traces = []
    for number, stage in enumerate(stages, start=1):
        sums, trace = _through(stage, sums)
        if limits is not None:
            fits = (sums + to_come[number][:, None] <= np.asarray(limits)[:, None]).all(axis=0)
            sums = sums[:, fits]
            trace = replace(
                trace, depth=trace.depth[fits], placed=trace.placed[fits], place=trace.place[fits]
            )
        traces.append(trace)
    depths, options = _read_back(traces, sums.shape[1])
    return Labels(np.ascontiguousarray(sums.T), depths, options)


def _least_to_come(stages: Sequence[Stage], m: int) -> list[np.ndarray]:
    """For each stage boundary the (m,) least that the stages beyond it cost, each cost alone."""
    out = [np.zeros(m)]
    for stage in reversed(stages):
        best = np.full(m, np.inf)
        for depth, extra in zip(stage.depths, stage.depth_costs, strict=True):
            least = [block.min(axis=0, initial=np.inf) for block in stage.blocks[:depth]]
            best = np.minimum(best, np.sum(least, axis=0) + extra)
        out.append(out[-1] + best)
    return out[::-1]


def _through(stage: Stage, sums: np.ndarray) -> tuple[np.ndarray, _Trace]:
    """(m, n) sums before a stage to those after it; the depths meet at its end."""
    lists, parents, options = [sums], [], []
    for block in stage.blocks:
        spread = (lists[-1][:, :, None] + block.T[:, None, :]).reshape(len(sums), -1)
        kept = keep(spread)
        lists.append(spread[:, kept])
        parents.append(kept // max(len(block), 1))
        options.append(kept % max(len(block), 1))
    ends = [
        lists[n] + extra[:, None] for n, extra in zip(stage.depths, stage.depth_costs, strict=True)
    ]
    merged = np.concatenate(ends, axis=1)
    kept = keep(merged)
    depth = np.repeat(np.arange(len(ends)), [end.shape[1] for end in ends])[kept]
    place = np.concatenate([np.arange(end.shape[1]) for end in ends])[kept]
    placed = np.array(stage.depths)[depth]
    return merged[:, kept], _Trace(tuple(parents), tuple(options), depth, placed, place)


def keep(sums: np.ndarray) -> np.ndarray:
    """Indices of the non-dominated columns of (m, n) sums, of equal ones the first, ascending by
    the first cost.
    """
    if not sums.shape[1]:
        return np.zeros(0, dtype=np.int64)
    if len(sums) == 2:
        return pareto.staircase(sums[0], sums[1])
    kept = np.flatnonzero(pareto.non_dominated(sums.T))
    return np.asarray(kept[np.lexsort(sums[::-1, kept])])


def _read_back(traces: list[_Trace], n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, S) depth indices and (n, B) options of the last stage's labels, by following parents."""
    at = np.arange(n)
    depths = np.zeros((n, len(traces)), dtype=np.int64)
    columns: list[np.ndarray] = []
    for s in range(len(traces) - 1, -1, -1):
        trace = traces[s]
        depths[:, s], placed, at = trace.depth[at], trace.placed[at], trace.place[at]
        for b in range(len(trace.parents) - 1, -1, -1):
            there = placed > b
            option = np.full(n, -1)
            option[there] = trace.options[b][at[there]]
            at = at.copy()
            at[there] = trace.parents[b][at[there]]
            columns.append(option)
    return depths, np.stack(columns[::-1], axis=1) if columns else np.zeros((n, 0), dtype=np.int64)
