"""Costs of a space with elastic widths, against the ops of random networks."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from hwnas import spaces
from hwnas.config import SearchConfig
from hwnas.counting import exact_costs
from hwnas.search import pareto
from hwnas.search.cost import AdditiveTerms, count_terms, sum_terms
from hwnas.search.elastic_front import elastic_front
from hwnas.search.layout import layout
from hwnas.search.problem import make_problem, metrics_of
from hwnas.searchers import search
from profilers.errors import ConfigError, InfeasibleError
from profilers.schema import sha256_text

SPACE = spaces.load("ofa-resnet50d").restricted([128, 224])


def _price(spec):
    """A made-up latency, ms: no sum of widths explains it."""
    return int(sha256_text(spec.key)[:6], 16) / 2**24


def _small():
    """A space small enough to enumerate, its widths elastic."""
    stages = tuple(
        dataclasses.replace(s, n_blocks=1, depths=(1,), expand_ratios=(20, 35))
        for s in SPACE.stages[:2]
    )
    return dataclasses.replace(SPACE, stages=stages)


def test_exact_metrics_equal_the_sums_over_the_ops_of_networks():
    genome = SPACE.sample(200, np.random.default_rng(0))
    terms = count_terms(SPACE)
    expected = [exact_costs(arch) for arch in SPACE.architectures(genome)]
    for name, metric in terms.items():
        assert metric.evaluate(genome).tolist() == [costs[name] for costs in expected]


def test_every_op_of_a_network_is_priced_by_the_table_with_the_intercept():
    genome = SPACE.sample(100, np.random.default_rng(1))
    found = sum_terms(SPACE, _price, lambda px: px / 100).evaluate(genome)
    for value, arch in zip(found, SPACE.architectures(genome), strict=True):
        expected = sum(_price(op.spec) for op in arch.ops) + arch.resolution / 100
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("largest", [False, True])
def test_the_smallest_value_is_that_of_enumeration(largest):
    space = _small()
    every = np.array(list(itertools.product(*(range(len(c.options)) for c in space.choices))))
    if largest:
        metric = count_terms(space)["peak_activation_bytes"]
    else:
        metric = sum_terms(space, _price, lambda px: 1.0 if px == 128 else 0.0)
    assert metric.smallest() == metric.evaluate(every).min()


def test_networks_that_differ_in_a_width_only_are_told_apart():
    genome = SPACE.sample(50, np.random.default_rng(2))
    other = genome.copy()
    column = SPACE.columns["stage2.width"]
    other[:, column] = (other[:, column] + 1) % 3
    plan = layout(SPACE)
    names, others = plan.identity(genome), plan.identity(other)
    assert all(a != b for a, b in zip(names, others, strict=True))
    assert len(set(names)) == len(set(SPACE.architectures(genome)))


def test_terms_of_free_choices_are_added_and_reach_their_smallest():
    space, rng = _small(), np.random.default_rng(3)
    plan = layout(space)
    n_blocks, n_resolutions, _, n_kernels, n_expands = plan.shape
    block = rng.normal(size=(n_resolutions, n_blocks, n_kernels, n_expands))
    free = rng.normal(size=(len(plan.free), plan.n_free))
    terms = AdditiveTerms(space, rng.normal(size=n_resolutions), block, free=free)
    every = np.array(list(itertools.product(*(range(len(c.options)) for c in space.choices))))
    plain = AdditiveTerms(space, terms.fixed, terms.block).evaluate(every)
    added = free[np.arange(len(plan.free)), every[:, plan.free]].sum(axis=1)
    assert np.allclose(terms.evaluate(every), plain + added)
    offered = np.broadcast_to(plan.offered, block.shape)
    assert terms.smallest(offered) == terms.evaluate(every).min()


def _error(space, rng):
    """Random terms of every kind: blocks, depths, free choices, resolutions."""
    plan = layout(space)
    n_blocks, n_resolutions, n_depths, n_kernels, n_expands = plan.shape
    return AdditiveTerms(
        space,
        rng.normal(size=n_resolutions),
        rng.normal(size=(n_resolutions, n_blocks, n_kernels, n_expands)),
        rng.normal(size=(n_resolutions, len(space.stages), n_depths)),
        free=rng.normal(size=(len(plan.free), plan.n_free)),
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_front_is_that_of_enumeration(seed):
    space = dataclasses.replace(
        _small(),
        stages=tuple(
            dataclasses.replace(s, n_blocks=2, depths=(1, 2), expand_ratios=(20, 35))
            for s in _small().stages[:1]
        ),
    )
    rng = np.random.default_rng(seed)
    every = np.array(list(itertools.product(*(range(len(c.options)) for c in space.choices))))
    terms = [_error(space, rng), sum_terms(space, _price, lambda px: px / 1000)]
    if seed == 3:
        terms.append(sum_terms(space, lambda spec: _price(spec) ** 2))
    costs = np.stack([metric.evaluate(every) for metric in terms], axis=1)
    for r in range(len(space.resolutions)):
        at = every[:, 0] == r
        best = {tuple(row) for row in costs[at][pareto.non_dominated(costs[at])]}
        found = elastic_front(space, terms, None)
        found = found[found[:, 0] == r]
        reached = np.stack([metric.evaluate(found) for metric in terms], axis=1)
        assert {tuple(row) for row in reached} == best
    limits = np.quantile(costs, 0.5, axis=0)
    found = elastic_front(space, terms, limits)
    reached = np.stack([metric.evaluate(found) for metric in terms], axis=1)
    assert len(found)
    assert (reached <= limits).all()


def _problem(config):
    error = AdditiveTerms(
        SPACE,
        np.zeros(2),
        -np.ones((2, len(SPACE.blocks), 1, 3)) * np.arange(3) / 100,
        free=-np.arange(3) * np.ones((len(layout(SPACE).free), 1)) / 50,
    )
    return make_problem(SPACE, config, metrics_of(SPACE, _price, error=error))


def test_evolution_reaches_no_further_than_the_exact_front():
    config = SearchConfig(population=20, generations=5, start_from_dp=False)
    found = search(_problem(config), config).front
    exact = search(_problem(config), SearchConfig(algorithm="dp")).front
    assert len(found) > 3
    assert len(exact) > len(found)
    for row in found.costs:
        assert (exact.costs <= row).all(axis=1).any()


def test_a_peak_budget_is_no_filter_where_widths_are_elastic():
    config = SearchConfig(algorithm="dp", budgets={"peak_activation_bytes": "90%"})
    with pytest.raises(ConfigError, match="filters no option of elastic widths"):
        search(_problem(config), config)


def test_an_impossible_budget_is_answered_with_the_smallest_reachable_value():
    config = SearchConfig(budgets={"macs": 1e6})
    with pytest.raises(InfeasibleError, match="smallest reachable is"):
        _problem(config)
