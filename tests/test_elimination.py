"""Exact fronts against enumeration: spaces of every family, sums, maxima, peak budgets, limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from search_cases import RESNET, enumerate_space, random_price, random_space, random_terms

from hwnas.networks.space import SearchSpace
from hwnas.pricing import elimination, pareto
from hwnas.pricing.terms import Terms, count_terms, op_terms
from hwnas.search import joint
from hwnas.search.problem import make_problem, metrics_of
from hwnas.search.searchers import search
from hwnas.settings.config import SearchConfig
from profilers.errors import InfeasibleError


def fronts_of(space: SearchSpace, costs: np.ndarray, every: np.ndarray) -> list[set]:
    """Every non-dominated row of costs at each resolution, by enumeration."""
    at = [costs[every[:, 0] == r] for r in range(len(space.resolutions))]
    return [{tuple(row) for row in mine[pareto.non_dominated(mine)]} for mine in at]


def reached(terms, genome: np.ndarray) -> list[set]:
    costs = np.stack([dataclasses.replace(t, link=None).evaluate(genome) for t in terms], axis=1)
    n = len(terms[0].space.resolutions)
    found = [[tuple(row) for row in costs[genome[:, 0] == r]] for r in range(n)]
    assert all(len(set(rows)) == len(rows) for rows in found)  # one network each
    return [set(rows) for rows in found]


@pytest.mark.parametrize("seed", range(40))
def test_the_exact_front_is_that_of_enumeration(seed):
    rng = np.random.default_rng(seed)
    space = random_space(rng)
    every = enumerate_space(space)
    terms = [random_terms(space, rng) for _ in range(rng.integers(2, 4))]
    peak = count_terms(space)["peak_activation_bytes"]
    if seed % 3 == 0:
        terms[-1] = peak  # a maximum as one of the costs
    costs = np.stack([metric.evaluate(every) for metric in terms], axis=1)
    assert reached(terms, elimination.front(terms)) == fronts_of(space, costs, every)
    budget = float(np.quantile(peak.evaluate(every), rng.uniform(0, 0.9)))
    limits = np.quantile(costs, rng.uniform(0.2, 0.9), axis=0)
    limits[int(rng.integers(len(limits)))] = np.inf
    fits = (peak.evaluate(every) <= budget) & (costs <= limits).all(axis=1)
    found = elimination.front(terms, peak.within(budget), limits)
    assert reached(terms, found) == fronts_of(space, costs[fits], every[fits])


def test_many_equal_options_give_each_front_point_once():
    space = random_space(np.random.default_rng(2))
    terms = [op_terms(space, lambda op: 1.0), op_terms(space, lambda op: -1.0)]
    every = enumerate_space(space)
    costs = np.stack([metric.evaluate(every) for metric in terms], axis=1)
    assert reached(terms, elimination.front(terms)) == fronts_of(space, costs, every)


def test_limits_that_nothing_meets_leave_no_network():
    terms = [count_terms(RESNET)[name] for name in ("macs", "params")]
    assert elimination.front(terms, None, [1.0, np.inf]).shape == (0, len(RESNET.choices))


def test_the_front_of_a_space_too_large_to_enumerate_beats_every_sample_of_it():
    rng = np.random.default_rng(0)
    terms = [random_terms(RESNET, rng), op_terms(RESNET, random_price(0))]
    front = np.stack([t.evaluate(elimination.front(terms)) for t in terms], axis=1)
    sample = np.stack([t.evaluate(RESNET.sample(3000, rng)) for t in terms], axis=1)
    assert all((front <= row).all(axis=1).any() for row in sample)


# ---- elastic widths in whole searches ----------------------------------------------------------


def _problem(config: SearchConfig):
    error = random_terms(RESNET, np.random.default_rng(1))
    shift = Terms(RESNET, (((0,), np.full(2, 1000.0)),))
    positive = Terms(RESNET, error.factors + shift.factors)
    return make_problem(RESNET, config, metrics_of(RESNET, random_price(0), error=positive))


def test_evolution_reaches_no_further_than_the_exact_front():
    config = SearchConfig(population=20, generations=5, start_from_dp=False)
    found = search(_problem(config), config).front
    exact = search(_problem(config), SearchConfig(algorithm="dp")).front
    assert len(exact) > len(found) > 3
    for row in found.costs:
        assert (exact.costs <= row).all(axis=1).any()


def test_a_peak_budget_holds_in_an_exact_search_of_elastic_widths():
    config = SearchConfig(algorithm="dp", budgets={"peak_activation_bytes": "60%"})
    case = _problem(config)
    front = search(case, config).front
    assert len(front) > 3
    assert (case.violation(front.genome) == 0).all()
    loose = search(_problem(SearchConfig(algorithm="dp")), SearchConfig(algorithm="dp")).front
    assert front.costs[:, 0].min() >= loose.costs[:, 0].min()


def test_a_joint_front_over_targets_holds_for_elastic_widths():
    latency = {f"board{seed}": op_terms(RESNET, random_price(seed)) for seed in (1, 2)}
    shared = metrics_of(RESNET, error=random_terms(RESNET, np.random.default_rng(0)))
    stated = joint.joint_problem(RESNET, shared, latency, "mean")
    front = search(stated, SearchConfig(algorithm="dp")).front
    sample = stated.evaluate(RESNET.sample(2000, np.random.default_rng(3)))
    assert all((front.costs <= row).all(axis=1).any() for row in sample)


def test_an_impossible_budget_is_answered_with_the_smallest_reachable_value():
    with pytest.raises(InfeasibleError, match="smallest reachable is"):
        _problem(SearchConfig(budgets={"macs": 1e6}))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_what_is_kept_of_sums_ascends_by_the_first_cost(m):
    sums = np.random.default_rng(m).integers(0, 9, (m, 60)).astype(float)
    kept = elimination.keep(sums)
    wanted = {tuple(row) for row in sums.T[pareto.non_dominated(sums.T)]}
    found = [tuple(column) for column in sums[:, kept].T]
    assert found == sorted(wanted)
    assert len(elimination.keep(np.zeros((m, 0)))) == 0
