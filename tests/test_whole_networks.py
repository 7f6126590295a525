"""Latencies of whole networks that others measured: read, refused, and fitted to a table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from search_cases import TINY

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.ofa.dictionaries import to_dictionary
from hwnas.ofa.latencies import read_latencies
from hwnas.tables import about, table
from hwnas.tables.energy import prices
from hwnas.tables.table import network_latency
from hwnas.tables.whole_networks import KINDS, Sources, Timed, fit_networks, kernel_views
from profilers.errors import ConfigError, FileFormatError, HwnasError, TableFormatError
from profilers.schema import target_from_name

TARGET = "phone.tflite.fp32.b1.t1"
ON = target_from_name(TARGET)
SPACE = TINY.restricted([8, 12])


def true_ms(arch) -> float:
    """Launches and work of a device that hwnas knows nothing of."""
    ops = [placed.op for placed in arch.ops]
    views = {name: column.sum() for name, column in kernel_views(ops).items()}
    squeezed = 0.02 * views["squeeze"]
    return float(0.05 + 0.01 * views["kernels"] + squeezed + views["macs"] / 1e7)


def networks(n, seed=0, space=SPACE):
    drawn = space.architectures(space.sample(2 * n, np.random.default_rng(seed)))
    return list(dict.fromkeys(drawn))[:n]


ARCHS = networks(45)


def write(path, archs=ARCHS, header="latency_ms", unit=1.0, more=lambda arch: {}):
    """A CSV of architectures and latencies with more columns."""
    rows = [
        {"arch": json.dumps(a.to_json()), header: repr(true_ms(a) * unit), **more(a)} for a in archs
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ran(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["import", "latencies", *map(str, words)])
    return int(ended.value.code or 0)


# ---- fit ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return fit_networks(
        SPACE, ON, [Timed(a, (true_ms(a),)) for a in ARCHS], Sources({"r.csv": "0" * 64})
    )


def test_networks_that_nobody_measured_are_predicted_and_the_table_says_what_it_is(
    fitted, tmp_path
):
    for arch in networks(30, seed=1):
        assert network_latency(fitted, arch) == pytest.approx(true_ms(arch), rel=0.02)
    table.save(fitted, tmp_path / "t.json")
    found = table.load_table(tmp_path / "t.json")
    assert found == fitted
    assert (found.marks, found.resolutions, found.verdict) == (("imported",), (8, 12), "usable")
    told = about.describe(found)
    assert (told["noise"], told["heldout"]) == (None, 9)
    assert told["error"] < 0.02
    assert "no network was measured twice" in told["reason"]
    warnings = table.check_serves(found, SPACE)
    assert any("held-out rows of its file say how good it is" in line for line in warnings)
    assert about.contest(found)[0]["name"] == "macs"
    assert about.contest(found)[0]["error"] > 2 * told["error"]


def test_held_out_networks_choose_nothing(fitted):
    held = {point[0] for point in fitted.validation["points"]}
    wrong = [Timed(a, (true_ms(a) * (3 if a.id in held else 1),)) for a in ARCHS]
    again = fit_networks(SPACE, ON, wrong, Sources({"r.csv": "0" * 64}))
    assert again.rows == fitted.rows
    assert again.verdict == "unreliable"


def test_measurements_of_one_network_say_what_repeating_differs_by():
    rng = np.random.default_rng(0)
    given = [Timed(a, tuple(true_ms(a) * (1 + 0.01 * rng.random(4)))) for a in ARCHS]
    found = fit_networks(SPACE, ON, given, Sources({}))
    assert 0 < found.noise < 0.01
    assert found.verdict in ("good", "usable")
    assert found.protocol["repeated"] == len(ARCHS)


def test_a_table_without_repeats_that_holds_different_ones_is_refused(fitted, tmp_path):
    points = [[name, p, a, b * 1.01] for name, p, a, b in fitted.validation["points"]]
    wrong = replace(fitted, validation={**fitted.validation, "points": points})
    table.save(wrong, tmp_path / "t.json")
    with pytest.raises(TableFormatError, match="measured twice"):
        table.load_table(tmp_path / "t.json")


def test_squeeze_excite_is_counted_apart():
    (block,) = [p.op for p in TINY.largest.ops if p.slot == "stage2.block1"]
    views = {name: column[0] for name, column in kernel_views([block]).items()}
    assert views["squeeze"] == 6  # pool, two convolutions, activation, gate, scale
    assert sum(views[kind] for kind in KINDS) == len(block.exported)
    assert (views["depthwise"], views["pointwise"]) == (1, 2)


def test_too_few_networks_are_refused_with_how_many_are_needed():
    few = [Timed(a, (true_ms(a),)) for a in ARCHS[:24]]
    with pytest.raises(ConfigError, match="24 different networks, 25 at least are needed"):
        fit_networks(SPACE, ON, few, Sources({}))


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("Latency (ms)", 1),
        ("latency_us", 1e3),
        ("Latency [µs]", 1e3),
        ("latency (s)", 1e-3),
        ("ms", 1),
    ],
)
def test_the_header_says_the_unit(tmp_path, header, unit):
    read = read_latencies(write(tmp_path / "r.csv", ARCHS[:3], header, unit), SPACE, ON)
    assert [one.arch for one in read.networks] == ARCHS[:3]
    assert [one.ms[0] for one in read.networks] == pytest.approx([true_ms(a) for a in ARCHS[:3]])
    assert read.repeats == ""


@pytest.mark.parametrize(
    ("header", "unit"), [("energy (J)", 1e-3), ("energy", 1), ("Energy_uJ", 1e3)]
)
def test_the_header_says_the_unit_of_energies(tmp_path, header, unit):
    path = write(tmp_path / "r.csv", ARCHS[:2], more=lambda arch: {header: repr(2.5 * unit)})
    read = read_latencies(path, SPACE, ON).networks
    assert [one.mj for one in read] == [(pytest.approx(2.5),)] * 2


def test_choice_columns_and_dictionaries_name_networks_too(tmp_path):
    path = tmp_path / "r.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(c.name for c in SPACE.choices), "latency"])
        writer.writerows([*(v or "" for v in a.values), true_ms(a)] for a in ARCHS[:3])
    read = read_latencies(path, SPACE, ON).networks
    assert [(one.arch, one.ms) for one in read] == [(a, (true_ms(a),)) for a in ARCHS[:3]]  # ms
    w10 = spaces.load("ofa-mbv3-w10")
    path.write_text(f'Sub-network,Latency (ms)\n"{to_dictionary(w10.largest)}",30.5\n')
    (one,) = read_latencies(path, w10, ON).networks
    assert (one.arch, one.ms) == (w10.largest, (30.5,))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"batch": "8"}, "line 2: batch is '8', the target's is 1"),
        ({"dtype": "float16"}, "line 2: dtype is 'float16', the target's is fp32"),
        ({"macs": "1e9"}, "line 2: macs 1e.09, the network of tiny has"),
        ({"energy_mj": "1e9"}, "are these energies mJ"),
    ],
)
def test_rows_of_another_target_or_space_are_refused(tmp_path, more, reason):
    with pytest.raises(HwnasError, match=reason):
        read_latencies(write(tmp_path / "r.csv", more=lambda arch: more), SPACE, ON)


@pytest.mark.parametrize("unit", [1e-7, 1e5, 0.0])
def test_times_that_no_device_has_are_refused(tmp_path, unit):
    with pytest.raises(FileFormatError, match=r"line 2: .* GMAC/s; devices do .* are these times"):
        read_latencies(write(tmp_path / "r.csv", unit=unit), SPACE, ON)


def test_repeats_are_said_and_those_that_disagree_are_listed(tmp_path):
    twice = write(tmp_path / "r.csv", [*ARCHS, *ARCHS[:8]])
    read = read_latencies(twice, SPACE, ON)
    assert [len(one.ms) for one in read.networks] == [2] * 8 + [1] * 37
    assert read.repeats.startswith("8 networks were measured more than once (0.0% apart")
    text = twice.read_text().splitlines()
    twice.write_text("\n".join([*text[:-1], text[-1].replace(",", ",9", 1), ""]))
    cells = text[-1].rsplit(",", 1)
    twice.write_text("\n".join([*text[:-1], f"{cells[0]},{2 * float(cells[1])}", ""]))
    with pytest.raises(ConfigError, match=r"more than 10% apart: lines 9, 54 \("):
        read_latencies(twice, SPACE, ON)


def test_the_command_writes_a_table_with_energies_and_says_how_to_search_it(tmp_path, capsys):
    def mj(arch):
        return {"energy_mj": 2.0 * true_ms(arch) + exact_costs(arch)["macs"] / 1e6}

    path, out = write(tmp_path / "r.csv", more=mj), tmp_path / "t.json"
    assert ran(path, "--space", "tiny", "--target", TARGET, "--out", out) == 0
    said = capsys.readouterr().out
    assert f"put it at <run>/tables/{TARGET}.json" in said
    assert "imported; off by" in said
    found = table.load_table(out)
    assert found.energy["validation"]["verdict"] == "unvalidated"
    row_mj, network_mj = prices(found)
    arch = networks(3, seed=5)[0]
    total = sum(row_mj(p.op.key) for p in arch.ops) + network_mj(arch.resolution)
    assert total == pytest.approx(mj(arch)["energy_mj"], rel=0.05)


def test_latencies_that_the_networks_do_not_explain_end_with_the_reason(tmp_path, capsys):
    path, out = tmp_path / "r.csv", tmp_path / "t.json"
    rng = np.random.default_rng(0)
    text = write(path).read_text().splitlines()
    strange = [text[0], *(f"{line.rsplit(',', 1)[0]},{rng.uniform(0.1, 1)}" for line in text[1:])]
    path.write_text("\n".join([*strange, ""]))
    assert ran(path, "--space", "tiny", "--target", TARGET, "--out", out) == 5
    assert "is unreliable: predictions are off by" in capsys.readouterr().err
