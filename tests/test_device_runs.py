"""A device driven in several ways: its front, what is picked of it, and one package for it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from test_pipeline import hwnas
from test_staleness import SMALL

from hwnas.measuring import remote
from hwnas.report.collect import collect
from hwnas.run.devices import devices
from hwnas.tables import table as tables
from profilers.schema import Target, canonical_json, read_json, sha256_text, write_json

# Cheaper by the MAC and dearer by the node: the better way to run what is large.
TURBO = """
from hwnas.fakes.machine import Modelled, OpCost
from hwnas.networks.ops import parse_key


def cost(key, batch):
    op = parse_key(key)
    names = tuple(step.name for step in op.exported)
    return OpCost(batch * op.macs / 1.2e7 + 0.0048 * len(names), 0.01, names)


RUNTIME = Modelled(cost)
"""
PLAIN, FAST = "fake.fake.fp32.b1.t1", "fake.turbo:RUNTIME.fp32.b1.t1"
BATCH = "fake.fake.fp32.b4.t1"
SETTINGS = (
    SMALL.replace(f"[{PLAIN}]", f"['{PLAIN}', '{FAST}', '{BATCH}']")
    .replace("[8, 12]", "[8]")
    .replace("  - {rule: spread, k: 3}\n", "  - {budget: {latency_ms: 75%}, name: cheap}\n")
    .replace("epochs: 1", "epochs: 1, max_only: 0.3")
    + "export: {per: device}\n"
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A folder with a second engine of the modelled device, which this process can import."""
    folder = tmp_path_factory.mktemp("devices")
    (folder / "turbo.py").write_text(TURBO)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        yield folder
    sys.modules.pop("turbo", None)


@pytest.fixture(scope="module")
def finished(engine) -> Path:
    """Settings and a finished run, a front of each target and packages of each device."""
    (engine / "targets").mkdir()
    told = f"device: fake\nruntime: 'turbo:RUNTIME'\nplugins: ['{engine}/turbo.py']\n"
    (engine / "targets" / f"{FAST}.yaml").write_text(told)
    (engine / "hwnas.yaml").write_text(SETTINGS)
    assert run(engine, "--ci", str(engine / "out")) == 0
    return engine


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def run(folder: Path, *arguments: str) -> int:
    """Exit code of `hwnas run`; what was modelled is accepted."""
    return hwnas("run", folder / "hwnas.yaml", "--accept", "emulated,unreliable,gap", *arguments)


def told(capsys, command: str, folder: Path, *arguments: str, code: int = 0):
    """What a command prints as JSON."""
    capsys.readouterr()
    assert hwnas(command, folder / "hwnas.yaml", *arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def packages(folder: Path) -> set[tuple[str, str]]:
    """Target and name of every package that is there."""
    return {
        (path.parent.parent.name, path.parent.name)
        for path in folder.glob("runs/digits/packages/*/*/manifest.json")
    }


def front(folder: Path, target: str) -> dict:
    return read_json(folder / "runs" / "digits" / "fronts" / f"{target}.json", "hwnas-front-1")


# ---- looking at it ------------------------------------------------------------------------------


def test_the_front_of_a_device_is_what_is_best_of_its_targets_at_each_batch(finished, capsys):
    one, four = told(capsys, "front", finished, "--device", "fake")
    assert (one["device"], four["device"]) == ("fake.b1", "fake.b4")
    assert [t["target"] for t in one["targets"]] == [PLAIN, FAST]
    every = [
        (point["predicted"]["error"], point["predicted"]["latency_ms"], target, point["id"])
        for target in (PLAIN, FAST)
        for point in front(finished, target)["points"]
    ]
    best = {
        (target, id_)
        for error, ms, target, id_ in every
        if not any(e <= error and t <= ms and (e, t) != (error, ms) for e, t, _, _ in every)
    }
    assert {(point["target"], point["id"]) for point in one["points"]} == best
    assert {target for target, _ in best} == {PLAIN, FAST}
    assert [t["networks"] for t in one["targets"]] == [
        sum(target == t for target, _ in best) for t in (PLAIN, FAST)
    ]
    assert all(t["uncertainty"]["latency_share"] >= 0 for t in one["targets"])
    assert told(capsys, "front", finished, "--device", "fake.b4") == [four]


def test_a_front_of_a_device_as_a_table_and_as_csv_names_the_target_of_each_network(
    finished, capsys
):
    capsys.readouterr()
    path = finished / "hwnas.yaml"
    assert hwnas("front", path, "--device", "fake.b1") == 0
    assert "turbo:RUNTIME" in capsys.readouterr().out
    assert hwnas("front", path, "--device", "fake.b1", "--csv", "-") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["device"] for row in rows} == {"fake.b1"}
    assert {row["target"] for row in rows} == {PLAIN, FAST}


