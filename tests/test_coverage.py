from collections import Counter

import numpy as np
import pytest

from hwnas.measuring import coverage
from hwnas.networks import spaces
from hwnas.settings.errors import ConfigError

SPACES = spaces.names()


def _rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", SPACES)
def test_distinct_ops_are_all_that_random_networks_lower_to(name):
    space = spaces.load(name)
    known = coverage.distinct_ops(space)
    drawn = space.architectures(space.sample(400, _rng()))
    seen = {
        placed.op.key for arch in [*drawn, space.largest, space.smallest] for placed in arch.ops
    }
    assert seen <= set(known)
    if name == "tiny":
        assert seen == set(known)


def test_distinct_ops_are_those_of_every_network_of_a_space_small_enough_to_list():
    space = spaces.load("tiny").restricted([8])
    grid = np.meshgrid(*[np.arange(n) for n in space.n_options], indexing="ij")
    genome = np.stack(grid, axis=-1).reshape(-1, len(space.choices))
    archs = set(space.architectures(genome))
    assert len(archs) == space.size
    listed = {(placed.slot, placed.op.key) for arch in archs for placed in arch.ops}
    ops = coverage.distinct_ops(space)
    assert set(ops) == {key for _, key in listed}
    assert all((at.slot, key) in listed and at.op.key == key for key, at in ops.items())


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("repeats", [1, 3])
def test_covering_networks_hold_every_op_often_enough_in_few_networks(name, repeats):
    space = spaces.load(name)
    resolution = space.resolutions[0]
    networks = coverage.covering(space, resolution, repeats, _rng())
    counted = Counter(key for arch in networks for key in {placed.op.key for placed in arch.ops})
    assert set(counted) == set(coverage.distinct_ops(space.restricted([resolution])))
    assert min(counted.values()) >= repeats
    options = max(len(k.options) for k in space.choices[1:]) ** 2
    elastic = any(name.endswith(".width") for name in space.columns)
    pairs = 9 if elastic else 1  # widths before and after a block
    assert len(networks) <= 2 * repeats * options * pairs


def test_covering_networks_differ_in_depth_and_number_of_ops():
    for name in ("ofa-mbv3-w10", "tiny"):
        space = spaces.load(name)
        networks = coverage.covering(space, space.resolutions[0], 2, _rng())
        assert len({len(arch.ops) for arch in networks}) >= 3


def test_the_same_seed_gives_the_same_networks_and_another_seed_others():
    space = spaces.load("mbv3-28")
    first, same, other = (coverage.covering(space, 28, 2, _rng(seed)) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_a_stratified_sample_spans_the_sizes_and_avoids_what_is_taken():
    space = spaces.load("ofa-mbv3-w10")
    deal = coverage.share_out(41, [128, 224])
    assert deal == {128: 21, 224: 20}
    first = coverage.stratified(space, deal, [], _rng())
    second = coverage.stratified(space, deal, first, _rng())
    assert len(set(first + second)) == 82
    for resolution, n in deal.items():
        sizes = sorted(coverage.macs(a) for a in first if a.resolution == resolution)
        assert len(sizes) == n
        whole = space.restricted([resolution])
        low, high = coverage.macs(whole.smallest), coverage.macs(whole.largest)
        assert (sizes[-1] - sizes[0]) > 0.8 * (high - low)
        strata = np.histogram(sizes, bins=5, range=(low, high))[0]
        assert strata.min() >= 2


def test_a_middling_network_is_in_the_middle_of_the_sizes():
    space = spaces.load("ofa-mbv3-w10").restricted([160])
    arch = coverage.middling(space, 160, [], _rng())
    low, high = coverage.macs(space.smallest), coverage.macs(space.largest)
    assert arch.resolution == 160
    assert 0.35 < (coverage.macs(arch) - low) / (high - low) < 0.65
    assert coverage.middling(space, 160, [arch], _rng()) != arch


def test_a_space_with_too_few_networks_is_refused_with_what_to_change():
    space = spaces.load("tiny").restricted([8])
    with pytest.raises(ConfigError, match=r"too few networks at 8 px: .* lower profile\.heldout"):
        coverage.stratified(space, {8: space.size + 1}, [], _rng())
