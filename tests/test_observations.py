import copy
from dataclasses import replace

import numpy as np
import pytest
from campaigns import World, simulate

from hwnas.measuring import kit as kits
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.settings.errors import UnstableMeasurementError
from hwnas.tables import observations

SPACE = spaces.load("tiny").restricted([12, 16])
# Times long against a profile's clock of whole microseconds; no noise but where a test wants it.
EXACT = World(noise=0, burst=0, scale_ms=1e-5)


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit") / "kit"
    return kits.make_kit(SPACE, folder, 1, ProfileConfig(heldout=6)).kit


@pytest.fixture(scope="module")
def records(kit):
    return simulate(kit, EXACT)[1]


def _timed(records, name, session="a"):
    return [r["ms"] for r in records if r["id"][3] == name and r["id"][1] == session and "ms" in r]


def test_networks_are_read_with_their_ops_and_latencies(kit, records):
    seen = observations.observe(kit, records)
    items = {item["name"]: item for item in kit["items"]}
    assert set(seen.fitted.roles) == {"covering", "calibration"}
    assert set(seen.heldout.roles) == {"heldout"}
    for part in (seen.fitted, seen.heldout):
        for row, name in enumerate(part.names):
            arch = SPACE.from_json(items[name]["arch"])
            assert part.ids[row] == arch.id
            assert part.resolution[row] == arch.resolution
            assert part.latency_ms[row] == pytest.approx(_timed(records, name)[0])
            total = sum(part.counts[row, seen.keys.index(placed.op.key)] for placed in arch.ops)
            assert part.counts[row].sum() == len(arch.ops) <= total
    assert seen.again_ms == pytest.approx([_timed(records, n, "b")[0] for n in seen.heldout.names])


def test_ops_alone_and_in_place_are_read(kit, records):
    seen = observations.observe(kit, records)
    micro = {i["ops"][0]["key"]: i["name"] for i in kit["items"] if i["role"] == "micro"}
    alone = [_timed(records, micro[key])[0] for key in seen.keys]
    assert seen.alone_ms == pytest.approx(alone)
    assert seen.alone_spread_ms == pytest.approx(np.zeros(len(alone)), abs=1e-12)
    profiled = ~np.isnan(seen.in_place_ms)
    covering = np.array(seen.fitted.roles) == "covering"
    assert (profiled[covering] == (seen.fitted.counts[covering] > 0)).all()
    assert not profiled[~covering].any()
    assert seen.unattributed == pytest.approx(0.01, rel=0.01)
    assert seen.in_place_reason == ""


def test_a_profiled_run_is_no_latency_sample(kit, records):
    slowed = [{**r, "ms": 1e3} if "profile" in r else r for r in records]
    once, again = observations.observe(kit, records), observations.observe(kit, slowed)
    assert (once.fitted.latency_ms == again.fitted.latency_ms).all()


def test_repeated_broken_and_foreign_records_change_nothing(kit, records):
    foreign = copy.deepcopy(records[3])
    foreign["id"][0] = "another kit"
    broken = [
        {},
        {"id": ["x"], "role": "micro"},
        {**records[4], "ms": "fast"},
        {**records[4], "ms": -1.0},
        {**records[4], "id": [records[4]["id"][0], "a", "0", "micro-000"]},
    ]
    clean, mixed = (
        observations.observe(kit, lines)
        for lines in (records, [*records, *records[:50], foreign, *broken])
    )
    assert (clean.fitted.latency_ms == mixed.fitted.latency_ms).all()
    assert (clean.again_ms == mixed.again_ms).all()
    assert clean.protocol["records_left_out"] == 0
    assert mixed.protocol["records_left_out"] == 56


def test_disturbed_rounds_are_left_out_and_counted(kit, records):
    disturbed = simulate(kit, replace(EXACT, slow_rounds=(0, 1, 2)))[1]
    clean, seen = observations.observe(kit, records), observations.observe(kit, disturbed)
    assert seen.fitted.latency_ms == pytest.approx(clean.fitted.latency_ms)
    assert seen.protocol["rounds"] == {"a": 9, "b": 12}
    assert seen.protocol["disturbed_rounds"] == {"a": 3, "b": 0}


def test_campaigns_joined_say_how_many_rounds_counted_and_what_did_not_in_all(kit, records):
    disturbed = simulate(kit, replace(EXACT, slow_rounds=(0, 1, 2)))[1]
    found = [[*records, *records[:3]], [*disturbed, {}]]
    both = observations.joined([observations.observe(kit, lines) for lines in found]).protocol
    assert both["rounds"] == {"a": 9 + 12, "b": 12 + 12}
    assert both["disturbed_rounds"] == {"a": 3, "b": 0}
    assert both["records_left_out"] == 3 + 1


def test_too_few_undisturbed_rounds_give_no_numbers(kit):
    spoiled = simulate(kit, replace(EXACT, rounds=6, slow_rounds=(0, 1)))[1]
    with pytest.raises(UnstableMeasurementError, match="has 4 undisturbed rounds in session a"):
        observations.observe(kit, spoiled)


def test_an_item_that_was_not_measured_is_named(kit, records):
    for name, session in (("heldout-002", "b"), ("micro-003", "a"), ("covering-001", "a")):
        lines = [r for r in records if (r["id"][1], r["id"][3]) != (session, name)]
        with pytest.raises(UnstableMeasurementError, match=f"{name} has 0 .* session {session}"):
            observations.observe(kit, lines)


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (replace(EXACT, unattributed=None), "gives no times"),
        (replace(EXACT, unattributed=0.06), "6.0% of the profiled time belongs to no op"),
        (replace(EXACT, scale_ms=1e-8), "whole microseconds"),
    ],
)
def test_times_in_place_are_not_used_where_they_cannot_be_trusted(kit, world, reason):
    seen = observations.observe(kit, simulate(kit, world)[1])
    assert reason in seen.in_place_reason
