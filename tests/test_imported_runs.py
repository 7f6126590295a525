"""Runs whose supernet was imported, with images and without any, on a small space."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hwnas import cli
from hwnas.networks import spaces
from hwnas.predictors import predictor
from hwnas.predictors.encoding import feature_names
from hwnas.predictors.mlp import MlpPredictor
from hwnas.report.collect import collect
from hwnas.run import imported
from hwnas.run.folder import RunFolder
from hwnas.settings.config import Config
from hwnas.supernet.files import about_space, write_supernet
from hwnas.supernet.header import read_header
from hwnas.supernet.network import Supernet
from profilers.errors import ConfigError, FileFormatError

SPACE = spaces.load("tiny")
TARGET = "fake.fake.fp32.b1.t1"
SETTINGS = f"""
run: run
data: {{kind: KIND}}
space: {{name: tiny, resolutions: [8]}}
accuracy: {{measure: 8, bn_images: 64}}
targets: [{TARGET}]
profile: {{budget_s: 5, heldout: 5, rounds: 10}}
search: {{population: 12, generations: 4}}
pick: [{{rule: best}}]
"""


def hwnas(*arguments) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def _supernet(folder, n_classes=10):
    """An imported supernet in a run folder, its weights fresh."""
    torch.manual_seed(0)
    space = SPACE.for_data(1, n_classes)
    about = {
        **about_space(space),
        "classes": [str(n) for n in range(n_classes)],
        "mean": [0.5],
        "std": [0.25],
        "data": None,
        "train": None,
        "imported": {"from": "once-for-all", "file": "some", "sha256": "ab" * 32},
    }
    path = folder / "run" / "supernet.safetensors"
    path.parent.mkdir()
    write_supernet(Supernet(space).state_dict(), about, path)
    return path


def _predictor(folder):
    features = feature_names(SPACE)
    rng = np.random.default_rng(0)
    layers = tuple(
        (rng.random(shape, dtype=np.float32) / 100, np.zeros(shape[1], np.float32))
        for shape in ((len(features), 8), (8, 1))
    )
    made = MlpPredictor(SPACE, "", features, layers, "a file")
    predictor.save(made, folder / "run" / "predictor.npz")


@pytest.fixture
def folder(tmp_path):
    """Settings without images and an imported supernet."""
    (tmp_path / "hwnas.yaml").write_text(SETTINGS.replace("KIND", "none"))
    _supernet(tmp_path)
    return tmp_path


def test_without_images_a_front_is_searched_and_only_asked_by_name_exported(folder, capsys):
    _predictor(folder)
    config = folder / "hwnas.yaml"
    accept = ("--accept", "emulated")
    assert hwnas("run", config, *accept) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "training is skipped" in said
    assert "BatchNorm of a subnet must be calibrated on your images" in said
    assert "hwnas export --imported-statistics" in said
    assert not list(folder.glob("run/packages/*/*"))
    assert hwnas("export", config, *accept, "--imported-statistics") == 0
    assert hwnas("verify", config, *accept, "--set", "export.statistics=imported") == 0
    assert hwnas("report", config) == 0
    _says_only_what_is_known(folder / "run")
    package = folder / "run" / "packages" / TARGET / "best"
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["statistics"] == "imported"
    assert manifest["measured"]["test_accuracy"] is None
    assert manifest["measured"]["latency_ms"] > 0
    assert manifest["parity"]["max_relative_difference"] <= 1e-4
    assert "its accuracy is lower than it could be, and unknown" in (
        package / "MODEL_CARD.md"
    ).read_text().replace("\n", " ")


def _says_only_what_is_known(run):
    """The report of a run without images and training: its front is drawn, nothing is made up."""
    data = collect(run, run / "report.html")
    facts = dict(data["facts"])
    assert list(facts) == ["space", "supernet", "search"]
    assert facts["supernet"].startswith("imported from some (once-for-all), sha256 ")
    assert facts["space"].startswith("tiny: ")
    assert data["missing"] == []
    assert data["predictor"].startswith("The accuracy predictor was imported")
    (target,) = data["targets"]
    assert target["missing"] == []
    assert target["front"]["points"]
    assert target["packages"][0]["test_error"] is None
    page = (run / "report.html").read_text()
    text = page[: page.index("Settings of this run")]
    assert "The supernet was imported from some (once-for-all)." in text
    assert not re.search(r"sandwich|\b0 px|epochs|No training log|cannot be told", text)


def test_without_images_subnets_are_not_measured(folder, capsys):
    assert hwnas("evaluate", folder / "hwnas.yaml") == 2
    assert "put an imported predictor into the run folder" in capsys.readouterr().err


def test_no_images_and_no_imported_supernet_is_refused_with_the_command(folder, capsys):
    (folder / "run" / "supernet.safetensors").unlink()
    assert hwnas("train", folder / "hwnas.yaml") == 2
    assert "hwnas import supernet CHECKPOINT" in capsys.readouterr().err


def test_an_imported_supernet_is_not_trained_on_images(tmp_path, capsys):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS.replace("KIND", "digits"))
    path = _supernet(tmp_path)
    before = path.read_bytes()
    assert hwnas("train", tmp_path / "hwnas.yaml") == 0
    assert path.read_bytes() == before
    said = " ".join(capsys.readouterr().err.split())
    assert "training is skipped" in said
    assert "set data.normalise: imagenet" in said
    found = collect(tmp_path / "run", tmp_path / "report.html")
    facts = dict(found["facts"])
    assert facts["supernet"].startswith("imported from some")
    assert facts["data"].startswith("digits: 1,")
    assert found["training"] is None


def test_images_of_other_classes_are_refused_with_how_to_go_on(tmp_path, capsys):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS.replace("KIND", "digits"))
    _supernet(tmp_path, n_classes=1000)
    assert hwnas("train", tmp_path / "hwnas.yaml") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "imported for 1000 classes" in said
    assert "`hwnas finetune` gives it a classifier" in said


def test_imported_statistics_of_a_supernet_trained_here_are_refused(tmp_path):
    config = Config(export={"statistics": "imported"})
    context = SimpleNamespace(config=config, run=RunFolder(tmp_path))
    with pytest.raises(ConfigError, match="was trained here"):
        imported.check_statistics(context.config, context.run)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00[]", b"{}" * 9]
)
def test_a_file_that_is_no_supernet_is_refused(tmp_path, content):
    path = tmp_path / "supernet.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="cannot be read as a supernet"):
        read_header(path)
    with pytest.raises(FileFormatError, match="does not exist"):
        read_header(tmp_path / "missing")
