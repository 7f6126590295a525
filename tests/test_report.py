import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import report_data as made_up
import yaml
from report_data import HOSTILE, Page, hostile_data, report_data

from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.report import facts
from hwnas.report.collect import collect, stage_times
from hwnas.report.curve import training_curve
from hwnas.report.devices import wins
from hwnas.report.packages import ship
from hwnas.report.page import write_report
from hwnas.report.pieces import METRICS, number, percent, shown
from hwnas.report.render import render
from hwnas.run import package
from hwnas.search import front
from hwnas.tables import table
from profilers.errors import ConfigError
from profilers.schema import (
    PACKAGE_FORMAT,
    append_lines,
    read_json,
    sha256_file,
    target_from_name,
    write_json,
)

TARGET = "host.ort-cpu.fp32.b1.t1"


def _embedded(page):
    return json.loads(page.scripts[0])


# ---- the page -----------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_anywhere():
    text = render(report_data())
    namespaces = re.findall(r"\w+://[^\s\"'<>]+", text)
    assert set(namespaces) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|\bsrc=|\bfetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text
    assert {tag for tag, _ in Page(text).tags}.isdisjoint({"link", "img", "iframe", "object"})


def test_embedded_data_parse_back_to_what_was_given():
    data = report_data()
    embedded = _embedded(Page(render(data)))
    for given, found in zip(data["targets"], embedded["targets"], strict=True):
        for key in ("name", "table", "packages"):
            assert found[key] == given[key]
    assert embedded["training"] == data["training"]


def test_costs_on_the_page_are_never_below_the_real_ones_so_that_a_budget_of_one_is_met():
    rng = np.random.default_rng(0)
    data = report_data()
    points = data["targets"][0]["front"]["points"]
    for given in points:
        given["predicted"]["latency_ms"] = float(10 ** rng.uniform(-4, -2))
    column = _embedded(Page(render(data)))["targets"][0]["front"]["predicted"]["latency_ms"]
    for given, of_it in zip(points, column["values"], strict=True):
        real = given["predicted"]["latency_ms"]
        assert real <= of_it / 10 ** column["digits"] <= 1.001 * real


def test_names_that_try_to_break_out_stay_text():
    plain, page = Page(render(report_data())), Page(render(hostile_data()))
    assert len(page.scripts) == len(plain.scripts) == 2
    assert "img" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text
    embedded = _embedded(page)
    assert embedded["targets"][0]["name"] == HOSTILE
    assert embedded["targets"][0]["packages"][0]["name"] == HOSTILE


def test_the_same_data_give_the_same_page():
    data = report_data()
    assert render(data) == render(data)


def test_every_verdict_is_said_in_words_and_unreliable_ones_are_marked():
    page = Page(render(report_data()))
    assert "Predictions are off by 0.50%. worst 1.50%" in page.text
    assert "Noise is 6.1 %, above 4 %." in page.text
    assert "it was not profiled: hwnas profile" in page.text
    assert (
        "1 warning host.ort-cpu.fp32.b8.t1: its table is unreliable, so its latencies" in page.text
    )
    chips = [attrs["class"] for tag, attrs in page.tags if "verdict" in attrs.get("class", "")]
    assert {"verdict good", "verdict unreliable", "verdict no table"} == set(chips)


def test_a_predicted_error_is_never_called_an_accuracy():
    data = report_data()
    page = Page(render(data))
    assert "predicted error" in page.text
    assert "predicted accuracy" not in page.text.lower()
    assert re.findall(r"94.6%? ± 3.0", page.text) == ["94.6 ± 3.0"]
    for point in data["targets"][0]["front"]["points"]:
        assert percent(1 - point["predicted"]["error"]) not in page.text


def test_what_was_measured_is_on_the_page_without_the_charts():
    data = report_data()
    text = Page(render(data)).text
    for made in (each for target in data["targets"] for each in target["packages"]):
        assert percent(1 - made["test_error"]) in text
        assert shown("latency_ms", made["measured"]["latency_ms"]) in text


