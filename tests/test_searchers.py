"""What every searcher keeps, and how near each comes to fronts known by enumeration."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from search_cases import (
    DEPTHS,
    TINY,
    EntangledError,
    enumerate_space,
    of_family,
    problem,
    random_terms,
    reference,
    settings,
    share_of_true,
    shares_of_true,
    true_front,
)

from hwnas.networks import spaces
from hwnas.pricing import pareto
from hwnas.pricing.places import places
from hwnas.search import searchers, starts
from hwnas.search.archive import Archive, Population
from hwnas.search.problem import Problem
from hwnas.search.searchers import nsga2
from profilers.errors import ConfigError, InfeasibleError

SPACES = pytest.mark.parametrize("space", [TINY, DEPTHS], ids=["tiny", "depths"])
SEARCHERS = pytest.mark.parametrize("name", searchers.names())


# ---- every searcher -----------------------------------------------------------------------------


@SEARCHERS
def test_the_front_is_feasible_non_dominated_sorted_and_priced_by_the_problem(name):
    case = problem(budgets={"latency_ms": "70%"})
    front = searchers.search(case, settings(name)).front
    assert len(front) > 3
    assert pareto.non_dominated(front.costs).all()
    assert (np.diff(front.costs[:, 1]) >= 0).all()
    assert np.array_equal(case.evaluate(front.genome), front.costs)
    assert (case.violation(front.genome) == 0).all()
    assert len(set(places(case.space).identity(front.genome))) == len(front)


@SEARCHERS
def test_the_same_seed_gives_the_same_generations(name):
    case = problem()
    runs = [list(searchers.generations(case, settings(name, seed=3))) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert first.population.genome.tobytes() == second.population.genome.tobytes()
        assert first.front.genome.tobytes() == second.front.genome.tobytes()


@SEARCHERS
def test_no_network_is_evaluated_twice_and_the_limit_holds(name):
    case = problem()
    asked: list[bytes] = []

    class Counted:
        def evaluate(self, genome):
            asked.extend(places(TINY).identity(genome))
            return case.metrics["error"].evaluate(genome)

    if name != "dp":
        counted = problem(error=Counted())
        last = searchers.search(counted, settings(name))
        assert len(asked) == len(set(asked)) == last.evaluations
        assert last.evaluations <= 20 * 10 + 10  # and at most half a population of exact seeds
    generations = list(searchers.generations(case, settings(name)))
    assert [g.generation for g in generations] == list(range(len(generations)))
    assert all(len(g.population) <= 20 for g in generations if name != "dp")


@SEARCHERS
def test_a_space_of_few_networks_ends_the_search(name):
    last = searchers.search(problem(DEPTHS), settings(name, 50, 1000))
    assert last.evaluations <= DEPTHS.size
    assert len(last.front)


@SEARCHERS
def test_a_space_of_one_network_has_a_front_of_one(name):
    stage = replace(TINY.family.stages[0], n_blocks=1, kernel_sizes=(3,), expand_ratios=(2,))
    only = replace(TINY, name="one", resolutions=(8,), profiled=(8,))
    only = of_family(only, stages=(stage,))
    assert only.size == 1
    assert len(searchers.search(problem(only), settings(name)).front) == 1


@SEARCHERS
def test_three_objectives_give_a_front_of_three(name):
    case = problem(DEPTHS, objectives=("error", "latency_ms", "params"))
    front = searchers.search(case, settings(name)).front
    assert front.costs.shape[1] == 3
    assert pareto.non_dominated(front.costs).all()


@SEARCHERS
def test_an_impossible_budget_is_refused_with_the_smallest_reachable_value(name):
    good = problem()
    case = Problem(TINY, good.objectives, good.metrics, {"latency_ms": 1e-6})
    least = good.predict(enumerate_space(TINY))["latency_ms"].min()
    with pytest.raises(InfeasibleError, match=f"smallest reachable is {least:.6g} ms"):
        searchers.search(case, settings(name))


@SEARCHERS
def test_what_a_searcher_needs_and_does_not_get_is_said(name):
    tangled = EntangledError(TINY, np.random.default_rng(0))
    good = problem(error=tangled)
    metrics = {**good.metrics, "latency_ms": tangled}
    case = Problem(TINY, good.objectives, metrics, {})
    if searchers.load(name).NEEDS:
        with pytest.raises(ConfigError, match=rf"{name} cannot be used: .*; use nsga2"):
            searchers.search(case, settings(name))
    else:
        assert len(searchers.search(case, settings(name)).front)


@SEARCHERS
def test_progress_is_told_for_each_generation(name):
    told = []
    last = searchers.search(problem(), settings(name), told.append)
    assert told[-1] is last


def test_an_unknown_searcher_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="nsga2"):
        searchers.load("nsga3")


# ---- dp -----------------------------------------------------------------------------------------


@SPACES
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"objectives": ("error", "macs")},
        {"objectives": ("latency_ms", "error")},
        {"objectives": ("params", "weight_bytes", "error")},
        {"objectives": ("error", "latency_ms", "macs")},
        {"budgets": {"latency_ms": "50%"}},
        {"budgets": {"macs": "50%"}},
        {"budgets": {"peak_activation_bytes": "60%"}},
        {"budgets": {"error": 0.2, "latency_ms": "90%", "peak_activation_bytes": "95%"}},
    ],
    ids=str,
)
def test_dp_finds_exactly_the_true_front(space, more):
    case = problem(space, seed=1, **more)
    front = searchers.search(case, settings("dp", **more)).front
    assert np.array_equal(np.unique(front.costs, axis=0), true_front(case))
    assert len(front) == len(true_front(case))


@SPACES
@pytest.mark.parametrize("m", [2, 3])
def test_dp_finds_exactly_the_true_front_of_terms_of_any_sign(space, m):
    rng = np.random.default_rng(m)
    for _ in range(8):
        metrics = {f"metric{i}": random_terms(space, rng) for i in range(m)}
        case = Problem(space, tuple(metrics), metrics, {})
        front = searchers.search(case, settings("dp")).front
        assert np.array_equal(np.unique(front.costs, axis=0), true_front(case))


def test_dp_needs_sums_and_says_so():
    case = problem(error=EntangledError(TINY, np.random.default_rng(0)))
    with pytest.raises(ConfigError, match=r"error is neither a sum nor.*nsga2"):
        searchers.search(case, settings("dp"))


def test_dp_prices_every_network_of_the_public_space_it_returns():
    case = problem(spaces.load("ofa-mbv3-w10"))
    front = searchers.search(case, settings("dp")).front
    assert len(front) > 300
    assert len(set(places(case.space).identity(front.genome))) == len(front)


# ---- nsga2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tangled", [False, True], ids=["additive", "entangled"])
def test_nsga2_reaches_the_true_hypervolume_with_a_twentieth_of_the_networks(tangled):
    shares = shares_of_true("nsga2", tangled, 12)
    assert min(shares) >= 0.99


def test_nsga2_beats_random_search_on_a_large_space():
    case = problem(spaces.load("mbv3-28"))
    true = searchers.search(case, settings("dp")).front.costs
    shares = {
        name: share_of_true(
            case,
            searchers.search(case, settings(name, 50, 40, start_from_dp=False)).front,
            true,
        )
        for name in ("nsga2", "random")
    }
    assert shares["nsga2"] > 0.99 > shares["random"]


def test_nsga2_ends_no_worse_than_the_exact_front_it_starts_from():
    case = problem(spaces.load("ofa-mbv3-w10"))
    exact = searchers.search(case, settings("dp")).front
    last = searchers.search(case, settings(population=20, rounds=3))
    assert np.array_equal(last.front.costs, exact.costs)


def test_nsga2_uses_the_additive_part_where_the_rest_is_no_sum():
    case = problem(objectives=("error", "latency_ms", "peak_activation_bytes"))
    true, shares = true_front(case), {}
    for start in (True, False):
        last = searchers.search(case, settings(population=20, rounds=5, start_from_dp=start))
        shares[start] = share_of_true(case, last.front, true)
    assert shares[True] > shares[False]


def test_nsga2_without_a_feasible_network_names_the_nearest():
    tangled = EntangledError(TINY, np.random.default_rng(0))
    least = tangled.evaluate(enumerate_space(TINY)).min()
    case = problem(error=tangled, budgets={"error": float(least) * 0.9})
    with pytest.raises(InfeasibleError, match="nearest network has error"):
        searchers.search(case, settings(population=20, rounds=5))


def test_nsga2_finds_the_feasible_corner_of_a_tight_budget():
    latency = problem(seed=2).predict(enumerate_space(TINY))["latency_ms"]
    case = problem(budgets={"latency_ms": float(np.quantile(latency, 0.01))}, seed=2)
    true = true_front(case)
    config = settings(population=50, rounds=10, start_from_dp=False)
    last = searchers.search(case, config)
    assert last.front.costs[:, 0].min() <= 1.02 * true[:, 0].min()


def test_survivors_keep_the_ends_and_the_best_ranks_first():
    case = problem()
    genome = TINY.sample(200, np.random.default_rng(0))
    costs = case.evaluate(genome)
    kept = nsga2.survivors(Population(genome, costs, np.zeros(len(genome))), 30)
    rank = pareto.ranks(costs)
    assert (pareto.ranks(kept.costs) == np.sort(rank)[:30]).all()
    assert kept.costs.min(axis=0).tolist() == costs.min(axis=0).tolist()


def test_mutation_moves_to_other_options_only_once_a_genome_on_average():
    rng = np.random.default_rng(0)
    genome = TINY.sample(4000, rng)
    moved = nsga2.mutated(TINY, genome, rng)
    assert (moved < TINY.n_options).all()
    assert (moved >= 0).all()
    assert (moved != genome).sum(axis=1).mean() == pytest.approx(1, abs=0.1)


def test_neighbours_differ_in_one_choice_and_reach_every_option():
    rng = np.random.default_rng(0)
    base = TINY.sample(1, rng)
    near = nsga2.neighbours(TINY, base, 2000, rng)
    assert ((near != base).sum(axis=1) == 1).all()
    assert len(np.unique(near, axis=0)) == (TINY.n_options - 1).sum()


# ---- imports ------------------------------------------------------------------------------------


def test_search_imports_neither_torch_nor_scikit_learn_nor_scipy():
    script = """
