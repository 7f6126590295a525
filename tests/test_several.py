"""Several targets at once: the worst and the mean share, and fleets against enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from search_cases import DEPTHS, enumerate_space, random_price, random_terms

from hwnas.pricing.terms import op_terms
from hwnas.search import fleet, joint, searchers
from hwnas.search.problem import metrics_of
from hwnas.search.space_profile import profile
from hwnas.settings.config import SearchConfig
from profilers.errors import ConfigError, InfeasibleError

LATENCY = {f"board{seed}": op_terms(DEPTHS, random_price(seed)) for seed in (1, 2, 3)}
SHARED = metrics_of(DEPTHS, error=random_terms(DEPTHS, np.random.default_rng(0)))
EVERY = enumerate_space(DEPTHS)


def _true_front(costs: np.ndarray) -> np.ndarray:
    beaten = (costs[:, None] >= costs).all(2) & (costs[:, None] > costs).any(2)
    return np.unique(costs[~beaten.any(1)], axis=0)


@pytest.mark.parametrize("mode", ["worst", "mean"])
def test_the_joint_front_is_the_true_one(mode):
    stated = joint.joint_problem(DEPTHS, SHARED, LATENCY, mode)
    found = searchers.search(stated, SearchConfig(population=20, generations=12))
    assert np.unique(found.front.costs, axis=0) == pytest.approx(
        _true_front(stated.evaluate(EVERY))
    )


def test_a_share_of_one_is_the_max_network_on_its_worst_target():
    stated = joint.joint_problem(DEPTHS, SHARED, LATENCY, "worst")
    share = stated.metrics[joint.SHARE].evaluate(EVERY)
    by_hand = [
        max(
            term.evaluate(EVERY[[row]])[0] / term.evaluate(DEPTHS.genome([DEPTHS.largest]))[0]
            for term in LATENCY.values()
        )
        for row in range(len(EVERY))
    ]
    assert share == pytest.approx(by_hand)


def test_weights_shift_the_mean_share_towards_a_target():
    heavy = joint.joint_problem(DEPTHS, SHARED, LATENCY, "mean", {"board1": 1e9})
    alone = joint.joint_problem(DEPTHS, SHARED, {"board1": LATENCY["board1"]}, "mean")
    shares = [p.metrics[joint.SHARE].evaluate(EVERY) for p in (heavy, alone)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-6)


def test_a_target_without_a_weight_has_the_weight_one():
    stated = joint.joint_problem(DEPTHS, SHARED, LATENCY, "mean", {"board1": 3.0})
    largest = DEPTHS.genome([DEPTHS.largest])
    weights = {name: 3.0 if name == "board1" else 1.0 for name in LATENCY}
    shares = [
        w * LATENCY[n].evaluate(EVERY) / LATENCY[n].evaluate(largest) for n, w in weights.items()
    ]
    mean = sum(shares) / sum(weights.values())
    assert stated.metrics[joint.SHARE].evaluate(EVERY) == pytest.approx(mean)


def test_a_mean_of_tables_is_searched_exactly():
    stated = joint.joint_problem(DEPTHS, SHARED, LATENCY, "mean")
    found = searchers.search(stated, SearchConfig(algorithm="dp"))
    assert np.unique(found.front.costs, axis=0) == pytest.approx(
        _true_front(stated.evaluate(EVERY))
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"board9": 1.0}, "board9: no such target; there are board1"),
        ({"board1": 0.0}, "positive"),
        ({"board1": float("inf")}, "positive"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        joint.joint_problem(DEPTHS, SHARED, LATENCY, "mean", weights)


def test_a_budget_on_one_target_is_kept_or_refused_with_the_smallest_value():
    least = LATENCY["board2"].evaluate(EVERY).min()
    limit = float(least) * 1.5
    plain = joint.joint_problem(DEPTHS, SHARED, {"board2": LATENCY["board2"]}, "worst")
    stated = joint.within(plain, limit)
    found = searchers.search(stated, SearchConfig(population=20, generations=12))
    assert (LATENCY["board2"].evaluate(found.front.genome) <= limit).all()
    with pytest.raises(InfeasibleError, match=f"smallest reachable is {least:.6g}"):
        joint.within(plain, float(least) / 2)


# ---- fleet -------------------------------------------------------------------------------------


def _best_by_enumeration(errors, most, weights):
    groups = itertools.combinations(range(len(errors)), min(most, len(errors)))
    return min(float((errors[list(rows)].min(0) * weights).sum()) for rows in groups)


def _errors(error, fits):
    """The same error of a network on every device that it fits."""
    return np.where(fits, np.asarray(error)[:, None], np.inf)


@pytest.mark.parametrize("own", [False, True], ids=["one error", "an error for each device"])
@pytest.mark.parametrize("seed", range(30))
def test_a_fleet_is_the_best_of_every_choice(seed, own):
    rng = np.random.default_rng(seed)
    n, devices, most = rng.integers(4, 12), rng.integers(1, 5), rng.integers(1, 4)
    error, fits = rng.random(n), rng.random((n, devices)) < 0.6
    fits[0] = True  # so that one network serves all
    weights = rng.random(devices) + 0.1
    errors = _errors(error, fits) + (0.1 * rng.random((n, devices)) if own else 0)
    found = fleet.choose(errors, int(most), weights)
    assert found.exact
    assert fits[found.rows, np.arange(devices)].all()
    assert len(set(found.rows.tolist())) <= most
    expected = _best_by_enumeration(errors, int(most), weights)
    assert float((found.errors * weights).sum()) == pytest.approx(expected)
    assert (found.loss >= 0).all()


def test_exchanging_models_comes_near_the_best_choice(monkeypatch):
    monkeypatch.setattr(fleet, "MOST_CHOICES", 0)
    gaps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        error, fits = rng.random(12), rng.random((12, 5)) < 0.5
        fits[0], weights = True, np.ones(5)
        found = fleet.choose(_errors(error, fits), 2, weights)
        assert not found.exact
        best = _best_by_enumeration(_errors(error, fits), 2, weights)
        gaps.append(float(found.errors.sum()) / best - 1)
    assert min(gaps) >= -1e-12
    assert np.mean(np.array(gaps) < 1e-9) >= 0.8


def test_as_many_models_as_devices_lose_nothing():
    rng = np.random.default_rng(5)
    error, fits = rng.random(50), rng.random((50, 4)) < 0.5
    assert fleet.choose(_errors(error, fits), 4, np.ones(4)).loss == pytest.approx(0)


@pytest.mark.parametrize(
    ("fits", "most", "message"),
    [
        ([[True, False], [True, False]], 1, "1 of 2 devices fit no network"),
        ([[True, False], [False, True]], 1, r"1 model\(s\) cannot serve all 2 devices"),
    ],
)
def test_a_fleet_that_cannot_serve_all_is_refused(fits, most, message):
    errors = _errors([0.1, 0.2], fits)
    with pytest.raises(InfeasibleError, match=message):
        fleet.choose(errors, most, np.ones(2))
    with pytest.raises(ConfigError, match="needs at least 1"):
        fleet.choose(errors, 0, np.ones(2))


# ---- space profile -----------------------------------------------------------------------------


def test_the_profile_of_a_space_has_the_true_least_values_and_shares():
    metrics = metrics_of(DEPTHS, random_price(1), error=SHARED["error"])
    true = {name: metric.evaluate(EVERY) for name, metric in metrics.items()}
    budgets = {"latency_ms": float(np.quantile(true["latency_ms"], 0.3)), "macs": "50%"}
    rows = {row.name: row for row in profile(DEPTHS, metrics, budgets)}
    for name, values in true.items():
        assert rows[name].least == pytest.approx(values.min())
        assert rows[name].most == pytest.approx(values.max())
    whole = metrics["macs"].evaluate(DEPTHS.genome([DEPTHS.largest]))[0]
    assert rows["macs"].budget == pytest.approx(0.5 * whole)
    assert 0 < rows["latency_ms"].within < 1
    assert rows["latency_ms"].reachable
    assert rows["error"].budget is None


def test_a_profile_says_which_budget_nobody_meets():
    rows = {row.name: row for row in profile(DEPTHS, SHARED, {"macs": 1.0, "params": "100%"})}
    assert not rows["macs"].reachable
    assert rows["macs"].within == 0
    assert rows["params"].within == 1
    with pytest.raises(ConfigError, match="budget latency_ms: no such metric here"):
        profile(DEPTHS, SHARED, {"latency_ms": 1.0})
