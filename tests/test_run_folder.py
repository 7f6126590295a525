"""Stamps and the lock of a run folder."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from hwnas.run.folder import RunFolder, Work, is_current, locked, mark_current
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import read_json, write_json


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def _work(run: RunFolder, **changes) -> Work:
    output = run.root / "out.txt"
    return Work(
        **{"name": "stage", "version": 1, "inputs": {"a": 1}, "outputs": (output,), **changes}
    )


def _done(run: RunFolder) -> Work:
    work = _work(run)
    work.outputs[0].write_text("made")
    mark_current(run, work)
    return work


def test_a_stage_that_never_ran_is_not_current(run):
    assert not is_current(run, _work(run), print)


def test_a_stage_is_current_until_its_inputs_change(run):
    assert is_current(run, _done(run), print)
    assert not is_current(run, _work(run, inputs={"a": 2}), print)
    assert not is_current(run, _work(run, version=2), print)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": {"a": 2}}, "a changed"),
        ({"inputs": {"a": {"b": 1}}}, "a changed"),
        ({"inputs": {}}, "a changed"),
        ({"version": 2}, "hwnas makes it differently now"),
        ({"versions": {"onnx": "1.23"}}, "onnx was 1.22, is 1.23"),
        ({"versions": {"onnx": "1.23"}, "inputs": {"a": 2}}, "onnx was 1.22, is 1.23, a changed"),
        ({"versions": {}}, "onnx was 1.22, is None"),
        ({"outputs": "other"}, "other is gone"),
    ],
)
def test_why_a_stage_runs_again_is_said_in_one_line(run, changes, reason):
    before, said = _work(run, versions={"onnx": "1.22"}), []
    before.outputs[0].write_text("made")
    mark_current(run, before)
    assert is_current(run, before, said.append)
    assert said == []
    if "outputs" in changes:
        changes = {"outputs": (run.root / changes["outputs"],)}
    after = dataclasses.replace(before, **changes)
    assert not is_current(run, after, said.append)
    assert said == [f"stage: redone, {reason}"]


def test_settings_that_changed_are_named(run):
    work, said = _work(run, inputs={"train": {"epochs": 1, "seed": 0}, "data": "x"}), []
    work.outputs[0].write_text("made")
    mark_current(run, work)
    changed = dataclasses.replace(work, inputs={"train": {"epochs": 2, "seed": 0}, "data": "x"})
    assert not is_current(run, changed, said.append)
    assert said == ["stage: redone, train.epochs changed"]


def test_costly_work_is_kept_when_only_versions_differ_and_that_is_said(run):
    work, said = _work(run, versions={"torch": "2.9"}, costly=True), []
    work.outputs[0].write_text("made")
    mark_current(run, work)
    newer = dataclasses.replace(work, versions={"torch": "2.13"})
    assert is_current(run, newer, said.append)
    path = work.outputs[0]
    assert said == [f"stage: kept, torch was 2.9, is 2.13; delete {path} to make it again"]
    assert not is_current(run, dataclasses.replace(newer, inputs={"a": 2}), said.append)
    assert said[1] == "stage: redone, torch was 2.9, is 2.13, a changed"


def test_a_stage_whose_output_is_gone_is_not_current(run):
    work = _done(run)
    work.outputs[0].unlink()
    assert not is_current(run, work, print)


@pytest.mark.parametrize(
    "text", ["", '{"format":', "[]", '{"format":"hwnas-stamp-1"}', '{"format":"hwnas-stamp-0"}']
)
def test_a_damaged_stamp_means_that_the_stage_runs_again(run, text):
    work = _done(run)
    (run.root / "stamps" / "stage.json").write_text(text)
    assert not is_current(run, work, print)


@pytest.mark.parametrize("outputs", [{}, [], None])
def test_a_stamp_without_its_outputs_means_that_the_stage_runs_again(run, outputs):
    work = _done(run)
    path = run.root / "stamps" / "stage.json"
    write_json(path, {**read_json(path), "outputs": outputs})
    assert not is_current(run, work, print)


def test_an_output_changed_by_hand_is_named_not_overwritten(run):
    work = _done(run)
    work.outputs[0].write_text("edited")
    with pytest.raises(FileFormatError, match=r"out\.txt was changed since hwnas wrote it"):
        is_current(run, work, print)
    assert work.outputs[0].read_text() == "edited"


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from hwnas.run.folder import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )
    with locked(tmp_path):
        result = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert result.returncode != 0
    assert f"is in use by process {os.getpid()}" in result.stderr


@pytest.mark.parametrize("name", ["config.json", "data.json", "report.html"])
def test_a_folder_that_holds_files_of_others_under_our_names_is_no_run_folder(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with (
        pytest.raises(
            ConfigError, match=f"holds a {name} that is not of a run; set another `run:`"
        ),
        locked(tmp_path),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / "stamps").mkdir()  # a run folder that was copied without its hidden files
    with locked(tmp_path):
        pass


def test_the_lock_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with locked(tmp_path) as run:
            assert run.root == tmp_path


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"), locked(tmp_path / "file" / "run"):
        pass
