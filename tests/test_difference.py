from dataclasses import replace

import pytest
from test_table import make

from hwnas.tables.difference import changed, difference


def scaled(made, **factors):
    """A table with some rows, named by their place, multiplied."""
    keys = list(made.rows)
    rows = {key: dict(row) for key, row in made.rows.items()}
    for place, factor in factors.items():
        rows[keys[int(place[1:])]]["latency_ms"] *= factor
    return make(rows=rows)


def test_equal_tables_do_not_differ():
    found = difference(make(), make())
    assert (found["about"], found["environment"]) == ([], [])
    assert found["rows"]["median_ratio"] == found["rows"]["largest_ratio"] == 1.0
    assert found["rows"]["only_a"] == found["rows"]["only_b"] == 0


def test_ops_come_by_how_far_their_ratio_is_from_one_either_way():
    made = make()
    found = difference(made, scaled(made, _0=1.5, _1=0.5, _2=3.0, _3=0.0), most=4)
    keys = list(made.rows)
    assert [op["key"] for op in found["ops"]] == [keys[3], keys[2], keys[1], keys[0]]
    assert found["rows"]["largest_ratio"] == pytest.approx(3.0)
    assert found["rows"]["smallest_ratio"] == 0.0
    assert found["rows"]["median_ratio"] == 1.0


def test_rows_of_one_table_only_are_counted_and_a_row_of_nothing_has_no_ratio():
    made = make()
    first, _, *rest = made.rows
    fewer = make(rows={key: made.rows[key] for key in (first, *rest)})
    empty = make(rows={first: {"latency_ms": 0.0, "spread_ms": 0.0, "seen": 1}})
    assert difference(made, fewer)["rows"]["only_a"] == 1
    assert difference(fewer, made)["rows"]["only_b"] == 1
    assert difference(empty, made)["ops"] == [
        {"key": first, "a_ms": 0.0, "b_ms": 0.01, "ratio": None}
    ]
    assert difference(make(rows={}), made)["rows"]["median_ratio"] is None


def test_verdicts_and_environments_that_differ_are_told():
    other = make(environment={"fingerprint": "e" * 64, "cpu": "new"})
    other = replace(other, validation={**other.validation, "verdict": "usable"})
    found = difference(make(environment={"fingerprint": "f" * 64, "cpu": "old"}), other)
    assert found["about"] == [["verdict", "good", "usable"]]
    assert found["environment"] == [["cpu", "old", "new"]]


def test_readings_of_the_moment_are_no_change():
    then = {"engine_version": "1.20", "clock_mhz": 2000.0, "load_average": [0.1], "cores": 4}
    now = {"engine_version": "1.21", "clock_mhz": 800.0, "load_average": [3.0], "cores": 4}
    assert changed(then, now) == [["engine_version", "1.20", "1.21"]]
