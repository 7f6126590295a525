"""Regions that span several blocks: divided by what the ops take alone, their share told."""

import numpy as np
import pytest
from campaigns import World, simulate

from hwnas.measuring import kit as kits
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.tables import regions
from hwnas.tables.observations import observe
from profilers import open_models
from profilers.runtimes import NodeTime


def test_a_region_is_divided_as_its_ops_take_time_alone():
    found = regions.divided({"a": 1.0, "a+b": 4.0, "": 0.5}, {"a": 0.3, "b": 0.1})
    assert found == pytest.approx({"a": 4.0, "b": 1.0, "": 0.5})


def test_a_region_of_ops_that_were_never_alone_is_divided_evenly():
    assert regions.divided({"a+b": 4.0}, {"a": 0.3}) == {"a": 2.0, "b": 2.0}


def test_nothing_is_lost_when_regions_are_divided():
    slots = {"a": 1.5, "a+b+c": 2.0, "b+c": 0.25}
    assert sum(regions.divided(slots, {"a": 1, "b": 2, "c": 3}).values()) == pytest.approx(3.75)


def test_the_share_of_regions_is_that_of_all_profiled_time():
    records = [{"profile": [["a", 1.0], ["a+b", 2.0]]}, {"ms": 5.0}, {"profile": [["b", 1.0]]}]
    assert regions.share(records) == 0.5
    assert regions.share([{"ms": 5.0}]) == 0.0


def test_fused_nodes_of_one_op_stay_with_it_and_those_of_two_become_a_region():
    nodes = [
        NodeTime("stem/conv + stem/relu", "", 1.0),
        NodeTime("Reformat", "", 0.5),
        NodeTime("stem/x + stage1.block1/y + stage1.block1/z", "", 2.0),
        NodeTime("myelin_7", "", 0.25),
        NodeTime("stage1.block1/w", "", 4.0),
    ]
    found = open_models.attribute(nodes, {"stem", "stage1.block1"})
    assert found == [["stem", 1.5], ["stem+stage1.block1", 2.0], ["stage1.block1", 4.25]]
    assert regions.REGION == open_models.REGION


def test_regions_of_a_campaign_become_times_of_ops_and_their_share_is_told(tmp_path):
    space = spaces.load("tiny").restricted([8])
    kit = kits.make_kit(space, tmp_path / "kit", 1, ProfileConfig(heldout=30)).kit
    records = simulate(kit, World(rounds=6, unattributed=0.0))[1]
    plain, spanning = observe(kit, records), observe(kit, [_fused(record) for record in records])
    assert "spanning" not in plain.protocol
    assert 0.05 < spanning.protocol["spanning"] < 0.5
    assert spanning.unattributed == pytest.approx(0)
    gap = np.abs(spanning.in_place_ms / plain.in_place_ms - 1)
    assert np.nanmedian(gap) < 0.1


def _fused(record):
    """The record with the second and third op of its profile in one region."""
    if "profile" not in record:
        return record
    first, (one, ms), (other, more), *rest = record["profile"]
    return {**record, "profile": [first, [f"{one}+{other}", ms + more], *rest]}
