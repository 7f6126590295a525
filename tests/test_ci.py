"""What pipelines read: results, gates, the lock, and what a run would do; on a modelled device."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mutants import edited
from test_pipeline import hwnas
from test_staleness import SMALL, TARGET

from hwnas.images import tensors
from hwnas.run import ci, compare, folder, gates, lock, plan
from hwnas.run.public import public_text
from hwnas.settings.config import CheckConfig, DataConfig
from profilers.errors import ConfigError, HwnasError
from profilers.schema import read_json, sha256_file, write_json

SCHEMA = Path(__file__).parent / "schemas" / "junit-10.xsd"  # jenkinsci/xunit-plugin, MIT
OWNER = "somebody-in-particular"  # in every path of these tests


def run(folder: Path, *arguments: str) -> int:
    """Exit code of `hwnas run`; what was modelled is accepted."""
    accepted = [] if "--accept" in arguments else ["--accept", "emulated,unreliable"]
    return hwnas("run", folder / "hwnas.yaml", *accepted, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with settings whose images lie elsewhere, a finished run, and its `out`."""
    folder = tmp_path_factory.mktemp("ci") / OWNER
    folder.mkdir()
    digits = tensors.load(DataConfig(kind="digits"))
    parts = {"train": digits.train, "test": digits.test}
    arrays = {f"{name}_images": part.images[:, 0].numpy() for name, part in parts.items()}
    arrays |= {f"{name}_labels": part.labels.numpy() for name, part in parts.items()}
    np.savez(folder / "digits.npz", **arrays)
    data = f"{{kind: npz, root: {folder / 'digits.npz'}}}"
    (folder / "hwnas.yaml").write_text(SMALL.replace("{kind: digits}", data))
    assert run(folder, "--ci", str(folder / "out")) == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / OWNER)
    return tmp_path / OWNER


def _result(folder: Path) -> dict:
    return read_json(folder / "out" / "result.json", "hwnas-result-1")


def _run_folder(folder: Path) -> Path:
    return folder / "runs" / "digits"


# ---- files --------------------------------------------------------------------------------------


