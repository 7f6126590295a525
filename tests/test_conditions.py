"""What probes of a campaign say: which rounds were held back, and what the table tells of it."""

import pytest

from hwnas.tables.conditions import conditions, held_back
from profilers import stats
from profilers.schema import canonical_json

COOL = {"now": [], "since_boot": [], "events": {"thermal": 3}}


def campaign(held=(), n_rounds=10, session="a", events=()):
    """Anchor samples of equal time, a probe before and after each round."""
    records = []
    for number in range(n_rounds):
        flags = {**COOL, "now": ["throttled"]} if number in held else COOL
        after = {**flags, "events": {"thermal": 4}} if number in events else flags
        for order, throttled in enumerate((COOL, after)):
            state = {"governor": "ondemand", "temperature_c": 50.0 + number, "power_mode": None}
            state |= {"clock_mhz": 1500.0 - 10 * order, "throttled": throttled}
            record = {"id": ["k", session, number, "anchor"], "role": "anchor", "order": order}
            records.append({**record, "loops": 1, "ms": 1.0, "probe": state})
    return records


def test_a_round_that_was_held_back_is_disturbed_though_its_anchor_is_as_fast():
    assert stats.disturbed_rounds(campaign(held=(2, 7))) == {("a", 2), ("a", 7)}
    assert stats.disturbed_rounds(campaign(events=(4,))) == {("a", 4)}
    assert stats.disturbed_rounds(campaign()) == set()


def with_flags(records, number, before=None, after=None):
    """The records with other flags around one round."""
    at = [r for r in records if r["id"][2] == number]
    for record, flags in zip(at, (before, after), strict=True):
        record["probe"] = {**record["probe"], "throttled": {**COOL, **(flags or {})}}
    return records


def test_a_flag_that_stays_until_the_next_start_disturbs_the_round_it_came_up_in_alone():
    records = campaign()
    for number in range(4, 10):
        came_up = {"since_boot": ["under-voltage"]}
        with_flags(records, number, came_up if number > 4 else None, came_up)
    assert stats.throttled_rounds(records) == {("a", 4): {"under-voltage"}}
    assert stats.disturbed_rounds(records) == {("a", 4)}
    assert held_back(conditions(records)) == (
        "its clocks were throttled in 1 of 10 rounds (under-voltage)"
    )


def test_the_probes_of_a_round_are_compared_from_the_first_to_the_last():
    records = campaign()
    late = next(r for r in records if r["id"][2] == 3 and r["order"] == 1)
    late = {**late, "order": 2, "probe": {"throttled": {**COOL, "events": {"thermal": 4}}}}
    assert stats.disturbed_rounds([*records, late]) == {("a", 3)}
    assert stats.disturbed_rounds([r for r in records if r["order"] == 0]) == set()  # one each


def test_every_count_of_events_is_watched_by_itself():
    fewer = {"events": {"thermal": 9, "power-cap": 4}}, {"events": {"thermal": 2, "power-cap": 5}}
    assert stats.disturbed_rounds(with_flags(campaign(), 3, *fewer)) == {("a", 3)}
    vanished = {"events": {"thermal": 3, "power-cap": 4}}, {"events": {"power-cap": 4, "new": 7}}
    assert stats.disturbed_rounds(with_flags(campaign(), 3, *vanished)) == set()


def test_a_device_that_is_always_held_back_is_measured_as_it_is():
    records = campaign(held=range(10))
    assert stats.disturbed_rounds(records) == set()
    assert set(stats.throttled_rounds(records)) == {("a", number) for number in range(10)}
    assert conditions(records)["throttled"] == {"rounds": 10, "of": 10, "words": ["throttled"]}


def test_a_device_that_is_held_back_in_half_of_its_rounds_is_measured_as_it_is():
    assert stats.disturbed_rounds(campaign(held=range(5))) == set()
    assert len(stats.disturbed_rounds(campaign(held=range(4)))) == 4


def test_sessions_are_judged_apart():
    records = campaign(held=(1,)) + campaign(held=range(6), session="b")
    assert stats.disturbed_rounds(records) == {("a", 1)}


def test_the_table_tells_heat_clocks_and_governor_before_during_and_after():
    assert conditions(campaign()) == {
        "governor": ["ondemand"],
        "temperature_c": {"before": 50.0, "highest": 59.0, "after": 59.0},
        "clock_mhz": {"lowest": 1490.0, "highest": 1500.0},
        "throttled": {"rounds": 0, "of": 10, "words": []},
    }


def test_what_speaks_against_the_numbers_is_one_line_and_empty_if_nothing_does():
    assert held_back(conditions(campaign())) == ""
    assert held_back({}) == ""
    found = held_back(conditions(campaign(held=(2, 7))))
    assert found == "its clocks were throttled in 2 of 10 rounds (throttled)"
    assert held_back(conditions(campaign(n_rounds=40))) == "it was at 89 °C"


def test_what_no_probe_knew_is_left_out():
    unknown = {"governor": None, "temperature_c": None, "throttled": None, "clock_mhz": None}
    record = {"id": ["k", "a", 0, "anchor"], "role": "anchor", "ms": 1.0, "probe": unknown}
    assert conditions([record]) == {}
    assert conditions([]) == {}
    assert conditions([{"probe": {"governor": "x"}}, {"id": 7, "probe": {"governor": "x"}}]) == {}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"temperature_c": float("nan"), "clock_mhz": float("inf")},
        {"temperature_c": 10**400, "governor": ["a"], "power_mode": {"b": 1}},
        {"governor": "\x1b[2J", "power_mode": "x" * 1000},
        {"throttled": {"now": 0, "events": {"a": "1", "b": [2]}}},
    ],
    ids=ascii,
)
def test_a_device_that_sends_nonsense_changes_neither_rounds_nor_the_table(nonsense):
    records = campaign()
    for record in records:
        record["probe"] = nonsense
    assert stats.disturbed_rounds(records) == set()
    found = conditions(records)
    canonical_json(found)
    assert all(word.isprintable() for word in found.get("governor", []))
    assert held_back(found) == ""


@pytest.mark.parametrize(
    "probe",
    [None, 7, [], {"throttled": 7}, {"throttled": {"events": 7}}, {"throttled": {"firmware": "5"}}],
)
def test_probes_of_older_files_and_broken_ones_are_no_evidence(probe):
    records = campaign()
    for record in records:
        record["probe"] = probe
    assert stats.disturbed_rounds(records) == set()
    conditions(records)
