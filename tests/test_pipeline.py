"""The whole job on digits with a modelled device: everything is made, skipped, resumed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from hwnas import cli, data, spaces
from hwnas.config import DataConfig
from hwnas.search import front
from hwnas.stages import verify as verifying
from profilers.errors import MissedBudgetError
from profilers.schema import read_lines

SETTINGS = """
run: runs/digits
data: {kind: digits}
space: {name: tiny, resolutions: [8, 12]}
train: {epochs: 6, threads: 1}
accuracy: {measure: 24, bn_images: 256}
targets: [fake.fake.fp32.b1.t1, fake.fake.fp32.b4.t1]
profile: {budget_s: 5, heldout: 10, rounds: 10}
search: {population: 20, generations: 10}
pick:
  - {rule: best}
  - {rule: knee}
  - {budget: {latency_ms: 60%}}
  - {rule: spread, k: 3}
"""
TARGETS = ("fake.fake.fp32.b1.t1", "fake.fake.fp32.b4.t1")


def hwnas(*arguments: str | Path) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def run(folder: Path, *arguments: str) -> int:
    """Exit code of `hwnas run`, modelled times accepted."""
    return hwnas("run", folder / "hwnas.yaml", "--accept", "emulated", *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with settings and a finished run; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "hwnas.yaml").write_text(SETTINGS)
    assert run(folder) == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def _run_folder(folder: Path) -> Path:
    return folder / "runs" / "digits"


def _manifests(folder: Path) -> list[dict]:
    paths = sorted(_run_folder(folder).glob("packages/*/*/manifest.json"))
    return [json.loads(path.read_text()) for path in paths]


def test_a_run_makes_measured_packages_for_every_target(finished):
    manifests = _manifests(finished)
    assert {m["target"]["name"] for m in manifests} == set(TARGETS)
    assert len(manifests) >= 6
    for manifest in manifests:
        assert manifest["parity"]["max_relative_difference"] <= 1e-4
        assert manifest["parity"]["same_top1"] == 1
        assert manifest["measured"]["test_images"] == 359
        assert (
            abs(manifest["measured"]["latency_ms"] / manifest["predicted"]["latency_ms"] - 1) < 0.1
        )


def test_different_targets_give_different_tables_and_graphs(finished):
    tables = [_run_folder(finished) / "tables" / f"{target}.json" for target in TARGETS]
    first, second = (json.loads(path.read_text())["rows"] for path in tables)
    assert set(first) == set(second)
    assert first != second
    batches = {m["target"]["batch"] for m in _manifests(finished)}
    assert batches == {1, 4}


def test_the_front_holds_measured_beside_predicted(finished):
    held = json.loads((_run_folder(finished) / "fronts" / f"{TARGETS[0]}.json").read_text())
    measured = [point for point in held["points"] if point["measured"]]
    assert {p["id"] for p in measured} == {
        m["id"] for m in _manifests(finished) if m["target"]["name"] == TARGETS[0]
    }
    assert all("error" in point["predicted"] for point in held["points"])


def test_search_sees_validation_images_only(finished):
    rows, _ = read_lines(_run_folder(finished) / "accuracy.jsonl")
    assert {row["split"] for row in rows} == {"val"}
    assert {row["n_images"] for row in rows} == {len(data.load(DataConfig()).val)}


def test_onnx_metadata_holds_nothing_measured(finished):
    for path in _run_folder(finished).glob("packages/*/*/model.onnx"):
        names = {prop.key for prop in onnx.load(path).metadata_props}
        assert {"hwnas.arch", "hwnas.classes", "hwnas.input", "hwnas.supernet_sha256"} <= names
        assert not any("measured" in name or "latency" in name for name in names)


def test_a_second_run_has_nothing_to_do(copy, capsys):
    assert run(copy, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["done"] == ["report"]
    assert len(summary["packages"]) == len(_manifests(copy))


def test_deleted_packages_come_back_with_the_same_bytes(copy):
    folder = _run_folder(copy) / "packages"
    before = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("model.onnx")}
    shutil.rmtree(folder)
    assert run(copy) == 0
    assert {p.relative_to(folder): p.read_bytes() for p in folder.rglob("model.onnx")} == before


def test_a_changed_pick_redoes_only_what_follows(copy, capsys):
    assert run(copy, "--json", "--set", "pick=[{rule: best}]") == 0
    summary = json.loads(capsys.readouterr().out)
    assert {name.split(".")[0] for name in summary["done"]} <= {"export", "verify", "report"}
    assert {row["package"] for row in summary["packages"]} == {"best"}


@pytest.mark.parametrize(
    ("file", "code", "message"),
    [
        ("tables/fake.fake.fp32.b1.t1.json", 2, "was changed since hwnas wrote it"),
        ("supernet.safetensors", 2, "was changed since hwnas wrote it"),
        ("packages/fake.fake.fp32.b1.t1/best/model.onnx", 2, "was changed since hwnas wrote it"),
        ("fronts/fake.fake.fp32.b1.t1.json", 2, "fake.fake.fp32.b1.t1.json"),
    ],
)
def test_an_edited_output_is_named_with_its_exit_code(copy, capsys, file, code, message):
    path = _run_folder(copy) / file
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    assert run(copy) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["manifest.json", "MODEL_CARD.md", "example.py"])
def test_a_package_that_lost_a_file_is_made_again(copy, name):
    path = _run_folder(copy) / "packages" / TARGETS[0] / "best" / name
    path.unlink()
    assert run(copy) == 0
    assert path.exists()
    assert all(manifest["measured"] for manifest in _manifests(copy))


def test_a_front_searched_anew_holds_what_was_measured_before(copy):
    path = _run_folder(copy) / "fronts" / f"{TARGETS[0]}.json"
    path.unlink()
    assert run(copy) == 0
    assert any(point["measured"] for point in json.loads(path.read_text())["points"])


def test_a_failure_shows_no_packages_of_an_earlier_run_as_its_own(copy, capsys):
    impossible = "pick=[{budget: {latency_ms: 0.000001}}]"
    assert run(copy, "--json", "--set", impossible) == 3
    said = capsys.readouterr()
    assert not any(row["current"] for row in json.loads(said.out)["packages"])
    assert "smallest" in said.err


@pytest.mark.parametrize(
    "arguments", [("run", "none.yaml", "--json"), ("space", "show", "tyni", "--json")]
)
def test_an_early_error_is_one_json_document_and_one_line(capsys, arguments):
    assert hwnas(*arguments) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["exit_code"] == 2
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("runn",), ("run", "--colour"), ("space", "show")])
def test_a_wrong_command_line_is_one_line(capsys, arguments):
    assert hwnas(*arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_paths_are_relative_to_the_settings_file(copy, tmp_path, monkeypatch):
    digits = data.load(DataConfig(kind="digits"))
    parts = {"train": digits.train, "test": digits.test}
    arrays = {f"{name}_images": part.images[:, 0].numpy() for name, part in parts.items()}
    arrays |= {f"{name}_labels": part.labels.numpy() for name, part in parts.items()}
    np.savez(copy / "digits.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    settings = SETTINGS.replace("{kind: digits}", "{kind: npz, root: digits.npz}")
    (copy / "hwnas.yaml").write_text(settings.replace("runs/digits", "runs/other"))
    assert hwnas("train", copy / "hwnas.yaml", "--set", "train.epochs=1") == 0


def test_ctrl_c_says_how_to_go_on(tmp_path):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS.replace("epochs: 6", "epochs: 5000"))
    command = [sys.executable, "-m", "hwnas", "train", str(tmp_path / "hwnas.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "train: started" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "hwnas: stopped; run the same command again to go on"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "space.name=tinny"], 2, "did you mean 'tiny'"),
        (["--set", "targets=[nowhere]"], 2, "neither a file targets/nowhere.yaml"),
        (["--set", "targets=[pi5.ort-cpu.fp32.b1.t1]"], 2, "is not this machine"),
        (["--set", "targets=[host.ort-cpv.fp32.b1.t1]"], 2, "did you mean 'ort-cpu'"),
        (["--set", "train.epoch=3"], 2, "did you mean 'epochs'"),
        (["--set", "search.budgets={latency_ms: 0.000001}"], 3, "smallest"),
        (["--set", "pick=[{budget: {latency_ms: 0.000001}}]"], 3, "smallest"),
        (["--set", "check.min_accuracy=1.0"], 3, "below check.min_accuracy"),
        (["--set", "data={kind: npz, root: gone.npz}"], 2, "gone.npz"),
        (["--accept", "anything"], 2, "unknown --accept word 'anything'"),
    ],
)
def test_bad_input_ends_with_one_line_and_its_exit_code(copy, capsys, arguments, code, message):
    assert run(copy, *arguments) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hwnas:")]
    assert errors
    assert all(message in line for line in errors)


def test_a_stage_without_its_inputs_says_which_command_makes_them(tmp_path, capsys):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS)
    assert hwnas("search", tmp_path / "hwnas.yaml") == 2
    assert "run `hwnas profile --target" in capsys.readouterr().err


def test_one_bad_target_does_not_stop_the_other(copy, capsys):
    settings = SETTINGS.replace("heldout: 10", "heldout: 11")  # both are measured again
    noisy = "{device: fake, runtime: fake, batch: 2, connection: {kind: local, noise: '0.5'}}"
    name = "fake.fake.fp32.b2.t1"
    (copy / "targets").mkdir()
    (copy / "targets" / f"{name}.yaml").write_text(noisy)
    (copy / "hwnas.yaml").write_text(settings.replace(TARGETS[1], name))
    code = run(copy, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert code in (4, 5)
    assert [failure["work"] for failure in summary["failures"]] == [f"profile.{name}"]
    assert f"verify.{TARGETS[0]}" in summary["done"]


def test_pick_shows_what_would_be_exported_and_writes_nothing(copy, capsys):
    shutil.rmtree(_run_folder(copy) / "packages")
    assert hwnas("pick", copy / "hwnas.yaml", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["target"] for row in rows} == set(TARGETS)
    assert not (_run_folder(copy) / "packages").exists()


def test_the_example_in_a_package_reproduces_the_evaluation(finished, tmp_path):
    images = data.load(DataConfig(kind="digits")).test
    paths = []
    for n in range(40):
        paths.append(tmp_path / f"{n}.npy")
        np.save(paths[-1], images.images[n, 0].numpy())
    for folder in sorted(_run_folder(finished).glob(f"packages/{TARGETS[1]}/*")):
        command = [sys.executable, str(folder / "example.py"), *map(str, paths)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        classes = [int(line.split(": ")[1].split(" ")[0]) for line in lines.splitlines()]
        right = np.mean(np.array(classes) == images.labels[:40].numpy())
        manifest = json.loads((folder / "manifest.json").read_text())
        assert abs(right - manifest["measured"]["test_accuracy"]) < 0.25
        assert len(classes) == 40


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_packages(finished, tmp_path):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS + "\n")
    command = [sys.executable, "-m", "hwnas", "run", str(tmp_path / "hwnas.yaml")]
    command += ["--accept", "emulated"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for seconds in (5, 8):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    expected = {m["id"] for m in _manifests(finished)}
    assert {m["id"] for m in _manifests(tmp_path)} == expected


def test_a_package_that_misses_its_budget_when_measured_is_replaced(copy):
    path = _run_folder(copy) / "fronts" / f"{TARGETS[0]}.json"
    found = front.load(path, spaces.load("tiny").restricted([8, 12]))
    before = {m["name"]: m for m in _manifests(copy) if m["target"]["name"] == TARGETS[0]}
    name = "latency_ms-60pct"
    missed = before[name]
    slow = {missed["id"]: {"latency_ms": 2 * missed["budgets"]["latency_ms"]}}
    front.save(found.with_measured(slow), path)
    assert run(copy) == 0
    after = {m["name"]: m for m in _manifests(copy) if m["target"]["name"] == TARGETS[0]}
    assert after[name]["id"] != missed["id"]
    assert after[name]["predicted"]["latency_ms"] < missed["predicted"]["latency_ms"]


def test_on_a_machine_that_never_settles_packages_come_out_when_that_is_accepted(copy, capsys):
    noisy = "{device: fake, runtime: fake, batch: 2, connection: {kind: local, noise: '0.5'}}"
    name = "fake.fake.fp32.b2.t1"
    (copy / "targets").mkdir()
    (copy / "targets" / f"{name}.yaml").write_text(noisy)
    (copy / "hwnas.yaml").write_text(SETTINGS.replace(TARGETS[1], name))
    accepted = ("--accept", "emulated,unreliable,gap,budget,untimed")
    short = ("--set", "profile.budget_s=1.5", "--json")
    assert hwnas("run", copy / "hwnas.yaml", *accepted, *short) == 0
    said = capsys.readouterr()
    rows = [row for row in json.loads(said.out)["packages"] if row["target"] == name]
    assert len(rows) >= 3
    assert "unreliable" in said.err
    table = json.loads((_run_folder(copy) / "tables" / f"{name}.json").read_text())
    assert table["validation"]["verdict"] == "unreliable"


def test_a_word_that_opens_tables_mutes_no_gate_and_one_that_does_is_told_and_kept(copy, capsys):
    strict = ("--set", "check.max_gap=0.00001")
    words = "emulated,unreliable,estimated"
    assert hwnas("run", copy / "hwnas.yaml", "--accept", words, *strict) == 5
    assert "further than 0.001 % from its prediction" in capsys.readouterr().err
    assert hwnas("run", copy / "hwnas.yaml", "--accept", "emulated,gap", *strict) == 0
    told = capsys.readouterr().err.splitlines()
    muted = [line for line in told if line.endswith("; muted by --accept gap")]
    assert len(muted) == len(TARGETS)
    assert all({"emulated", "gap"} <= set(manifest["accepted"]) for manifest in _manifests(copy))


def test_a_budget_that_every_next_network_misses_is_an_error_unless_accepted(monkeypatch):
    tried, warned = [], []

    def verify(context, target):
        raise MissedBudgetError("late")

    monkeypatch.setattr(verifying, "verify", verify)
    monkeypatch.setattr(verifying, "export", lambda context, target: tried.append(target))
    report = SimpleNamespace(note=lambda text: None, warn=warned.append)
    strict = SimpleNamespace(report=report, accept=frozenset())
    with pytest.raises(MissedBudgetError):
        verifying.verify_or_next(strict, "t")
    assert tried == ["t"] * verifying.NEXT_TRIES
    tables = SimpleNamespace(report=report, accept=frozenset({"unreliable"}))
    with pytest.raises(MissedBudgetError):
        verifying.verify_or_next(tables, "t")
    lenient = SimpleNamespace(report=report, accept=frozenset({"budget"}))
    assert verifying.verify_or_next(lenient, "t")
    assert warned == ["late; muted by --accept budget"]
