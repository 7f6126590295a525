"""Stages of training: data that changed is refused, and what cannot be used is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hwnas.run.context import Context, Reporter
from hwnas.run.data import checked_dataset, dataset, describe_data
from hwnas.run.evaluate import evaluate
from hwnas.run.folder import RunFolder
from hwnas.run.train import train_supernet
from hwnas.run.weights import make_evaluator
from hwnas.settings.config import Config
from hwnas.supernet import files, training
from hwnas.supernet.job import Job
from profilers.errors import ConfigError, DiskFullError


def _images(path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez(path, train_images=images, train_labels=np.arange(120) % 3)
    dataset.cache_clear()


def _context(folder, warnings: list[str], **train) -> Context:
    settings = {
        "run": "run",
        "data": {"kind": "npz", "root": str(folder / "data.npz")},
        "space": {"name": "tiny", "resolutions": [8]},
        "train": {"epochs": 1, "threads": 1, **train},
        "accuracy": {"measure": 8, "bn_images": 32},
        "targets": ["fake.fake.fp32.b1.t1"],
    }
    report = Reporter(lambda name: lambda share, text: None, lambda text: None, warnings.append)
    return Context(Config(**settings), folder, RunFolder(folder / "run"), report)


@pytest.fixture
def folder(tmp_path):
    """A folder with images and a supernet trained on them."""
    _images(tmp_path / "data.npz", 0)
    context = _context(tmp_path, [])
    assert describe_data(context)
    assert train_supernet(context)
    return tmp_path


def test_a_second_training_has_nothing_to_do(folder):
    context = _context(folder, [])
    assert not describe_data(context)
    assert not train_supernet(context)


def test_data_that_changed_after_training_is_refused_until_trained_again(folder):
    _images(folder / "data.npz", 1)
    with pytest.raises(ConfigError, match=r"the data changed since .*run `hwnas train`"):
        make_evaluator(_context(folder, []))
    context = _context(folder, [])
    assert describe_data(context)
    assert train_supernet(context)
    make_evaluator(context)


def test_a_checkpoint_of_other_settings_is_kept_and_said(folder):
    warnings: list[str] = []
    context = _context(folder, warnings, seed=1)

    def crash(share: float, text: str) -> None:
        if share > 0.5:
            raise RuntimeError("killed")

    slow = _context(folder, warnings, checkpoint_s=1e-6, epochs=9)
    job = Job(slow.config.train, slow.space, checked_dataset(slow), "shift", slow.run.root)
    with pytest.raises(RuntimeError):
        training.train(job, crash)
    assert train_supernet(context)
    assert len(warnings) == 1
    assert "train.checkpoint.1.old.safetensors" in warnings[0]


def test_a_trained_supernet_that_cannot_be_kept_is_not_lost(folder, monkeypatch):
    context = _context(folder, [], epochs=5, checkpoint_s=1e-6)

    def full(*given):
        raise DiskFullError("no space left on device")

    monkeypatch.setattr(files, "save_supernet", full)
    with pytest.raises(DiskFullError):
        train_supernet(context)
    monkeypatch.undo()
    notes: list[str] = []
    again = replace(context, report=replace(context.report, note=notes.append))
    assert train_supernet(again)
    assert any("training is resumed at" in text for text in notes)


def test_accuracies_that_cannot_be_read_are_said(folder):
    warnings: list[str] = []
    context = _context(folder, warnings)
    assert evaluate(context)
    assert not [words for words in warnings if "broken" in words]
    lines = context.run.accuracies.read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "accuracy": None})
    context.run.accuracies.write_text("\n".join([*lines, "{half"]))
    context.run.predictor.unlink()
    assert evaluate(context)
    broken = [words for words in warnings if "broken" in words]
    assert len(broken) == 1
    assert "2 lines are broken or malformed" in broken[0]