def _made(name, accuracy, latency_ms, alike=(), **given):
    measured = {"latency_ms": latency_ms}
    found = {"name": name, "id": name, "test_error": 1 - accuracy, "measured": measured}
    return {**found, "alike": [name, *alike], "budgets": {}, "against": [], **given}


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ([_made("a", 0.9, 1.0), _made("b", 0.99, 3.0)], ("b", "a")),
        # what the test images cannot tell apart is decided by latency
        ([_made("a", 0.98, 1.0, "b"), _made("b", 0.99, 3.0, "a")], ("a", "b")),
        # what was picked for a budget goes before what was not
        ([_made("a", 0.9, 1.0, budgets={"latency_ms": 2}), _made("b", 0.99, 3.0)], ("a", "b")),
        # what something is said against comes last
        ([_made("a", 0.9, 1.0), _made("b", 0.99, 3.0, against=["disturbed"])], ("a", None)),
        ([_made("b", 0.99, 3.0, against=["disturbed"])], ("b", None)),
        # packages of two targets have the same names and were not compared
        (
            [_made("best", 0.6, 1.0, target="int8"), _made("best", 0.95, 3.0, id="b", target="fp")],
            ("best", "best"),
        ),
        # two packages of one network are no two answers
        ([_made("a", 0.9, 1.0), _made("b", 0.9, 1.1, id="a")], ("a", None)),
    ],
)
def test_the_package_to_ship_is_the_fastest_that_the_images_do_not_tell_from_the_best(
    packages, expected
):
    assert tuple(each and each["name"] for each in ship(packages)) == expected
    if len({each.get("target") for each in packages}) > 1:
        assert ship(packages)[0]["target"] == "fp"


def test_the_first_screen_says_what_to_ship_with_what_was_measured_of_it():
    data = report_data()
    data["targets"][1]["packages"] = [
        {**package, "budgets": {"latency_ms": 0.1}, "batch": 8}
        for package in data["targets"][0]["packages"]
    ]
    text = Page(render(data)).text
    assert "Ship knee on ort-cpu.fp32.b1.t1: 94.6 ± 3.0\u00a0%, 0.0780\u00a0ms measured" in text
    assert (
        "0.0780\u00a0ms measured per batch of 8, 48.2\u00a0kB; within your budget of 0.100" in text
    )
    assert text.index("Ship knee") < text.index("Packages")


def test_six_targets_of_five_hundred_networks_are_a_page_of_less_than_400_kb():
    space = spaces.load("ofa-mbv3-w10")
    archs = [space.random(np.random.default_rng(n)) for n in range(500)]
    data, rng = report_data(), np.random.default_rng(0)
    targets = []
    for n in range(6):
        points = [
            {
                **made_up.point(k, 1 + k * 0.01234567, float(rng.random())),
                "id": arch.id,
                "options": arch.to_json()["choices"],
                "predicted": {name: float(rng.uniform(1e5, 1e7)) for name in METRICS},
                "stages": [[f"stage{s}", float(rng.random())] for s in range(8)],
            }
            for k, arch in enumerate(archs)
        ]
        made = made_up.target(f"host.ort-cpu.fp32.b1.t{n + 1}")
        front = {**made["front"], "choices": space.offered(), "points": points}
        targets.append({**made, "front": front})
    page = render({**data, "targets": targets, "devices": []})
    assert len(page.encode()) <= 400_000


def test_a_device_stands_before_its_targets_and_says_which_is_best_up_to_which_cost():
    data = report_data()
    (device,), page = data["devices"], Page(render(data))
    for told in device["wins"]:
        assert (
            f"{told['target']}{told['networks']}{shown('latency_ms', told['least'])}" in page.text
        )
    panels = [a["data-panel"] for tag, a in page.tags if tag == "article" and "data-panel" in a]
    tabs = [attrs["data-panel"] for tag, attrs in page.tags if tag == "button"]
    assert panels == ["d0", "t0", "t1", "t2", "t3"]
    assert tabs == ["d0", "t0", "t3", "t1", "t2"]  # its targets stand with it