def test_pick_says_for_each_budget_which_engine_and_what_the_others_offer(finished, capsys):
    rows = {row["package"]: row for row in told(capsys, "pick", finished, "--device", "fake.b1")}
    assert set(rows) == {"best", "knee", "latency_ms-60pct", "cheap"}
    largest = [front(finished, target)["max_network"]["latency_ms"] for target in (PLAIN, FAST)]
    assert rows["latency_ms-60pct"]["budgets"]["latency_ms"] == pytest.approx(0.6 * min(largest))
    for row in rows.values():
        points = {p["id"]: p["predicted"] for p in front(finished, row["target"])["points"]}
        assert row["predicted"] == points[row["id"]]
        (rival,) = row["rivals"]
        assert {row["target"], rival["target"]} == {PLAIN, FAST}
        if "id" not in rival:
            assert "cannot be met" in rival["error"]
            continue
        limit = row["budgets"].get("latency_ms", row["predicted"]["latency_ms"])
        assert rival["predicted"]["latency_ms"] <= limit
        assert rival["loss"] >= 0
        assert isinstance(rival["within_uncertainty"], bool)
    assert {row["runtime"] for row in rows.values()} >= {"turbo:RUNTIME"}
    capsys.readouterr()
    assert hwnas("pick", finished / "hwnas.yaml", "--device", "fake.b1") == 0
    assert "next best target" in capsys.readouterr().out


def test_a_fleet_of_devices_drives_each_the_best_way(finished, capsys):
    whole = min(front(finished, t)["max_network"]["latency_ms"] for t in (PLAIN, FAST))
    arguments = ("--budget", f"latency_ms={0.7 * whole}", "--accept", "emulated,unreliable")
    one = told(capsys, "fleet", finished, "--device", "fake.b1", *arguments)
    by_hand = min(
        (point["predicted"]["error"], point["predicted"]["latency_ms"])
        for target in (PLAIN, FAST)
        for point in front(finished, target)["points"]
        if point["predicted"]["latency_ms"] <= 0.7 * whole
    )
    assert [(s["device"], s["predicted"]["error"]) for s in one] == [("fake.b1", by_hand[0])]
    share = ("--budget", "latency_ms=60%", "--models", "1", *arguments[2:])
    both = told(capsys, "fleet", finished, "--device", "fake", *share)
    assert len({s["id"] for s in both}) == 1
    assert [s["device"] for s in both] == ["fake.b1", "fake.b4"]


def test_a_run_ends_with_what_is_best_on_a_device_that_is_driven_in_several_ways(finished, capsys):
    capsys.readouterr()
    assert run(finished) == 0
    said = capsys.readouterr().out
    assert "best on fake.b1, predicted" in said
    assert "fake.b4, predicted" not in said  # one way only
    assert hwnas("status", finished / "hwnas.yaml", "--accept", "emulated,unreliable,gap") == 0
    assert "front of fake.b1: " in capsys.readouterr().out


def test_the_report_shows_a_device_before_its_targets_and_who_wins_where(finished):
    root = finished / "runs" / "digits"
    (device,) = collect(root, root / "report.html")["devices"]
    assert (device["name"], device["targets"]) == ("fake.b1", [PLAIN, FAST])
    fronts = {target: front(finished, target)["points"] for target in (PLAIN, FAST)}
    for point in device["front"]["points"]:
        assert point["id"] in {p["id"] for p in fronts[point["target"]]}
        assert point["stages"]
    assert {told["target"] for told in device["wins"]} == {PLAIN, FAST}
    assert sum(told["networks"] for told in device["wins"]) == len(device["front"]["points"])


