import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from search_cases import of_family

from hwnas.measuring import coverage
from hwnas.networks import spaces
from hwnas.networks.families.mbv3 import Stage
from hwnas.networks.ops import op, parse_key
from hwnas.settings.errors import ConfigError, MissingOpError, TableError, TableFormatError
from hwnas.tables import about, table, validation
from hwnas.tables.imported import no_validation
from hwnas.tables.table import CostTable
from profilers.schema import canonical_json, sha256_text, target_from_name

SPACE = spaces.load("tiny").restricted([8, 16])


HELDOUT = {  # predicted, a, b of two networks, by the verdict that they give
    "good": ((1.005, 1.002, 0.998), (2.01, 2.004, 1.996)),
    "usable": ((1.015, 1.002, 0.998), (2.03, 2.004, 1.996)),
    "unreliable": ((1.25, 1.002, 0.998), (2.5, 2.004, 1.996)),
}


def known_validation(verdict):
    """A validation of two networks, or of none."""
    if verdict not in HELDOUT:
        none = dict.fromkeys(("noise", "error", "ratio"))
        return {"verdict": verdict, "n": 0, **none, "points": [], "missing": []}
    points = [[f"{n:012x}", *row] for n, row in enumerate(HELDOUT[verdict])]
    heldout = validation._heldout(points)
    values = {name: of(heldout) for name, of in validation.STATISTICS.items()}
    about = {n: {"value": values[n], "interval": [values[n]] * 2} for n in ("noise", "error")}
    return {**values, **about, "verdict": verdict, "n": 2, "points": points, "missing": []}


def make(space=SPACE, verdict="good", marks=("measured",), **changes):
    """A table whose k-th op costs k + 1 hundredths of a ms."""
    rows = {
        key: {"latency_ms": (k + 1) / 100, "spread_ms": 0.001, "seen": 3}
        for k, key in enumerate(coverage.distinct_ops(space))
    }
    validation = {"reason": "predictions are off by 0.5%", **known_validation(verdict)}
    made = CostTable(
        space=space.name,
        geometry=space.geometry,
        resolutions=space.resolutions,
        target=target_from_name("host.ort-cpu.fp32.b1.t1").to_json(),
        environment={"fingerprint": "f" * 64},
        protocol={"created": "2026-01-01T00:00:00Z"},
        kit="k" * 64,
        source="s" * 64,
        marks=marks,
        rows=rows,
        calibration={
            "estimator": "alone",
            "intercept_ms": {str(size): size / 1000 for size in space.resolutions},
        },
        validation=validation,
    )
    return replace(made, **changes)


def test_a_network_costs_its_intercept_and_the_sum_of_its_rows():
    made = make()
    for arch in SPACE.architectures(SPACE.sample(50, np.random.default_rng(0))):
        expected = made.intercept(arch.resolution) + sum(made.row(o.op.key) for o in arch.ops)
        assert table.network_latency(made, arch) == expected
    assert made.intercept(16) == 0.016


def test_an_op_that_was_not_measured_is_refused_with_the_nearest_ones():
    made = make()
    known = next(
        placed.op for placed in coverage.distinct_ops(SPACE).values() if placed.op.kind == "mbconv"
    )
    strange = op("mbconv", *known.inputs, **{**dict(known.args), "kernel": 7})
    with pytest.raises(MissingOpError) as caught:
        made.row(strange.key)
    assert strange.key in str(caught.value)
    nearest = table.nearest(made, strange.key)
    assert all(key in str(caught.value) for key in nearest)
    assert nearest[0] == op("mbconv", *known.inputs, **{**dict(known.args), "kernel": 5}).key
    assert {key.split("(")[0] for key in nearest} == {"mbconv"}


def test_a_resolution_that_was_not_measured_is_refused():
    with pytest.raises(TableError, match=r"not measured at 12 px, only at 8, 16 px"):
        make().intercept(12)


def test_a_saved_table_is_read_back_and_the_same_table_gives_the_same_bytes(tmp_path):
    made = make()
    table.save(made, tmp_path / "one.json")
    table.save(make(), tmp_path / "two.json")
    assert table.load_table(tmp_path / "one.json") == made
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert json.loads((tmp_path / "one.json").read_text())["sha256"] == made.sha256


