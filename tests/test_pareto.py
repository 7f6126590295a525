import itertools

import numpy as np
import pytest

from hwnas.pricing import pareto


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def brute_ranks(costs, violation):
    def better(i, j):
        if violation[i] == violation[j] == 0:
            return dominates(costs[i], costs[j])
        return violation[i] < violation[j]

    rank, left = np.full(len(costs), -1), set(range(len(costs)))
    for number in itertools.count():
        if not left:
            return rank
        front = [i for i in left if not any(better(j, i) for j in left)]
        rank[front] = number
        left -= set(front)


def brute_hypervolume(costs, reference):
    """Inclusion and exclusion over all subsets."""
    total = 0.0
    for size in range(1, len(costs) + 1):
        for subset in itertools.combinations(costs, size):
            total -= (-1) ** size * np.prod(np.maximum(0, reference - np.max(subset, axis=0)))
    return total


def cases():
    rng = np.random.default_rng(0)
    for m in (1, 2, 3, 4):
        for _ in range(40):
            n = int(rng.integers(1, 30))
            real = rng.random() < 0.5
            costs = rng.normal(size=(n, m)) if real else rng.integers(0, 4, (n, m)).astype(float)
            if rng.random() < 0.2:
                costs[rng.random((n, m)) < 0.1] = np.inf
            yield costs


def test_non_dominated_points_are_those_of_brute_force_and_of_equal_ones_the_first():
    for costs in cases():
        expected = [
            not any(dominates(b, a) or (j < i and (a == b).all()) for j, b in enumerate(costs))
            for i, a in enumerate(costs)
        ]
        assert pareto.non_dominated(costs).tolist() == expected


def test_the_staircase_ascends_by_the_first_cost():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 9, (2, 200)).astype(float)
    steps = pareto.staircase(first, second)
    assert (np.diff(first[steps]) > 0).all()
    assert (np.diff(second[steps]) < 0).all()


def test_ranks_follow_constraint_domination():
    rng = np.random.default_rng(2)
    for costs in cases():
        violation = rng.integers(0, 3, len(costs)) * rng.integers(0, 2) / 2
        assert np.array_equal(pareto.ranks(costs, violation), brute_ranks(costs, violation))
        assert np.array_equal(pareto.ranks(costs), brute_ranks(costs, np.zeros(len(costs))))


def test_ranks_are_those_of_pymoo():
    sorting = pytest.importorskip("pymoo.util.nds.non_dominated_sorting").NonDominatedSorting()
    costs = np.random.default_rng(3).normal(size=(200, 3))
    for rank, front in enumerate(sorting.do(costs)):
        assert (pareto.ranks(costs)[front] == rank).all()


def test_crowding_distance_is_that_of_pymoo_within_each_front():
    metrics = pytest.importorskip("pymoo.operators.survival.rank_and_crowding.metrics")
    costs = np.random.default_rng(4).normal(size=(200, 2))
    rank = pareto.ranks(costs)
    crowding = pareto.crowding_distance(costs, rank)
    fronts = [rank == front for front in range(rank.max() + 1)]
    for members in (front for front in fronts if front.sum() > 2):
        expected = metrics.calc_crowding_distance(costs[members]) * 2  # pymoo: mean of objectives
        assert np.allclose(crowding[members], expected)


def test_an_infinite_cost_crowds_as_the_largest_finite_one():
    costs = np.array([[1.0, 9.0], [2.0, 5.0], [4.0, 2.0], [np.inf, 1.0]])
    bounded = np.where(np.isinf(costs), 4.0, costs)
    assert pareto.crowding_distance(costs).tolist() == pareto.crowding_distance(bounded).tolist()


def test_crowding_distance_closed_forms():
    line = np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0], [3.0, 1.0]])
    assert pareto.crowding_distance(line).tolist() == [np.inf, 1.5, np.inf, 1.5]
    flat = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])  # the second objective has no extent
    assert np.isinf(pareto.crowding_distance(flat)[[0, 2]]).all()
    endless = np.array([[0.0, np.inf], [1.0, 2.0], [2.0, 1.0], [np.inf, 0.0]])
    assert not np.isnan(pareto.crowding_distance(endless)).any()


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_hypervolume_is_that_of_brute_force(m):
    rng = np.random.default_rng(m)
    for _ in range(20):
        costs = rng.integers(0, 6, (int(rng.integers(1, 7)), m)).astype(float)
        reference = np.full(m, 5.0)
        assert pareto.hypervolume(costs, reference) == pytest.approx(
            brute_hypervolume(costs, reference)
        )