def test_a_budget_that_a_front_of_before_does_not_hold_is_one_line(copy, capsys):
    path = copy / "runs" / "digits" / "fronts" / f"{PLAIN}.json"
    content = read_json(path)
    del content["sha256"], content["max_network"]["params"]
    write_json(path, {**content, "sha256": sha256_text(canonical_json(content))})
    arguments = ("--target", PLAIN, "--budget", "params=60%", "--accept", "emulated,unreliable")
    assert hwnas("fleet", copy / "hwnas.yaml", *arguments) == 2
    said = capsys.readouterr().err
    assert f"the front of {PLAIN} holds no params; run `hwnas search` again" in said


# ---- what is missing or does not go together ----------------------------------------------------


def _doubtful(folder: Path, target: str, **changes) -> None:
    """Change the table of a target on disk, as if it was measured so."""
    path = folder / "runs" / "digits" / "tables" / f"{target}.json"
    found = tables.load_table(path)
    for name, value in changes.items():
        getattr(found, name).update(value)
    tables.save(found, path)


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        (["fronts"], 2, "fronts/{}.json does not exist; run `hwnas search --target {}` first"),
        (["fronts", "tables"], 2, "tables/{}.json does not exist; run `hwnas profile --target {}`"),
    ],
)
def test_a_target_without_a_front_is_told_and_left_out(copy, capsys, files, code, message):
    for name in files:
        (copy / "runs" / "digits" / name / f"{FAST}.json").unlink()
    arguments = ("--device", "fake.b1", "--accept", "emulated,unreliable")
    (found,) = told(capsys, "front", copy, *arguments, code=code)
    assert {point["target"] for point in found["points"]} == {PLAIN}
    (left_out,) = found["left_out"]
    assert (left_out["target"], left_out["exit_code"]) == (FAST, code)
    assert message.format(FAST, FAST) in left_out["error"]
    assert hwnas("pick", copy / "hwnas.yaml", *arguments) == code
    assert f"hwnas: {FAST} is left out: " in capsys.readouterr().err


def test_a_table_of_other_hardware_is_left_out_with_exit_code_5(copy, capsys):
    _doubtful(copy, FAST, environment={"board": "another"})
    (found,) = told(capsys, "front", copy, "--device", "fake.b1", code=5)
    assert [out["target"] for out in found["left_out"]] == [FAST]
    assert "measured on other hardware (board another)" in found["left_out"][0]["error"]


def test_a_device_that_cannot_meet_a_budget_does_not_keep_the_others_from_an_answer(
    finished, capsys
):
    least = min(point["predicted"]["latency_ms"] for point in front(finished, BATCH)["points"])
    pick = ("--set", f"pick=[{{budget: {{latency_ms: {0.9 * least}}}, name: one}}]")
    rows = told(capsys, "pick", finished, *pick, code=3)
    assert [row["device"] for row in rows] == ["fake.b1"]
    assert hwnas("pick", finished / "hwnas.yaml", "--device", "fake", *pick) == 3
    (line,) = [li for li in capsys.readouterr().err.splitlines() if li.startswith("hwnas:")]
    assert line.startswith("hwnas: fake.b4 is left out: budget latency_ms = ")


def test_a_device_without_any_front_is_one_line(copy, capsys):
    shutil.rmtree(copy / "runs" / "digits" / "fronts")
    capsys.readouterr()
    assert hwnas("front", copy / "hwnas.yaml", "--device", "fake.b1") == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "none of its 2 targets has a front" in line
    assert "--accept" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("front", "--device", "fakw"), "unknown device 'fakw'; did you mean 'fake'"),
        (("front", "--device", "fake.b2"), "unknown device 'fake.b2'; did you mean 'fake.b"),
        (("pick", "--device", "shelf"), "settings name no target of device 'shelf'; add one to"),
        (("front", "--device", "fake", "--target", PLAIN), "leave out --target, or leave out"),
        (("front", "--device", "fake", "--together", "mean"), "leave out --together, or"),
        (("pick", "--device", "fake", "--device", "fake"), "--device fake appears twice"),
        (
            ("fleet", "--device", "fake", "--budget", "latency_ms=60%", "--weight", "fakir=2"),
            "unknown --weight 'fakir'",
        ),
    ],
)
def test_wrong_devices_are_one_line(finished, capsys, arguments, message):
    (finished / "targets" / "shelf.ort-cpu.fp32.b1.t1.yaml").write_text(
        "{device: shelf, runtime: ort-cpu, connection: {ssh: pi@shelf}}"
    )
    capsys.readouterr()
    command, *rest = arguments
    accepted = ("--accept", "emulated,unreliable")
    assert hwnas(command, finished / "hwnas.yaml", *rest, *accepted) == 2
    assert message in capsys.readouterr().err


