"""The front of a device against complete enumeration of all networks on all its targets."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from search_cases import DEPTHS, enumerate_space, error_terms, grid_price
from test_front import drawn, picked

from hwnas.pricing.terms import op_terms
from hwnas.search import front, searchers
from hwnas.search.front import Front
from hwnas.search.problem import make_problem, metrics_of
from hwnas.search.union import union
from hwnas.settings.config import PickConfig, SearchConfig
from profilers.errors import ConfigError, InfeasibleError

TARGETS = {  # name: seed of its prices, seed of its errors, resolutions
    "board.ort-cpu.fp32.b1.t1": (1, 0, (8, 12)),
    "board.ort-cpu.fp32.b1.t2": (2, 0, (8, 12)),
    "board.ort-cpu.int8.b1.t1": (3, 9, (8, 12)),
    "board.tensorrt.fp16.b1.t1": (4, 5, (8,)),
}
OBJECTIVES = [
    ("error", "latency_ms"),
    ("error", "energy_mj"),
    ("latency_ms", "error"),
    ("error", "latency_ms", "energy_mj"),
    ("error", "macs"),
]


def _priced(name: str, objectives: tuple[str, ...]):
    """The problem of one target: prices and errors of its own."""
    price, error, sizes = TARGETS[name]
    space = DEPTHS.restricted(sizes)
    errors = error_terms(space, np.random.default_rng(error))
    metrics = metrics_of(space, grid_price(price), error=errors)
    metrics["energy_mj"] = op_terms(space, grid_price(price + 100))
    return make_problem(space, SearchConfig(algorithm="dp", objectives=objectives), metrics)


def _front(name: str, objectives: tuple[str, ...] = OBJECTIVES[0]) -> Front:
    stated = _priced(name, objectives)
    settings = SearchConfig(algorithm="dp", objectives=objectives)
    return front.make_front(name, stated, searchers.search(stated, settings), settings, {})


def _everything(objectives: tuple[str, ...]) -> list[tuple[tuple[float, ...], str, str]]:
    """(costs, target, id) of every network of every target."""
    found = []
    for name in TARGETS:
        stated = _priced(name, objectives)
        genome = enumerate_space(stated.space)
        ids = [arch.id for arch in stated.space.architectures(genome)]
        costs = map(tuple, stated.evaluate(genome).tolist())
        found += [(cost, name, id_) for cost, id_ in zip(costs, ids, strict=True)]
    return found


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("objectives", OBJECTIVES, ids=" ".join)
def test_the_front_of_a_device_is_what_enumerating_all_its_targets_gives(objectives):
    found = union("board.b1", [_front(name, objectives) for name in TARGETS])
    every = _everything(objectives)
    costs = {cost for cost, _, _ in every}
    best = {cost for cost in costs if not any(_beats(other, cost) for other in costs)}
    shown = [tuple(point.predicted[n] for n in objectives) for point in found.points]
    assert sorted(shown) == sorted(best)
    owners = {(cost, target, id_) for cost, target, id_ in every}
    assert all(
        (cost, point.target, point.id) in owners
        for cost, point in zip(shown, found.points, strict=True)
    )
    assert [cost[1] for cost in shown] == sorted(cost[1] for cost in shown)


def test_every_target_has_a_part_in_the_front_that_the_oracle_checks():
    fronts = [_front(name) for name in TARGETS]
    owners = {point.target for point in union("board.b1", fronts).points}
    assert len(owners) >= 3


@pytest.mark.parametrize("share", [0.2, 0.35, 0.6, 1.0])
def test_a_budget_picks_the_best_of_all_networks_of_all_targets(share):
    found = union("board.b1", [_front(name) for name in TARGETS])
    whole = found.max_network["latency_ms"]
    every = _everything(OBJECTIVES[0])
    within = [cost for cost, _, _ in every if cost[1] <= share * whole]
    rule = {"budget": {"latency_ms": f"{100 * share:g}%"}}
    if not within:
        with pytest.raises(InfeasibleError, match=r"cannot be met on board\.b1: the smallest"):
            front.pick(found, PickConfig(**rule))
        return
    assert picked(found, **rule) == [min(within)]


def test_a_share_is_of_the_max_network_where_it_costs_least():
    fronts = [_front(name) for name in TARGETS]
    found = union("board.b1", fronts)
    assert found.max_network["latency_ms"] == min(f.max_network["latency_ms"] for f in fronts)
    assert all(
        point.predicted["latency_ms"] < found.reference_point[1]
        for f in fronts
        for point in f.points
    )


# ---- ties --------------------------------------------------------------------------------------


def _named(name: str, *costs, **more) -> Front:
    return replace(drawn(*costs, **more), target=name)


def test_of_equal_points_the_target_that_comes_first_stays():
    one, two = _named("a", (0.2, 1.0), (0.1, 2.0)), _named("b", (0.2, 1.0), (0.1, 1.5))
    for order in ((one, two), (two, one)):
        found = union("d.b1", order)
        owners = [(point.target, point.predicted["latency_ms"]) for point in found.points]
        assert owners == [(order[0].target, 1.0), ("b", 1.5)]


def test_where_latency_is_no_objective_the_faster_of_equal_points_stays():
    slow, fast = (
        replace(
            front_,
            points=tuple(
                replace(point, predicted={**point.predicted, "latency_ms": latency})
                for point in front_.points
            ),
        )
        for name, latency in (("slow", 2.0), ("fast", 1.0))
        for front_ in [_named(name, (0.2, 5.0), objectives=("error", "params"))]
    )
    assert [point.target for point in union("d.b1", [slow, fast]).points] == ["fast"]


def test_what_another_target_beats_is_not_on_the_front():
    found = union("d.b1", [_named("a", (0.2, 1.0), (0.1, 3.0)), _named("b", (0.1, 1.0))])
    assert [(point.target, point.predicted["error"]) for point in found.points] == [("b", 0.1)]


def test_a_device_of_one_target_has_the_front_of_that():
    alone = _front("board.ort-cpu.fp32.b1.t1")
    found = union("board.b1", [alone])
    assert [p.id for p in found.points] == [p.id for p in alone.points]
    assert found.hypervolume == pytest.approx(alone.hypervolume)


@pytest.mark.parametrize("seed", range(5))
def test_the_union_does_not_depend_on_how_it_is_taken(seed):
    rng = np.random.default_rng(seed)
    fronts = [
        _named(name, *map(tuple, rng.integers(1, 5, (6, 3)) / 8), objectives=("error", "a", "b"),
               corner=(1.0, 1.0, 1.0))
        for name in "abc"
    ]  # fmt: skip
    fronts = [replace(f, max_network={"error": 1, "a": 1, "b": 1}) for f in fronts]
    found = {
        tuple(sorted(tuple(p.predicted[n] for n in ("error", "a", "b")) for p in made.points))
        for order in itertools.permutations(fronts)
        for made in [union("d", order)]
    }
    assert len(found) == 1


# ---- what does not go together -----------------------------------------------------------------


def test_fronts_of_other_objectives_or_spaces_are_refused_with_what_to_do():
    one = _front("board.ort-cpu.fp32.b1.t1")
    other = _front("board.ort-cpu.fp32.b1.t2", ("error", "energy_mj"))
    with pytest.raises(ConfigError, match=r"b1\.t2 was searched for the objectives error, energy"):
        union("board.b1", [one, other])
    strange = replace(_front("board.ort-cpu.fp32.b1.t2"), space=DEPTHS.for_data(3, 7))
    with pytest.raises(ConfigError, match=r"in the space depths, that of .* run `hwnas search`"):
        union("board.b1", [one, strange])