def test_stretches_of_a_device_hold_every_network_of_the_stairs_once_in_their_order():
    rng = np.random.default_rng(0)
    told = [("abc"[n % 3], float(error), n) for n, error in enumerate(rng.random(60))]
    points = [{"target": t, "predicted": {"error": e, "macs": c}} for t, e, c in told]
    stairs = [step for n, step in enumerate(told) if all(e > step[1] for _, e, _ in told[:n])]
    expected = [list(steps) for _, steps in itertools.groupby(stairs, key=lambda step: step[0])]
    found = wins(rng.permutation(points).tolist(), "macs")
    assert [(w["target"], w["networks"], w["least"], w["most"], w["best"]) for w in found] == [
        (steps[0][0], len(steps), steps[0][2], steps[-1][2], steps[-1][1]) for steps in expected
    ]


def test_a_report_of_nothing_says_so():
    data = report_data() | {"targets": [], "training": None, "settings": []}
    text = Page(render(data | {"devices": [], "predictor": "", "missing": ["the settings"]})).text
    for words in ("No table;", "No package yet;", "No training log", "Not in this report: the"):
        assert words in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.05123, "0.0512"), (0.5, "0.500"), (9.996, "10.00"), (12.34, "12.3"),
     (123.4, "123"), (1234.5, "1234"), (-0.0512, "-0.0512"), (1e-9, "0.000000")],
)  # fmt: skip
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert number(value) == text


def test_values_are_shown_in_their_units():
    assert shown("error", 0.0421) == "4.21%"
    assert shown("macs", 1_234_000) == "1.23\u00a0million"
    assert shown("something", 2) == "2.00"
    assert percent(0.000012) == "0.00%"


# ---- collecting ---------------------------------------------------------------------------------


def _space():
    return spaces.load("tiny").restricted([16])


HELDOUT = [["0123456789ab", 0.1004, 0.1002, 0.0998], ["0123456789cd", 0.2008, 0.2004, 0.1996]]


def _table(space):
    """A table in which an op costs its MACs in nanoseconds and a network 10 us more."""
    rows = {
        placed.op.key: {"latency_ms": placed.op.macs * 1e-6, "spread_ms": 0.0, "seen": 3}
        for arch in (space.smallest, space.largest)
        for placed in arch.ops
    }
    validation = {
        "verdict": "good",
        "reason": "error is at the noise floor",
        "n": 2,
        "noise": {"value": 0.004, "interval": [0.003, 0.005]},
        "error": {"value": 0.004, "interval": [0.003, 0.006]},
        "ratio": 1.0,
        "worst": 0.004,
        "within_5": 1.0,
        "kendall_tau": 1.0,
        "missing": [],
        "points": HELDOUT,
    }
    return table.CostTable(
        space=space.name,
        geometry=space.geometry,
        resolutions=space.resolutions,
        target={"name": TARGET, "device": "host", "runtime": "ort-cpu"},
        environment={"device": "host", "cpu": "Example CPU", "cores": 2, "engine": "ort-cpu"},
        protocol={"created": "2025-01-01T00:00:00Z"},
        kit="k",
        source="s",
        marks=("measured",),
        rows=rows,
        calibration={"intercept_ms": {"16": 0.01}, "estimator": "alone"},
        validation=validation,
    )


def _run(root):
    """A run folder with every file that a report reads, of one target."""
    space = _space()
    settings = {
        "run": "runs/digits",
        "data": {"kind": "digits", "root": ""},
        "space": {"name": "tiny", "resolutions": [16]},
        "train": {"recipe": "sandwich", "epochs": 3, "seed": 0},
        "search": {"algorithm": "nsga2", "objectives": ["error", "latency_ms"], "seed": 1},
        "targets": [TARGET],
    }
    images = {"train": 1222, "val": 216, "test": 359}
    about = {"channels": 1, "size": 8, "classes": [str(n) for n in range(10)], "images": images}
    write_json(root / "config.json", settings)
    write_json(root / "data.json", about)
    table.save(_table(space), root / "tables" / f"{TARGET}.json")
    front.save(_front(space), root / "fronts" / f"{TARGET}.json")
    _write_package(root / "packages" / TARGET / "best", space.largest)
    append_lines(root / "events.jsonl", [{"stage": "train", "step": 1, "labels_max": 2.0}])
    return root


