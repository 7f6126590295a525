"""The exact front of sums over a space with elastic widths: choices are decided one after another.

An op depends on a few choices, so each metric is a sum of small tables. Deciding a choice joins the
tables that mention it: for every combination of their other choices it leaves the non-dominated
sums over its options. What is still to come depends on those other choices alone and adds the same
to all of these sums, so what is dominated now is dominated at the end: the answer is exact. Widths
chain the stages, so no table spans more than two of them. Bucket elimination: Dechter 1999, "Bucket
elimination: a unifying framework for reasoning"; here with sets of non-dominated sums in place of
minima.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hwnas.search.cost import AdditiveTerms
from hwnas.search.elastic import ElasticTerms, Table
from hwnas.search.grid import on_grid
from hwnas.search.knapsack import keep
from hwnas.search.layout import layout
from hwnas.space import SearchSpace


class _Labels(NamedTuple):
    """Non-dominated sums (m, n) and the option indices decided for them (n, n_choices), else -1."""

    sums: np.ndarray
    genome: np.ndarray


class _Factor(NamedTuple):
    """Labels at each combination of the options of some columns (ascending)."""

    columns: tuple[int, ...]
    cells: np.ndarray  # of _Labels, one axis for each column


def elastic_front(
    space: SearchSpace, terms: Sequence[AdditiveTerms | ElasticTerms], limits: np.ndarray | None
) -> np.ndarray:
    """(n, n_choices) genomes of every non-dominated combination of sums, one network each,
    resolution by resolution; links are not applied.

    Args:
        space: of elastic widths.
        terms: m >= 2 sums, all minimised.
        limits: (m,) largest sums wanted; None: no limits.
    """
    factors = _factors(space, terms)
    for column in range(len(space.choices) - 1, 0, -1):
        touching = [factor for factor in factors if column in factor.columns]
        if touching:
            factors = [factor for factor in factors if column not in factor.columns]
            factors.append(_decided(space, _joined(space, touching), column))
    found = []
    for r, labels in enumerate(_joined(space, factors).cells):
        fits = np.ones(labels.sums.shape[1], dtype=bool)
        if limits is not None:
            fits = (labels.sums <= np.asarray(limits)[:, None]).all(axis=0)
        genome = np.maximum(labels.genome[fits], 0).astype(np.int64)  # undecided: changes nothing
        genome[:, 0] = r
        found.append(genome)
    return np.concatenate(found)


def _factors(space: SearchSpace, terms: Sequence[AdditiveTerms | ElasticTerms]) -> list[_Factor]:
    """The tables of all metrics, those over the same columns together."""
    values: dict[tuple[int, ...], np.ndarray] = {}
    for m, metric in enumerate(terms):
        tables = metric.tables() if isinstance(metric, ElasticTerms) else _tables(space, metric)
        for columns, table in tables:
            sums = values.setdefault(columns, np.zeros((len(terms), *table.shape)))
            sums[m] += table
    undecided = np.full((1, len(space.choices)), -1, dtype=np.int8)
    out = []
    for columns, sums in values.items():
        cells = np.empty(sums.shape[1:], dtype=object)
        for index in np.ndindex(cells.shape):
            cells[index] = _Labels(sums[(slice(None), *index)][:, None], undecided)
        out.append(_Factor(columns, cells))
    return out


def _tables(space: SearchSpace, terms: AdditiveTerms) -> list[Table]:
    """A sum over blocks as tables over the columns that each of its terms depends on."""
    plan = layout(space)
    out: list[Table] = [((0,), on_grid(terms.fixed))]
    for b, block in enumerate(space.blocks):
        columns = (block.depth, block.kernel, block.expand)
        n_depths, n_kernels, n_expands = (len(space.choices[c].options) for c in columns)
        cells = terms.cells[:, b, None, :n_kernels, :n_expands]
        there = plan.live[b, :n_depths, None, :n_expands]
        out.append(((0, *columns), np.where(there, cells, 0.0)))
    if terms.depth is not None:
        for s, column in {block.stage: block.depth for block in space.blocks}.items():
            n_depths = len(space.choices[column].options)
            out.append(((0, column), on_grid(terms.depth)[:, s, :n_depths]))
    if terms.free is not None:
        for column, values in zip(plan.free.tolist(), on_grid(terms.free), strict=True):
            out.append(((column,), values[: len(space.choices[column].options)]))
    return out


def _joined(space: SearchSpace, factors: Sequence[_Factor]) -> _Factor:
    """Several factors as one over all their columns."""
    columns = tuple(sorted({column for factor in factors for column in factor.columns}))
    cells = np.empty([len(space.choices[c].options) for c in columns], dtype=object)
    axes = [[columns.index(c) for c in factor.columns] for factor in factors]
    for index in np.ndindex(cells.shape):
        parts = [
            f.cells[tuple(index[a] for a in own)] for f, own in zip(factors, axes, strict=True)
        ]
        parts.sort(key=lambda labels: labels.sums.shape[1])
        total = parts[0]
        for part in parts[1:]:
            total = _added(total, part)
        cells[index] = total
    return _Factor(columns, cells)


def _added(one: _Labels, other: _Labels) -> _Labels:
    """The non-dominated sums of a label of each."""
    n = other.sums.shape[1]
    sums = (one.sums[:, :, None] + other.sums[:, None, :]).reshape(len(one.sums), -1)
    kept = keep(sums) if sums.shape[1] > 1 else np.zeros(1, dtype=np.int64)
    return _Labels(sums[:, kept], np.maximum(one.genome[kept // n], other.genome[kept % n]))


def _decided(space: SearchSpace, factor: _Factor, column: int) -> _Factor:
    """A factor without a column: the non-dominated labels over its options."""
    axis = factor.columns.index(column)
    options = np.moveaxis(factor.cells, axis, -1)
    cells = np.empty(options.shape[:-1], dtype=object)
    for index in np.ndindex(cells.shape):
        genomes = [labels.genome.copy() for labels in options[index]]
        for option, genome in enumerate(genomes):
            genome[:, column] = option
        sums = np.concatenate([labels.sums for labels in options[index]], axis=1)
        kept = keep(sums)
        cells[index] = _Labels(sums[:, kept], np.concatenate(genomes)[kept])
    return _Factor((*factor.columns[:axis], *factor.columns[axis + 1 :]), cells)
