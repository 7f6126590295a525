"""Measured subnets of a CSV: every way to name a network, and every bad line by its number."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
from search_cases import DEPTHS, TINY
from test_predictor import measured

from hwnas.ofa.results import read_results as read_file
from hwnas.predictors.results import repeats_text, write_candidates
from profilers.errors import FileFormatError, HwnasError


def read_results(path, space):
    return {result.arch: result.top1 for result in read_file(path, space)}


def _by_choice(path, space, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", *(c.name for c in space.choices), "top1"])
        for arch, top1 in rows:
            writer.writerow(["", *(v or "" for v in arch.values), top1])


@pytest.mark.parametrize("space", [TINY, DEPTHS], ids=lambda space: space.name)
def test_both_ways_to_name_a_network_read_the_same(space, tmp_path):
    rows = dict(measured(space, 30))
    _by_choice(tmp_path / "choices.csv", space, rows.items())
    with (tmp_path / "json.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["top1", "arch"])
        writer.writerows([top1, json.dumps(a.to_json())] for a, top1 in rows.items())
    assert read_results(tmp_path / "choices.csv", space) == rows
    assert read_results(tmp_path / "json.csv", space) == rows


def test_percent_and_fraction_are_told_apart_by_the_whole_column(tmp_path):
    rows = dict(measured(TINY, 10))
    _by_choice(tmp_path / "r.csv", TINY, [(arch, 100 * top1) for arch, top1 in rows.items()])
    assert read_results(tmp_path / "r.csv", TINY) == pytest.approx(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, (rows[0][0], rows[0][1] - 0.03)], r"2% apart: lines 2, 12 \(3\.00%"),
        (lambda rows: [*rows, (TINY.largest, "nan")], "line 12: top1 is 'nan', expected a number"),
        (lambda rows: [*rows, (TINY.largest, "98.2")], "98.2 in line 12: fraction or percent"),
        (lambda rows: [*rows, (TINY.largest, "")], "line 12: top1 is ''"),
        (lambda rows: [*rows, (TINY.largest, "-0.5")], "line 12: top1 is '-0.5'"),
        (lambda rows: [(DEPTHS.largest, 0.5)], "line 2: "),
    ],
    ids=["twice and far apart", "nan", "percent", "empty", "negative", "another space"],
)
def test_bad_lines_are_named(change, message, tmp_path):
    path = tmp_path / "r.csv"
    _by_choice(path, TINY, change(measured(TINY, 10)))
    with pytest.raises(HwnasError, match=message):
        read_results(path, TINY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column named top1"),
        (b"arch,loss\n", "no column named top1"),
        (
            b"top1,latency\n",
            r"no column named arch .* or the choices of tiny, resolution and so on",
        ),
        (b"top1,arch,top1\n", "several columns of one thing, top1 and top1"),
        (b"\xff\xfe\x00", "is not text"),
        (b"top1,arch\n0.5,[1]\n", "line 2: '.1.' is not an architecture"),
        (b"top1,arch\n0.5\n", "line 2: 1 values, the header names 2 columns"),
        (b'top1,arch\n0.5,"{""space"": ""mbv3-28"", ""choices"": {}}"\n', "line 2: .*mbv3-28"),
    ],
)
def test_what_is_no_table_of_results_is_refused(content, message, tmp_path):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(HwnasError, match=message):
        read_results(tmp_path / "r.csv", TINY)
    with pytest.raises(FileFormatError, match="does not exist"):
        read_results(tmp_path / "none.csv", TINY)


def test_a_network_measured_twice_is_averaged_and_said_once(tmp_path):
    path = tmp_path / "r.csv"
    rows = measured(TINY, 10)
    (first, top1), *rest = rows
    _by_choice(path, TINY, [*rows, (first, top1 - 0.01)])
    assert read_results(path, TINY) == {first: pytest.approx(top1 - 0.005), **dict(rest)}
    assert repeats_text(read_file(path, TINY)) == (
        "1 networks were measured more than once and averaged: lines 2, 12 (1.00% apart)"
    )


def test_half_an_option_is_no_network(tmp_path):
    path = tmp_path / "r.csv"
    half = SimpleNamespace(values=(TINY.largest.resolution + 0.5, *TINY.largest.values[1:]))
    _by_choice(path, TINY, [(half, 0.5)])
    with pytest.raises(HwnasError, match=r"line 2: .*is not a whole num"):
        read_results(path, TINY)


def test_a_file_whose_last_line_has_no_end_is_refused(tmp_path):
    path = tmp_path / "r.csv"
    _by_choice(path, TINY, measured(TINY, 3))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FileFormatError, match="does not end with a whole line"):
        read_results(path, TINY)


def test_candidates_read_back_once_their_accuracy_is_filled_in(tmp_path):
    archs = [arch for arch, _ in measured(TINY, 5)]
    path = tmp_path / "c.csv"
    write_candidates(path, archs)
    with pytest.raises(HwnasError, match="line 2: top1 is ''"):
        read_results(path, TINY)
    path.write_text(path.read_text().replace('"",', '"0.5",'))
    assert read_results(path, TINY) == dict.fromkeys(archs, 0.5)
