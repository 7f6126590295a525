"""Policy gradient: its gradient against differences, shrinking, rewards, and enumerated fronts."""

from dataclasses import replace

import numpy as np
import pytest
from search_cases import DEPTHS, TINY, problem, settings, shares_of_true

from hwnas.search import searchers
from hwnas.search.archive import Archive
from hwnas.search.one_budget import Ledger, one_budget
from hwnas.search.searchers import policy_gradient as policy_of


# Seen over 18 runs, about 470 evaluations each: hinge mean 0.993, least 0.981; power 0.992, 0.977.
@pytest.mark.parametrize("tangled", [False, True], ids=["additive", "entangled"])
@pytest.mark.parametrize("reward", ["hinge", "power"])
def test_a_sweep_of_budgets_comes_near_the_true_hypervolume(reward, tangled):
    shares = shares_of_true("policy-gradient", tangled, 5, reward=reward)
    assert np.mean(shares) >= 0.98
    assert min(shares) >= 0.96


def test_it_learns_the_best_option_of_every_choice():
    rng = np.random.default_rng(0)
    best = TINY.sample(1, rng)
    policy = policy_of.uniform(TINY)
    for _ in range(60):
        genome = policy_of.draw(policy, 30, rng)
        policy = policy_of.updated(policy, genome, (genome == best).mean(axis=1))
    assert np.array_equal(policy.probability.argmax(axis=1), best[0])


def test_only_offered_options_are_drawn_and_all_of_them():
    policy = policy_of.uniform(DEPTHS)
    assert policy.probability.sum(axis=1) == pytest.approx(1)
    genome = policy_of.draw(policy, 4000, np.random.default_rng(0))
    for column, n in enumerate(DEPTHS.n_options):
        assert np.bincount(genome[:, column]) / 4000 == pytest.approx(np.full(n, 1 / n), abs=0.05)


def test_the_entropy_gradient_is_that_of_differences():
    alpha = np.random.default_rng(0).normal(size=(3, 4))
    policy = replace(policy_of.uniform(TINY), alpha=alpha)

    def entropy(a):
        p = replace(policy, alpha=a).probability
        return -(p * np.log(p)).sum()

    step, found = 1e-6, policy_of.entropy_gradient(policy.probability)
    for place in np.ndindex(alpha.shape):
        shift = np.zeros_like(alpha)
        shift[place] = step
        slope = (entropy(alpha + shift) - entropy(alpha - shift)) / (2 * step)
        assert found[place] == pytest.approx(slope, abs=1e-6)


def test_unlikely_options_are_dropped_for_good_and_one_always_stays():
    policy = policy_of.uniform(TINY)
    alpha = policy.alpha.copy()
    alpha[0, :2] = [9.0, 4.0]  # of five resolutions
    shrunk = policy_of.without_unlikely(replace(policy, alpha=alpha))
    assert (shrunk.probability[0] > 0).tolist() == [True, False, False, False, False]
    rng = np.random.default_rng(0)
    for _ in range(20):
        genome = policy_of.draw(shrunk, 20, rng)
        assert not genome[:, 0].any()
        shrunk = policy_of.updated(shrunk, genome, rng.normal(size=20))
    assert np.isfinite(shrunk.probability).all()


@pytest.mark.parametrize("form", ["hinge", "power"])
def test_rewards_are_the_accuracy_within_the_budget_and_fall_beyond_it(form):
    case = problem()
    view = one_budget(case)
    seen = Ledger(Archive(case, limit=500)).look(TINY.sample(300, np.random.default_rng(0)))
    reward, cost = policy_of.Reward(view, 0.6, 1.0, form)(seen), view.cost(seen.genome)
    accuracy = 1 - seen.costs[:, 0]
    assert np.array_equal(reward[cost <= 0.6], accuracy[cost <= 0.6])
    over = cost > 0.6
    assert (reward[over] < accuracy[over]).all()
    lost = (accuracy - reward)[over] / (accuracy[over] if form == "power" else 1)
    assert (np.diff(lost[np.argsort(cost[over])]) >= 0).all()


def test_a_user_budget_ends_the_sweep():
    case = problem(budgets={"latency_ms": "60%"})
    levels = one_budget(case).levels(settings(rounds=40))
    assert levels[-1] == 1
    last = searchers.search(case, settings("policy-gradient", 20, 40))
    assert (last.front.costs[:, 1] <= case.budgets["latency_ms"]).all()
    assert last.front.costs[:, 1].max() >= 0.9 * case.budgets["latency_ms"]
