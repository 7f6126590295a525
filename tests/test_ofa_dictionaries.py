"""once-for-all's dictionaries: there and back for every space, other spellings, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.networks import spaces
from hwnas.ofa.dictionaries import SPACES, from_dictionary, to_dictionary
from profilers.errors import ConfigError

MBV3 = "ofa-mbv3-w10"


@pytest.mark.parametrize("name", SPACES)
def test_an_architecture_comes_back_from_its_dictionary(name):
    space, rng = spaces.load(name), np.random.default_rng(0)
    for arch in [space.largest, space.smallest, *(space.random(rng) for _ in range(50))]:
        assert from_dictionary(space, to_dictionary(arch)) == arch


def test_values_of_skipped_blocks_are_ignored():
    space = spaces.load(MBV3)
    given = to_dictionary(space.smallest)
    other = {**given, "ks": [k if i % 4 < 2 else 99 for i, k in enumerate(given["ks"])]}
    assert from_dictionary(space, other) == space.smallest


def test_single_numbers_stand_for_whole_lists_and_r_for_image_size():
    space = spaces.load(MBV3)
    for given in ({"wid": None, "ks": 7, "e": 6, "d": 4, "r": [224]}, {"ks": 7, "e": 6, "d": 4}):
        assert from_dictionary(space, given, resolution=224) == space.largest


def test_the_last_depth_of_proxyless_is_clipped_to_its_one_block():
    space = spaces.load("ofa-proxyless-w13")
    given = {"ks": 7, "e": 6, "d": [4, 4, 4, 4, 4, 3], "image_size": 224}
    assert from_dictionary(space, given) == space.largest
    assert to_dictionary(space.largest)["d"] == [4, 4, 4, 4, 4, 1]


def test_the_two_smaller_widths_of_the_resnet_stem_are_one_network():
    space = spaces.load("ofa-resnet50d")
    given = to_dictionary(space.smallest)
    other = from_dictionary(space, {**given, "w": [1, 0, 0, 0, 0, 0]})
    assert other == space.smallest
    assert given["d"][0] == 0
    assert from_dictionary(space, {**given, "d": [1, *given["d"][1:]]}) == space.smallest


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (MBV3, {"ks": [3] * 19}, "'ks' holds 19 values, expected 20"),
        (MBV3, {"ks": None}, "lacks 'ks'"),
        (MBV3, {"ks": 4}, "kernel_size = 4 is not offered"),
        (MBV3, {"e": 0.5}, "'e' holds 0.5, expected whole numbers"),
        (MBV3, {"d": float("nan")}, "'d' holds nan"),
        (MBV3, {"wid": 1.2}, r"has wid 1\.2, ofa-mbv3-w10 has 1\.0"),
        (MBV3, {"wid": "1.0"}, "has wid '1.0'"),
        ("ofa-proxyless-w13", {"wid": 1.0}, r"has wid 1\.0, ofa-proxyless-w13 has 1\.3"),
        ("ofa-resnet50d", {"wid": 1.0}, "has wid"),
        (MBV3, {"image_size": 140}, "resolution = 140 is not offered"),
        (MBV3, {"image_size": [128, 224]}, "input size"),
        (MBV3, {"expand": 3}, "has the key 'expand'"),
        ("ofa-resnet50d", {"e": 0.3}, "expand_percent = 30 is not offered"),
        ("ofa-resnet50d", {"e": "big"}, "e holds 'big'"),
        ("ofa-resnet50d", {"e": 0.2001}, "not a whole number of percent"),
        ("ofa-resnet50d", {"w": 3}, "w holds 3, expected an index from 0 to 2"),
        ("ofa-resnet50d", {"ks": 5}, "no kernel sizes to choose"),
        ("tiny", {}, "not one of once-for-all's"),
    ],
)
def test_what_a_space_does_not_offer_is_named(name, change, message):
    space = spaces.load(name)
    given = to_dictionary(space.largest) if name in SPACES else {}
    with pytest.raises(ConfigError, match=message):
        from_dictionary(space, {**given, **change})