def test_a_run_writes_what_pipelines_read_and_its_sums_hold(finished):
    out, result = finished / "out", _result(finished)
    sums = [line.split("  ") for line in (out / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in sums} == {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert all(sha256_file(out / name) == sha256 for sha256, name in sums)
    listed = json.loads((out / "packages.json").read_text())
    assert all(sha256_file(out / p["folder"] / "model.onnx") == p["model_sha256"] for p in listed)
    assert [p["package"] for p in listed] == [p["package"] for p in result["packages"]]
    assert {"settings", "data", "supernet", "predictor"} == set(result["hashes"])
    about = result["targets"][TARGET]
    assert about["engine"] == "fake"
    assert about["environment"]
    assert about["table"]


def _schema():
    etree = pytest.importorskip("lxml.etree", reason="lxml validates JUnit files; pip install lxml")
    return etree, etree.XMLSchema(etree.parse(str(SCHEMA)))


def test_junit_is_valid_for_jenkins_with_a_case_for_each_package_and_gate(finished):
    etree, schema = _schema()
    document = etree.parse(str(finished / "out" / "junit.xml"))
    schema.assertValid(document)
    cases = [
        f"{package['package']}.{gate['gate']}"
        for package in _result(finished)["packages"]
        for gate in package["gates"]
    ]
    assert [case.get("name") for case in document.iter("testcase")] == [*cases, "all"]


def _other(result: dict, **changed) -> dict:
    return {**json.loads(json.dumps(result)), **changed}


def test_what_failed_is_told_in_every_form(finished):
    etree, schema = _schema()
    result = _other(
        _result(finished),
        failures=[{"work": "profile.pi5", "exit_code": 4, "error": "100% <gone>\x1b\r\n"}],
    )
    first = result["packages"][0]
    failed = {"limit": 1.0, "margin": 0.0, "reason": "", "value": 2.0}
    first["gates"] = [
        {"gate": "size", "metric": "size_bytes", "verdict": verdict, **failed}
        for verdict in ("failed", "muted", "unknown", "passed")
    ]
    document = etree.fromstring(ci.junit(result).encode())
    schema.assertValid(document)
    suite, stages = document.find("testsuite"), document.findall("testsuite")[-1]
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "2")
    assert (stages.get("tests"), stages.get("errors")) == ("1", "1")
    lines = ci.error_lines(result)
    assert lines[0].startswith("::error title=profile.pi5::100%25 <gone>")
    assert "\n" not in "".join(lines)
    assert lines[1] == (
        f"::error title={first['package']} on {TARGET}::size: size_bytes 2, limit 1"
    )
    assert "failed: size: size_bytes 2, limit 1" in ci.summary(result)
    assert ci.packages(result)[0]["passed"] is False


def test_trackers_get_their_formats(finished):
    out, package = finished / "out", _result(finished)["packages"][0]
    name = f"{TARGET}/{package['package']}"
    entries = json.loads((out / "benchmark.json").read_text())
    assert all({"name", "unit", "value"} <= set(entry) for entry in entries)
    (latency,) = [e for e in entries if e["name"] == f"{name}: latency"]
    assert (latency["unit"], latency["value"]) == ("ms", package["metrics"]["latency_ms"]["value"])
    metric = json.loads((out / "benchmark.bencher.json").read_text())[name]["latency-ms"]
    assert metric["lower_value"] <= metric["value"] <= metric["upper_value"]


def test_the_summary_goes_to_the_job_and_errors_to_its_log(copy, tmp_path, monkeypatch, capsys):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    tight = ("--set", "check.limits={size_bytes: 1000}")
    assert run(copy, "--ci", str(copy / "out"), *tight) == 3
    assert summary.read_text() == "before\n" + (copy / "out" / "summary.md").read_text()
    said = capsys.readouterr().err
    assert f"::error title=verify.{TARGET}::" in said
    assert f"::error title=best on {TARGET}::size: size_bytes" in said


# ---- nothing private ----------------------------------------------------------------------------


def _everything_published(folder: Path) -> list[Path]:
    run_folder = _run_folder(folder)
    parts = [folder / "out", *(run_folder / part for part in ("packages", "tables", "fronts"))]
    return [p for part in parts for p in part.rglob("*") if p.is_file()] + [
        run_folder / "report.html"
    ]


def test_nothing_that_is_published_names_host_user_address_or_path(copy):
    name = "pi5.ort-cpu.fp32.b1.t1"
    (copy / "targets").mkdir()
    ssh = "ssh://tester@board-17.lab.example:9"
    (copy / "targets" / f"{name}.yaml").write_text(
        f"{{device: pi5, runtime: ort-cpu, connection: {{ssh: '{ssh}'}}}}"
    )
    more = ["--set", f"targets=[{TARGET},{name}]", "--set", "profile.reconnect_s=0"]
    assert run(copy, "--ci", str(copy / "out"), *more) == 4
    assert [f["work"] for f in _result(copy)["failures"]] == [f"profile.{name}"]
    words = [OWNER, str(copy), "tester@", "board-17", "lab.example", "digits.npz"]
    if len(socket.gethostname()) > 3:
        words.append(socket.gethostname())
    if getpass.getuser() != "root":
        words.append(getpass.getuser())
    for path in _everything_published(copy):
        content = path.read_bytes()
        assert not [word for word in words if word.encode() in content], path


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/home/me/runs/a.json was changed", "a.json was changed"),
        ("ssh me@pi.local: no route", "ssh (address): no route"),
        ("~/x/y.txt; see https://example.org/docs", "y.txt; see https://example.org/docs"),
        ("scheduler tcp://10.0.0.7:8786 is off", "scheduler (address) is off"),
        ("192.168.1.5 and 3.5/4 of ms/s", "(address) and 3.5/4 of ms/s"),
    ],
)
def test_messages_lose_paths_and_addresses(text, public):
    assert public_text(text) == public


