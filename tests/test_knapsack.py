import itertools

import numpy as np
import pytest

from hwnas.search import knapsack
from hwnas.search.cost import on_grid
from hwnas.search.pareto import non_dominated


def every_sum(base, stages):
    """(n, m) sums of every way to choose depths and options."""
    total = np.array([base])
    for stage in stages:
        rows = [
            extra + sum(option, np.zeros(len(base)))
            for depth, extra in zip(stage.depths, stage.depth_costs, strict=True)
            for option in itertools.product(*stage.blocks[:depth])
        ]
        total = (total[:, None] + np.array(rows).reshape(-1, len(base))).reshape(-1, len(base))
    return total


def true_front(base, stages, limits=np.inf):
    total = every_sum(base, stages)
    total = total[(total <= limits).all(axis=1)]
    return np.unique(total[non_dominated(total)], axis=0)


def random_case(rng, empty_blocks=False):
    m = int(rng.integers(2, 4))
    integers = rng.random() < 0.5  # many ties, equal options

    def costs(n):
        if integers:
            return rng.integers(-3, 6, (n, m)).astype(float)
        return on_grid(rng.normal(size=(n, m)))

    stages = []
    for _ in range(int(rng.integers(1, 4))):
        n_blocks = int(rng.integers(1, 4))
        fewest = 0 if empty_blocks else 1
        blocks = tuple(costs(int(rng.integers(fewest, 4))) for _ in range(n_blocks))
        n_depths = int(rng.integers(1, n_blocks + 2))
        depths = sorted(rng.choice(n_blocks + 1, n_depths, replace=False).tolist())
        stages.append(knapsack.Stage(blocks, tuple(depths), costs(n_depths)))
    return costs(1)[0], stages


def test_the_front_is_that_of_enumeration():
    rng = np.random.default_rng(0)
    for _ in range(150):
        base, stages = random_case(rng)
        labels = knapsack.front(base, stages)
        assert np.array_equal(np.unique(labels.costs, axis=0), true_front(base, stages))
        assert len(labels.costs) == len(true_front(base, stages))


def test_a_block_without_options_closes_the_depths_beyond_it():
    rng = np.random.default_rng(1)
    for _ in range(150):
        base, stages = random_case(rng, empty_blocks=True)
        labels = knapsack.front(base, stages)
        assert np.array_equal(np.unique(labels.costs, axis=0), true_front(base, stages))


def test_following_the_choices_gives_the_costs():
    rng = np.random.default_rng(2)
    for _ in range(60):
        base, stages = random_case(rng)
        labels = knapsack.front(base, stages)
        for cost, depths, options in zip(labels.costs, labels.depths, labels.options, strict=True):
            total, left = base.copy(), list(options)
            for stage, d in zip(stages, depths, strict=True):
                mine, left = left[: len(stage.blocks)], left[len(stage.blocks) :]
                total = total + stage.depth_costs[d]
                for b, option in enumerate(mine):
                    assert (option >= 0) == (b < stage.depths[d])
                    total = total + (stage.blocks[b][option] if option >= 0 else 0)
            assert np.array_equal(total, cost)


def test_limits_keep_exactly_what_meets_them():
    rng = np.random.default_rng(3)
    for _ in range(150):
        base, stages = random_case(rng)
        points = true_front(base, stages)
        limits = points[rng.integers(len(points))] + rng.choice([0, 0.5])
        limits[int(rng.integers(len(limits)))] = np.inf
        found = knapsack.front(base, stages, limits).costs
        assert np.array_equal(np.unique(found, axis=0), true_front(base, stages, limits))


def test_limits_that_nothing_meets_leave_no_label():
    base, stages = random_case(np.random.default_rng(4))
    least = every_sum(base, stages).min(axis=0)
    labels = knapsack.front(base, stages, least - 1)
    assert labels.costs.shape == (0, len(base))
    assert labels.options.shape == (0, sum(len(stage.blocks) for stage in stages))


@pytest.mark.parametrize("m", [2, 3])
def test_one_option_everywhere_is_one_network(m):
    stage = knapsack.Stage((np.ones((1, m)), np.ones((1, m))), (2,), np.zeros((1, m)))
    labels = knapsack.front(np.zeros(m), [stage, stage])
    assert labels.costs.tolist() == [[4.0] * m]
    assert labels.options.tolist() == [[0, 0, 0, 0]]


def test_of_equal_options_the_first_is_taken_every_time():
    same = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    labels = knapsack.front(np.zeros(2), [knapsack.Stage((same, same), (2,), np.zeros((1, 2)))])
    assert labels.options.tolist() == [[0, 0]]