def test_hypervolume_ignores_duplicates_order_and_what_lies_beyond_the_reference():
    costs = np.array([[1.0, 2.0], [2.0, 1.0]])
    reference = np.array([3.0, 3.0])
    more = np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0], [3.0, 0.0], [np.inf, 0.0], [5.0, 5.0]])
    assert pareto.hypervolume(costs, reference) == 3.0
    assert pareto.hypervolume(more, reference) == 3.0


def test_hypervolume_is_that_of_pymoo():
    indicators = pytest.importorskip("pymoo.indicators.hv")
    costs = np.random.default_rng(5).random((60, 3))
    reference = np.full(3, 0.9)
    expected = indicators.HV(ref_point=reference)(costs[(costs < reference).all(axis=1)])
    assert pareto.hypervolume(costs, reference) == pytest.approx(float(expected))


def test_no_points_have_no_rank_no_front_and_no_volume():
    none = np.zeros((0, 2))
    assert pareto.ranks(none).shape == pareto.non_dominated(none).shape == (0,)
    assert pareto.crowding_distance(none).shape == (0,)
    assert pareto.hypervolume(none, np.ones(2)) == 0
    assert pareto.spread_subset(none, np.ones(2), 3).tolist() == []


def test_nan_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        pareto.ranks(np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="shape"):
        pareto.non_dominated(np.zeros(3))
    with pytest.raises(ValueError, match="reference point"):
        pareto.hypervolume(np.zeros((1, 2)), np.array([1.0]))
    with pytest.raises(ValueError, match="reference point"):
        pareto.hypervolume(np.zeros((1, 2)), np.array([1.0, np.inf]))


@pytest.mark.parametrize("m", [2, 3])
def test_the_spread_subset_is_the_plain_greedy_choice(m):
    costs = np.random.default_rng(m).dirichlet(np.ones(m), size=40)  # none dominates another
    reference = np.ones(m)
    chosen: list[int] = []
    for _ in range(6):
        gains = [pareto.hypervolume(costs[[*chosen, i]], reference) for i in range(len(costs))]
        chosen.append(int(np.argmax(gains)))
    assert pareto.spread_subset(costs, reference, 6).tolist() == chosen


def test_the_spread_subset_ends_when_nothing_is_gained():
    costs = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0], [9.0, 0.0]])
    assert pareto.spread_subset(costs, np.array([3.0, 3.0]), 4).tolist() == [0]


def fronts(seed):
    """Fronts of two to four objectives and a corner that some lie beyond: spread points, and a
    coarse grid's with ties and repeats.
    """
    rng = np.random.default_rng(seed)
    for m, grid, _ in itertools.product((2, 3, 4), (False, True), range(15)):
        drawn = rng.integers(0, 9, (60, m)).astype(float) if grid else rng.normal(4, 2, (60, m))
        front = drawn[pareto.ranks(drawn) == 0]
        yield rng.permutation(np.concatenate((front, front[: rng.integers(0, 4)]))), np.full(m, 7.0)


def lost(costs, corner):
    """Hypervolume that goes with each point, as `hypervolume` has it."""
    whole = pareto.hypervolume(costs, corner)
    without = (np.delete(costs, row, axis=0) for row in range(len(costs)))
    return np.array([whole - pareto.hypervolume(rest, corner) for rest in without])


def test_contributions_are_what_is_lost_without_a_point():
    for costs, corner in fronts(2):
        assert pareto.contributions(costs, corner) == pytest.approx(lost(costs, corner), abs=1e-9)


def test_without_the_least_is_to_drop_one_after_the_other_by_what_is_lost():
    rng = np.random.default_rng(3)
    for costs, corner in fronts(3):
        stay, size = np.arange(len(costs)), int(rng.integers(0, len(costs) + 1))
        while len(stay) > size:
            least = lost(costs[stay], corner)
            equal = np.flatnonzero(least <= least.min() + 1e-9)
            stay = np.delete(stay, equal[-1])
        found = pareto.without_least(costs, corner, size)
        assert np.array_equal(np.sort(found), stay)
        alone = pareto.contributions(costs[found], corner)
        assert (np.diff(alone) <= 1e-9).all()


def test_repeated_points_and_points_beyond_the_reference_contribute_nothing():
    costs = np.array([[1, 3], [1, 3], [3, 1], [9, 0], [np.inf, 0.5]])
    assert pareto.contributions(costs, np.array([5, 5])).tolist() == [0, 0, 4, 0, 0]
    assert pareto.contributions(costs[3:], np.array([5, 5])).tolist() == [0, 0]