def _front(space):
    return front.Front(
        target=TARGET,
        space=space,
        objectives=("error", "latency_ms"),
        reference_point=(0.9, 0.11),
        hypervolume=0.05,
        max_network={"error": 0.03, "latency_ms": 0.1},
        settings={"algorithm": "nsga2"},
        seeds={"search": 1},
        hashes={},
        accepted=(),
        evaluations=1234,
        points=tuple(_front_point(arch) for arch in (space.smallest, space.largest)),
    )


def _front_point(arch):
    predicted = {"error": 1 / len(arch.ops), "latency_ms": len(arch.ops) / 100}
    return front.Point(arch, predicted)


def _write_package(folder, arch, **measured):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / package.MODEL).write_bytes(b"onnx" * 25)
    (folder / package.CARD).write_text("# best")
    (folder / package.EXAMPLE).write_text("import onnxruntime")
    manifest = {
        "format": PACKAGE_FORMAT,
        "name": folder.name,
        "id": arch.id,
        "made_of": "0" * 64,
        "model": package.MODEL,
        "architecture": arch.to_json(),
        "space": arch.space.name,
        "classes": ["0", "1"],
        "task": {"name": "classification", "metric": "top-1 accuracy"},
        "target": target_from_name(TARGET).to_json(),
        "input": {
            "name": "image",
            "shape": [1, arch.resolution, arch.resolution],
            "size": arch.resolution,
            "scale": "",
            "resize": "",
        },
        "parity": {"max_relative_difference": 2e-6},
        "settings": {"check": {"max_gap": "5%"}},
        "predicted": {"latency_ms": 0.10, "error": 0.03, **exact_costs(arch)},
        "measured": {
            "test_accuracy": 0.96,
            "test_images": 359,
            "accuracy_on": "target",
            "latency_ms": 0.11,
            "median_ms": 0.12,
            "verdict": "good",
            **measured,
        },
        "budgets": {"latency_ms": 0.115},
        "files": {name: sha256_file(folder / name) for name in package.FILES},
    }
    write_json(folder / package.MANIFEST, manifest)


def test_a_full_run_folder_is_collected(tmp_path):
    data = collect(_run(tmp_path / "run"), tmp_path / "run" / "report.html")
    (found,) = data["targets"]
    assert found["name"] == TARGET
    assert found["where"] == "host, Example CPU, 2 cores, ort-cpu; fp32, batch 1, 1 thread"
    assert found["table"]["error"] == {"value": 0.004, "low": 0.003, "high": 0.006}
    assert found["table"]["heldout"] == HELDOUT
    assert [p["options"]["resolution"] for p in found["front"]["points"]] == [16, 16]
    assert found["front"]["uncertain"]["latency_ms"] == pytest.approx(0.004, rel=0.01)
    assert found["front"]["costs"] == ["latency_ms"]
    words = "1,234 networks were priced by nsga2; hypervolume 0.0500 against predicted error 90.0%,"
    assert found["front"]["search"].startswith(words)
    (made,) = found["packages"]
    assert made["gap"] == pytest.approx(0.1)
    assert made["test_error"] == pytest.approx(0.04)
    assert (made["size_bytes"], made["id"]) == (100, _space().largest.id)
    assert found["missing"] == []
    told = dict(data["facts"])
    assert told["data"].startswith(
        "digits: 1,222 training, 216 validation and 359 test images of 8"
    )
    assert told["space"].startswith("tiny: ")
    assert yaml.safe_load(dict(data["settings"])["Settings of this run"])["targets"] == [TARGET]