# ---- gates --------------------------------------------------------------------------------------


def _manifest(**measured) -> dict:
    found = {"latency_ms": 1.0, "test_accuracy": 0.9, "test_images": 100, **measured}
    predicted = {"latency_ms": 1.0, "error": 0.1}
    shared = {"budgets": {}, "accepted": [], "predicted": predicted, "size_bytes": 5000}
    return {**shared, "measured": found}


def _verdicts(manifest: dict, **check) -> dict[str, str]:
    noise = {"latency_ms": 0.02, "sustained_ms": 0.02}
    found = gates.gates(manifest, CheckConfig(**check), noise, best=True)
    return {gate.gate: gate.verdict for gate in found}


def test_a_gate_passes_up_to_its_limit_and_the_noise_over_it():
    limits = {"latency_ms": 1 / 1.02 + 1e-9, "size_bytes": 5000}
    assert _verdicts(_manifest(), limits=limits) == {
        "latency": "passed",
        "size": "passed",
        "gap": "passed",
    }
    limits = {"latency_ms": 1 / 1.02 - 1e-9, "size_bytes": 4999}
    assert _verdicts(_manifest(), limits=limits) == {
        "latency": "failed",
        "size": "failed",
        "gap": "passed",
    }


def test_the_tighter_of_budget_and_limit_holds():
    manifest = {**_manifest(), "budgets": {"latency_ms": 0.5}}
    assert _verdicts(manifest, limits={"latency_ms": 2})["latency"] == "failed"
    assert _verdicts({**manifest, "accepted": ["budget"]})["latency"] == "muted"
    assert _verdicts(_manifest() | {"accepted": ["budget"]}, limits={"latency_ms": 0.5}) == {
        "latency": "failed",
        "gap": "passed",
    }


def test_what_was_not_measured_or_was_disturbed_is_unknown():
    asked = {"limits": {"energy_mj": 1, "memory_bytes": 1, "sustained_ms": 1}}
    found = _verdicts(_manifest(latency_ms=None), **asked)
    assert set(found.values()) == {"unknown"}
    disturbed = _manifest(latency_ms=3.0, verdict="disturbed", reason="it was busy")
    assert _verdicts(disturbed, limits={"latency_ms": 1}) == {
        "latency": "unknown",
        "gap": "unknown",
    }
    hot = {"last_ms": 3.0, "verdict": "disturbed", "reason": "it was busy"}
    assert _verdicts(_manifest(sustained=hot), limits={"sustained_ms": 1})["sustained"] == "unknown"


def test_accuracy_and_gap_are_held_to_their_floors():
    assert _verdicts(_manifest(), min_accuracy=0.9)["accuracy"] == "passed"
    assert _verdicts(_manifest(), min_accuracy=0.91)["accuracy"] == "failed"
    assert _verdicts(_manifest(latency_ms=0.85))["gap"] == "failed"
    assert _verdicts(_manifest(latency_ms=0.85), max_gap="20%")["gap"] == "passed"


def test_limits_on_memory_and_on_a_hot_device_are_measured_once_and_held(copy, capsys):
    limits = "check={limits: {memory_bytes: 1e15, sustained_ms: 1e6}, sustained_s: 1}"
    one = ("--set", "pick=[{rule: best}]")
    wide = (*one, "--set", limits)
    out = ("--ci", str(copy / "out"))
    assert run(copy, *wide, *out) == 0
    for package in _result(copy)["packages"]:
        told = {gate["gate"]: gate for gate in package["gates"]}
        assert told["memory"]["value"] > 1e6
        assert told["sustained"]["value"] == pytest.approx(
            package["metrics"]["latency_ms"]["value"], rel=0.2
        )
        assert told["memory"]["verdict"] == told["sustained"]["verdict"] == "passed"
    capsys.readouterr()
    assert run(copy, *wide, "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"] == []
    narrow = (*one, "--set", "check={limits: {memory_bytes: 1e3}}")
    assert run(copy, *narrow) == 3
    assert "over check.limits: best memory_bytes" in capsys.readouterr().err
    assert run(copy, *narrow, "--accept", "emulated,unreliable,limit", *out) == 0
    assert {gate["verdict"] for p in _result(copy)["packages"] for gate in p["gates"]} == {
        "passed",
        "muted",
    }


