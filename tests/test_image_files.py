"""Folders of images that are streamed: prepared as published, read when needed, resumed."""

from __future__ import annotations

import json
import math
import os
import runpy

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.images import image_files, tensors
from hwnas.images.normalisation import IMAGENET
from hwnas.networks import spaces
from hwnas.run import package
from hwnas.settings.config import AccuracyConfig, DataConfig, TrainConfig
from hwnas.supernet import evaluation, training
from hwnas.supernet.evaluation import Evaluator, Tally
from hwnas.supernet.job import Job
from hwnas.supernet.network import Supernet, extract
from profilers.errors import ConfigError

CLASSES = ("bird", "cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of many sizes; birds are dark, cats are light."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, n in (("train", 14), ("val", 6)):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for k in range(n):
                height, width = rng.integers(20, 60, 2)
                pixels = rng.integers(0, 100, (height, width, 3)) + 150 * label
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / part / name / f"{k}.{'png' if k % 2 else 'jpg'}")
    return root


def config(folder, **changes):
    return DataConfig(kind="image_folder", root=str(folder), stream=True, **changes)


@pytest.fixture(scope="module")
def images(folder):
    return tensors.load(config(folder))


# ---- preparation --------------------------------------------------------------------------------


def test_an_evaluated_image_is_resized_by_256_over_224_and_its_centre_cut_out(folder):
    path = folder / "val" / "cat" / "1.png"
    (cut,) = image_files.centre_crops([bytes(path)], 16)
    image = Image.open(path)
    width, height = image.size
    side = math.ceil(16 * 256 / 224)
    factor = side / min(width, height)
    wide, high = (side if s == min(width, height) else int(s * factor) for s in image.size)
    whole = np.asarray(image.resize((wide, high), Image.Resampling.BILINEAR))
    top, left = round((high - 16) / 2), round((wide - 16) / 2)
    assert np.array_equal(cut, whole[top : top + 16, left : left + 16].transpose(2, 0, 1))
    assert [image_files.resized_side(px) for px in (128, 160, 192, 224)] == [147, 183, 220, 256]


