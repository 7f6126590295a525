"""The cost of a population: for each block and resolution a table of its options, one gather, one
sum.

Tables are read off `space.lower` of a few representative architectures and hold nothing that
`lower` does not say. They are exact where a block's op depends on its own choices and the
resolution only, which `additive_terms` checks. Sums: terms are rounded to multiples of 2^-40, so
that adding them up is exact in any order (below 8192 in absolute value) and equal networks cost
equal numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard

import numpy as np

from hwnas.search.elastic import ElasticTerms, elastic_terms
from hwnas.search.grid import on_grid
from hwnas.search.layout import layout
from hwnas.space import Architecture, PlacedOp, SearchSpace
from profilers import counts
from profilers.errors import ConfigError
from profilers.schema import OpSpec

PIECE = 8192  # genomes priced at once: their indices stay in the cache


class Link(Protocol):
    """A function that never falls, applied to a sum."""

    def __call__(self, score: np.ndarray, /) -> np.ndarray:
        """(n,) values at (n,) sums."""


@dataclass(frozen=True, eq=False)
class MonotoneLink:
    """A continuous, never falling, piecewise linear function, constant beyond its ends.

    Attributes:
        score: (k,) ascending knots.
        value: (k,) never falling values at the knots.
    """

    score: np.ndarray
    value: np.ndarray

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """(n,) values at (n,) scores; of two scores the larger never gets the smaller value."""
        at = np.clip(score, self.score[0], self.score[-1])
        if len(self.score) == 1:
            return np.full(np.shape(at), self.value[0])
        left = np.clip(np.searchsorted(self.score, at, "right") - 1, 0, len(self.score) - 2)
        slope = np.diff(self.value) / np.diff(self.score)
        line = self.value[left] + slope[left] * (at - self.score[left])
        # Rounding must not pass the next knot.
        return np.asarray(np.minimum(line, self.value[left + 1]))


@dataclass(frozen=True, eq=False)
class AdditiveTerms:
    """A metric that is a sum over an architecture's blocks: fixed part, depths, blocks; then,
    maybe, a monotone link.

    Attributes:
        space: whose genomes it prices.
        fixed: (R,) everything that is no elastic block, at each resolution.
        block: (R, B, K, E) each block at its options; absent blocks add nothing.
        depth: (R, S, D) term of each stage's depth option; None: none.
        link: applied to the sum; None: the sum is the metric.
        free: (F, O) term of each option of `Layout.free`; None: none.
    """

    space: SearchSpace
    fixed: np.ndarray
    block: np.ndarray
    depth: np.ndarray | None = None
    link: Link | None = None
    free: np.ndarray | None = None

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """(R, B, K, E) rounded block terms, 0 where the options mean that the block is absent."""
        return _present(self.space, on_grid(self.block))

    @functools.cached_property
    def table(self) -> np.ndarray:
        """Flat table; a stage's first block carries its depth term, the first of all the fixed
        part.
        """
        plan = layout(self.space)
        table = plan.blocks_to_table(self.cells)
        if self.depth is not None:
            firsts = np.unique(plan.stage_of, return_index=True)[1]
            table[firsts] += on_grid(self.depth).transpose(1, 0, 2)[:, :, :, None, None]
        table[0] += on_grid(self.fixed)[:, None, None, None]
        return plan.flat(table, None if self.free is None else on_grid(self.free))

    def at(self, index: np.ndarray) -> np.ndarray:
        """(n,) metric at (B + F, n) cells of the layout."""
        total = self.table.take(index).sum(axis=0)
        return self.link(total) if self.link else np.asarray(total)

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) metric of (n, n_choices) genomes."""
        return evaluate_all([self], genome)[:, 0]

    def smallest(self, allowed: np.ndarray) -> float:
        """The smallest value any network of allowed options reaches; infinite if there is none.

        Args:
            allowed: (R, B, K, E) which options a block may have (`Layout.offered` at least).
        """
        least = np.where(allowed, self.cells, np.inf).min(axis=(2, 3))
        total = on_grid(self.fixed).copy()
        for s, columns in _stages(self.space):
            prefix = np.cumsum(least[:, columns], axis=1)
            depths = self.space.stages[s].depths or (len(columns),)
            padded = np.concatenate((np.zeros((len(total), 1)), prefix), axis=1)
            reach = padded[:, list(depths)]
            if self.depth is not None:
                reach = reach + on_grid(self.depth)[:, s, : len(depths)]
            total = total + reach.min(axis=1)
        if self.free is not None:
            for terms, column in zip(self.free, layout(self.space).free, strict=True):
                total = total + on_grid(terms[: len(self.space.choices[column].options)]).min()
        least_total = total.min()
        if self.link is None or np.isinf(least_total):
            return float(least_total)
        return float(self.link(np.array([least_total]))[0])