def test_streamed_images_have_no_size_of_their_own_and_weights_the_origin_that_their_file_says(
    tmp_path,
):
    run = _run(tmp_path / "run")
    write_json(run / "data.json", {**read_json(run / "data.json"), "size": 0})
    data = collect(run, tmp_path / "report.html")
    assert "test images, each of its own size, 10 classes" in dict(data["facts"])["data"]
    assert "supernet" not in dict(data["facts"])  # there is no file
    train = {"recipe": "sandwich", "epochs": 7, "seed": 3}
    given = {"imported": {"from": "once-for-all", "file": "w1.0"}, "train": None}
    assert facts.origin({"train": train}) == "sandwich, 7 epochs, seed 3"
    assert facts.origin(given) == "imported from w1.0 (once-for-all)"
    tuned = {**given, "finetuned": {"train": train}}
    assert facts.origin(tuned).endswith("), then fine-tuned: sandwich, 7 epochs, seed 3")
    assert facts.origin({"space": "tiny"}) == "of unknown origin"


def test_a_predictor_of_subnets_that_were_measured_elsewhere_says_so(tmp_path, monkeypatch):
    scores = {"n": 20, "mae": 0.01, "kendall_tau": 0.9, "macs_kendall_tau": 0.5}
    monkeypatch.setattr(facts, "load_predictor", lambda *_: SimpleNamespace(scores=scores))
    (tmp_path / "predictor.npz").write_bytes(b"")
    for results, words in (("mine.csv", "elsewhere (mine.csv)"), ("", "on validation images")):
        config = {"accuracy": {"results": results}}
        said, _ = facts.predictor_words(tmp_path / "predictor.npz", config, _space(), [])
        assert said.startswith(f"20 subnets were measured {words}. ")


@pytest.mark.parametrize(
    ("latency_ms", "median_ms", "said"),
    [
        (0.101, 0.110, []),
        (0.101, 0.120, ["median over its budget of 0.115\u00a0ms"]),
        (0.1154, 0.110, ["gap above 5%"]),  # within the noise of its table, 0.4%
        (0.120, 0.121, ["gap above 5%", "over its budget of 0.115\u00a0ms"]),
    ],
)
def test_a_package_that_misses_its_budget_or_gap_says_so(tmp_path, latency_ms, median_ms, said):
    run, times = _run(tmp_path / "run"), {"latency_ms": latency_ms, "median_ms": median_ms}
    _write_package(run / "packages" / TARGET / "best", _space().largest, **times)
    (made,) = collect(run, run / "report.html")["targets"][0]["packages"]
    assert made["warnings"] == said


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"limits": {"latency_ms": 0.09}}, ["over check.limits of 0.09"]),
        ({"limits": {"size_bytes": 50}}, ["over check.limits of"]),
        ({"limits": {"latency_ms": 0.2, "size_bytes": 500}}, []),
        ({"max_gap": "0.5%"}, ["gap above 0.5%"]),  # exported with 5 %
    ],
)
def test_a_package_is_held_against_the_limits_of_the_run_as_they_are_now(tmp_path, check, said):
    run = _run(tmp_path / "run")
    folder = run / "packages" / TARGET / "best"
    _write_package(folder, _space().largest, latency_ms=0.101, median_ms=0.102)
    write_json(run / "config.json", {**read_json(run / "config.json"), "check": check})
    (made,) = collect(run, run / "report.html")["targets"][0]["packages"]
    assert len(made["against"]) == len(said)
    assert all(words in told for words, told in zip(said, made["against"], strict=True))