# ---- lock and compare ---------------------------------------------------------------------------


def test_a_package_that_is_worse_than_the_lock_fails_until_it_is_accepted(copy, capsys):
    path, out = copy / "hwnas.lock", ("--ci", str(copy / "out"))
    assert hwnas("accept", copy / "hwnas.yaml") == 0
    assert run(copy, *out) == 0
    assert all(p["gates"][-1]["gate"] == "regression" for p in _result(copy)["packages"])
    known = read_json(path, lock.FORMAT)
    for package in known["packages"]:
        package["metrics"]["latency_ms"]["value"] *= 0.5
    write_json(path, known)
    assert hwnas("train", copy / "hwnas.yaml") == 0  # which makes no package
    assert run(copy, *out) == 3
    assert "`hwnas accept` takes it" in capsys.readouterr().err
    assert {p["gates"][-1]["verdict"] for p in _result(copy)["packages"]} == {"failed"}
    capsys.readouterr()
    assert run(copy, *out, "--accept", "emulated,unreliable,regression") == 0
    assert capsys.readouterr().err.count("muted by --accept regression") == len(known["packages"])
    assert {p["gates"][-1]["verdict"] for p in _result(copy)["packages"]} == {"muted"}
    assert hwnas("compare", path, copy / "out") == 3
    assert hwnas("accept", copy / "hwnas.yaml", "--target", TARGET) == 0
    assert run(copy, *out) == 0
    assert hwnas("compare", path, copy / "out", "--json") == 0


def test_a_package_that_the_lock_knows_and_a_result_lacks_is_told(finished):
    result = _result(finished)
    fewer = _other(result, packages=result["packages"][1:])
    lock.hold_against(lock.locked(result), fewer, is_accepted=False)
    assert fewer["moved"] == [f"{result['packages'][0]['package']} of {TARGET} is gone"]


def test_a_lock_that_cannot_be_read_ends_a_run_before_any_work(copy, capsys):
    path = copy / "hwnas.lock"
    shutil.rmtree(_run_folder(copy) / "packages")
    for text, words in (
        ('{"format": "hwnas-lock-9"}', "has format 'hwnas-lock-9'"),
        ('{"format": "hwnas-lock-1", "packages": [{}]}', "packages[0] lacks 'target'"),
        ("{", "hwnas.lock"),
    ):
        path.write_text(text)
        assert run(copy) == 2
        assert words in capsys.readouterr().err
        assert path.read_text() == text
    assert not (_run_folder(copy) / "packages").exists()


def test_moving_the_lock_needs_measured_packages(copy, capsys):
    shutil.rmtree(_run_folder(copy) / "packages")
    assert hwnas("accept", copy / "hwnas.yaml") == 2
    assert f"no measured packages of {TARGET}; run `hwnas run" in capsys.readouterr().err
    assert not (copy / "hwnas.lock").exists()


def test_no_other_run_changes_the_folder_while_results_are_written(copy, monkeypatch):
    seen = []
    for module in (ci, lock):
        plain = module.write

        def write(*arguments, plain=plain):
            with pytest.raises(ConfigError, match="in use"), folder.locked(_run_folder(copy)):
                pass
            seen.append(plain(*arguments))

        monkeypatch.setattr(module, "write", write)
    assert run(copy, "--ci", str(copy / "out")) == 0
    assert hwnas("accept", copy / "hwnas.yaml", "--target", TARGET) == 0
    assert len(seen) == 2


