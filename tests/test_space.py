"""Spaces, architectures and lowering, against enumeration and once-for-all's published figures."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.families import make_divisible
from hwnas.networks.ops import op, parse_key
from hwnas.networks.space import Architecture, SearchSpace
from profilers.errors import ConfigError

NAMES = spaces.names()


def enumerate_genomes(space: SearchSpace) -> np.ndarray:
    """One genome row of every different network."""
    every = np.array(list(itertools.product(*(range(len(c.options)) for c in space.choices))))
    _, first = np.unique(space.canonical(every), axis=0, return_index=True)
    return every[np.sort(first)]


def _total(arch: Architecture, count: str) -> int:
    return exact_costs(arch)[count]


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        ("ofa-mbv3-w10", (566_170_656, 121_278_672), (7_664_760, 3_410_792)),
        ("ofa-mbv3-w12", (843_101_040, 193_078_200), (10_701_632, 4_602_456)),
        ("ofa-proxyless-w13", (1_004_908_032, 265_526_256), (7_942_056, 3_718_832)),
        ("ofa-resnet50d", (7_491_643_904, 962_192_128), (48_105_992, 6_539_280)),
    ],
)
def test_counts_equal_the_figures_published_for_once_for_all(name, macs, params):
    space = spaces.load(name)
    smallest = space.architecture([224, *space.smallest.values[1:]])
    for arch, expected_macs, expected_params in zip(
        (space.largest, smallest), macs, params, strict=True
    ):
        assert _total(arch, "macs") == expected_macs
        assert _total(arch, "params") == expected_params


def test_tiny_is_enumerated_completely():
    space = spaces.load("tiny")
    assert len(enumerate_genomes(space)) == space.size == 10_000


def test_the_size_of_a_depth_space_counts_every_prefix():
    space = spaces.load("ofa-mbv3-w10")
    assert space.size == 7 * 7371**5


def test_spaces_keep_their_promised_costs():
    tiny, mbv3 = spaces.load("tiny"), spaces.load("mbv3-28")
    assert _total(tiny.largest, "macs") <= 500_000
    assert mbv3.size >= 10**10
    assert _total(mbv3.largest, "macs") <= 13_000_000
    assert _total(mbv3.smallest, "macs") <= 1_000_000


SMALL = (  # MobileNetV4-Conv-S: both depthwise kernels and expand ratio of each block
    ((5, 5, 3), *((0, 3, 2),) * 4, (3, 0, 4)),
    ((3, 3, 6), (5, 5, 4), (0, 5, 4), (0, 5, 3), *((0, 3, 4),) * 2),
)


def test_mobilenet_v4_conv_small_is_a_network_of_its_space_with_the_published_counts():
    chosen = {"resolution": 224}
    for s, blocks in enumerate(SMALL, start=1):
        chosen[f"stage{s}.depth"] = len(blocks)
        for b, options in enumerate(blocks, start=1):
            names = [
                f"stage{s}.block{b}.{o}" for o in ("start_size", "kernel_size", "expand_ratio")
            ]
            chosen.update(zip(names, options, strict=True))
    space = spaces.load("mbv4-224")
    arch = space.architecture([chosen[choice.name] for choice in space.choices])
    assert round(_total(arch, "params") / 1e6, 2) == 3.77  # timm: mobilenetv4_conv_small
    assert round(_total(arch, "macs") / 1e9, 2) == 0.19


def test_the_last_depthwise_convolution_of_a_bottleneck_takes_its_stride():
    both = {"mid": 16, "out": 8, "stride": 2}
    for kernels in ({"start": 3}, {"kernel": 3}, {"start": 3, "kernel": 5}):
        assert op("uib", (8, 9, 9), **both, **kernels).shape == (8, 5, 5)
    with pytest.raises(ConfigError, match="stride 2 needs a depthwise convolution"):
        _ = op("uib", (8, 9, 9), **both).shape


@pytest.mark.parametrize("name", ["mbv3-28-int8", "mbv3-224-int8", "mbv4-224"])
def test_spaces_for_int8_leave_nothing_in_float_and_others_say_what_they_leave(name, capsys):
    assert _told_in_float(name, capsys) == {}
    assert _told_in_float("mbv3-28", capsys) == {"HardSigmoid": 27}


def _told_in_float(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["space", "show", name, "--json"])
    assert not ended.value.code
    return json.loads(capsys.readouterr().out)["int8_in_float"]


def test_two_networks_of_tiny_lower_to_the_same_ops_only_if_they_are_equal():
    space = spaces.load("tiny").restricted([8])
    archs = space.architectures(enumerate_genomes(space))
    assert len(set(archs)) == len({space.lower(arch) for arch in archs}) == len(archs)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_equal_networks_are_equal_objects(name, seed):
    space = spaces.load(name)
    genome = space.sample(1, np.random.default_rng(seed))
    arch = space.architectures(genome)[0]
    assert space.architecture(space.option_values[np.arange(len(space.choices)), genome[0]]) == arch
    assert space.from_json(arch.to_json()) == arch
    assert space.architectures(space.genome([arch])) == [arch]
    assert hash(space.from_json(arch.to_json())) == hash(arch)
    may_be_absent = any(0 in choice.options for choice in space.choices)
    assert may_be_absent or 0 not in arch.to_json()["choices"].values()


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_choice_changes_nothing(name):
    space, rng = spaces.load(name), np.random.default_rng(0)
    genome = space.sample(50, rng)
    other = np.where(space.canonical(genome) == 0, space.sample(50, rng), genome)
    absent = space.option_values[np.arange(len(space.choices)), genome] == 0
    other = np.where(absent, genome, other)  # an absent block is a live choice
    assert space.architectures(other) == space.architectures(genome)


def test_absent_blocks_differ_by_their_place_though_they_cost_the_same():
    space = spaces.load("tiny")
    values = dict(zip((c.name for c in space.choices), space.largest.values, strict=True))
    second = space.architecture({**values, "stage2.block2.expand_ratio": 0}.values())
    third = space.architecture({**values, "stage2.block3.expand_ratio": 0}.values())
    assert second != third
    assert space.lower(second) != space.lower(third)
    assert _total(second, "macs") == _total(third, "macs")


@pytest.mark.parametrize("name", NAMES)
def test_op_keys_parse_back(name):
    space, rng = spaces.load(name), np.random.default_rng(1)
    for _ in range(20):
        for placed in space.random(rng).ops:
            assert parse_key(placed.op.key) == placed.op


def test_geometry_ignores_what_is_offered_and_sees_what_enters_a_shape():
    space = spaces.load("tiny")
    assert space.restricted([8, 16]).geometry == space.geometry
    for other in (space.for_data(3, 10), space.for_data(1, 11)):
        assert other.geometry != space.geometry
    head = dataclasses.replace(space.family.head, width=72)
    wider = dataclasses.replace(space, family=dataclasses.replace(space.family, head=head))
    assert wider.geometry != space.geometry


def test_sizes_on_request_are_offered_where_they_are_asked_for_and_only_there():
    space = spaces.load("ofa-mbv3-w10")
    asked = space.restricted([140, 260])
    assert (asked.resolutions, asked.geometry) == ((140, 260), space.geometry)
    assert asked.largest.ops[-1] == space.largest.ops[-1]
    for sizes in ([126], [264], [142]):
        with pytest.raises(ConfigError, match="and multiples of 4 from 128 to 260"):
            space.restricted(sizes)
    with pytest.raises(ConfigError, match="not offered"):
        asked.restricted([224])


def test_odd_sizes_are_halved_like_a_padded_convolution_does():
    space = spaces.load("ofa-mbv3-w10")
    arch = space.architecture([176, *space.largest.values[1:]])
    heights = {placed.slot: placed.op.shape[-1] for placed in arch.ops}
    assert [heights[s] for s in ("stem", "stage1.block1", "stage5.block1")] == [88, 44, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.architecture([8]), "has 11 choices, 1 values were given"),
        (lambda s: s.architecture([9, *s.largest.values[1:]]), "resolution = 9 is not offered"),
        (lambda s: s.from_json({"space": "mbv3-28", "choices": {}}), "expected 'tiny'"),
        (lambda s: s.from_json({"space": "tiny", "choices": {"x": 1}}), "unknown choice 'x'"),
        (lambda s: s.from_json({"space": "tiny", "choices": {}}), "resolution = 0 is not offered"),
        (lambda s: s.architecture([8.5, *s.largest.values[1:]]), "'8.5' is not a whole number"),
        (lambda s: s.architecture(["8", *s.largest.values[1:]]), "'8' is not a whole number"),
        (lambda s: s.architecture([True, *s.largest.values[1:]]), "'True' is not a whole number"),
        (lambda s: s.restricted([9]), "not offered by space tiny"),
        (lambda s: spaces.load("tyni"), "did you mean 'tiny'"),
        (lambda s: spaces.load("json:nothing"), "cannot be loaded"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call(spaces.load("tiny"))


@pytest.mark.parametrize(("value", "expected"), [(36, 40), (20, 24), (7, 8), (120, 120), (19, 24)])
def test_make_divisible_never_loses_more_than_a_tenth(value, expected):
    assert make_divisible(value) == expected