@pytest.mark.parametrize(
    ("budgets", "measured", "said"),
    [
        ({"energy_mj": 1.0}, {"energy_mj": 1.2, "energy": {"verdict": "good"}}, "over its budget"),
        ({"energy_mj": 1.0}, {"energy_mj": 0.9, "energy": {"verdict": "good"}}, ""),
        (
            {"energy_mj": 1.0},
            {"energy_mj": 1.2, "energy": {"verdict": "disturbed", "reason": "it jumped"}},
            "its energy was disturbed",
        ),
        ({"macs": 1}, {}, "over its budget"),  # exact: it is never measured
        ({"macs": 1e12}, {}, ""),
    ],
)
def test_every_budget_of_a_package_counts_not_that_of_latency_alone(
    tmp_path, budgets, measured, said
):
    run, folder = _run(tmp_path / "run"), tmp_path / "run" / "packages" / TARGET / "best"
    _write_package(folder, _space().largest, latency_ms=0.101, median_ms=0.102, **measured)
    manifest = read_json(folder / package.MANIFEST)
    write_json(folder / package.MANIFEST, {**manifest, "budgets": budgets})
    data = collect(run, run / "report.html")
    (made,) = data["targets"][0]["packages"]
    assert [words[: len(said)] for words in made["against"]] == [said] * bool(said)
    assert ("within your budget of" in Page(render(data)).text) is not bool(said)


def test_what_measure_saved_for_a_target_is_drawn_beside_its_front(tmp_path):
    run, saved = _run(tmp_path / "run"), tmp_path / "baselines"
    model = {
        "file": "models/one.onnx", "latency_ms": 0.2, "median_ms": 0.21, "p95_ms": 0.3,
        "size_bytes": 9, "resident_bytes": 99, "verdict": "good", "reason": "",
        "sustained": {"last_ms": 0.4, "verdict": "disturbed", "reason": "it jumped"},
    }  # fmt: skip
    cold = {**{k: v for k, v in model.items() if k != "sustained"}, "file": "two.onnx"}
    content = {"format": "hwnas-baselines-1", "target": {"name": TARGET}, "models": [model, cold]}
    write_json(saved / "mine.json", content)
    write_json(saved / "other.json", {**content, "target": {"name": "another"}})
    (saved / "broken.json").write_text('{"format": "hwnas-bas')
    write_json(saved / "part.json", {**content, "models": [{"file": "x"}]})
    data = collect(run, run / "report.html", saved)
    one, two = data["targets"][0]["baselines"]
    assert (one["name"], one["sustained_ms"]) == ("mine: one.onnx", 0.4)
    assert (two["name"], two["sustained_ms"]) == ("mine: two.onnx", None)
    assert sum(line.startswith("baselines: ") for line in data["missing"]) == 2
    page = Page(render(data))
    assert "mine: one.onnx" in page.text
    assert "sustained is disturbed: it jumped" in page.text
    assert [b["latency_ms"] for b in _embedded(page)["targets"][0]["baselines"]] == [0.2, 0.2]
    assert collect(run, run / "report.html", tmp_path / "none")["targets"][0]["baselines"] == []


def test_links_to_packages_hold_from_where_the_report_lies(tmp_path):
    run = _run(tmp_path / "my run")
    for out in (run / "report.html", tmp_path / "report.html", tmp_path / "a" / "b.html"):
        (made,) = collect(run, out)["targets"][0]["packages"]
        link = made["href"].replace("%20", " ")
        assert (out.parent / link).resolve() == run / "packages" / TARGET / "best" / "model.onnx"


def test_stage_times_add_up_to_the_predicted_latency():
    space = _space()
    costs = _table(space)
    times = stage_times(space.largest, costs)
    assert [name for name, _ in times][:2] == ["fixed", "stem"]
    assert times[-1][0] == "head"
    total = sum(ms for _, ms in times)
    assert total == pytest.approx(table.network_latency(costs, space.largest), abs=1e-5)


def test_stage_times_of_another_geometry_are_not_guessed():
    space = _space()
    other = space.for_data(3, 10)
    assert stage_times(other.largest, _table(space)) is None
    assert stage_times(spaces.load("tiny").smallest, _table(space)) is None  # 8 px: not measured
    assert stage_times(space.largest, None) is None


def test_an_empty_run_folder_gives_a_report_that_says_what_is_missing(tmp_path):
    write_report(tmp_path, tmp_path / "report.html")
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "Not in this report: the settings" in text
    assert tmp_path.name in text