@pytest.mark.parametrize("name", compare.CONDITIONS)
def test_results_taken_under_other_conditions_are_not_compared(finished, tmp_path, capsys, name):
    other = _result(finished)
    other["targets"][TARGET][name] = 9 if name in ("batch", "threads") else "another"
    write_json(tmp_path / "other.json", other)
    assert hwnas("compare", finished / "out", tmp_path / "other.json") == 2
    said = capsys.readouterr().err
    assert f"{TARGET} cannot be compared: {name} was" in said
    assert len(said.splitlines()) == 1
    locked = lock.locked(_result(finished))
    lock.hold_against(locked, other, is_accepted=False)
    assert {p["gates"][-1]["verdict"] for p in other["packages"]} == {"unknown"}


def _told(value: float | None, noise: float = 0.0, doubt: str = "") -> dict:
    return {"value": value, "noise": noise, "doubt": doubt}


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (_told(10, 0.3), _told(10.99, 0.4), "same"),  # the noise of both is 0.5
        (_told(10, 0.3), _told(11.01, 0.4), "worse"),
        (_told(10, 0.3), _told(8.9, 0.4), "better"),
        (_told(10, 0.3), _told(12, 0.4, "it was busy"), "unknown"),
        (_told(10, 0.3, "it was busy"), _told(12, 0.4), "unknown"),
        (_told(100), _told(101), "worse"),  # bytes have no noise
        (_told(0.0), _told(0.0), "same"),
        (_told(1.0), _told(None), "unknown"),
    ],
)
def test_a_difference_counts_beyond_the_noise_of_both(old, new, verdict):
    assert compare.difference("latency_ms", old, new)["verdict"] == verdict


def test_results_of_no_common_target_are_not_compared():
    one, other = ({"targets": {name: {}}, "packages": []} for name in ("here", "there"))
    with pytest.raises(ConfigError, match="no target is in both results: here and there"):
        compare.compared(one, other)
    with pytest.raises(ConfigError, match="none and there"):
        compare.compared({"targets": {}, "packages": []}, other)


def test_what_is_worse_is_said_with_its_change():
    whole = {"target": "t", "package": "best"}
    told = [("latency_ms", 10, 15), ("size_bytes", 0, 7), ("memory_bytes", 9, 9)]
    rows = [{**whole, **compare.difference(n, _told(a), _told(b))} for n, a, b in told]
    found = {"rows": rows, "missing": [], "added": [], "left_out": [], "regression": True}
    assert compare.worse(found) == [
        "best on t: latency_ms 10 -> 15 (+50.00%)",
        "best on t: size_bytes 0 -> 7",
    ]
    assert "**Something is worse.**" in compare.to_markdown(found)
    nothing = {**found, "rows": rows[2:], "regression": False}
    assert compare.worse(nothing) == []
    assert "Nothing is worse." in compare.to_markdown(nothing)


def test_changes_and_their_noise_are_told_as_shares_of_what_was():
    told = compare.difference("latency_ms", _told(10, 0.3), _told(15, 0.4))
    assert told["change"] == pytest.approx(0.5)
    assert told["noise"] == pytest.approx(0.05)
    assert compare.difference("size_bytes", _told(0.0), _told(1.0))["change"] is None


@pytest.mark.parametrize("kind", ["result", "lock"])
def test_a_damaged_result_or_lock_is_refused_or_compared_never_an_internal_error(
    finished, tmp_path, kind
):
    base, path = _result(finished), tmp_path / "other.json"
    known = lock.locked(base) if kind == "lock" else base
    rng, refused, n = np.random.default_rng(0), 0, 300
    for _ in range(n):
        path.write_text(edited(known, rng))
        try:
            found = lock.read(path, (known["format"],))
            compare.to_markdown(compare.compared(base, found))
            lock.hold_against(found, _other(base), is_accepted=False)
        except HwnasError as error:
            refused += error.exit_code == 2 and len(str(error).splitlines()) == 1
        else:
            n -= 1
    assert 0 < refused == n


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(packages=r["packages"] * 2), "a package appears twice"),
        (lambda r: r["packages"][0].update(target="gone"), "the target gone, which is not there"),
        (lambda r: r["packages"][0].update(metrics={}), "has no metrics"),
        (lambda r: r["packages"][0]["metrics"]["latency_ms"].update(noise=-1), "noise is -1"),
        (lambda r: r.pop("targets"), "lacks 'targets'"),
    ],
)
def test_a_result_that_is_not_whole_is_refused_with_what_is_wrong(
    finished, tmp_path, capsys, change, words
):
    other = _result(finished)
    change(other)
    write_json(tmp_path / "other.json", other)
    assert hwnas("compare", finished / "out", tmp_path / "other.json") == 2
    assert words in capsys.readouterr().err


