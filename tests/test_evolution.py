"""once-for-all's evolution: bounded rejection, operators, and the best network of a budget."""

import numpy as np
import pytest
from search_cases import DEPTHS, TINY, enumerate_space, problem, settings, shares_of_true

from hwnas.search import searchers
from hwnas.search.one_budget import one_budget, units
from hwnas.search.searchers import evolution


# Seen over 18 runs, about 400 evaluations each: mean 0.986, least 0.972.
@pytest.mark.parametrize("tangled", [False, True], ids=["additive", "entangled"])
def test_a_sweep_of_budgets_comes_near_the_true_hypervolume(tangled):
    shares = shares_of_true("evolution", tangled, 5)
    assert np.mean(shares) >= 0.975
    assert min(shares) >= 0.95


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_best_network_of_a_budget_is_nearly_the_true_one(share):
    genome, ratios = enumerate_space(TINY), []
    for seed in range(5):
        case = problem(seed=seed, budgets={"latency_ms": f"{share:.0%}"})
        last = searchers.search(case, settings("evolution", 50, 20, seed=seed))
        assert last.evaluations <= 500
        true = case.evaluate(genome)[case.violation(genome) == 0, 0].min()
        ratios.append(last.front.costs[:, 0].min() / true)
    print(f"budget {share:.0%}: error over the least error {np.max(ratios):.4f} at most")
    assert max(ratios) <= 1.2  # seen over 10 seeds and 5 budgets: 1.098 at most


def test_nothing_beyond_the_budget_is_evaluated():
    case = problem(budgets={"latency_ms": "50%"})
    for state in searchers.generations(case, settings("evolution")):
        assert (state.population.violation == 0).all()


def test_a_budget_that_chance_does_not_meet_starts_from_the_min_network():
    good = problem()
    latency = np.sort(good.predict(enumerate_space(TINY))["latency_ms"])
    case = problem(budgets={"latency_ms": float(latency[2])})
    assert len(searchers.search(case, settings("evolution", 4, 10)).front)


def test_rejection_ends():
    asked = []

    def draw(n):
        asked.append(n)
        return TINY.sample(n, np.random.default_rng(len(asked)))

    none = evolution.drawn_within(draw, 10, lambda genome: np.zeros(len(genome), dtype=bool))
    assert none.shape == (0, len(TINY.choices))
    assert sum(asked) <= 10 * evolution.ATTEMPTS


def test_mutation_draws_a_tenth_of_the_blocks_and_half_of_the_resolutions_again():
    parents = TINY.sample(1, np.random.default_rng(0))
    moved = evolution.mutated(TINY, parents, 20_000, np.random.default_rng(1)) != parents
    other = 1 - 1 / TINY.n_options  # drawing again may give the same option
    assert moved[:, 0].mean() / other[0] == pytest.approx(0.5, rel=0.05)
    assert moved[:, 1:].mean(axis=0) / other[1:] == pytest.approx(np.full(10, 0.1), rel=0.1)


def test_units_hold_every_choice_once_and_a_block_whole():
    groups = units(DEPTHS)
    assert groups.sum(axis=0).tolist() == [1] * len(DEPTHS.choices)
    assert groups[0].nonzero()[0].tolist() == [0]
    assert sorted(groups.sum(axis=1).tolist()) == [1, 1, 1, 2, 2, 2, 2, 2]


def test_crossing_takes_every_choice_from_a_parent():
    parents = TINY.sample(2, np.random.default_rng(0))
    children = evolution.crossed(parents, 100, np.random.default_rng(1))
    assert ((children == parents[0]) | (children == parents[1])).all()


def test_a_sweep_searches_fewer_budgets_where_the_generations_are_few():
    view = one_budget(problem())
    assert len(view.levels(settings(rounds=100))) == 8
    assert len(view.levels(settings(rounds=5))) == 2
    assert len(view.levels(settings(rounds=1))) == 1
    assert view.levels(settings(rounds=1))[-1] == 1