def test_every_missing_part_is_named_and_the_rest_is_shown(tmp_path):
    run = _run(tmp_path / "run")
    for name in ("tables", "fronts", "packages", "config.json", "data.json", "events.jsonl"):
        whole = tmp_path / "copy"
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(run, whole)
        part = whole / name
        shutil.rmtree(part) if part.is_dir() else part.unlink()
        data = collect(whole, whole / "report.html")
        assert [target["name"] for target in data["targets"]] == [TARGET]
        assert render(data)
        said = " ".join(data["missing"] + data["targets"][0]["missing"])
        command = {"tables": "hwnas profile", "fronts": "hwnas search"}.get(name, name)
        assert (command in said) == (name not in ("packages", "events.jsonl"))


@pytest.mark.parametrize("part", ["config.json", "data.json", f"fronts/{TARGET}.json"])
def test_a_truncated_file_is_named_and_not_used(tmp_path, part):
    run = _run(tmp_path / "run")
    path = run / part
    path.write_bytes(path.read_bytes()[:-20])
    data = collect(run, run / "report.html")
    said = " ".join(data["missing"] + data["targets"][0]["missing"])
    assert f"{path.name} cannot be read as JSON" in said
    assert str(tmp_path) not in said
    assert render(data)


def test_an_edited_front_is_not_shown(tmp_path):
    run = _run(tmp_path / "run")
    path = run / "fronts" / f"{TARGET}.json"
    path.write_text(path.read_text().replace('"error":', '"error":0', 1))
    (found,) = collect(run, run / "report.html")["targets"]
    assert found["front"] is None
    assert path.name in found["missing"][0]


def test_an_edited_table_is_not_shown_as_a_table(tmp_path):
    run = _run(tmp_path / "run")
    path = run / "tables" / f"{TARGET}.json"
    path.write_text(path.read_text().replace('"good"', '"usable"'))
    (found,) = collect(run, run / "report.html")["targets"]
    assert found["table"] is None
    assert "was edited or damaged" in found["missing"][0]


def test_a_package_that_was_changed_is_named_and_left_out(tmp_path):
    run = _run(tmp_path / "run")
    (run / "packages" / TARGET / "best" / package.MODEL).write_bytes(b"other")
    (found,) = collect(run, run / "report.html")["targets"]
    assert found["packages"] == []
    assert "was changed since it was exported" in found["warnings"][0]


def test_a_front_without_an_error_objective_is_not_drawn(tmp_path):
    run = _run(tmp_path / "run")
    found = _front(_space())
    points = [dataclasses.replace(p, predicted={"latency_ms": 1.0}) for p in found.points]
    costs = {"objectives": ("latency_ms",), "reference_point": (2.0,)}
    changed = dataclasses.replace(found, points=tuple(points), **costs)
    front.save(changed, run / "fronts" / f"{TARGET}.json")
    (found,) = collect(run, run / "report.html")["targets"]
    assert found["front"] is None
    assert "error is not among its objectives" in found["missing"][0]


def test_a_run_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        collect(tmp_path / "absent", tmp_path / "report.html")


def _event(step, **losses):
    return {"stage": "train", "step": step, **losses}


def test_a_resumed_training_keeps_the_steps_of_the_run_that_went_on():
    events = [_event(n, labels_max=1.0) for n in (10, 20, 30)]
    events += [_event(n, labels_max=2.0, labels_min=3.0) for n in (20, 30, 40)]
    curve = training_curve([*events, {"stage": "other", "step": 50, "loss_max": 9}])
    assert curve["series"][0]["points"] == [[10, 1.0], [20, 2.0], [30, 2.0], [40, 2.0]]
    assert curve["series"][1]["points"] == [[20, 3.0], [30, 3.0], [40, 3.0]]
    assert curve["subnets_from"] == 20
    assert training_curve([]) is None


def test_a_report_needs_neither_torch_nor_scikit_learn():
    code = "import sys, hwnas.report; sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_templates_are_where_an_installed_package_finds_them():
    folder = Path(sys.modules["hwnas.report"].__file__).parent
    assert {path.suffix for path in folder.iterdir()} >= {".html", ".css", ".js"}