def test_damaged_edited_and_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "t.json"
    table.save(make(), path)
    text = path.read_text()
    for damaged, message in (
        (text[: len(text) // 2], "truncated"),
        ("", "truncated"),
        ("[]", "format None"),
        (text.replace("hwnas-table-1", "hwnas-table-7"), "hwnas-table-7"),
        (text.replace('"seen":3', '"seen":4', 1), "edited"),
        (text.replace('"latency_ms":0.01', '"latency_ms":NaN', 1), "NaN is not a number"),
        (text.replace('"sha256"', '"sha257"'), "edited"),
        ("[" * 100_000, "cannot be read"),
    ):
        path.write_text(damaged)
        with pytest.raises(TableFormatError, match=message) as caught:
            table.load_table(path)
        assert str(path) in str(caught.value)
    with pytest.raises(TableFormatError, match="does not exist"):
        table.load_table(tmp_path / "none.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("rows"),
        lambda data: data.update(rows=[]),
        lambda data: data.update(rows={"conv": {"latency_ms": 1.0}}),
        lambda data: next(iter(data["rows"].values())).update(latency_ms=-1.0),
        lambda data: next(iter(data["rows"].values())).update(latency_ms="fast"),
        lambda data: data["calibration"]["intercept_ms"].pop("8"),
        lambda data: data["validation"].update(verdict="superb"),
        lambda data: data.update(marks=["guessed"]),
        lambda data: data.update(target={}),
        lambda data: data.update(resolutions=8),
    ],
)
def test_a_file_with_a_right_hash_but_a_wrong_field_is_refused(tmp_path, spoil):
    path = tmp_path / "t.json"
    table.save(make(), path)
    data = json.loads(path.read_text())
    del data["sha256"]
    spoil(data)
    path.write_text(canonical_json({**data, "sha256": sha256_text(canonical_json(data))}))
    with pytest.raises(TableFormatError, match="not complete"):
        table.load_table(path)


def test_a_good_table_serves_its_space_and_any_restriction_of_it():
    made = make()
    assert table.check_serves(made, SPACE) == []
    assert table.check_serves(made, SPACE.restricted([8])) == []
    first, second = SPACE.family.stages
    fewer = of_family(SPACE, stages=(replace(first, kernel_sizes=(3,)), second))
    assert table.check_serves(made, fewer) == []


def test_a_table_does_not_serve_what_it_was_not_measured_for():
    made = make()
    with pytest.raises(TableError, match="not measured at 10, 12, 14 px"):
        table.check_serves(made, spaces.load("tiny"))
    with pytest.raises(TableError, match=r"is for space tiny with geometry .* mbv3-28"):
        table.check_serves(made, spaces.load("mbv3-28"))
    with pytest.raises(TableError, match="geometry"):
        table.check_serves(made, SPACE.for_data(3, 10))
    first, second = SPACE.family.stages
    wider: tuple[Stage, ...] = (replace(first, kernel_sizes=(3, 5, 7)), second)
    with pytest.raises(MissingOpError, match=r"lacks \d+ of \d+ ops of space tiny, such as mbconv"):
        table.check_serves(made, of_family(SPACE, stages=wider))


def test_doubtful_tables_are_refused_until_accepted_by_name():
    for made, word in (
        (make(verdict="unreliable"), "unreliable"),
        (make(marks=("emulated",)), "emulated"),
        (make(marks=("measured", "estimated")), "estimated"),
    ):
        with pytest.raises(TableError, match=f"is {word}: .*--accept {word}") as caught:
            table.check_serves(made, SPACE, {"unreliable", "emulated", "estimated"} - {word})
        assert caught.value.exit_code == 5
        (warning,) = table.check_serves(made, SPACE, {word})
        assert "accepted" in warning
    with pytest.raises(ConfigError, match="did you mean 'unreliable'"):
        table.check_serves(make(), SPACE, ["unreliabel"])


def test_usable_and_imported_tables_serve_with_a_warning():
    usable = table.check_serves(make(verdict="usable"), SPACE)
    imported = table.check_serves(make(marks=("imported",)), SPACE)
    assert [len(usable), len(imported)] == [1, 1]
    assert "only usable" in usable[0]
    assert "imported" in imported[0]


def test_a_description_is_plain_and_short_and_rows_come_dearest_first():
    made = make()
    told = about.describe(made)
    assert json.loads(json.dumps(told)) == told
    assert told["target"] == "host.ort-cpu.fp32.b1.t1"
    known = ("good", pytest.approx(0.005), len(made.rows))
    assert (told["verdict"], told["error"], told["ops"]) == known
    costs = [row["latency_ms"] for row in about.op_rows(made)]
    assert costs == sorted(costs, reverse=True)
    assert op("pool", (64, 2, 2)).key in {row["key"] for row in about.op_rows(made)}


def test_macs_milliseconds_and_millijoules_of_an_op_stand_beside_each_other():
    made = make()
    key = next(key for key in made.rows if key.startswith("mbconv"))
    made.rows[key]["energy_mj"] = 0.25
    rows = {row["key"]: row for row in about.op_rows(made)}
    told = [(name, rows[key][name]) for name in list(rows[key])[:4]]
    ms = made.rows[key]["latency_ms"]
    macs = parse_key(key).macs
    assert told == [("key", key), ("macs", macs), ("latency_ms", ms), ("energy_mj", 0.25)]
    assert {row["energy_mj"] for name, row in rows.items() if name != key} == {None}


def test_an_op_that_costs_nothing_is_told_and_refused_where_rows_are_held_above_0(tmp_path):
    made = make()
    key = next(iter(made.rows))
    made.rows[key]["latency_ms"] = 0.0
    assert table.costless(made) == [key]
    assert about.describe(made)["costless_ops"] == 1
    assert f"1 of {len(made.rows)} ops at 0 ms, such as {key}" in table.check_serves(made, SPACE)[0]
    held = replace(made, calibration={**made.calibration, "held": 0})
    table.save(held, tmp_path / "t.json")
    with pytest.raises(TableFormatError, match="has latency_ms 0"):
        table.load_table(tmp_path / "t.json")


def test_loading_a_table_imports_no_learning_library_and_no_engine(tmp_path):
    table.save(make(), tmp_path / "t.json")
    code = (
        "import sys; from pathlib import Path; from hwnas.tables import table;"
        f"table.load_table(Path({str(tmp_path / 't.json')!r}));"
        "heavy = {'torch', 'sklearn', 'scipy', 'onnx', 'onnxruntime'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_every_shipped_table_is_whole_measured_and_named_after_its_target():
    for path in sorted((Path(__file__).parents[1] / "latency_tables").rglob("*.json")):
        found = table.load_table(path)
        assert path.name == f"{found.target['name']}.json"
        assert path.parent.name == found.space
        assert found.marks == ("measured",)
        assert found.verdict in ("good", "usable")
        assert found.geometry == spaces.load(found.space).geometry


@pytest.mark.parametrize(
    "change",
    [
        {"error": {"value": 0.0, "interval": [0.0, 0.0]}},
        {"noise": {"value": 0.001, "interval": [0.0, 0.0]}},
        {"verdict": "usable"},
        {"verdict": "unvalidated"},
        {"n": 240},
        {"worst": 0.0},
        {"kendall_tau": None},
        {"ratio": "1.25"},
        {"points": [["0" * 12, 1.0, 1.0, -1.0]], "n": 1},
        {"points": [], "n": 0},
        {"points": [["0" * 12, 1.0, 1.0, 1.0]] * 2},
        {"missing": ["conv"]},
    ],
)
def test_a_table_whose_validation_is_not_what_its_points_give_is_refused(tmp_path, change):
    made = make()
    path = tmp_path / "t.json"
    table.save(replace(made, validation={**made.validation, **change}), path)
    with pytest.raises(TableFormatError, match="is not complete"):
        table.load_table(path)


@pytest.mark.parametrize("verdict", ["good", "usable", "unreliable"])
def test_a_table_without_held_out_networks_cannot_say_that_it_was_validated(tmp_path, verdict):
    path = tmp_path / "t.json"
    nothing = {**no_validation(), "verdict": verdict}
    table.save(replace(make(), marks=("imported",), validation=nothing), path)
    with pytest.raises(TableFormatError, match="with 0 held-out networks"):
        table.load_table(path)
    table.save(make(verdict="unvalidated"), path)
    with pytest.raises(TableFormatError, match="marks"):
        table.load_table(path)
