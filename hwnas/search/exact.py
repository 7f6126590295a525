"""The exact front of sums over a search space: its tables as a knapsack, its labels as genomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwnas.search import knapsack
from hwnas.search.cost import AdditiveTerms
from hwnas.search.elastic import ElasticTerms
from hwnas.search.elastic_front import elastic_front
from hwnas.search.grid import on_grid
from hwnas.search.layout import layout
from hwnas.space import SearchSpace

if TYPE_CHECKING:
    from hwnas.search.problem import Problem


def exact_front(problem: Problem, names: list[str]) -> np.ndarray:
    """(n, n_choices) genomes that hold every non-dominated combination of two or more sums.

    Links are not applied and resolutions not compared, so some of them may be dominated; budgets on
    other metrics than the named sums are not looked at.
    """
    terms = [problem.sums[name] for name in names]
    limits = [
        np.inf if term.link else problem.budgets.get(name, np.inf)
        for name, term in zip(names, terms, strict=True)
    ]
    return sum_front(problem.space, terms, problem.allowed, np.array(limits))


def sum_front(
    space: SearchSpace,
    terms: Sequence[AdditiveTerms | ElasticTerms],
    allowed: np.ndarray,
    limits: np.ndarray | None = None,
) -> np.ndarray:
    """(n, n_choices) genomes of every non-dominated combination of summed metrics, one network
    each, resolution by resolution.

    A link is monotone, so within one resolution it changes nothing about which network is best for
    a budget; between resolutions the caller drops what is dominated.

    Args:
        space: the search space.
        terms: m >= 2 metrics, all minimised; links are not applied.
        allowed: (R, B, K, E) options to choose from.
        limits: (m,) largest sums wanted; None: no limits.
    """
    sums = [metric for metric in terms if isinstance(metric, AdditiveTerms)]
    if space.elastic_columns or len(sums) < len(terms):
        return elastic_front(space, terms, limits)
    found = []
    for r in range(len(space.resolutions)):
        base = np.array([on_grid(t.fixed)[r] for t in sums])
        stages, options = _stages(space, sums, allowed, r)
        found.append(_genome(space, knapsack.front(base, stages, limits), options, r))
    return np.concatenate(found)


def _stages(
    space: SearchSpace, terms: list[AdditiveTerms], allowed: np.ndarray, r: int
) -> tuple[list[knapsack.Stage], list[np.ndarray]]:
    """The knapsack of one resolution, and of each block its options as (options, 2) kernel and
    expand indices.
    """
    plan, stages, pairs = layout(space), [], []
    for s, stage in enumerate(space.stages):
        blocks = []
        for b in np.flatnonzero(plan.stage_of == s):
            option = np.argwhere(allowed[r, b])
            there = plan.present[b, option[:, 1]]
            option = option[there | (option[:, 0] == 0)]  # one way to be absent
            costs = [t.cells[r, b, option[:, 0], option[:, 1]] for t in terms]
            blocks.append(np.stack(costs, axis=1))
            pairs.append(option)
        depths = stage.depths or (stage.n_blocks,)
        extra = [
            np.zeros(len(depths)) if t.depth is None else on_grid(t.depth)[r, s] for t in terms
        ]
        depth_costs = np.stack([e[: len(depths)] for e in extra], axis=1)
        stages.append(knapsack.Stage(tuple(blocks), depths, depth_costs))
    return stages, pairs


def _genome(
    space: SearchSpace, labels: knapsack.Labels, pairs: list[np.ndarray], r: int
) -> np.ndarray:
    """(n, n_choices) genomes of labels; dead choices get index 0."""
    genome = np.zeros((len(labels.costs), len(space.choices)), dtype=np.int64)
    genome[:, 0] = r
    for b, block in enumerate(space.blocks):
        there = labels.options[:, b] >= 0
        chosen = pairs[b][labels.options[there, b]]
        genome[there, block.kernel], genome[there, block.expand] = chosen[:, 0], chosen[:, 1]
        if block.depth >= 0:
            genome[:, block.depth] = labels.depths[:, block.stage]
    return genome