# ---- one package for each device ----------------------------------------------------------------


def test_a_device_gets_one_package_for_each_rule_of_its_best_target(finished, capsys):
    picked, out = told(capsys, "pick", finished), finished / "out"
    assert packages(finished) == {(row["target"], row["package"]) for row in picked}
    assert len({(row["device"], row["package"]) for row in picked}) == len(picked) == 8
    listed = json.loads((out / "packages.json").read_text())
    assert {(p["target"], p["package"]) for p in listed} == packages(finished)
    assert read_json(out / "result.json", "hwnas-result-1")["devices"] == {
        "fake.b1": {"targets": [PLAIN, FAST], "reason": ""},
        "fake.b4": {"targets": [BATCH], "reason": ""},
    }


def test_what_is_best_now_replaces_what_was_and_a_second_run_has_nothing_to_do(copy, capsys):
    before, mine = packages(copy), ("--target", "fake.b1")
    assert run(copy, *mine, "--set", "export.per=target", "--set", "pick=[{rule: best}]") == 0
    assert {(PLAIN, "best"), (FAST, "best")} <= packages(copy)
    assert run(copy, *mine) == 0
    assert packages(copy) == before
    assert list((copy / "runs/digits/aside").glob("*/*"))  # what was beaten is kept, not shipped
    capsys.readouterr()
    assert run(copy, *mine, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == []
    assert {(row["target"], row["package"]) for row in found["devices"]} <= packages(copy)


def test_a_budget_that_nothing_on_a_device_meets_is_one_reason(copy, capsys):
    out = copy / "out"
    pick = ("--set", "pick=[{budget: {latency_ms: 0.000001}, name: tiny}]")
    assert run(copy, *pick, "--target", "fake.b1", "--ci", str(out)) == 3
    lines = [li for li in capsys.readouterr().err.splitlines() if li.startswith("hwnas:")]
    assert len(lines) == 1
    assert lines[0].startswith("hwnas: export.fake.b1: budget latency_ms = 1e-06 cannot be met on")
    result = read_json(out / "result.json", "hwnas-result-1")
    assert result["devices"]["fake.b1"]["reason"].startswith("budget latency_ms")
    assert "**fake.b1** has no package: budget" in (out / "summary.md").read_text()
    assert result["packages"] == []


def test_a_network_that_misses_its_budget_when_measured_gives_way_to_the_next_best_target(
    copy, capsys, monkeypatch
):
    rule = ("--set", "pick=[{budget: {latency_ms: 60%}, name: one}]", "--target", "fake.b1")
    (first,) = told(capsys, "pick", copy, "--device", "fake.b1", *rule[:2])
    plain = remote.measure_models

    def slow(target, paths, *rest):
        factor = 3.0 if target.name == first["target"] else 1.0
        times = ("latency_ms", "median_ms", "p95_ms")
        return [{**m, **{n: factor * m[n] for n in times}} for m in plain(target, paths, *rest)]

    monkeypatch.setattr(remote, "measure_models", slow)
    shutil.rmtree(copy / "runs/digits/results")
    code = run(copy, *rule)
    made = [(target, name) for target, name in packages(copy) if target != BATCH]
    (other,) = {PLAIN, FAST} - {first["target"]}
    assert (code, made) == (0, [(other, "one")])
    (row,) = told(capsys, "pick", copy, "--device", "fake.b1", *rule[:2])
    assert row["target"] == other
    assert row["rivals"][0].get("loss", 0) >= 0  # not of a network that missed the budget


def test_a_target_that_fails_leaves_its_device_to_the_others(copy, capsys):
    path = copy / "runs" / "digits" / "tables" / f"{FAST}.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    assert run(copy, "--target", "fake.b1") == 2
    lines = [li for li in capsys.readouterr().err.splitlines() if li.startswith("hwnas:")]
    assert all(FAST in line for line in lines)
    assert {(PLAIN, "best"), (PLAIN, "cheap")} <= packages(copy)


def test_a_pick_for_one_target_stays_with_it(copy):
    pick = ("--set", f"pick=[{{rule: best}}, {{rule: knee, target: '{PLAIN}'}}]")
    assert run(copy, *pick) == 0
    assert (PLAIN, "knee") in packages(copy)
    assert (FAST, "knee") not in packages(copy)
    assert sum(name == "best" for target, name in packages(copy) if target != BATCH) == 1


def test_the_floor_of_accuracy_is_for_the_best_package_of_a_device(copy, capsys):
    out = copy / "out"
    floor = ("--set", "check.min_accuracy=0.999", "--ci", str(out), "--target", "fake.b1")
    assert run(copy, *floor) == 3
    assert "best test accuracy" in capsys.readouterr().err
    gates = [
        (package["package"], gate["verdict"])
        for package in read_json(out / "result.json", "hwnas-result-1")["packages"]
        for gate in package["gates"]
        if gate["gate"] == "accuracy"
    ]
    assert len(gates) == 1
    assert gates[0][1] == "failed"


def test_a_lock_holds_a_device_to_its_numbers_whichever_target_has_the_package(copy, capsys):
    one = ("--set", "pick=[{budget: {latency_ms: 60%}, name: one}]", "--target", "fake.b1")
    accepted = ("--accept", "emulated,unreliable,gap")
    assert run(copy, *one) == 0
    ((first, _),) = {p for p in packages(copy) if p[0] != BATCH}
    (other,) = {PLAIN, FAST} - {first}
    assert hwnas("accept", copy / "hwnas.yaml", *one) == 0
    locked = read_json(copy / "hwnas.lock", "hwnas-lock-1")
    assert [(p["target"], p["package"]) for p in locked["packages"]] == [(first, "one")]
    locked["packages"][0]["target"] = other  # as if another engine had it then, and was faster
    locked["targets"][other] = locked["targets"].pop(first)
    locked["packages"][0]["metrics"]["latency_ms"] |= {"value": 0.001, "noise": 0.0}
    write_json(copy / "hwnas.lock", locked)
    assert run(copy, *one) == 3
    assert f"regression.{first}: one: regression: latency_ms" in capsys.readouterr().err
    assert hwnas("accept", copy / "hwnas.yaml", *one) == 0
    moved = read_json(copy / "hwnas.lock", "hwnas-lock-1")
    assert [(p["target"], p["package"]) for p in moved["packages"]] == [(first, "one")]
    assert hwnas("run", copy / "hwnas.yaml", *one, *accepted) == 0


def test_every_way_of_driving_a_device_competes_for_it():
    ways = [
        Target("pi5", "ort-cpu", threads=threads, optimisation=level, spinning=spinning).name
        for threads in (1, 4)
        for level in ("all", "basic")
        for spinning in ({False, threads > 1})
    ]
    other = Target("pi5", "ort-cpu", batch=8).name
    assert devices([*ways, other]) == {"pi5.b1": ways, "pi5.b8": [other]}


def test_status_and_matrix_know_devices(finished, capsys):
    found = told(capsys, "status", finished, "--accept", "emulated,unreliable,gap")
    assert all(stage["current"] for stage in found["stages"])
    (device,) = found["devices"]
    assert set(device["networks"]) == {PLAIN, FAST}
    capsys.readouterr()
    assert run(finished, "--matrix") == 0
    assert json.loads(capsys.readouterr().out)["include"] == [
        {"target": "fake.b1", "runner": "ubuntu-latest"},
        {"target": "fake.b4", "runner": "ubuntu-latest"},
    ]
