"""Spaces of which a search may take some options only."""

import numpy as np
import pytest
from search_cases import TINY, enumerate_space, random_space, settings

from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.narrowing import narrowed
from hwnas.search import front, searchers
from hwnas.search.problem import make_problem, metrics_of
from profilers.errors import ConfigError

ONLY = {"*.kernel_size": [3, 7], "stage2.block3.expand_ratio": [0, 2], "resolution": [8, 16]}


def _of(space, only):
    """Oracle: the networks of a space whose live choices have one of these options."""
    archs = space.architectures(enumerate_space(space))
    return {
        arch.values
        for arch in archs
        if all(v in only.get(n, [v]) for n, v in arch.to_json()["choices"].items())
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_narrowed_space_holds_exactly_the_networks_that_keep_to_it(seed):
    rng = np.random.default_rng(seed)
    space = random_space(rng)
    only = {
        choice.name: sorted(
            rng.choice(choice.options, rng.integers(1, len(choice.options) + 1), replace=False)
        )
        for choice in space.choices
        if rng.integers(2)
    }
    small = narrowed(space, only)
    networks = small.architectures(enumerate_space(small))
    assert {arch.values for arch in networks} == _of(space, only)
    assert len(networks) == small.size
    assert small.geometry == space.geometry
    for arch in networks[:5]:
        same = space.architecture(arch.values)
        assert (same, same.id, exact_costs(same)) == (arch, arch.id, exact_costs(arch))
    assert [space.architecture(a.values) for a in networks if small.holds(a)] == networks


def test_a_block_that_is_left_out_is_not_held_where_that_is_forbidden():
    small = narrowed(TINY, {"*.expand_ratio": [2, 3]})
    assert small.holds(TINY.largest)
    assert TINY.smallest.values.count(0)
    assert not small.holds(TINY.smallest)


@pytest.mark.parametrize("name", searchers.names())
def test_every_searcher_stays_within_the_options_that_are_left(name):
    small = narrowed(TINY, ONLY)
    whole = exact_costs(TINY.largest)
    shares = {"macs": "30%"}
    config = settings(name, objectives=("params", "macs"), budgets=shares)
    stated = make_problem(small, config, metrics_of(small), whole)
    found = front.make_front("t", stated, searchers.search(stated, config), config, {})
    assert found.points
    assert found.max_network["macs"] == whole["macs"]
    for point in found.points:
        assert small.holds(point.arch)
        assert point.predicted["macs"] <= 0.3 * whole["macs"]  # of the whole space's max network
        assert point.predicted["macs"] == exact_costs(point.arch)["macs"]


def test_every_space_that_ships_may_be_held_to_its_smallest_network():
    for name in spaces.names():
        space = spaces.load(name)
        small = space.smallest
        held = narrowed(space, {choice.name: [choice.options[0]] for choice in space.choices})
        assert (held.size, held.smallest.values) == (1, small.values)
        assert held.depends_on


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"*.kernel_sise": [3]}, "search.only: choice '*.kernel_sise'"),
        ({"stage1.block1.kernel_siz": [3]}, "did you mean 'stage1.block1.kernel_size'"),
        ({"resolution": [9]}, "leaves resolution without options: [9] are none of [8, 10, 12"),
        ({"*.expand_ratio": [0]}, "leaves stage1.block1.expand_ratio without options"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(only, message):
    with pytest.raises(ConfigError) as told:
        narrowed(TINY, only)
    assert message in str(told.value)
