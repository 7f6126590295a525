"""Stamps and the lock of a run folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hwnas.run_folder import RunFolder, Work, is_current, locked, mark_current
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
    assert not is_current(run, _work(run))


def test_a_stage_is_current_until_its_inputs_change(run):
    assert is_current(run, _done(run))
    assert not is_current(run, _work(run, inputs={"a": 2}))
    assert not is_current(run, _work(run, version=2))


def test_a_stage_whose_output_is_gone_is_not_current(run):
    work = _done(run)
    work.outputs[0].unlink()
    assert not is_current(run, work)


@pytest.mark.parametrize(
    "text", ["", '{"format":', "[]", '{"format":"hwnas-stamp-1"}', '{"format":"hwnas-stamp-0"}']
)
def test_a_damaged_stamp_means_that_the_stage_runs_again(run, text):
    work = _done(run)
    (run.root / "stamps" / "stage.json").write_text(text)
    assert not is_current(run, work)


@pytest.mark.parametrize("outputs", [{}, [], None])
def test_a_stamp_without_its_outputs_means_that_the_stage_runs_again(run, outputs):
    work = _done(run)
    path = run.root / "stamps" / "stage.json"
    write_json(path, {**read_json(path), "outputs": outputs})
    assert not is_current(run, work)


def test_an_output_changed_by_hand_is_named_not_overwritten(run):
    work = _done(run)
    work.outputs[0].write_text("edited")
    with pytest.raises(FileFormatError, match=r"out\.txt was changed since hwnas wrote it"):
        is_current(run, work)
    assert work.outputs[0].read_text() == "edited"


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from hwnas.run_folder import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )
    with locked(tmp_path):
        result = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert result.returncode != 0
    assert f"is in use by process {os.getpid()}" in result.stderr


def test_the_lock_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with locked(tmp_path) as run:
            assert run.root == tmp_path


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"), locked(tmp_path / "file" / "run"):
        pass
