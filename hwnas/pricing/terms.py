"""A metric of a space's networks as tables over choices: their sum or the largest, then a link.

A factor is a table over the few choices that one part of the metric depends on. Factors are put
into the places of the space, so pricing a population is one gather for each place. Sums: values are
rounded to multiples of 2^-40, so that adding them up is exact in any order (below 8192 in absolute
value) and equal networks cost equal numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.networks.counts import SUMS
from hwnas.networks.ops import Op
from hwnas.networks.slots import Columns, op_tables, peak_tables
from hwnas.networks.space import SearchSpace
from hwnas.pricing.exact_sums import on_grid
from hwnas.pricing.links import Link
from hwnas.pricing.places import places

PIECE = 8192  # genomes priced at once: their indices stay in the cache
Factor = tuple[Columns, np.ndarray]  # columns ascending, one axis for each


@dataclass(frozen=True, eq=False)
class Terms:
    """A metric that joins factors.

    Attributes:
        space: whose genomes it prices.
        factors: the tables; of a maximum none is negative.
        largest: whether the largest value counts, not the sum.
        link: applied to the joined value; None: that is the metric.
    """

    space: SearchSpace
    factors: tuple[Factor, ...]
    largest: bool = False
    link: Link | None = None

    @functools.cached_property
    def tables(self) -> np.ndarray:
        """(P, R, sizes...) factors by place, each joined into the last place that holds it."""
        plan = places(self.space)
        out = np.zeros(plan.shape)
        join = np.maximum if self.largest else np.add
        for columns, values in self.factors:
            place = plan.holder(columns)
            cells = out[place][plan.cells(place)]
            join(cells, plan.spread(place, columns, on_grid(values)), out=cells)
        return out

    @functools.cached_property
    def _flat(self) -> np.ndarray:
        return self.tables.reshape(-1)

    def at(self, index: np.ndarray) -> np.ndarray:
        """(n,) metric at (P, n) cells of the places."""
        found = self._flat.take(index)
        joined = np.asarray(found.max(axis=0) if self.largest else found.sum(axis=0))
        return self.link(joined) if self.link else joined

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) metric of (n, n_choices) genomes."""
        return evaluate_all([self], genome)[:, 0]

    def within(self, budget: float) -> np.ndarray:
        """(P, R, sizes...) the cells that a network may have whose largest value is within a
        budget.
        """
        return np.asarray(self.tables <= budget)

    def times(self, factor: float) -> Terms:
        """The sum, or the largest, without its link, times a factor (above 0 of the largest)."""
        scaled = tuple((columns, factor * values) for columns, values in self.factors)
        return Terms(self.space, scaled, self.largest)


def evaluate_all(terms: Sequence[Terms], genome: np.ndarray) -> np.ndarray:
    """(n, len(terms)) metrics of (n, n_choices) genomes of one space, looked up together."""
    plan = places(terms[0].space)
    out = np.empty((len(genome), len(terms)))
    for start in range(0, len(genome), PIECE):
        index = plan.index(genome[start : start + PIECE])
        for column, metric in enumerate(terms):
            out[start : start + PIECE, column] = metric.at(index)
    return out


# ---- from ops, from choices ---------------------------------------------------------------------


def op_terms(
    space: SearchSpace,
    cost_of: Callable[[Op], float],
    intercept: Callable[[int], float] | None = None,
    link: Link | None = None,
    largest: bool = False,
) -> Terms:
    """The sum of the costs of a network's ops, or the largest of them.

    Args:
        space: the search space.
        cost_of: cost of one op, in the metric's unit; not negative where the largest counts.
        intercept: what a network of a resolution (px) costs besides its ops; None: nothing.
        link: applied to the sum; None: the sum is the metric.
        largest: whether the largest counts, not the sum.
    """
    price = functools.cache(cost_of)
    factors: list[Factor] = []
    for columns, ops in op_tables(space).values():
        flat = [0.0 if op is None else price(op) for op in ops.reshape(-1)]
        factors.append((columns, np.array(flat, dtype=np.float64).reshape(ops.shape)))
    if intercept is not None:
        factors.append(((0,), np.array([intercept(px) for px in space.resolutions])))
    return Terms(space, tuple(factors), largest, link)


def choice_terms(
    space: SearchSpace, weight: Callable[[int, int], float], constant: float = 0.0
) -> Terms:
    """A constant and a weight for each option that a network has chosen and that is live.

    Args:
        space: the search space.
        weight: of a choice's column and one of its options; never asked for option 0 (no block).
        constant: what every network has.
    """
    factors: list[Factor] = [((0,), np.full(len(space.resolutions), constant))]
    for column, choice in enumerate(space.choices):
        weights = {option: weight(column, option) if option else 0.0 for option in choice.options}
        weights[0] = 0.0  # a dead choice
        columns = tuple(sorted({column, *space.gates[column]}))
        shape = tuple(space.n_options[list(columns)].tolist())
        genome = np.zeros((int(np.prod(shape)), len(space.choices)), dtype=np.int64)
        genome[:, columns] = np.indices(shape).reshape(len(shape), -1).T
        values = [weights[v] for v in space.canonical(genome)[:, column].tolist()]
        factors.append((columns, np.array(values).reshape(shape)))
    return Terms(space, tuple(factors))


# ---- metrics by name ----------------------------------------------------------------------------

UNITS = {
    "error": "fraction",
    "latency_ms": "ms",
    "energy_mj": "mJ",
    "macs": "MACs",
    "params": "parameters",
    "weight_bytes": "bytes",
    "peak_activation_bytes": "bytes",
}


def count_terms(space: SearchSpace) -> dict[str, Terms]:
    """The exact metrics of a space by name: MACs, parameters, weight bytes, peak activation
    memory.
    """
    terms = {name: op_terms(space, count) for name, count in SUMS.items()}
    peak = Terms(space, tuple(peak_tables(space).values()), largest=True)
    return {**terms, "peak_activation_bytes": peak}
