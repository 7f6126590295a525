"""Runs of imported files alone: a table, accuracies or a predictor, and a space."""

from __future__ import annotations

import csv
import json

import numpy as np
from search_cases import error_terms
from test_imported_runs import _predictor, hwnas
from test_predictor import measured

from hwnas import api
from hwnas.measuring.coverage import distinct_ops
from hwnas.networks import spaces

TARGET = "phone.tflite.fp32.b1.t1"
SETTINGS = f"""
run: run
data: {{kind: none}}
space: {{name: tiny, resolutions: [8]}}
targets: [{TARGET}]
refine: {{budget: 6, batch: 3}}
search: {{population: 12, generations: 4}}
pick: [{{rule: best}}]
"""
OTHER = spaces.load("tiny").for_data(3, 7).restricted([8])


def _settings(folder, text=SETTINGS):
    (folder / "targets").mkdir()
    about = {"device": "phone", "runtime": "tflite", "connection": {"kind": "none"}}
    (folder / "targets" / f"{TARGET}.yaml").write_text(json.dumps(about))
    (folder / "hwnas.yaml").write_text(text)
    return folder / "hwnas.yaml"


def _table(folder, space):
    """A table of a space, of costs that are made up."""
    given = {key: 0.01 + placed.op.macs * 1e-6 for key, placed in distinct_ops(space).items()}
    api.save(api.make_table(space, TARGET, given), folder / "run" / "tables" / f"{TARGET}.json")


def _accuracies(path, space, n=40):
    rows = dict(measured(space, n, error=error_terms(space, np.random.default_rng(3))))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["top1", "arch"])
        writer.writerows([top1, json.dumps(arch.to_json())] for arch, top1 in rows.items())


def _told(capsys):
    found = capsys.readouterr()
    return found.out, " ".join(found.err.split())


def test_a_table_a_csv_and_a_space_give_a_front_and_what_to_measure_next(tmp_path, capsys):
    """Of 3 channels and 7 classes, as the table says; the space has 1 and 10."""
    config = _settings(tmp_path)
    _table(tmp_path, OTHER)
    _accuracies(tmp_path / "r.csv", OTHER)
    assert hwnas("evaluate", config, "--from", tmp_path / "r.csv") == 0
    assert hwnas("refine", config, "--from", tmp_path / "r.csv") == 0
    assert (tmp_path / "run" / "candidates.csv").is_file()
    assert hwnas("search", config) == 0
    capsys.readouterr()
    for command in ("front", "pick"):
        assert hwnas(command, config, "--json") == 0
        assert '"latency_ms"' in _told(capsys)[0]
    assert hwnas("space", "profile", config, "--json") == 0
    rows = json.loads(_told(capsys)[0])[TARGET]
    assert {"error", "latency_ms"} <= {row["name"] for row in rows}
    assert hwnas("report", config) == 0
    assert "Kendall" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_of_imported_files_ends_at_the_export_which_needs_weights(tmp_path, capsys):
    config = _settings(tmp_path)
    _table(tmp_path, spaces.load("tiny").restricted([8]))
    _predictor(tmp_path)
    assert hwnas("run", config, "--dry-run") == 0
    capsys.readouterr()
    assert hwnas("run", config) == 2
    said = _told(capsys)[1]
    assert "supernet.safetensors does not exist: networks are searched without weights" in said
    assert "hwnas import supernet CHECKPOINT" in said
    assert (tmp_path / "run" / "fronts" / f"{TARGET}.json").is_file()
    assert hwnas("train", config) == 2
    assert "data.kind is none: there is nothing to train on" in _told(capsys)[1]


def test_channels_and_classes_are_those_of_the_settings_where_no_file_says_them(tmp_path, capsys):
    own = SETTINGS.replace("kind: none", "kind: none, channels: 3, classes: 7")
    config = _settings(tmp_path, own)
    _accuracies(tmp_path / "r.csv", OTHER)
    assert hwnas("evaluate", config, "--from", tmp_path / "r.csv") == 0
    _table(tmp_path, OTHER)
    config.write_text(own.replace("7", "8"))
    assert hwnas("search", config) == 5
    assert "set data.channels and data.classes" in _told(capsys)[1]
