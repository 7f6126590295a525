"""The measure-refit loop: it measures what promises most, never twice, and knows when to stop."""

from __future__ import annotations

import numpy as np
import pytest
from search_cases import (
    DEPTHS,
    TINY,
    EntangledError,
    enumerate_space,
    error_terms,
    problem,
    reference,
)

from hwnas.networks.space import Architecture
from hwnas.pricing import pareto
from hwnas.search import refine
from hwnas.search.refine import Goal, Loop
from hwnas.settings.config import RefineConfig
from hwnas.supernet.evaluation import to_measure
from profilers.errors import ConfigError


def truth(space=TINY, seed=0, tangled=True, noise=0.003):
    """Top-1 of every network as an evaluation would find it, and a goal of latency."""
    rng = np.random.default_rng(seed)
    error = EntangledError(space, rng) if tangled else error_terms(space, rng)
    genome = enumerate_space(space)
    top1 = 1 - np.clip(error.evaluate(genome) + noise * rng.normal(size=len(genome)), 0, 1)
    case = problem(space, seed)
    goal = Goal("latency_ms", case.metrics["latency_ms"], reference(case))
    return dict(zip(space.architectures(genome), top1.tolist(), strict=True)), goal


def run(table, goals, n_first=50, **settings):
    """Rounds of a loop on a table of results, and what was asked for."""
    space, asked = goals[0].cost.space, []
    first = to_measure(space, n_first, np.random.default_rng(settings.get("seed", 0)))

    def measure(archs):
        asked.extend(archs)
        return [table[arch] for arch in archs]

    loop = Loop(space, tuple(goals), RefineConfig(**settings))
    return list(refine.refine(loop, {a: table[a] for a in first}, measure)), asked, first


def share(table, goal, measured) -> float:
    """Hypervolume of measured networks as a share of what measuring all of them gives."""
    loop = Loop(goal.cost.space, (goal,), RefineConfig())
    return float((refine.hypervolumes(loop, measured) / refine.hypervolumes(loop, table))[0])


@pytest.mark.parametrize("inner", ["dp", "nsga2"])
def test_the_loop_nears_the_true_front_far_faster_than_chance(inner):
    table, goal = truth()
    rounds, _, first = run(table, [goal], budget=75, batch=25, inner=inner)
    n = len(first) + 75
    drawn = TINY.architectures(TINY.sample(4 * n, np.random.default_rng(1)))
    by_chance = share(table, goal, {arch: table[arch] for arch in drawn})
    found = share(table, goal, rounds[-1].measured)
    print(f"{inner}: {found:.4f} with {n} networks, {by_chance:.4f} with {4 * n} random ones")
    assert found > 0.99 > by_chance
    assert (np.diff([r.hypervolume[0] for r in rounds]) >= 0).all()


def test_nothing_is_measured_twice_and_the_budget_is_kept():
    table, goal = truth()
    rounds, asked, first = run(table, [goal], budget=40, batch=15)
    assert len(asked) == len(set(asked)) == 40
    assert not set(asked) & set(first)
    assert [len(r.batch) for r in rounds] == [15, 15, 10]
    assert rounds[-1].measured == {a: table[a] for a in [*first, *asked]}


def test_equal_seeds_ask_for_equal_networks():
    table, goal = truth(DEPTHS)
    assert (
        run(table, [goal], 20, budget=20, batch=10)[1]
        == (run(table, [goal], 20, budget=20, batch=10)[1])
    )


@pytest.mark.parametrize("pending", [1, 3])
def test_the_next_batch_is_chosen_while_the_last_of_a_batch_are_pending(pending):
    table, goal = truth()
    asked: list[Architecture] = []
    taken: list[Architecture] = []
    at_start = []  # of each batch: networks asked for with it, and accuracies taken

    def measure(archs):
        asked.extend(archs)
        at_start.append((len(asked), len(taken)))
        return (taken.append(arch) or table[arch] for arch in archs)

    first = {a: table[a] for a in to_measure(TINY, 20, np.random.default_rng(0))}
    loop = Loop(TINY, (goal,), RefineConfig(budget=7, batch=3, pending=pending))
    rounds = list(refine.refine(loop, first, measure))
    assert at_start == [(3, 0), (6, 3 - pending), (7, 6 - pending)]
    assert [(len(last.batch), len(last.measured)) for last in rounds] == [(3, 23), (3, 26), (1, 27)]
    assert [arch for last in rounds for arch in last.batch] == asked == taken
    assert len({*asked, *first}) == 27
    assert rounds[-1].measured == {arch: table[arch] for arch in rounds[-1].measured}