import sys
import numpy as np
from hwnas.networks import spaces
from hwnas.search import searchers
from hwnas.settings.config import SearchConfig
from hwnas.search.problem import make_problem, metrics_of
import hwnas.search.front, hwnas.predictors.predictor
space = spaces.load("tiny")
for name in searchers.names():
    config = SearchConfig(algorithm=name, objectives=("macs", "params"), population=8,
                          generations=3)
    searchers.search(make_problem(space, config, metrics_of(space)), config)
heavy = {"torch", "sklearn", "scipy", "onnx", "onnxruntime", "pandas", "matplotlib", "pymoo"}
print(sorted(heavy & {module.partition(".")[0] for module in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def share(case: Problem, front: Population) -> float:
    """Share of the true front's hypervolume."""
    return share_of_true(case, front, true_front(case))


def test_a_fitted_sum_leads_the_search_of_an_error_that_is_no_sum():
    error = EntangledError(TINY, np.random.default_rng(3))
    case = problem(error=error)
    few = settings(population=50, rounds=60)
    led, alone = (
        [
            share(case, searchers.search(case, few.model_copy(update={**more, "seed": seed})).front)
            for seed in range(4)
        ]
        for more in ({}, {"start_from_dp": False})
    )
    assert np.mean(led) >= np.mean(alone)


@pytest.mark.parametrize("name", ["nsga2", "smsemoa"])
def test_a_search_that_goes_on_keeps_what_was_found(name):
    case = problem(error=EntangledError(TINY, np.random.default_rng(4)))
    first = searchers.search(case, settings(name, rounds=4)).front
    again = replace(case, start=first.genome)
    second = searchers.search(again, settings(name, rounds=4, seed=9))
    assert share(case, second.front) >= share(case, first)
    assert second.evaluations <= 4 * 20 + len(first)


def test_a_searcher_that_cannot_go_on_says_so():
    case = replace(problem(), start=TINY.genome([TINY.smallest]))
    with pytest.raises(ConfigError, match="searcher dp cannot go on from an earlier front; use"):
        searchers.search(case, settings("dp"))


# ---- lines: a population that stalls starts again ------------------------------------------------


def test_a_population_that_stalls_starts_again_apart_and_nothing_is_lost(monkeypatch):
    space = spaces.load("ofa-mbv3-w10")
    case = problem(space, error=EntangledError(space, np.random.default_rng(4)))
    config = settings(population=16, rounds=160)
    monkeypatch.setattr(nsga2, "WITHIN", 20)
    monkeypatch.setattr(nsga2, "APART", 30)

    def played():
        """Generations in which no network of the one before lives on, and all generations."""
        states = list(searchers.generations(case, config))
        alive = [set(map(bytes, state.population.genome)) for state in states]
        return [n for n in range(1, len(alive)) if not alive[n] & alive[n - 1]], states

    began, states = played()
    assert began
    volumes = [pareto.hypervolume(s.front.costs, reference(case)) for s in states]
    assert volumes == sorted(volumes)  # nothing is lost
    found = set(map(bytes, states[began[0] - 1].front.genome))
    back = [n for n, s in enumerate(states) if found & set(map(bytes, s.population.genome))]
    assert not any(began[0] <= n < began[0] + 20 for n in back)
    assert states[-1].evaluations <= 16 * 160 + len(starts.known_networks(case, config))
    monkeypatch.setattr(nsga2, "STALLED", -1.0)
    assert played()[0] == []


def test_networks_of_infinite_cost_are_no_obstacle_to_evolution():
    class SomeFail:
        """A user's metric: infinite where a network was never measured."""

        def evaluate(self, genome):
            return np.where(genome.sum(axis=1) % 3 == 0, np.inf, 1.0 + genome.sum(axis=1))

    case = problem(objectives=("error", "latency_ms"))
    case = replace(case, metrics={**case.metrics, "latency_ms": SomeFail()})
    last = searchers.search(case, settings(rounds=60, start_from_dp=False))
    assert np.isfinite(last.front.costs).all()


def test_new_lines_end_with_the_networks_of_the_space(monkeypatch):
    for name, value in (("STALLED", 1.0), ("WITHIN", 1), ("APART", 1)):
        monkeypatch.setattr(nsga2, name, value)
    case = problem(DEPTHS, error=EntangledError(DEPTHS, np.random.default_rng(0)))
    for seed in range(5):
        last = searchers.search(case, settings(population=8, rounds=100, seed=seed))
        assert last.evaluations <= DEPTHS.size
        assert share(case, last.front) > 0.99


# ---- sketches: sums that stand for objectives that are none --------------------------------------


def test_a_sketch_brings_new_networks_near_the_front_where_an_objective_is_no_sum():
    space, config = TINY, settings("nsga2", population=20)
    case = problem(space, error=EntangledError(space, np.random.default_rng(1)))
    archive = Archive(case, 5000)
    known = archive.add(space.sample(300, np.random.default_rng(0)))
    before = archive.evaluations
    found = starts.sketched(archive, known, config)
    assert 0 < len(found) <= 20
    assert archive.evaluations == before + len(found)
    beaten = [(known.costs <= row).all(axis=1).any() for row in found.costs]
    assert np.mean(beaten) < 0.3  # of random networks, 0.9 are
    some = archive.add(space.sample(50, np.random.default_rng(2)))
    assert np.mean([(known.costs <= row).all(axis=1).any() for row in some.costs]) > 0.8


def test_there_is_no_sketch_of_sums_nor_of_too_few_networks_nor_where_none_is_wanted():
    config, rng = settings("nsga2"), np.random.default_rng(0)
    tangled = problem(error=EntangledError(TINY, rng))
    for case, n, told in (
        (problem(), 300, config),
        (tangled, 5, config),
        (tangled, 300, config.model_copy(update={"start_from_dp": False})),
    ):
        archive = Archive(case, 5000)
        assert len(starts.sketched(archive, archive.add(TINY.sample(n, rng)), told)) == 0


@pytest.mark.parametrize("population", [5, 60, 600])
def test_a_sketch_of_few_networks_beside_many_first_ones(population):
    case = problem(error=EntangledError(TINY, np.random.default_rng(1)))
    config = settings("nsga2", population=population, rounds=max(2, 1800 // population))
    assert len(searchers.search(case, config).front.genome)


def test_evolution_fits_the_sketch_again_and_keeps_to_its_limit(monkeypatch):
    calls = []
    sketched = starts.sketched
    record = lambda *given: calls.append(len(given[1])) or sketched(*given)  # noqa: E731
    for module in (starts, nsga2):
        monkeypatch.setattr(module, "sketched", record)
    case = problem(error=EntangledError(TINY, np.random.default_rng(1)))
    config = settings("nsga2", population=40, rounds=40)
    last = searchers.search(case, config)
    assert 2 <= len(calls) <= 6
    assert last.evaluations <= 40 * 40 + len(starts.known_networks(case, config))