@dataclass(frozen=True, eq=False)
class PeakTerms:
    """A metric that is the largest over an architecture's ops, as peak activation memory is.

    Attributes:
        space: whose genomes it prices.
        fixed: (R,) largest of all ops that are no elastic block.
        block: (R, B, K, E) each block at its options, at least 0; absent blocks count nothing.
    """

    space: SearchSpace
    fixed: np.ndarray
    block: np.ndarray

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """(R, B, K, E) block values, 0 where the options mean that the block is absent."""
        return _present(self.space, self.block)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """Flat table; the first block carries the fixed part."""
        plan = layout(self.space)
        table = plan.blocks_to_table(self.cells)
        table[0] = np.maximum(table[0], np.asarray(self.fixed)[:, None, None, None])
        return plan.flat(table)

    def at(self, index: np.ndarray) -> np.ndarray:
        """(n,) metric at (B + F, n) cells of the layout."""
        return np.asarray(self.table.take(index).max(axis=0))

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) metric of (n, n_choices) genomes."""
        return evaluate_all([self], genome)[:, 0]

    def within(self, budget: float) -> np.ndarray:
        """(R, B, K, E) the offered options that a network within the budget may have."""
        fits = (self.cells <= budget) & layout(self.space).offered
        return np.asarray(fits & (self.fixed <= budget)[:, None, None, None])

    def smallest(self, allowed: np.ndarray) -> float:
        """The smallest value any network of allowed options reaches; infinite if there is none."""
        least = np.where(allowed, self.cells, np.inf).min(axis=(2, 3))
        total = np.asarray(self.fixed, dtype=np.float64)
        for s, columns in _stages(self.space):
            kept = columns[: min(self.space.stages[s].depths or (len(columns),))]
            total = np.maximum(total, least[:, kept].max(axis=1, initial=0.0))
        return float(total.min())


Terms = AdditiveTerms | PeakTerms
SumTerms = AdditiveTerms | ElasticTerms


def is_sum(metric: object) -> TypeGuard[SumTerms]:
    """Whether a metric is a sum over a network's ops, so that its exact front can be computed."""
    if isinstance(metric, ElasticTerms):
        return not metric.largest
    return isinstance(metric, AdditiveTerms)


def evaluate_all(terms: Sequence[Terms], genome: np.ndarray) -> np.ndarray:
    """(n, len(terms)) metrics of (n, n_choices) genomes of one space, looked up together."""
    plan = layout(terms[0].space)
    out = np.empty((len(genome), len(terms)))
    for start in range(0, len(genome), PIECE):
        index = plan.index(genome[start : start + PIECE])
        for column, metric in enumerate(terms):
            out[start : start + PIECE, column] = metric.at(index)
    return out


def _present(space: SearchSpace, block: np.ndarray) -> np.ndarray:
    """(R, B, K, E) values with 0 where the options mean that the block is absent."""
    return np.asarray(np.where(layout(space).present[None, :, None, :], block, 0.0))


def _stages(space: SearchSpace) -> list[tuple[int, np.ndarray]]:
    """Each stage and the indices of its blocks."""
    stage_of = layout(space).stage_of
    return [(s, np.flatnonzero(stage_of == s)) for s in range(len(space.stages))]


# ---- tables from `lower` ------------------------------------------------------------------------


