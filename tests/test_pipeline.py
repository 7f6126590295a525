"""The whole job on digits with a modelled device: everything is made, skipped, resumed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from hwnas import cli
from hwnas.images import tensors
from hwnas.measuring import records, remote
from hwnas.run import package, tested
from hwnas.run import verify as verifying
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError, MissedBudgetError
from profilers.schema import (
    Target,
    canonical_json,
    read_lines,
    sha256_file,
    target_from_name,
    write_json,
)

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
    """A folder with settings and a finished run; tests copy it before they change it. Its tables
    are dated by SOURCE_DATE_EPOCH.
    """
    folder = tmp_path_factory.mktemp("finished")
    _write_settings(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOURCE_DATE_EPOCH", "86400")
        assert run(folder) == 0
    return folder


def _write_settings(folder: Path) -> None:
    """Settings, and targets without noise: a modelled machine draws its noise anew in each process,
    so a campaign that was killed and goes on would see other times.
    """
    (folder / "hwnas.yaml").write_text(SETTINGS)
    (folder / "targets").mkdir()
    for name in TARGETS:
        quiet = replace(target_from_name(name), connection={"kind": "local", "noise": "0"})
        write_json(folder / "targets" / f"{name}.yaml", quiet.to_json())


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
    assert {p["id"] for p in measured} >= {
        m["id"] for m in _manifests(finished) if m["target"]["name"] == TARGETS[0]
    }
    assert all("error" in point["predicted"] for point in held["points"])


def test_search_sees_validation_images_only(finished):
    rows, _ = read_lines(_run_folder(finished) / "accuracy.jsonl")
    assert {row["split"] for row in rows} == {"val"}
    assert {row["n_images"] for row in rows} == {len(tensors.load(DataConfig()).val)}


def test_onnx_metadata_holds_nothing_measured(finished):
    for path in _run_folder(finished).glob("packages/*/*/model.onnx"):
        names = {prop.key for prop in onnx.load(path).metadata_props}
        assert {"hwnas.arch", "hwnas.classes", "hwnas.input", "hwnas.supernet_sha256"} <= names
        assert not any("measured" in name or "latency" in name for name in names)


def test_a_second_run_has_nothing_to_do(copy, capsys):
    assert run(copy, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["done"] == []
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


def test_options_that_are_locked_are_all_that_is_searched_and_nothing_is_trained_again(
    copy, capsys
):
    path = _run_folder(copy) / "fronts" / f"{TARGETS[0]}.json"
    before = json.loads(path.read_text())
    only = {"*.kernel_size": [3], "resolution": [12]}
    assert hwnas("search", copy / "hwnas.yaml", "--accept", "emulated", "--set",
                 f"search.only={json.dumps(only)}") == 0  # fmt: skip
    after = json.loads(path.read_text())
    taken = [point["arch"]["choices"] for point in after["points"]]
    assert {each["resolution"] for each in taken} == {12}
    assert {v for each in taken for n, v in each.items() if n.endswith("kernel_size")} == {3}
    assert after["max_network"] == before["max_network"]  # shares of budgets stay
    assert after["settings"]["only"] == only
    told = capsys.readouterr().err
    assert "search.only.resolution changed" in told
    assert "train" not in told


def _models(folder: Path) -> dict[str, Path]:
    """Every model below a folder, by sha256."""
    return {sha256_file(path): path for path in folder.rglob("model.onnx")}


def test_a_package_that_is_replaced_or_no_longer_asked_for_is_set_aside_whole(copy):
    folder = _run_folder(copy)
    before = _models(folder / "packages")
    best = folder / "packages" / TARGETS[0] / "best"
    manifest = json.loads((best / "manifest.json").read_text())
    replaced = "pick=[{rule: cheapest, within: 1, name: best}]"
    assert run(copy, "--set", replaced) == 0
    assert _named(copy, "best")["id"] != manifest["id"]
    assert set(before) <= set(_models(folder))
    kept = _models(folder / "aside")[manifest["files"]["model.onnx"]].parent
    assert package.read_manifest(kept) == manifest
    assert run(copy) == 0  # and back
    assert _named(copy, "best")["files"]["model.onnx"] == manifest["files"]["model.onnx"]


def test_a_run_with_nothing_to_do_loads_neither_torch_nor_onnx(copy):
    code = "import sys; from hwnas import cli\ntry: cli.main(sys.argv[1:])\n"
    code += "finally: print(*sys.modules)"
    command = [sys.executable, "-c", code, "run", str(copy / "hwnas.yaml"), "--accept", "emulated"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "onnx", "onnxruntime", "sklearn", "scipy"} & set(told.split())


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
    digits = tensors.load(DataConfig(kind="digits"))
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
    while "train: started" not in process.stderr.readline():  # behind the sum of the data
        assert process.poll() is None
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
    assert "data.json does not exist; run `hwnas train` first" in capsys.readouterr().err


def test_one_bad_target_does_not_stop_the_other(copy, capsys):
    settings = SETTINGS.replace("heldout: 10", "heldout: 11")  # both are measured again
    noisy = "{device: fake, runtime: fake, batch: 2, connection: {kind: local, noise: '0.5'}}"
    name = "fake.fake.fp32.b2.t1"
    (copy / "targets").mkdir(exist_ok=True)
    (copy / "targets" / f"{name}.yaml").write_text(noisy)
    (copy / "hwnas.yaml").write_text(settings.replace(TARGETS[1], name))
    code = run(copy, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert code in (4, 5)
    assert [failure["work"] for failure in summary["failures"]] == [f"profile.{name}"]
    assert f"export.{TARGETS[0]}" in summary["done"]
    assert f"verify.{TARGETS[0]}" in summary["done"] + summary["up_to_date"]


def test_pick_shows_what_would_be_exported_and_writes_nothing(copy, capsys):
    shutil.rmtree(_run_folder(copy) / "packages")
    assert hwnas("pick", copy / "hwnas.yaml", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["target"] for row in rows} == set(TARGETS)
    assert not (_run_folder(copy) / "packages").exists()


def test_the_example_in_a_package_reproduces_the_evaluation(finished, tmp_path):
    images = tensors.load(DataConfig(kind="digits")).test
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
    _write_settings(tmp_path)
    command = [sys.executable, "-m", "hwnas", "run", str(tmp_path / "hwnas.yaml")]
    command += ["--accept", "emulated"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "86400"}
    campaigns = [f"measurements/{name}.jsonl" for name in TARGETS]
    for name, size in (("events.jsonl", 3_000), (campaigns[0], 100_000), (campaigns[1], 100_000)):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while not _longer(_run_folder(tmp_path) / name, size):
            assert process.poll() is None, f"the run ended before {name} was that long"
        process.kill()
        process.wait()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert _contents(tmp_path) == _contents(finished)


def _longer(path: Path, size: int) -> bool:
    """Whether a file has so many bytes; looks a hundred times a second at most."""
    time.sleep(0.01)
    return path.exists() and path.stat().st_size > size


def _contents(folder: Path) -> dict[str, str]:
    """The sha256 of every file of every package; of manifests the content without the sha256 of the
    table: samples taken after a kill have other time stamps.
    """
    root = _run_folder(folder) / "packages"
    files = [path for path in root.rglob("*") if path.is_file()]
    found = {path.relative_to(root).as_posix(): sha256_file(path) for path in files}
    for name in [name for name in found if name.endswith("manifest.json")]:
        content = json.loads((root / name).read_text())
        del content["hashes"]["table"]
        found[name] = canonical_json(content)
    return found


def test_a_table_is_dated_by_source_date_epoch(finished, monkeypatch):
    table = _run_folder(finished) / "tables" / f"{TARGETS[0]}.json"
    assert json.loads(table.read_text())["protocol"]["created"] == "1970-01-02T00:00:00+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigError, match="'yesterday', expected seconds since 1970"):
        records.now()


# ---- measured over budget ----------------------------------------------------------------------

BUDGET = "latency_ms-60pct"


@pytest.fixture
def timed(monkeypatch):
    """Networks that are measured from now on, by the sha256 of their models; `slowness` of each
    call, and the verdict, may be set.
    """
    plain, told = remote.measure_models, SimpleNamespace(calls=[], slowness=[], verdict="good")

    def measure(target, paths, *rest):
        told.calls.append([sha256_file(path) for path in paths])
        factor = told.slowness.pop(0) if told.slowness else 1.0
        found = plain(target, paths, *rest)
        times = ("latency_ms", "median_ms", "p95_ms")
        about = {"verdict": told.verdict if factor > 1 else "good", "reason": "it was busy"}
        return [{**e, **{n: factor * e[n] for n in times}, **about} for e in found]

    monkeypatch.setattr(remote, "measure_models", measure)
    return told


def _named(folder: Path, name: str = BUDGET, target: str = TARGETS[0]) -> dict:
    path = _run_folder(folder) / "packages" / target / name / "manifest.json"
    return json.loads(path.read_text())


def _edit(folder: Path, target: str, model: str, **measured) -> None:
    """Change what is known of a model."""
    path = _run_folder(folder) / "results" / f"{target}.json"
    content = json.loads(path.read_text())
    for result in content["results"]:
        if result["model"] == model:
            result["measured"] |= measured
    write_json(path, content)


def _forget(folder: Path) -> None:
    """Delete the packages of the first target, and what is known of them."""
    shutil.rmtree(_run_folder(folder) / "packages" / TARGETS[0])
    (_run_folder(folder) / "results" / f"{TARGETS[0]}.json").unlink()


def test_a_package_that_misses_its_budget_when_measured_is_replaced_and_nothing_else(copy, timed):
    missed, model = _named(copy), _run_folder(copy) / "packages" / TARGETS[0] / "best/model.onnx"
    before = model.stat().st_mtime_ns
    late = 2 * missed["budgets"]["latency_ms"]
    _edit(copy, TARGETS[0], missed["files"]["model.onnx"], latency_ms=late)
    assert run(copy) == 0
    after = _named(copy)
    assert after["id"] != missed["id"]
    assert after["predicted"]["latency_ms"] < missed["predicted"]["latency_ms"]
    assert timed.calls in ([], [[after["files"]["model.onnx"]]])
    assert model.stat().st_mtime_ns == before
    assert run(copy) == 0
    assert _named(copy)["id"] == after["id"]


def test_a_spread_ships_no_package_that_is_slower_and_less_accurate_than_another(copy, timed):
    given = ("--set", "pick=[{rule: best}, {rule: spread, k: 3}]")
    assert run(copy, *given) == 0
    folder = _run_folder(copy) / "packages" / TARGETS[0]
    names = sorted(path.name for path in folder.iterdir())
    worst = _named(copy, names[-1])
    assert names[-1].startswith("spread-")
    slow = 2 * max(_named(copy, name)["measured"]["latency_ms"] for name in names)
    _edit(copy, TARGETS[0], worst["files"]["model.onnx"], latency_ms=slow, test_accuracy=0.0)
    before = len(timed.calls)
    for _ in range(2):  # and again, the same are picked
        assert run(copy, *given) == 0
        left = {path.name for path in folder.iterdir()}
        assert names[-1] not in left
        assert left >= set(names[:-1])  # and one that only the worst had beaten, if there is any
    assert len(timed.calls) == before  # nothing is measured anew


def test_a_disturbed_measurement_excludes_nothing_and_is_made_again(copy, timed, capsys):
    _forget(copy)
    chosen = {m["id"] for m in _manifests(copy)}
    timed.slowness, timed.verdict = [3.0], "disturbed"
    assert run(copy) == 0
    said = capsys.readouterr().err
    assert "the machine was disturbed meanwhile" in said
    assert "latency is disturbed: it was busy" in said
    first = _named(copy)
    assert first["measured"]["latency_ms"] > first["budgets"]["latency_ms"]
    assert {m["id"] for m in _manifests(copy)} >= chosen
    n = len(timed.calls)
    assert run(copy) == 0
    assert len(timed.calls) == n + 1
    assert _named(copy)["id"] == first["id"]
    assert _named(copy)["measured"]["latency_ms"] < first["budgets"]["latency_ms"]
    assert run(copy) == 0
    assert len(timed.calls) == n + 1


def test_a_limit_that_a_disturbed_measurement_exceeds_is_measured_again(copy, timed):
    best = _named(copy, "best")
    found = best["measured"]["latency_ms"]
    busy = {"verdict": "disturbed", "reason": "it was busy"}
    _edit(copy, TARGETS[0], best["files"]["model.onnx"], latency_ms=1.05 * found, **busy)
    limit = ("--set", f"check.limits={{latency_ms: {1.02 * found}}}")
    one = ("--set", "pick=[{rule: best}]", "--set", f"targets=[{TARGETS[0]}]", *limit)
    for _ in range(2):
        assert run(copy, *one) == 0
        assert timed.calls == [[best["files"]["model.onnx"]]]


def _few(copy: Path) -> str:
    """A setting: one package within a budget that three networks of the front meet."""
    held = json.loads((_run_folder(copy) / "fronts" / f"{TARGETS[0]}.json").read_text())
    third = sorted(point["predicted"]["latency_ms"] for point in held["points"])[2]
    return f"pick=[{{budget: {{latency_ms: {1.0001 * third}}}, target: {TARGETS[0]}, name: few}}]"


def test_before_a_budget_is_given_up_its_networks_are_measured_once_more(copy, timed, capsys):
    pick = ("--set", _few(copy), "--set", f"targets=[{TARGETS[0]}]")
    timed.slowness = [3.0, 3.0, 3.0]
    (_run_folder(copy) / "results" / f"{TARGETS[0]}.json").unlink()
    assert run(copy, *pick) == 0
    assert "measured once more, together" in capsys.readouterr().err
    assert [len(call) for call in timed.calls] == [1, 1, 1, 3]
    found = _named(copy, "few")
    assert found["predicted"]["latency_ms"] == pytest.approx(
        found["budgets"]["latency_ms"], rel=1e-3
    )
    assert run(copy, *pick) == 0
    assert len(timed.calls) == 4


def test_a_budget_that_was_missed_twice_is_given_up_with_the_way_out(copy, timed, capsys):
    pick = ("--set", _few(copy), "--set", f"targets=[{TARGETS[0]}]")
    timed.slowness = [3.0] * 9
    results = _run_folder(copy) / "results" / f"{TARGETS[0]}.json"
    results.unlink()
    assert run(copy, *pick) == 3
    said = capsys.readouterr().err
    assert "all 3 networks predicted within latency_ms = " in said
    assert f"delete {results}" in said
    assert [len(call) for call in timed.calls] == [1, 1, 1, 3]
    assert run(copy, *pick) == 3
    assert len(timed.calls) == 4
    write_json(results, {**json.loads(results.read_text()), "made_by": {"fake": "0"}})
    timed.slowness = []
    assert run(copy, *pick) == 0  # another engine forgets all
    assert f"verify.{TARGETS[0]}: redone, " in capsys.readouterr().err


def test_a_budget_that_every_network_misses_is_kept_to_by_predictions_if_that_is_accepted(
    copy, timed, capsys
):
    pick = ("--set", _few(copy), "--set", f"targets=[{TARGETS[0]}]")
    timed.slowness = [3.0] * 9
    (_run_folder(copy) / "results" / f"{TARGETS[0]}.json").unlink()
    accepted = ("--accept", "emulated,gap,budget", *pick)
    assert hwnas("run", copy / "hwnas.yaml", *accepted) == 0
    assert [len(call) for call in timed.calls] == [1, 1, 1, 3]
    said = capsys.readouterr().err
    assert "all 3 networks predicted within latency_ms = " in said
    assert "; muted by --accept budget" in said
    found = _named(copy, "few")
    assert found["measured"]["latency_ms"] > found["budgets"]["latency_ms"]
    assert "budget" in found["accepted"]
    assert hwnas("run", copy / "hwnas.yaml", *accepted) == 0
    assert len(timed.calls) == 4
    assert hwnas("status", copy / "hwnas.yaml", *accepted) == 0
    assert run(copy, *pick) == 3


def test_what_is_known_of_a_model_is_not_measured_again(copy, timed):
    shutil.rmtree(_run_folder(copy) / "packages")
    assert run(copy) == 0
    assert timed.calls == []
    assert all(manifest["measured"]["latency_ms"] for manifest in _manifests(copy))
    path = _run_folder(copy) / "results" / f"{TARGETS[1]}.json"
    write_json(path, {**json.loads(path.read_text()), "made_by": {"fake": "0"}})
    assert hwnas("verify", copy / "hwnas.yaml", "--accept", "emulated") == 0
    models = {m["files"]["model.onnx"] for m in _manifests(copy) if m["target"]["batch"] == 4}
    assert [set(call) for call in timed.calls] == [models]


def test_a_fleet_takes_no_network_that_one_of_its_targets_cannot_run(copy, timed):
    pick = ("--set", "pick=[{rule: fleet, k: 1, budget: {latency_ms: 60%}, name: one}]")
    assert run(copy, *pick) == 0
    before = [_named(copy, "one", target) for target in TARGETS]
    assert before[0]["id"] == before[1]["id"]
    late = {"latency_ms": 2 * before[1]["budgets"]["latency_ms"]}
    _edit(copy, TARGETS[1], before[1]["files"]["model.onnx"], **late)
    assert run(copy, *pick) == 0
    after = [_named(copy, "one", target)["id"] for target in TARGETS]
    assert after[0] == after[1] != before[0]["id"]


@pytest.mark.slow
def test_a_fleet_that_misses_its_budget_is_kept_to_by_predictions_if_that_is_accepted(
    copy, timed, capsys
):
    paths = [_run_folder(copy) / "fronts" / f"{target}.json" for target in TARGETS]
    fronts = [json.loads(path.read_text()) for path in paths]
    least = max(
        min(point["predicted"]["latency_ms"] for point in held["points"])
        / held["max_network"]["latency_ms"]
        for held in fronts
    )
    rule = f"{{rule: fleet, k: 1, budget: {{latency_ms: {101 * least}%}}, name: one}}"
    accepted = ("--accept", "emulated,gap,budget", "--set", f"pick=[{rule}]")
    assert hwnas("run", copy / "hwnas.yaml", *accepted) == 0
    before = [_named(copy, "one", target)["id"] for target in TARGETS]
    timed.slowness = [3.0] * 99
    for target in TARGETS:
        (_run_folder(copy) / "results" / f"{target}.json").unlink()
    assert run(copy, *accepted[2:]) == 3
    said = capsys.readouterr().err
    assert f"{TARGETS[0]}: no fleet is left: on " in said
    assert " networks were measured over latency_ms = " in said
    assert hwnas("run", copy / "hwnas.yaml", *accepted) == 0
    assert "; muted by --accept budget" in capsys.readouterr().err
    after = [_named(copy, "one", target) for target in TARGETS]
    assert [manifest["id"] for manifest in after] == before
    assert all("budget" in manifest["accepted"] for manifest in after)
    calls = len(timed.calls)
    assert hwnas("run", copy / "hwnas.yaml", *accepted) == 0
    assert len(timed.calls) == calls


def test_the_test_images_run_in_the_engine_of_the_target(finished, monkeypatch):
    path = next(_run_folder(finished).glob(f"packages/{TARGETS[0]}/best/model.onnx"))
    manifest, images = _named(finished, "best"), tensors.load(DataConfig())
    target, sent = Target("host", "ort-cpu"), []
    here, right = tested.accuracy_on_test(path, manifest, target, images)
    accuracy = manifest["measured"]["test_accuracy"]
    low, high = here.pop("test_interval")
    assert here == {"test_accuracy": accuracy, "test_images": 359, "accuracy_on": "target"}
    assert 0 < low < accuracy < high < 1
    assert int(right, 16).bit_count() == round(359 * accuracy)
    plain = remote.run_model
    told = lambda *given: sent.append(len(given[2])) or plain(*given)  # noqa: E731
    monkeypatch.setattr(remote, "run_model", told)
    monkeypatch.setattr(tested.connections, "is_here", lambda target: False)
    monkeypatch.setattr(tested, "MOST_IMAGES", 40)
    there, _ = tested.accuracy_on_test(path, manifest, target, images)
    assert (sent, there["test_images"], there["accuracy_on"]) == ([40], 40, "target")
    few = tensors.evenly(images.test, 40)
    assert torch.equal(few.labels[[0, -1]], images.test.labels[[0, -1]])
    assert abs(there["test_accuracy"] - here["test_accuracy"]) < 0.2


def test_the_accuracy_says_where_it_was_taken(finished):
    assert {m["measured"]["accuracy_on"] for m in _manifests(finished)} == {"host"}


def test_on_a_machine_that_never_settles_packages_come_out_when_that_is_accepted(copy, capsys):
    noisy = "{device: fake, runtime: fake, batch: 2, connection: {kind: local, noise: '0.5'}}"
    name = "fake.fake.fp32.b2.t1"
    (copy / "targets").mkdir(exist_ok=True)
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
    for target in TARGETS:
        best = _named(copy, "best", target)
        late = 1.001 * best["measured"]["latency_ms"]
        _edit(copy, target, best["files"]["model.onnx"], latency_ms=late)
    strict = ("--set", "check.max_gap=0.00001")
    words = "emulated,unreliable,estimated"
    assert hwnas("run", copy / "hwnas.yaml", "--accept", words, *strict) == 5
    assert "further than 0.001 % from its prediction" in capsys.readouterr().err
    assert hwnas("run", copy / "hwnas.yaml", "--accept", "emulated,gap", *strict) == 0
    told = capsys.readouterr().err.splitlines()
    muted = [line for line in told if line.endswith("; muted by --accept gap")]
    assert len(muted) == len(TARGETS)
    assert all({"emulated", "gap"} <= set(manifest["accepted"]) for manifest in _manifests(copy))
    assert hwnas("run", copy / "hwnas.yaml", "--accept", "emulated") == 0
    kept = [set(manifest["accepted"]) for manifest in _manifests(copy)]
    assert all("emulated" in words and "gap" not in words for words in kept)


def test_a_budget_that_every_next_network_misses_is_an_error_unless_accepted(monkeypatch):
    tried, warned = [], []

    def verify(context, target):
        raise MissedBudgetError("late")

    monkeypatch.setattr(verifying, "verify", verify)
    monkeypatch.setattr(verifying, "export", lambda context, target: not tried.append(target))
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