def test_a_random_part_repeats_with_its_seed_and_lies_in_the_image(folder):
    path = bytes(folder / "train" / "cat" / "0.jpg")
    cuts = image_files.random_crops([path] * 3, 16, [1, 1, 2])
    assert np.array_equal(cuts[0], cuts[1])
    assert not np.array_equal(cuts[0], cuts[2])
    rng = np.random.default_rng(0)
    shares = []
    for width, height in [(40, 30)] * 200 + [(300, 5)] * 50:
        left, top, right, bottom = image_files.random_box((width, height), rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        shares.append((right - left) * (bottom - top) / (width * height))
    assert min(shares[:200]) < 0.2 < 0.8 < max(shares[:200])


def test_a_damaged_image_is_named_when_it_is_read(folder, tmp_path):
    for name in CLASSES:
        for part in ("train", "val"):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(3):
                whole = (folder / part / name / "0.jpg").read_bytes()
                (tmp_path / part / name / f"{k}.jpg").write_bytes(whole)
    broken = tmp_path / "val" / "cat" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    found = tensors.load(config(tmp_path))  # nothing is decoded yet
    with pytest.raises(ConfigError, match=r"val/cat/1\.jpg cannot be read as an image"):
        list(tensors.batches(found.test, 16, 4))


# ---- data set -----------------------------------------------------------------------------------


def test_a_streamed_folder_keeps_class_names_splits_and_imagenets_normalisation(folder, images):
    assert images.class_names == CLASSES
    assert (images.in_channels, images.size, images.preparation) == (3, 0, "imagenet")
    assert (images.mean, images.std) == IMAGENET
    assert (len(images.train), len(images.val), len(images.test)) == (24, 4, 12)
    assert tensors.load(config(folder)).fingerprint == images.fingerprint
    assert tensors.load(config(folder, seed=1)).fingerprint != images.fingerprint


def test_the_fingerprint_moves_with_the_folder_and_sees_a_file_of_another_size(folder, tmp_path):
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    first = tensors.load(config(moved)).fingerprint
    assert first == tensors.load(config(folder)).fingerprint
    with (moved / "val" / "cat" / "0.jpg").open("ab") as file:
        file.write(b"\0")
    assert tensors.load(config(moved)).fingerprint != first


def test_batches_come_in_order_at_the_resolution_and_start_anywhere(images):
    whole = list(tensors.batches(images.test, 16, 5))
    assert [tuple(x.shape) for x, _ in whole] == [(5, 3, 16, 16), (5, 3, 16, 16), (2, 3, 16, 16)]
    labels = torch.cat([labels for _, labels in whole])
    assert torch.equal(labels, images.test.labels)
    rest = list(tensors.batches(images.test, 16, 5, start=7))
    assert torch.equal(torch.cat([x for x, _ in rest]), torch.cat([x for x, _ in whole])[7:])


def test_an_error_while_reading_ahead_reaches_the_caller():
    def two():
        yield 1
        raise ConfigError("broken")

    found = image_files.ahead(two())
    assert next(found) == 1
    with pytest.raises(ConfigError, match="broken"):
        next(found)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "digits", "stream": True}, "stream needs kind image_folder"),
        ({"kind": "image_folder", "stream": True, "image_size": 32}, "leave image_size out"),
        ({"kind": "image_folder", "stream": True, "normalise": "data"}, "use imagenet"),
        ({"kind": "image_folder", "augment": "crop"}, "crop needs stream"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        DataConfig(**settings)


def test_imagenets_normalisation_of_grey_images_is_refused():
    with pytest.raises(ConfigError, match="needs images of 3 channels"):
        tensors.load(DataConfig(normalise="imagenet"))


# ---- training and evaluation --------------------------------------------------------------------


@pytest.fixture(scope="module")
def space():
    return spaces.load("tiny").for_data(3, 2).restricted([8, 12])


def test_training_on_streamed_images_repeats_to_the_same_bits(images, space, tmp_path):
    settings = TrainConfig(epochs=2, batch_size=8, max_only=0.5, threads=1)
    nets = [
        training.train(
            Job(settings, space, images, "crop", tmp_path / name), lambda share, text: None
        )
        for name in ("a", "b")
    ]
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def evaluator(images, space):
    torch.manual_seed(0)
    return Evaluator(Supernet(space), images, AccuracyConfig(bn_images=32), "ab" * 32)


def test_a_cut_evaluation_goes_on_where_it_was_noted(
    evaluator, images, space, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation, "TALLY_S", -1.0)  # note every batch
    monkeypatch.setattr(evaluation, "BATCH", 4)
    told, subnet = [], evaluator.calibrated(extract(evaluator.supernet, space.smallest))
    tally = Tally(tmp_path / "t", "k", lambda done, total: told.append((done, total)))
    expected = evaluation.metric_of(subnet, images, images.test, tally)
    assert told == [(4, 12), (8, 12), (12, 12)]
    asked = []
    read = tensors.FileSplit.pixels
    monkeypatch.setattr(
        tensors.FileSplit,
        "pixels",
        lambda split, start, stop, px: asked.append(start) or read(split, start, stop, px),
    )
    done, right = 8, round(12 * expected) - 2
    tally.write(done, [right])
    assert evaluation.metric_of(subnet, images, images.test, tally) >= right / 12
    assert asked == [8]
    assert Tally(tmp_path / "t", "another").read() == (0, [])


def test_measured_subnets_leave_no_partial_file(evaluator, space, tmp_path):
    path = tmp_path / "accuracy.jsonl"
    found = dict(evaluation.measure_all([space.smallest], evaluator, path))
    assert 0 <= found[space.smallest] <= 1
    assert [p.name for p in tmp_path.iterdir()] == ["accuracy.jsonl"]


def test_the_example_prepares_an_image_as_the_evaluation_does(folder, images, space, tmp_path):
    arch = space.smallest
    about = {
        "channels": 3,
        "size": images.size,
        "preparation": images.preparation,
        "mean": images.mean,
        "std": images.std,
    }
    manifest = {"input": package.input_of(arch, about), "classes": CLASSES}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "example.py").write_text(package.example(False, "ort-cpu", "classification"))
    made = runpy.run_path(str(tmp_path / "example.py"))
    for path in images.test.paths[:3].tolist():
        pixels = torch.from_numpy(image_files.centre_crops([path], arch.resolution))
        expected = tensors.prepare(pixels, arch.resolution, images)[0].numpy()
        assert np.allclose(made["prepare"](os.fsdecode(path)), expected, atol=1e-6)
    assert "shorter side to 10 px" in manifest["input"]["resize"]
