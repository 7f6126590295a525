"""Stages `evaluate` and `refine`: from a supernet, from a CSV alone, resumed, and refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from search_cases import TINY, error_terms
from test_predictor import measured

from hwnas import cli
from hwnas.predictors import predictor
from hwnas.predictors.nonlinear import NonlinearPredictor
from hwnas.run.context import Context, Reporter
from hwnas.run.data import dataset, describe_data
from hwnas.run.evaluate import evaluate, write_predictors
from hwnas.run.folder import RunFolder
from hwnas.run.refine import make_goals, refine_front, summary_path
from hwnas.run.train import train_supernet
from hwnas.settings.config import Config
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import read_json, read_lines

TINY_8 = TINY.restricted([8])


def _context(folder, told: list[str], **settings) -> Context:
    given = {
        "run": "run",
        "data": {"kind": "npz", "root": str(folder / "data.npz")},
        "space": {"name": "tiny", "resolutions": [8]},
        "train": {"epochs": 1, "threads": 1},
        "accuracy": {"measure": 10, "bn_images": 32},
        "refine": {"budget": 6, "batch": 3},
        "targets": ["fake.fake.fp32.b1.t1"],
        **settings,
    }
    report = Reporter(lambda name: lambda share, text: None, told.append, told.append)
    return Context(Config(**given), folder, RunFolder(folder / "run"), report)


def _images(folder, labels: int = 10) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", train_images=images, train_labels=np.arange(200) % labels)
    dataset.cache_clear()


@pytest.fixture
def trained(tmp_path):
    """A folder with a supernet of which first subnets were measured."""
    _images(tmp_path)
    context = _context(tmp_path, [])
    for stage in (describe_data, train_supernet, evaluate):
        assert stage(context)
    return tmp_path


def _lines(folder) -> list[dict]:
    return read_lines(folder / "run" / "accuracy.jsonl")[0]


def test_the_loop_measures_more_subnets_and_writes_a_new_predictor(trained):
    told: list[str] = []
    context, before = _context(trained, told), (trained / "run" / "predictor.npz").read_bytes()
    assert refine_front(context)
    assert len(_lines(trained)) > 10
    assert (trained / "run" / "predictor.npz").read_bytes() != before
    summary = read_json(summary_path(context), "hwnas-refine-1")
    assert summary["goals"][0]["name"] == "macs"  # no table yet
    assert sum(len(r["batch"]) for r in summary["rounds"]) == len(_lines(trained)) - 10
    assert any("hypervolume" in line for line in told)


def test_a_second_time_nothing_is_to_do_and_lost_files_cost_no_measurement(trained):
    context = _context(trained, [])
    assert refine_front(context)
    lines = _lines(trained)
    assert not evaluate(context)
    assert not refine_front(context)
    refined = (trained / "run" / "predictor.npz").read_bytes()
    (trained / "run" / "predictor.npz").unlink()
    assert evaluate(context)
    assert refine_front(context)
    assert (trained / "run" / "predictor.npz").read_bytes() == refined
    assert _lines(trained) == lines


def test_a_loop_that_is_killed_while_it_writes_predictors_leaves_a_run_that_goes_on(
    trained, monkeypatch
):
    def killed(*arguments):
        write_predictors(*arguments)
        raise KeyboardInterrupt  # while networks are measured in int8, for example

    with monkeypatch.context() as patched:
        patched.setattr("hwnas.run.refine.write_predictors", killed)
        with pytest.raises(KeyboardInterrupt):
            refine_front(_context(trained, []))
    lines = _lines(trained)
    assert evaluate(_context(trained, []))
    assert refine_front(_context(trained, []))
    assert _lines(trained) == lines


def test_processes_measure_and_refine_as_one_does_byte_for_byte(trained):
    other = trained.with_name("other")
    shutil.copytree(trained, other)
    (other / "run" / "accuracy.jsonl").unlink()  # the first subnets are measured by them too
    assert refine_front(_context(trained, []))
    settings = {"measure": 10, "bn_images": 32, "workers": 2}
    assert refine_front(_context(other, [], accuracy=settings))
    for name in ("accuracy.jsonl", "predictor.npz", "refine.json"):
        assert (other / "run" / name).read_bytes() == (trained / "run" / name).read_bytes()
    assert not evaluate(_context(other, []))  # whoever measured, nothing is to do
    assert not refine_front(_context(other, []))


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)],
)
def test_an_evaluation_by_processes_that_is_stopped_leaves_none_of_them(trained, how, code):
    config = trained / "hwnas.yaml"
    config.write_text(_context(trained, []).config.model_dump_json())
    path = trained / "run" / "accuracy.jsonl"
    path.unlink()
    command = [sys.executable, "-m", "hwnas", "evaluate", str(config), "--workers", "2"]
    command += ["--set", "accuracy.measure=2000"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.05)
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # a terminal tells all
        else:
            process.send_signal(how)
        assert process.stderr is not None
        said = process.stderr.read()  # to its end: all that might write to it have ended
    assert process.returncode == code
    assert "Traceback" not in said
    for _ in range(200):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a process is left")
    known, broken = read_lines(path)
    assert known
    assert not broken
    if how == signal.SIGINT:
        assert said.splitlines()[-1] == "hwnas: stopped; run the same command again to go on"


def test_only_one_may_be_said_to_measure(tmp_path, capsys):
    given = ["--from", str(tmp_path / "r.csv"), "--workers", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", str(tmp_path / "hwnas.yaml"), *given])
    assert ended.value.code == 2
    assert "--from and --workers both say who measures" in capsys.readouterr().err


def test_a_run_that_refines_measures_fewer_subnets_first(tmp_path):
    _images(tmp_path)
    context = _context(tmp_path, [], refine={"in_run": True, "first": 9, "budget": 3, "batch": 3})
    for stage in (describe_data, train_supernet, evaluate):
        assert stage(context)
    assert len(_lines(tmp_path)) == 9
    assert refine_front(context)
    assert len(_lines(tmp_path)) == 12
    more = _context(tmp_path, [], refine={"in_run": True, "first": 11, "budget": 3, "batch": 3})
    assert evaluate(more)
    assert len(_lines(tmp_path)) > 12


def test_refining_needs_first_subnets_and_says_so(tmp_path):
    _images(tmp_path)
    context = _context(tmp_path, [])
    describe_data(context)
    with pytest.raises(ConfigError, match="run `hwnas evaluate` first"):
        refine_front(context)


def test_a_front_of_counts_is_refined_against_each_of_them(trained):
    search = {"objectives": ["error", "params", "peak_activation_bytes"]}
    assert [goal.name for goal in make_goals(_context(trained, [], search=search))] == [
        "params",
        "peak_activation_bytes",
    ]


# ---- from a CSV ---------------------------------------------------------------------------------


def _results(path, n=40) -> None:
    rows = measured(TINY_8, n, error=error_terms(TINY_8, np.random.default_rng(3)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["top1", "arch"])
        writer.writerows([top1, json.dumps(arch.to_json())] for arch, top1 in dict(rows).items())


def test_a_csv_alone_gives_a_predictor_and_what_to_measure_next(tmp_path):
    _images(tmp_path)
    _results(tmp_path / "r.csv")
    told: list[str] = []
    settings = {"measure": 10, "results": "r.csv", "predictor": "gaussian-process"}
    context = _context(tmp_path, told, accuracy=settings)
    describe_data(context)
    told.clear()  # what the data are
    assert evaluate(context)
    assert not evaluate(context)
    model = predictor.load(context.run.predictor, context.space)
    assert isinstance(model, NonlinearPredictor)
    assert model.supernet_sha256 == ""
    assert not told
    assert refine_front(context)
    with (tmp_path / "run" / "candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == 3
    assert not {row["arch"] for row in rows} & {
        json.dumps(arch.to_json()) for arch, _ in measured(TINY_8, 40)
    }
    assert "measure next" in told[-1]


def test_accuracies_that_nothing_explains_are_said(tmp_path):
    _images(tmp_path)
    rng, told = np.random.default_rng(0), []
    with (tmp_path / "r.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["top1", "arch"])
        for arch, _ in dict(measured(TINY_8, 60)).items():
            writer.writerow([rng.random(), json.dumps(arch.to_json())])
    context = _context(tmp_path, told, accuracy={"results": "r.csv"})
    describe_data(context)
    told.clear()  # what the data are
    evaluate(context)
    assert "can hardly rank" in told[0]


def test_a_csv_that_is_not_there_is_named(tmp_path):
    _images(tmp_path)
    context = _context(tmp_path, [], accuracy={"results": "none.csv"})
    describe_data(context)
    with pytest.raises(FileFormatError, match=r"none\.csv does not exist"):
        evaluate(context)


def test_the_command_names_the_bad_line_and_ends_with_2(tmp_path, capsys):
    _images(tmp_path)
    _results(tmp_path / "r.csv")
    lines = (tmp_path / "r.csv").read_text().splitlines()
    bad = "x" + lines[1][lines[1].index(",") :]
    (tmp_path / "bad.csv").write_text("\n".join([*lines, bad, ""]))
    settings = {
        "run": "run",
        "data": {"kind": "npz", "root": "data.npz"},
        "space": {"name": "tiny", "resolutions": [8]},
        "targets": ["fake.fake.fp32.b1.t1"],
    }
    (tmp_path / "hwnas.yaml").write_text(json.dumps(settings))
    config = str(tmp_path / "hwnas.yaml")
    for name, code in (("bad.csv", 2), ("r.csv", 0)):
        with pytest.raises(SystemExit) as ended:
            cli.main(["evaluate", config, "--from", str(tmp_path / name)])
        assert int(ended.value.code or 0) == code
    assert f"line {len(lines) + 1}: top1 is 'x'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(["refine", config, "--from", str(tmp_path / "r.csv")])
    assert not ended.value.code
    assert (tmp_path / "run" / "candidates.csv").exists()