def test_a_package_that_is_gone_is_a_regression_and_a_new_one_is_not(finished):
    base = _result(finished)
    new = _other(base, packages=base["packages"][1:])
    found = compare.compared(base, new)
    gone = [TARGET, base["packages"][0]["package"]]
    assert (found["missing"], found["regression"]) == ([gone], True)
    assert f"{gone[1]} on {TARGET} is missing" in compare.to_markdown(found)
    found = compare.compared(new, base)
    assert (found["added"], found["regression"]) == ([gone], False)


def test_a_target_that_failed_is_missing_and_one_that_was_not_asked_for_is_left_out(finished):
    one, other = _result(finished), "fake.fake.fp32.b8.t1"
    packages = [{**package, "target": other} for package in one["packages"]]
    both = _other(one, targets={**one["targets"], other: one["targets"][TARGET]})
    both["packages"] += packages
    found = compare.compared(lock.locked(both), one)
    assert (found["missing"], found["left_out"], found["regression"]) == ([], [other], False)
    assert f"{other} is in one result only" in compare.to_markdown(found)
    for name in (other, "fake.b8"):
        failures = [{"work": f"profile.{name}", "exit_code": 4, "error": "it is off"}]
        found = compare.compared(lock.locked(both), _other(one, failures=failures))
        assert found["missing"] == [[other, package["package"]] for package in packages]
        assert (found["left_out"], found["regression"]) == ([], True)


# ---- what would be done -------------------------------------------------------------------------


