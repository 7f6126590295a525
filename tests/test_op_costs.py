"""Look-up tables of ops that anyone can write, as JSON and CSV, with energies."""

from __future__ import annotations

import csv
import json

import pytest
from search_cases import TINY

from hwnas import cli
from hwnas.measuring.coverage import distinct_ops
from hwnas.ofa.op_costs import import_op_costs
from hwnas.tables import about, energy, table
from hwnas.tables.table import network_latency
from profilers.errors import FileFormatError, HwnasError, MissingOpError
from profilers.schema import target_from_name

TARGET = "phone.tflite.fp32.b1.t1"
ON = target_from_name(TARGET)
SPACE = TINY.restricted([8, 12])


def costs(space=SPACE):
    """ms, mJ and repeats of each op."""
    return {
        key: {"ms": 0.01 + p.op.macs * 1e-6, "mj": 0.02 + p.op.macs * 1e-6, "repeats": 5}
        for key, p in distinct_ops(space).items()
    }


def write(path, given):
    if path.suffix == ".json":
        path.write_text(json.dumps(given))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["key", "ms", "mj", "repeats"])
        writer.writeheader()
        writer.writerows({"key": key, **row} for key, row in given.items())
    return path


@pytest.mark.parametrize("name", ["t.json", "t.csv"])
def test_a_network_costs_the_sum_of_its_ops_and_what_every_network_does(tmp_path, name):
    given = costs() | {"network": {"ms": 0.5, "mj": 1.5}}
    made = import_op_costs(write(tmp_path / name, given), SPACE, ON)
    table.save(made, tmp_path / "table.json")
    found = table.load_table(tmp_path / "table.json")
    assert found == made
    assert (found.resolutions, found.marks, found.verdict) == (
        (8, 12),
        ("imported",),
        "unvalidated",
    )
    assert found.protocol["repeats"] == [5, 5]
    row_mj, network_mj = energy.prices(found)
    for arch in (SPACE.largest, SPACE.smallest):
        ops = [given[placed.op.key] for placed in arch.ops]
        assert network_latency(found, arch) == pytest.approx(0.5 + sum(op["ms"] for op in ops))
        mj = sum(row_mj(p.op.key) for p in arch.ops) + network_mj(arch.resolution)
        assert mj == pytest.approx(1.5 + sum(op["mj"] for op in ops))
    assert about.describe(found)["energy"].startswith("unvalidated: it was imported")
    assert energy.refusal(found) == ""


def test_energies_may_be_left_out_and_only_whole_resolutions_are_taken(tmp_path):
    given = {key: {"ms": row["ms"]} for key, row in costs().items()}
    only = next(key for key in distinct_ops(TINY.restricted([12])) if "in=1x12x12" in key)
    del given[only]
    made = import_op_costs(write(tmp_path / "t.csv", given), TINY, ON)
    assert made.resolutions == (8,)
    assert made.energy == {}
    assert set(made.rows) == set(distinct_ops(TINY.restricted([8])))


def _first(given):
    return next(iter(given.values()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda g: _first(g).update(ms=0), "ms is 0, expected more than 0"),
        (lambda g: _first(g).update(ms="fast"), "ms is 'fast', expected 0 or more"),
        (lambda g: _first(g).update(ms=-1), "ms is '-1'"),
        (lambda g: _first(g).update(mj=True), "mj is 'True'"),
        (lambda g: _first(g).pop("mj"), "has no mj, others have"),
        (lambda g: _first(g).update(joule=1), "expected ms, mj and repeats"),
        (lambda g: g.update({"conv": {"ms": 1.0}}), "conv"),
        (lambda g: [row.update(ms=row["ms"] * 1e4) for row in g.values()], "are these times ms"),
        (lambda g: [row.update(mj=row["mj"] * 1e6) for row in g.values()], "are these energies mJ"),
        (lambda g: _first(g).update(ms=1e3), "alone, the whole max network|are these times"),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, change, reason):
    given = costs()
    change(given)
    with pytest.raises(FileFormatError, match=reason):
        import_op_costs(write(tmp_path / "t.json", given), SPACE, ON)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected key, ms"),
        ("key,latency\na,1\n", "has the columns key, latency; expected key, ms"),
        ("key,ms\nnetwork,1", "does not end with a whole line"),
        ("key,ms\nnetwork,1\nnetwork,2\n", "network appears twice"),
        ("key,ms\nnetwork\n", "line 2 has other columns"),
        ('{"network": 3}', "expected ms, mj and repeats"),
        ("{", "is not JSON"),
        ("key,ms\nnetwork,1\n", "lacks ops of tiny at every resolution"),
    ],
)
def test_what_is_no_file_of_costs_is_refused(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(HwnasError, match=reason):
        import_op_costs(tmp_path / "t.csv", SPACE, ON)


def test_missing_ops_are_named_with_the_command_that_lists_all(tmp_path):
    given = costs(TINY.restricted([8]))
    given.popitem()
    with pytest.raises(MissingOpError, match=r"at 8 px 1 of them: .* `hwnas table counts tiny"):
        import_op_costs(write(tmp_path / "t.json", given), SPACE, ON)


def test_the_command_reads_a_file_for_a_space_of_the_users_own(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom hwnas.networks import spaces\n"
        "SPACE = replace(spaces.load('tiny'), name='mine', in_channels=3, n_classes=7)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    space = TINY.for_data(3, 7).restricted([8])
    path, out = str(write(tmp_path / "t.csv", costs(space))), str(tmp_path / "table.json")
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["import", "table", path, "--space", "mine:SPACE", "--target", TARGET, "--out", out]
        )
    assert not ended.value.code
    assert "GMAC/s" in capsys.readouterr().out
    assert table.load_table(tmp_path / "table.json").space == "mine"
