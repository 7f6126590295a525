import re
from types import SimpleNamespace

import numpy as np
import pytest
from search_cases import DEPTHS, TINY, EntangledError, enumerate_space, problem, random_price

from hwnas.networks.counts import exact_costs
from hwnas.search.priced import priced
from hwnas.search.problem import make_problem, metrics_of
from hwnas.settings.config import SearchConfig
from profilers.errors import ConfigError, InfeasibleError

SPACES = pytest.mark.parametrize("space", [TINY, DEPTHS], ids=["tiny", "depths"])


def values(of, name):
    return of.metrics[name].evaluate(enumerate_space(of.space))


def reached(error):
    """The smallest reachable value that a message names."""
    return float(re.search(r"smallest reachable is (\S+)", str(error.value)).group(1))


def test_objectives_are_the_columns_in_the_order_of_the_settings():
    case = problem(objectives=("latency_ms", "macs", "error"))
    genome = TINY.sample(20, np.random.default_rng(0))
    for column, name in enumerate(("latency_ms", "macs", "error")):
        assert np.array_equal(case.evaluate(genome)[:, column], case.predict(genome)[name])


def test_violation_is_the_worst_relative_excess_and_zero_only_within_all_budgets():
    case = problem()
    genome = enumerate_space(TINY)
    costs = case.predict(genome)
    limits = {"latency_ms": float(np.median(costs["latency_ms"])), "macs": 90_000.0}
    budgeted = problem(budgets=limits)
    expected = np.max([np.maximum(0, costs[n] / t - 1) for n, t in limits.items()], axis=0)
    assert np.allclose(budgeted.violation(genome), expected)
    within = np.all([costs[n] <= t for n, t in limits.items()], axis=0)
    assert np.array_equal(budgeted.violation(genome) == 0, within)
    assert (case.violation(genome) == 0).all()


def test_a_share_is_of_the_max_network():
    largest = problem().predict(TINY.genome([TINY.largest]))["latency_ms"][0]
    assert problem(budgets={"latency_ms": "60%"}).budgets["latency_ms"] == pytest.approx(
        0.6 * largest
    )


@SPACES
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_bytes_of_a_target_are_those_of_its_precision(space, precision):
    told = {"name": "a", "precision": precision}
    costs = SimpleNamespace(
        row=lambda key: 1.0, intercept=lambda px: 0.0, link=None, energy={}, target=told
    )
    genome = space.sample(50, np.random.default_rng(0))
    found = priced(space, costs, None)
    for name in ("weight_bytes", "peak_activation_bytes"):
        exact = [exact_costs(arch, precision)[name] for arch in space.architectures(genome)]
        assert found[name].evaluate(genome).tolist() == exact


@SPACES
@pytest.mark.parametrize("name", ["latency_ms", "error", "macs", "peak_activation_bytes"])
def test_an_impossible_budget_names_the_smallest_reachable_value(space, name):
    least = values(problem(space), name).min()
    with pytest.raises(InfeasibleError, match=name) as error:
        problem(space, budgets={name: float(least * 0.9)})
    assert reached(error) == pytest.approx(least, rel=1e-5)
    problem(space, budgets={name: float(least)})


@SPACES
def test_an_impossible_budget_beside_a_peak_budget_is_refused(space):
    case = problem(space)
    latency, peak = values(case, "latency_ms"), values(case, "peak_activation_bytes")
    error = values(case, "error")
    best = error[peak <= np.quantile(peak, 0.2)].min()
    budgets = {"peak_activation_bytes": float(np.quantile(peak, 0.2))}
    problem(space, budgets={**budgets, "error": float(best)})
    with pytest.raises(InfeasibleError) as refusal:
        problem(space, budgets={**budgets, "error": float(best * 0.99)})
    assert reached(refusal) == pytest.approx(best, rel=1e-5)
    assert latency.min() < latency.max()


@SPACES
def test_budgets_that_are_impossible_only_together_are_refused_with_the_nearest_network(space):
    case = problem(space)
    error, latency = values(case, "error"), values(case, "latency_ms")
    tight = float(np.quantile(latency, 0.1))
    best = float(error[latency <= tight].min())
    problem(space, budgets={"latency_ms": tight, "error": best})
    with pytest.raises(InfeasibleError, match=r"together.*error.*latency_ms|together.*latency_ms"):
        problem(space, budgets={"latency_ms": tight, "error": best * 0.98})


def test_what_is_needed_for_a_metric_is_said():
    with pytest.raises(ConfigError, match="hwnas profile"):
        make_problem(TINY, SearchConfig(objectives=("macs", "latency_ms")), metrics_of(TINY))
    with pytest.raises(ConfigError, match="hwnas evaluate"):
        make_problem(TINY, SearchConfig(), metrics_of(TINY, random_price(0)))
    with pytest.raises(ConfigError, match="twice"):
        problem(objectives=("macs", "macs"))


def test_only_a_budget_on_a_largest_value_rules_ops_out():
    assert problem(budgets={"macs": "50%", "error": 0.3}).allowed is None
    allowed = problem(budgets={"macs": "50%", "peak_activation_bytes": "60%"}).allowed
    assert allowed is not None
    assert not allowed.all()


@SPACES
def test_an_exact_front_keeps_within_the_budgets_of_sums_and_misses_nothing_there(space):
    macs, error = (values(problem(space), name) for name in ("macs", "error"))
    most = float(np.quantile(macs, 0.5))
    case = problem(space, budgets={"macs": most, "error": float(np.quantile(error, 0.5))})
    found = case.predict(case.exact_front(("error", "macs")))
    assert found["macs"].max() <= most
    assert found["error"].min() == error[macs <= most].min()


def test_why_a_front_cannot_be_exact_is_said():
    assert not problem().why_not_exact
    assert not problem(budgets={"peak_activation_bytes": "90%"}).why_not_exact
    assert not problem(objectives=("error", "peak_activation_bytes")).why_not_exact
    tangled = EntangledError(TINY, np.random.default_rng(0))
    for case, reason in (
        (problem(error=tangled), "error"),
        (problem(objectives=("latency_ms", "macs"), error=tangled, budgets={"error": 1}), "error"),
        (problem(objectives=("error", "latency_ms", "macs", "params")), "at most 3"),
    ):
        assert reason in case.why_not_exact
