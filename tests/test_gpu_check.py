"""benchmarks/gpu_check.py as far as it goes without a GPU: its parts, document and one line."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from profilers.schema import Target

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu_check.py"
gpu_check = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_gpu" name="test_a"/>
<testcase classname="tests.test_gpu" name="test_b">
<failure message="no match&#10;more">x</failure></testcase>
<testcase classname="tests.test_tensorrt" name="test_c">
<skipped message="see /home/anna/x"/></testcase>
</testsuite></testsuites>"""


def script(folder, *words, **environment):
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def rows_of(path):
    return {row["check"]: row for row in json.loads(path.read_text())["checks"]}


@pytest.mark.parametrize("tool", ["", "#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n"])
def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_4(tmp_path, tool):
    if tool:
        (tmp_path / "nvidia-smi").write_text(tool)
        (tmp_path / "nvidia-smi").chmod(0o755)
    done = script(tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin" if tool else str(tmp_path))
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("gpu_check: no NVIDIA GPU here (nvidia-smi")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.json"))


def test_training_and_evaluation_run_with_the_gpu_and_with_it_hidden(tmp_path, monkeypatch):
    """What the stages themselves do is tested elsewhere: here, which of them sees the GPU."""
    seen = []

    def stage(folder, name, hidden):
        seen.append((folder.name, name, hidden))
        run = folder / "run"
        run.mkdir(exist_ok=True)
        if name == "train":
            (run / "trained-on").write_text(folder.name)
        else:
            assert not (run / "accuracy.jsonl").exists()
            weights = (run / "trained-on").read_text()
            top1 = {"gpu": 0.95, "cpu": 0.94}[weights]
            (run / "predictor.npz").write_text("")
            (run / "accuracy.jsonl").write_text(json.dumps({"arch": {"a": 1}, "accuracy": top1}))

    monkeypatch.setitem(gpu_check.learning.__globals__, "_hwnas", stage)
    gpu_check.learning(tmp_path / "out.json", 300.0)
    assert seen == [
        *(("gpu", name, False) for name in ("train", "evaluate")),
        *(("cpu", name, True) for name in ("train", "evaluate")),
        ("gpu-on-cpu", "evaluate", True),
    ]
    rows = rows_of(tmp_path / "out.json")
    assert rows["evaluation"]["facts"] == {"subnets": 1, "mean_gap": 0.0, "largest_gap": 0.0}
    assert rows["training"]["facts"] == {"gpu": 0.95, "cpu": 0.94}


def test_accuracies_that_differ_do_not_hold():
    measured = {"gpu": {"a": 0.9, "b": 0.8}, "gpu-on-cpu": {"a": 0.9, "b": 0.81}, "cpu": {"c": 0.8}}
    rows = gpu_check.learning_rows(measured, 1.0)
    assert [row["holds"] for row in rows] == [False, False]
    assert rows[0]["reason"] == "accuracies differ by 0.50% on average"


def test_a_report_of_tests_becomes_a_line_for_each_file_without_paths(tmp_path):
    (tmp_path / "r.xml").write_text(REPORT)
    first, second = gpu_check.junit_rows(tmp_path / "r.xml", 1.0)
    assert (first["check"], first["holds"], first["reason"]) == (
        "test_gpu",
        False,
        "test_b: no match",
    )
    assert first["facts"]["passed"] == 1
    assert (second["holds"], second["reason"]) == (None, "test_c: see PATH")


def test_a_target_without_its_engine_is_unknown_and_the_rest_of_its_checks_too(tmp_path):
    out = tmp_path / "out.json"
    gpu_check.device(Target("host", "ort-cuda", hardware="nvidia", meter="nvml"), out, 100.0)
    rows = rows_of(out)
    assert rows["identity"]["holds"]
    assert rows["engine"]["holds"] is None
    assert "CUDA" in rows["engine"]["reason"]
    for name in ("outputs", "latency", "resume", "table", "energy", "meters", "heat"):
        assert rows[name]["holds"] is None
        assert rows[name]["reason"] == "its engine does not start"


@pytest.mark.parametrize(
    ("part", "seconds", "holds", "reason"),
    [("tests", 0.5, None, "it took longer than 0 s"), ("host.ort-cuda.fp32.b1.t1", 60, True, "")],
)
def test_a_part_that_takes_too_long_costs_only_itself(part, seconds, holds, reason):
    rows = gpu_check.run_part(part, seconds)
    assert rows[0 if holds else -1]["holds"] is holds
    assert rows[-1]["reason"].startswith(reason)


def test_its_targets_are_both_engines_in_both_precisions():
    names = {f"host.{r}.{p}.b1.t1" for r in ("ort-cuda", "tensorrt") for p in ("fp32", "fp16")}
    assert {target.name for target in gpu_check.TARGETS} == names
    assert names <= set(gpu_check.PARTS)