def _snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(("named", "sizes"), [("", 3), (", resolutions: [8, 16]", 2)])
def test_a_first_profile_is_expected_to_take_its_budget_for_every_size(
    tmp_path, capsys, named, sizes
):
    config = tmp_path / "hwnas.yaml"
    config.write_text(
        f"run: run\ndata: {{kind: digits}}\nspace: {{name: tiny{named}}}\n"
        "targets: [host.ort-cpu.fp32.b1.t1]\nprofile: {budget_s: 5}\n"
    )
    assert hwnas("run", config, "--dry-run", "--json") == 0
    stages = {s["name"]: s for s in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["profile.host.ort-cpu.fp32.b1.t1"]["about_s"] == 5 * sizes


def test_status_tells_what_is_stale_why_and_how_long_and_writes_nothing(copy, capsys):
    before = _snapshot(copy)
    accepted = ("--accept", "emulated,unreliable", "--json")
    assert hwnas("status", copy / "hwnas.yaml", *accepted) == 0
    told = json.loads(capsys.readouterr().out)
    assert all(stage["current"] for stage in told["stages"])
    changed = ("--set", "search.population=22", "--set", "train.epochs=2")
    assert hwnas("run", copy / "hwnas.yaml", "--dry-run", *accepted, *changed) == 0
    stages = {s["name"]: s for s in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["data"]["current"]
    assert stages["train"]["why"] == "train.epochs changed"
    took_s = read_json(_run_folder(copy) / "durations.json")["train"]
    assert stages["train"]["about_s"] == pytest.approx(2 * took_s)
    assert stages["evaluate"]["why"] == "after train"
    assert stages[f"profile.{TARGET}"]["current"]
    assert stages[f"search.{TARGET}"]["why"] == "after evaluate"
    assert _snapshot(copy) == before


def test_status_of_nothing_yet_writes_nothing_and_refuses_what_cannot_work(tmp_path, capsys):
    (tmp_path / "hwnas.yaml").write_text(SMALL)
    assert hwnas("status", tmp_path / "hwnas.yaml") == 0
    assert "train" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["hwnas.yaml"]
    for wrong, code, words in (
        ("targets=[host.ort-cuda.fp32.b1.t1]", 4, "CUDAExecutionProvider"),
        ("targets=[host.ort-cpu.fp32.b1.t4000]", 2, "has 4000 threads"),
        ("data={kind: npz, root: gone.npz}", 2, "gone.npz"),
        ("space.resolutions=[9]", 2, "9"),
        ("search.only={resolution: [9]}", 2, "leaves resolution without options"),
        ("pick=[{budget: {energy_mj: 3}}]", 2, "has no meter"),
        ("space.name=tinny", 2, "did you mean 'tiny'"),
    ):
        assert hwnas("status", tmp_path / "hwnas.yaml", "--set", wrong) == code
        assert words in capsys.readouterr().err
        assert hwnas("run", tmp_path / "hwnas.yaml", "--set", wrong) == code
        assert words in capsys.readouterr().err
        assert not (tmp_path / "runs" / "digits" / "supernet.safetensors").exists()


def test_a_cache_folder_that_cannot_be_written_is_found_before_training(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "hwnas.yaml").write_text(SMALL)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    for command in ("status", "run"):
        assert hwnas(command, tmp_path / "hwnas.yaml") == 2
        assert "cannot be written; set XDG_CACHE_HOME to one that can" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "digits" / "supernet.safetensors").exists()


def test_one_target_that_cannot_work_stops_no_other(copy, capsys):
    two = f"targets=[{TARGET},host.ort-cuda.fp32.b1.t1]"
    assert run(copy, "--set", two, "--json") == 4
    told = json.loads(capsys.readouterr().out)
    assert [f["work"] for f in told["failures"]] == ["check.host.ort-cuda.fp32.b1.t1"]
    assert f"verify.{TARGET}" in told["up_to_date"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (180, "3 min"), (9000, "2 h")]
)
def test_durations_are_told_as_people_say_them(seconds, words):
    assert plan.in_words(seconds) == words


def test_the_matrix_names_a_runner_for_each_target(copy, capsys):
    (copy / "targets").mkdir()
    name = "pi5.ort-cpu.fp32.b1.t1"
    content = "{device: pi5, runtime: ort-cpu, connection: {ssh: pi@pi5}}"
    (copy / "targets" / f"{name}.yaml").write_text(content)
    assert run(copy, "--matrix", "--set", f"targets=[{TARGET},{name}]") == 0
    assert json.loads(capsys.readouterr().out) == {
        "include": [
            {"target": TARGET, "runner": "ubuntu-latest"},
            {"target": name, "runner": "pi5"},
        ]
    }


# ---- nothing vanishes ---------------------------------------------------------------------------


def test_what_is_set_aside_stays_and_is_told_until_gc(copy, capsys):
    fewer = ("--set", "pick=[{rule: best}]")
    assert run(copy, *fewer) == 0
    assert "`hwnas gc` removes them" in capsys.readouterr().err
    kept = sorted(_run_folder(copy).glob("aside/*/*"))
    assert kept
    assert hwnas("gc", copy / "hwnas.yaml", "--dry-run", "--json") == 0
    assert [each["path"] for each in json.loads(capsys.readouterr().out)["found"]] == [
        str(path) for path in kept
    ]
    assert all(path.exists() for path in kept)
    assert hwnas("gc", copy / "hwnas.yaml") == 0
    assert not any(path.exists() for path in kept)
    assert list(_run_folder(copy).glob("packages/*/best/model.onnx"))


def test_a_finished_supernet_is_kept_when_another_replaces_it_and_why_is_said(copy, capsys):
    path = _run_folder(copy) / "supernet.safetensors"
    before = path.read_bytes()
    assert hwnas("train", copy / "hwnas.yaml", "--set", "train.seed=1") == 0
    said = capsys.readouterr().err
    assert "train: redone, train.seed changed" in said
    assert "the supernet of before is kept as supernet.1.old.safetensors" in said
    assert path.with_name("supernet.1.old.safetensors").read_bytes() == before
    assert path.read_bytes() != before


