"""Fine-tuning: of an imported supernet to other classes, of one subnet, and what export makes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hwnas import cli
from hwnas.networks import spaces
from hwnas.run import finetune
from hwnas.run.context import Context, Reporter
from hwnas.run.data import dataset, describe_data
from hwnas.run.folder import RunFolder
from hwnas.settings.config import Config
from hwnas.supernet.files import (
    about_space,
    load_subnet,
    load_supernet,
    read_about,
    write_supernet,
)
from hwnas.supernet.network import Supernet
from profilers.errors import ConfigError, DiskFullError, FileFormatError
from profilers.schema import sha256_file

TINY = spaces.load("tiny")


def _context(folder, said=None, classes=3, **settings) -> Context:
    rng = np.random.default_rng(0)
    path = folder / "data.npz"
    if not path.exists():
        labels = np.arange(120) % classes
        images = rng.integers(0, 100, (120, 8, 8)) + 60 * labels[:, None, None]
        np.savez(path, train_images=images.astype(np.uint8), train_labels=labels)
        dataset.cache_clear()
    config = {
        "run": "run",
        "data": {"kind": "npz", "root": str(path)},
        "space": {"name": "tiny", "resolutions": [8]},
        "finetune": {"epochs": 1, "threads": 1, "batch_size": 32, **settings},
        "accuracy": {"measure": 8, "bn_images": 32},
        "targets": ["fake.fake.fp32.b1.t1"],
    }
    said = [] if said is None else said
    report = Reporter(lambda name: lambda share, text: None, said.append, said.append)
    context = Context(Config(**config), folder, RunFolder(folder / "run"), report)
    describe_data(context)
    return context


def _import(folder, n_classes=7, **about) -> None:
    """A run folder whose supernet looks imported."""
    torch.manual_seed(1)
    space = TINY.for_data(1, n_classes)
    (folder / "run").mkdir(exist_ok=True)
    known = {**about_space(space), "imported": {"from": "test"}, "mean": [0.5], "std": [0.2]}
    path = folder / "run" / "supernet.safetensors"
    write_supernet(Supernet(space).state_dict(), {**known, **about}, path)


# ---- the whole supernet -------------------------------------------------------------------------


def test_an_imported_supernet_keeps_its_weights_and_gets_a_classifier_of_the_images(tmp_path):
    said: list[str] = []
    context = _context(tmp_path, said, learning_rate=1e-9, weight_decay=0.0)
    _import(tmp_path)
    path = context.run.supernet
    before = load_supernet(path, TINY.for_data(1, 7)).state_dict()
    assert finetune.finetune_supernet(context)
    after = load_supernet(path, context.space).state_dict()
    same = [k for k in before if not k.startswith("slots.classifier.") and "running" not in k]
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in same)
    assert after["slots.classifier.linear.weight"].shape[0] == 3
    about = read_about(path)
    assert about["imported"] == {"from": "test"}
    assert about["classes"] == ["0", "1", "2"]
    assert about["finetuned"]["start"] == sha256_file(context.run.start)
    assert any("set data.normalise: imagenet" in text for text in said)


def test_the_same_fine_tuning_has_nothing_to_do_and_another_starts_from_the_import(tmp_path):
    context = _context(tmp_path)
    _import(tmp_path)
    assert finetune.finetune_supernet(context)
    first = context.run.supernet.read_bytes()
    assert not finetune.finetune_supernet(context)
    other = _context(tmp_path, seed=5)
    assert finetune.finetune_supernet(other)
    assert context.run.supernet.read_bytes() != first
    assert finetune.finetune_supernet(context)
    assert context.run.supernet.read_bytes() == first
    _import(tmp_path, space="tiny", mean=[0.0])  # imported anew
    assert finetune.finetune_supernet(context)


def test_a_cut_fine_tuning_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    context = _context(tmp_path, epochs=2)
    _import(tmp_path)
    imported = context.run.supernet.read_bytes()
    assert finetune.finetune_supernet(context)
    whole = context.run.supernet.read_bytes()
    context.run.supernet.write_bytes(imported)
    step = finetune.training._step

    def cut(run, number, batch):
        if number == 1:
            run.stop.set()
        return step(run, number, batch)

    monkeypatch.setattr(finetune.training, "_step", cut)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune_supernet(context)
    assert context.run.supernet.read_bytes() == imported  # nothing half-done
    monkeypatch.setattr(finetune.training, "_step", step)
    assert finetune.finetune_supernet(context)
    assert context.run.supernet.read_bytes() == whole


def test_what_cannot_be_fine_tuned_is_refused_with_the_next_step(tmp_path):
    context = _context(tmp_path)
    with pytest.raises(ConfigError, match="run `hwnas import supernet` first"):
        finetune.finetune_supernet(context)
    _import(tmp_path, imported=None)
    with pytest.raises(ConfigError, match=r"raise train\.epochs"):
        finetune.finetune_supernet(context)
    _import(tmp_path, in_channels=3)
    with pytest.raises(ConfigError, match="takes images of 3 channels, these have 1"):
        finetune.finetune_supernet(context)
    _import(tmp_path, n_classes=7, geometry="0" * 64)
    with pytest.raises(FileFormatError, match="another geometry"):
        finetune.finetune_supernet(context)


def _fill_disk(*given):
    raise DiskFullError("no space left on device")


@pytest.mark.parametrize("keeps", ["_save", "_save_subnet"])
def test_a_training_that_cannot_be_kept_is_not_lost(tmp_path, monkeypatch, keeps):
    notes: list[str] = []
    context = _context(tmp_path, epochs=5, checkpoint_s=1e-6)
    context = replace(context, report=replace(context.report, note=notes.append))
    _import(tmp_path, n_classes=3)

    def work() -> bool:
        if keeps == "_save":
            return finetune.finetune_supernet(context)
        return finetune.finetune_subnet(context, context.space.smallest)

    with monkeypatch.context() as full:
        full.setattr(finetune, keeps, _fill_disk)
        with pytest.raises(DiskFullError):
            work()
    assert not [text for text in notes if "resumed" in text]
    assert work()
    assert [text for text in notes if "training is resumed at" in text]
    assert not list(tmp_path.rglob("train.checkpoint*"))


# ---- one subnet ---------------------------------------------------------------------------------


@pytest.fixture
def ready(tmp_path):
    """A context whose supernet was imported and has the classes of the images."""
    context = _context(tmp_path, epochs=10, learning_rate=0.1, distill=0.1)
    _import(tmp_path, n_classes=3)
    return context


def test_a_subnet_learns_from_labels_and_the_max_network_and_is_kept_with_its_accuracies(ready):
    arch = ready.space.smallest
    assert finetune.finetune_subnet(ready, arch)
    path = finetune.subnet_path(ready, arch)
    _, about = load_subnet(path, arch)
    assert about["val_accuracy"] > about["val_accuracy_before"]
    lines = (path.parent / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert all({"loss_max", "loss_teacher"} <= set(event) for event in events)
    assert not finetune.finetune_subnet(ready, arch)
    assert [p.name for p in sorted(path.parent.iterdir())] == ["events.jsonl", path.name]


def test_weights_of_another_supernet_or_network_are_not_taken(ready, tmp_path):
    arch, other = ready.space.smallest, ready.space.largest
    assert finetune.finetuned(ready, arch, "") is None
    finetune.finetune_subnet(ready, arch)
    supernet = sha256_file(ready.run.supernet)
    found = finetune.finetuned(ready, arch, supernet)
    assert found is not None
    assert found["sha256"] == sha256_file(finetune.subnet_path(ready, arch))
    assert found["inputs"]["train"]["epochs"] == 10
    assert finetune.finetuned(ready, arch, "ab" * 32) is None
    wrong = finetune.subnet_path(ready, other)
    wrong.parent.mkdir()
    wrong.write_bytes(finetune.subnet_path(ready, arch).read_bytes())
    with pytest.raises(FileFormatError, match="holds another network"):
        finetune.finetuned(ready, other, supernet)


def test_distillation_has_its_weight(ready):
    arch = ready.space.smallest
    finetune.finetune_subnet(ready, arch)
    first = finetune.subnet_path(ready, arch).read_bytes()
    settings = ready.config.finetune.model_copy(update={"distill": 0.0})
    alone = replace(ready, config=ready.config.model_copy(update={"finetune": settings}))
    assert finetune.finetune_subnet(alone, arch)
    assert finetune.subnet_path(ready, arch).read_bytes() != first


# ---- command and package ------------------------------------------------------------------------

SETTINGS = """
run: run
data: {kind: digits}
space: {name: tiny, resolutions: [8]}
train: {epochs: 2, threads: 1}
finetune: {epochs: 2, threads: 1}
accuracy: {measure: 12, bn_images: 256}
targets: [fake.fake.fp32.b1.t1]
profile: {budget_s: 5, heldout: 10, rounds: 10}
search: {population: 10, generations: 3}
pick: [{rule: best}, {rule: knee}]
"""


def _ran(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_a_package_of_fine_tuned_weights_says_so(tmp_path, capsys):
    settings = tmp_path / "hwnas.yaml"
    settings.write_text(SETTINGS)
    assert _ran("run", settings, "--accept", "emulated") == 0
    assert _ran("finetune", settings, "--subnet", "nobody") == 2
    assert "is in no front of this run" in capsys.readouterr().err
    assert _ran("finetune", settings) == 2  # it was trained here
    assert _ran("finetune", settings, "--subnet", "knee") == 0
    assert _ran("run", settings, "--accept", "emulated") == 0
    packages = tmp_path / "run" / "packages" / "fake.fake.fp32.b1.t1"
    best, knee = (
        json.loads((packages / name / "manifest.json").read_text()) for name in ("best", "knee")
    )
    assert (best["finetuned"] is None) == (best["id"] != knee["id"])
    assert knee["finetuned"]["val_accuracy"] > knee["finetuned"]["val_accuracy_before"]
    assert knee["parity"]["max_relative_difference"] <= 1e-4
    assert "were fine-tuned on their own" in (packages / "knee" / "MODEL_CARD.md").read_text()
    assert _ran("finetune", settings, "--subnet", knee["id"], "--json") == 0
    arch = tmp_path / "arch.json"
    arch.write_text(json.dumps(knee["architecture"], indent=2))
    assert _ran("finetune", settings, "--subnet", arch) == 0
    assert "everything is up to date" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_fine_tunes_what_it_picks_where_the_settings_say_so(tmp_path, capsys):
    settings, wish = tmp_path / "hwnas.yaml", ("--set", "finetune.in_run=true")
    settings.write_text(SETTINGS)
    accepted = ("--accept", "emulated")
    assert _ran("run", settings, *accepted) == 0
    supernet = (tmp_path / "run" / "supernet.safetensors").read_bytes()
    assert _ran("status", settings, *wish, *accepted) == 0
    assert "is not fine-tuned yet" in capsys.readouterr().out
    assert _ran("run", settings, *wish, *accepted) == 0
    assert (tmp_path / "run" / "supernet.safetensors").read_bytes() == supernet
    for path in (tmp_path / "run" / "packages").glob("*/*/manifest.json"):
        tuned = json.loads(path.read_text())["finetuned"]
        assert tuned["inputs"]["train"]["epochs"] == 2
        assert tuned["val_accuracy"] > tuned["val_accuracy_before"]
    capsys.readouterr()
    assert _ran("run", settings, *wish, *accepted) == 0
    assert "everything is up to date" in capsys.readouterr().err
    assert _ran("run", settings, *wish, "--set", "finetune.epochs=1", *accepted) == 0
    made = (tmp_path / "run" / "packages").glob("*/*/manifest.json")
    tuned = [json.loads(path.read_text())["finetuned"] for path in made]
    assert {one["inputs"]["train"]["epochs"] for one in tuned} == {1}