@pytest.mark.parametrize("n", [2, 4])
def test_a_measurement_that_gives_another_number_of_accuracies_is_refused(n):
    table, goal = truth()
    first = {a: table[a] for a in to_measure(TINY, 20, np.random.default_rng(0))}
    loop = Loop(TINY, (goal,), RefineConfig(budget=3, batch=3))
    with pytest.raises(ConfigError, match=f"{n} accuracies came back of 3 networks"):
        list(refine.refine(loop, first, lambda archs: [0.5] * n))


def test_a_small_space_is_measured_whole_and_the_loop_ends():
    table, goal = truth(DEPTHS)
    rounds, _, _ = run(table, [goal], 30, budget=1000, batch=40)
    assert rounds[-1].measured == table
    assert rounds[-1].stable


def test_every_goal_gets_its_share():
    table, goal = truth(seed=0)
    _, other = truth(seed=7)
    rounds, _, _ = run(table, [goal, other], budget=50, batch=25)
    for wanted in (goal, other):
        assert share(table, wanted, rounds[-1].measured) > 0.985
    assert rounds[-1].hypervolume.shape == (2,)


def test_the_bias_of_an_optimistic_fit_is_reported():
    table, goal = truth()
    worse = {arch: max(top1 - 0.1, 0) for arch, top1 in table.items()}
    first = to_measure(TINY, 50, np.random.default_rng(0))
    loop = Loop(TINY, (goal,), RefineConfig(budget=25, batch=25))
    known = {arch: table[arch] for arch in first}
    last = list(refine.refine(loop, known, lambda archs: [worse[a] for a in archs]))[-1]
    assert last.bias == pytest.approx(0.1, abs=0.03)


def test_an_accuracy_that_is_no_number_ends_the_loop_with_its_network():
    table, goal = truth(DEPTHS)
    first = to_measure(DEPTHS, 20, np.random.default_rng(0))
    loop = Loop(DEPTHS, (goal,), RefineConfig(budget=20, batch=10))
    known = {arch: table[arch] for arch in first}
    with pytest.raises(ConfigError, match="accuracy nan of network"):
        list(refine.refine(loop, known, lambda archs: [float("nan")] * len(archs)))
    with pytest.raises(ConfigError, match="8 different subnets, 1 "):
        list(refine.refine(loop, {first[0]: 0.5}, lambda archs: [0.5] * len(archs)))


def test_expected_improvement_is_that_of_drawing_many_outcomes():
    rng = np.random.default_rng(0)
    corner = np.array([1.0, 2.0])  # error, cost
    front = np.array([[0.3, 0.8], [0.9, 0.5], [1.5, 0.2]])  # cost, error
    points = np.stack([rng.uniform(0, 2.2, 20), rng.uniform(0, 1.1, 20)], axis=1)
    spread = rng.uniform(0.01, 0.2, 20)
    ours = refine.improvement(front, points, spread, corner)
    before = pareto.hypervolume(front[:, ::-1], corner)
    for (cost, error), sigma, gain in zip(points, spread, ours, strict=True):
        drawn = error + sigma * rng.normal(size=1500)
        after = [pareto.hypervolume(np.vstack((front[:, ::-1], (e, cost))), corner) for e in drawn]
        assert gain == pytest.approx(np.mean(after) - before, abs=0.02)


def test_neighbours_differ_in_one_choice():
    genome = TINY.sample(3, np.random.default_rng(0))
    near = refine.neighbours(TINY, genome)
    assert len(near) == 3 * int((TINY.n_options - 1).sum())
    nearest = (near[:, None, :] != genome[None]).sum(axis=2).min(axis=1)
    assert (nearest == 1).all()


def test_where_nothing_can_gain_a_batch_still_holds_no_network_twice():
    goal = truth()[1]
    perfect = {TINY.smallest: 1.0, TINY.largest: 0.5}
    archs = TINY.architectures(TINY.sample(40, np.random.default_rng(0)))
    batch = refine.best_batch(goal, perfect, list(dict.fromkeys(archs)), 20)
    assert len(set(batch)) == 20