def test_what_others_keep_in_the_folders_that_we_write_and_clear_stays(copy):
    places = (
        "out/packages/app/index.html",
        "out/packages/host/app/manifest.json",
        "runs/digits/packages/app/src/manifest.json",
        "runs/digits/aside/app/src/main.c",
        "runs/digits/mine.1.old.safetensors",
    )
    for place in places:
        (copy / place).parent.mkdir(parents=True, exist_ok=True)
        (copy / place).write_text('{"format": "mine"}')
    assert run(copy, "--set", "pick=[{rule: best}]", "--ci", str(copy / "out")) == 0
    assert hwnas("gc", copy / "hwnas.yaml") == 0
    assert [place for place in places if not (copy / place).exists()] == []
    assert not list((copy / "out").glob("packages/*/knee"))
    assert not list(_run_folder(copy).glob("aside/*/*/model.onnx"))


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["packages/app", "junit.xml", "result.json"])
def test_an_output_folder_with_things_of_others_under_our_names_is_refused_before_any_work(
    tmp_path, capsys, taken
):
    (tmp_path / "hwnas.yaml").write_text(SMALL)
    (tmp_path / "out" / taken).parent.mkdir(parents=True)
    (tmp_path / "out" / taken).write_text("{}")
    assert run(tmp_path, "--ci", str(tmp_path / "out")) == 2
    assert "is not ours; name an empty folder" in capsys.readouterr().err
    assert (tmp_path / "out" / taken).read_text() == "{}"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("out", ["runs/digits", "runs/digits/packages"])
def test_the_run_folder_is_no_output_folder(tmp_path, capsys, out):
    (tmp_path / "hwnas.yaml").write_text(SMALL)
    assert run(tmp_path, "--ci", str(tmp_path / out)) == 2
    assert "lies in the run folder" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_one_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "hwnas.yaml").write_text(SMALL)
    (tmp_path / "file").write_text("kept")
    assert run(tmp_path, "--ci", str(tmp_path / "file")) == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_output_folder_that_is_read_only_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "hwnas.yaml").write_text(SMALL)
    (tmp_path / "out").mkdir(mode=0o500)
    assert run(tmp_path, "--ci", str(tmp_path / "out")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_refused_leaves_no_results_of_an_earlier_one(copy):
    out, etree_schema = copy / "out", _schema()
    assert run(copy, "--ci", str(out), "--set", "targets=[pi9]") == 2
    result = lock.read(out / "result.json", ("hwnas-result-1",))
    assert (result["packages"], result["exit_code"]) == ([], 2)
    assert [failure["work"] for failure in result["failures"]] == ["start"]
    assert OWNER not in (out / "result.json").read_text()
    assert not list(out.glob("packages/*/*"))
    assert "start failed" in (out / "summary.md").read_text()
    etree, schema = etree_schema
    schema.assertValid(etree.parse(str(out / "junit.xml")))
    (copy / "hwnas.lock").write_text("{")
    assert run(copy, "--ci", str(copy / "new")) == 2
    assert "hwnas.lock" in (copy / "new" / "junit.xml").read_text()


def test_settings_changed_in_mid_run_are_those_of_the_next(copy, monkeypatch):
    from hwnas.commands import running

    plain = running.plan.problems

    def changing(context, targets):
        (copy / "hwnas.yaml").write_text("run: elsewhere\n")
        return plain(context, targets)

    monkeypatch.setattr(running.plan, "problems", changing)
    before = _result(copy)["hashes"]["settings"]
    assert run(copy, "--ci", str(copy / "out")) == 0
    assert _result(copy)["hashes"]["settings"] == before
    assert not (copy / "elsewhere").exists()


def test_sums_are_read_by_the_tool_that_everybody_has(finished):
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=finished / "out", check=True)