def additive_terms(
    space: SearchSpace,
    cost_of: Callable[[OpSpec], float],
    intercept: Callable[[int], float] | None = None,
) -> AdditiveTerms:
    """The terms of a metric that is the sum of its ops' costs.

    Args:
        space: the search space.
        cost_of: cost of one op, in the metric's unit.
        intercept: what a network of a resolution (px) costs besides its ops; None: nothing.

    Raises:
        ConfigError: an op outside the elastic blocks depends on their choices.
    """
    fixed, block = _op_values(space, cost_of, sum)
    if intercept is not None:
        fixed = fixed + np.array([intercept(r) for r in space.resolutions])
    return AdditiveTerms(space, fixed, block)


def peak_terms(space: SearchSpace, cost_of: Callable[[OpSpec], float]) -> PeakTerms:
    """The terms of a metric that is the largest of its ops' costs.

    Raises:
        ConfigError: an op outside the elastic blocks depends on their choices.
    """
    return PeakTerms(space, *_op_values(space, cost_of, max))


def sum_terms(
    space: SearchSpace,
    cost_of: Callable[[OpSpec], float],
    intercept: Callable[[int], float] | None = None,
    link: Link | None = None,
) -> AdditiveTerms | ElasticTerms:
    """The terms of a sum of ops' costs, whatever the widths of the space; as `additive_terms`.

    Args:
        link: applied to the sum; None: the sum is the metric.
    """
    if space.elastic_columns:
        return replace(elastic_terms(space, cost_of, intercept), link=link)
    return replace(additive_terms(space, cost_of, intercept), link=link)


def _op_values(
    space: SearchSpace, cost_of: Callable[[OpSpec], float], join: Callable[[list[float]], float]
) -> tuple[np.ndarray, np.ndarray]:
    """(R,) joined costs of the ops that are no elastic block, (R, B, K, E) costs of the blocks."""
    if space.elastic_columns:
        raise ConfigError(
            f"space {space.name} has elastic widths: an op's cost is no term of its block alone"
        )
    plan = layout(space)
    n_blocks, n_resolutions, _, n_kernels, n_expands = plan.shape
    block_of = {block.slot: b for b, block in enumerate(space.blocks)}
    price = functools.cache(cost_of)
    block = np.zeros((n_resolutions, n_blocks, n_kernels, n_expands))
    fixed = np.zeros(n_resolutions)
    for r in range(n_resolutions):
        rest: set[tuple[PlacedOp, ...]] = set()
        for k, e in np.ndindex(n_kernels, n_expands):
            ops = _representative(space, r, k, e).ops
            for slot, spec in ops:
                if slot in block_of:
                    block[r, block_of[slot], k, e] = price(spec)
            rest.add(tuple(op for op in ops if op.slot not in block_of))
        if len(rest) != 1:
            raise ConfigError(
                f"space {space.name} is not additive: ops outside its blocks depend on the blocks' "
                "choices; search it by measuring whole networks"
            )
        fixed[r] = join([price(spec) for _, spec in rest.pop()])
    return fixed, block


def _representative(space: SearchSpace, r: int, k: int, e: int) -> Architecture:
    """The network of full depth whose blocks all have kernel index k and expand index e, or their
    last option.
    """
    plan = layout(space)
    genome = space.n_options - 1
    genome[0] = r
    genome[plan.kernel] = np.minimum(k, genome[plan.kernel])
    genome[plan.expand] = np.minimum(e, genome[plan.expand])
    return space.architectures(genome[None])[0]


# ---- metrics by name ----------------------------------------------------------------------------

COUNTS: dict[str, Callable[[OpSpec], int]] = {
    "macs": counts.macs,
    "params": counts.params,
    "weight_bytes": counts.weight_bytes,
}
UNITS = {
    "error": "fraction",
    "latency_ms": "ms",
    "energy_mj": "mJ",
    "macs": "MACs",
    "params": "parameters",
    "weight_bytes": "bytes",
    "peak_activation_bytes": "bytes",
}


def count_terms(space: SearchSpace) -> dict[str, Terms | ElasticTerms]:
    """The exact metrics of a space by name: MACs, parameters, weight bytes, peak activation
    memory.
    """
    terms: dict[str, Terms | ElasticTerms] = {n: sum_terms(space, f) for n, f in COUNTS.items()}
    peak = counts.peak_activation_bytes
    terms["peak_activation_bytes"] = (
        elastic_terms(space, peak, largest=True)
        if space.elastic_columns
        else peak_terms(space, peak)
    )
    return terms
