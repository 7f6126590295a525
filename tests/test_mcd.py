"""Multi-layer coordinate descent: samples, winners, and how near it comes to enumerated fronts."""

import numpy as np
import pytest
from search_cases import DEPTHS, TINY, enumerate_space, problem, settings, shares_of_true

from hwnas.networks import spaces
from hwnas.pricing.places import places
from hwnas.search import searchers
from hwnas.search.archive import Archive, Population
from hwnas.search.one_budget import Ledger, one_budget, units
from hwnas.search.searchers import mcd

SPACES = pytest.mark.parametrize("space", [TINY, DEPTHS], ids=["tiny", "depths"])


def evaluated(case, genome) -> Population:
    return Ledger(Archive(case, limit=10_000)).look(genome)


# Seen over 18 runs, about 240 evaluations each: ratio mean 0.984, least 0.975; acc 0.975, 0.954.
@pytest.mark.parametrize("tangled", [False, True], ids=["additive", "entangled"])
@pytest.mark.parametrize(("rule", "mean", "least"), [("ratio", 0.97, 0.95), ("acc", 0.96, 0.93)])
def test_the_walk_comes_near_the_true_hypervolume(rule, mean, least, tangled):
    shares = shares_of_true("mcd", tangled, 5, winner=rule)
    assert np.mean(shares) >= mean
    assert min(shares) >= least


def test_on_a_large_space_it_needs_fewer_evaluations_than_chance_to_be_better():
    case = problem(spaces.load("mbv3-28"))
    walk = searchers.search(case, settings("mcd", 20, 40))
    chance = searchers.search(case, settings("random", 100, 40))
    assert walk.evaluations < chance.evaluations / 4
    better = (walk.front.costs[:, None] <= chance.front.costs[None]).all(axis=2).any(axis=0)
    assert better.mean() > 0.9


@SPACES
def test_a_sample_is_smaller_and_meets_the_target(space):
    view = one_budget(problem(space))
    largest = space.genome([space.largest])
    samples = mcd.proposals(view, largest, 0.8, 50, np.random.default_rng(0))
    assert len(samples) > 10
    assert (view.cost(samples) <= 0.8).all()
    assert (samples <= largest).all()
    assert len(set(places(space).identity(samples))) > 5


def test_a_sample_changes_no_more_units_than_it_drew():
    view = one_budget(problem())
    largest = TINY.genome([TINY.largest])
    samples = mcd.proposals(view, largest, 0.95, 50, np.random.default_rng(0))
    moved = (samples != largest)[:, None, :] & units(TINY)
    assert 1 <= moved.any(axis=2).sum(axis=1).max() <= mcd.SHRUNK


def test_a_step_that_few_units_cannot_make_is_made_by_more():
    view = one_budget(problem(spaces.load("mbv3-28")))
    space = view.problem.space
    least = float(view.cost(space.genome([space.smallest]))[0])
    largest = space.genome([space.largest])
    samples = mcd.proposals(view, largest, least * 1.02, 10, np.random.default_rng(0))
    assert len(samples)
    none = mcd.proposals(view, largest, least * 0.5, 10, np.random.default_rng(0))
    assert not len(none)


def test_winners_are_those_of_the_rules():
    case = problem()
    view = one_budget(case)
    here = evaluated(case, TINY.genome([TINY.largest]))
    samples = evaluated(case, TINY.sample(200, np.random.default_rng(0)))
    best = mcd.winner(view, here, samples, "acc")
    assert best.costs[0, 0] == samples.costs[:, 0].min()
    gained = samples.costs[:, 0] - here.costs[0, 0] + 1e-6
    saved = view.cost(here.genome) - view.cost(samples.genome) + 1e-5
    ratio = mcd.winner(view, here, samples, "ratio")
    assert np.array_equal(ratio.genome[0], samples.genome[(gained / saved).argmin()])


def test_the_walk_goes_down_to_the_cheapest_network_and_every_sample_is_in_the_archive():
    case = problem()
    view = one_budget(case)
    seen, front = [], None
    for state in searchers.generations(case, settings("mcd")):
        seen.append(state.population)
        front = state.front
    least = view.cost(enumerate_space(TINY)).min()
    assert min(view.cost(p.genome).min() for p in seen) == pytest.approx(least)
    for sample in seen:
        no_worse = (front.costs[:, None] <= sample.costs[None]).all(axis=2)
        assert no_worse.any(axis=0).all()


def test_one_walk_serves_every_budget_above_its_end():
    case = problem()
    latency, error = case.evaluate(enumerate_space(TINY)).T[::-1]
    front = searchers.search(case, settings("mcd", 50, 20)).front
    for share in (0.3, 0.5, 0.7, 0.9):
        budget = latency.min() + share * (latency.max() - latency.min())
        best = front.costs[front.costs[:, 1] <= budget, 0].min()
        assert best <= 1.25 * error[latency <= budget].min()


def test_several_budgets_are_one_relative_cost():
    case = problem(budgets={"latency_ms": "60%", "macs": "50%"})
    view, genome = one_budget(case), TINY.sample(300, np.random.default_rng(0))
    assert np.array_equal(view.cost(genome) <= 1, case.violation(genome) == 0)
    assert len(searchers.search(case, settings("mcd")).front)
