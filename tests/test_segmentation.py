"""Segmentation: masks that move with images, mean IoU, and a U-Net of a user's own, the whole way.

The images are scikit-learn's digits 0 and 1, drawn at random places on textures.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.datasets import load_digits
from test_commands_measure import hwnas
from torch.nn import functional as F

from hwnas.images import tensors
from hwnas.images.network_input import network_input
from hwnas.run import own_metric
from hwnas.run.model import run_model
from hwnas.settings.config import DataConfig
from hwnas.tasks import IGNORED, classification, segmentation
from profilers.errors import ConfigError
from profilers.schema import Target

MINE = """
import torch
from torch import nn


def unit(given, out, stride=1):
    conv = nn.Conv2d(given, out, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Sequential(unit(1, 16), unit(16, 16))
        self.low, self.deep = unit(16, 24, 2), unit(24, 24)
        self.up = nn.Upsample(scale_factor=2)
        self.join = nn.Sequential(unit(24 + 16, 16), unit(16, 16))
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        wide = self.wide(x)
        low = self.low(wide)
        low = low + self.deep(low)
        return self.head(self.join(torch.cat([self.up(low), wide], 1)))


def build():
    torch.manual_seed(0)
    return UNet()
"""
YAML = """
run: run
data: {kind: mask_folder, root: drawn, augment: shift}
task: {name: segmentation}
space: {model: "mine:build", weights: best.safetensors, input: [1, 16, 16], widths: 2}
finetune: {epochs: 2, threads: 1, learning_rate: 0.005, batch_size: 16}
accuracy: {measure: 10, bn_images: 64, training_free: 0}
targets: [fake.fake.fp32.b1.t1]
profile: {budget_s: 3, heldout: 5, rounds: 6}
search: {population: 8, generations: 3}
pick: [{rule: best}]
"""
ACCEPT = ("--accept", "unreliable,emulated,gap,budget,untimed")
CLASSES, PX, N = ("background", "zero", "one"), 16, 120
DIGITS = load_digits()


def drawn(rng):
    """An image of a digit on waves, and the class of each pixel."""
    y, x = np.mgrid[:PX, :PX]
    waves = np.sin(x * rng.uniform(0.2, 1) + y * rng.uniform(0.2, 1) + rng.uniform(0, 6))
    image = 60 + 30 * waves + rng.normal(0, 10, (PX, PX))
    mask = np.zeros((PX, PX), np.uint8)
    which = rng.choice(np.flatnonzero(DIGITS.target < 2))
    top, left = rng.integers(PX - 8, size=2)
    place, shape = np.s_[top : top + 8, left : left + 8], DIGITS.images[which] / 16
    image[place] += 150 * shape
    mask[place][shape > 0.4] = 1 + DIGITS.target[which]
    return np.clip(image, 0, 255).astype(np.uint8), mask


def written(folder, n=N):
    """The folder of a mask_folder; some pixels count nowhere."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(n):
        image, mask = drawn(rng)
        mask[0, 0] = IGNORED
        Image.fromarray(image).save(folder / "images" / f"{k:03}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{k:03}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return DataConfig(kind="mask_folder", root=str(folder))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder in which `hwnas run` went through, after a short training of the user's own."""
    folder = tmp_path_factory.mktemp("masks")
    images = tensors.load(written(folder / "drawn"))
    (folder / "mine.py").write_text(MINE)
    (folder / "mine.yaml").write_text(YAML)
    sys.modules.pop("mine", None)
    sys.path.insert(0, str(folder))
    net = __import__("mine").build().train()
    sys.path.remove(str(folder))
    sys.modules.pop("mine")
    optimizer, threads = torch.optim.Adam(net.parameters(), 3e-3), torch.get_num_threads()
    torch.set_num_threads(1)  # more would wait for each other on a busy machine
    for _ in range(12):
        for pixels, masks in tensors.batches(images.train, PX, 16):
            loss = F.cross_entropy(
                net(tensors.prepare(pixels, PX, images)), masks.long(), ignore_index=IGNORED
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.set_num_threads(threads)
    safetensors.torch.save_file(net.state_dict(), folder / "best.safetensors")
    assert hwnas("run", folder / "mine.yaml", *ACCEPT) == 0
    return folder


@pytest.fixture(scope="module")
def package(job):
    return next(job.glob("run/packages/*/best"))


def test_a_u_net_goes_the_whole_way(job, package):
    found = json.loads((package / "manifest.json").read_text())
    measured = found["measured"]
    assert found["task"] == {"name": "segmentation", "metric": "mean IoU"}
    assert measured["test_accuracy"] > 0.6
    low, high = measured["test_interval"]
    assert 0 < low < measured["test_accuracy"] < high < 1
    assert found["parity"]["max_relative_difference"] < 1e-4
    assert found["classes"] == list(CLASSES)
    card = (package / "MODEL_CARD.md").read_text()
    assert "pipeline_tag: image-segmentation" in card
    assert f"| mean IoU (95 % interval), {measured['test_images']} test images" in card
    assert "mean IoU, " in (job / "run" / "report.html").read_text()
    lines = (job / "run" / "accuracy.jsonl").read_text().splitlines()
    rows = list(map(json.loads, lines))
    assert len(rows) == 10
    assert all(0 < row["accuracy"] < 1 for row in rows)


def test_the_example_of_a_package_writes_the_mask_that_the_evaluation_compares(
    job, package, tmp_path
):
    paths = sorted((job / "drawn" / "images").iterdir())[:3]
    command = [sys.executable, "-I", "-W", "error", package / "example.py", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    manifest = json.loads((package / "manifest.json").read_text())
    given = manifest["input"]
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        pixels = np.asarray(Image.open(path))[None]
        x = network_input(pixels, given["mean"], given["std"], given["size"])[None]
        logits = run_model(package / "model.onnx", Target("host", "ort-cpu"), x)
        expected = segmentation.classes_of(torch.from_numpy(logits), torch.zeros(1, PX, PX))[0]
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{path.stem}.mask.png")), expected)
        shares = np.bincount(expected.ravel(), minlength=3) / expected.size
        name = manifest["classes"][shares.argmax()]
        assert line == f"{path}: {path.stem}.mask.png: {name} ({shares.max():.1%})"


# ---- the task ------------------------------------------------------------------------------------


def _plain_iou(given, truth):
    """Mean IoU by sets of pixels."""
    found = []
    for c in range(4):
        a = {tuple(p) for p in np.argwhere((given == c) & (truth != IGNORED))}
        b = {tuple(p) for p in np.argwhere(truth == c)}
        if a | b:
            found.append(len(a & b) / len(a | b))
    return float(np.mean(found))


def test_the_metric_is_the_mean_iou_of_the_classes_that_are_there():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(5, 4, 6, 7)).astype("f4"))
    truth = rng.choice([0, 1, 2, IGNORED], size=(5, 6, 7)).astype(np.uint8)
    for bias in (0, -9):  # then nobody says 3, and no mask has it
        logits[:, 3] += bias
        counts = segmentation.counts(logits, torch.from_numpy(truth))
        assert counts.shape == (5, 8)
        found = segmentation.value(counts, 5)
        assert found == pytest.approx(_plain_iou(logits.argmax(1).numpy(), truth))
        assert segmentation.value(counts.sum(0, keepdims=True), 5) == found
        low, high = segmentation.interval(counts)
        assert low < found < high


def test_pixels_that_count_nowhere_change_no_loss():
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4), dtype=torch.uint8)
    labels[0] = IGNORED
    found = segmentation.label_loss(logits, labels, 0.0)
    torch.testing.assert_close(found, F.cross_entropy(logits[1:], labels[1:].long()))
    assert segmentation.label_loss(logits[:1], labels[:1], 0.1) == 0


def test_maps_of_another_size_are_compared_on_the_pixels_of_the_mask():
    small, labels = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 8, 8), dtype=torch.uint8)
    large = F.interpolate(small, (8, 8), mode="bilinear", align_corners=False)
    assert np.array_equal(segmentation.counts(small, labels), segmentation.counts(large, labels))
    for found, expected in (
        (segmentation.label_loss(small, labels, 0.1), segmentation.label_loss(large, labels, 0.1)),
        (segmentation.taught_loss(large, small, 0.0), segmentation.taught_loss(large, large, 0.0)),
    ):
        torch.testing.assert_close(found, expected)


# ---- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shift", "flip"])
def test_masks_move_with_their_images_and_what_comes_in_counts_nowhere(kind):
    pixels = torch.arange(1, 101, dtype=torch.uint8).view(1, 1, 10, 10).repeat(16, 1, 1, 1)
    split = tensors.Split(pixels, pixels[:, 0])
    images, masks = tensors.augmented(
        split, torch.arange(16), 10, kind, torch.Generator().manual_seed(1)
    )
    assert (images != pixels).any()
    assert torch.equal(torch.where(masks == IGNORED, 0, masks), images[:, 0])
    assert ((masks == IGNORED) == (images[:, 0] == 0)).all()


def test_images_and_masks_are_cut_alike_and_split_whole(tmp_path):
    config = written(tmp_path / "d", 20)
    images = tensors.load(config.model_copy(update={"image_size": 12}))
    sizes = [len(part) for part in (images.train, images.val, images.test)]
    assert sum(sizes) == 20
    assert images.train.labels.shape == (sizes[0], 12, 12)
    assert images.class_names == CLASSES
    assert images.train.labels.dtype == torch.uint8
    assert tensors.load(config).fingerprint != images.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / "masks" / "001.png").unlink(), "do not go together .'001' and 0 more"),
        (lambda d: Image.new("RGB", (PX, PX)).save(d / "masks" / "001.png"), "holds colours"),
        (lambda d: Image.new("L", (9, PX)).save(d / "masks" / "001.png"), "is 9x16 px, its image"),
        (lambda d: (d / "masks" / "001.png").write_bytes(b"x"), "001.png cannot be read"),
        (lambda d: (d / "classes.txt").write_text("a\nb\n"), "label 2 is out of range"),
        (lambda d: (d / "classes.txt").write_text("a\nb\nc\nd"), "class 'd' has no training"),
        (lambda d: (d / "images").rename(d / "image"), "has no folder 'images'"),
        (lambda d: (d / "classes.txt").write_bytes(b"caf\xe9\nb\nc\n"), "classes.txt is no UTF-8"),
        (
            lambda d: Image.new("L", (PX, PX)).save(d / "images" / "001.bmp"),
            "001.bmp and 001.png have one name",
        ),
    ],
)
def test_masks_that_cannot_be_used_are_refused_in_one_line(tmp_path, change, message):
    config = written(tmp_path / "d", 6)
    change(tmp_path / "d")
    with pytest.raises(ConfigError, match=message) as refused:
        tensors.load(config)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("classification", "masks", "the data have masks, task.name is classification; set task"),
        ("segmentation", "digits", "digits: the data have classes, task.name is segmentation"),
        ("segmentation", "masks", "space tiny gives one class for an image, task.name is segm"),
    ],
)
def test_data_task_and_space_must_fit(tmp_path, capsys, task, data, message):
    folder = {"kind": "mask_folder", "root": written(tmp_path / "d", 12).root}
    given = {"run": "run", "task": {"name": task}, "data": {"kind": "digits"}}
    whole = {**given, "data": folder} if data == "masks" else given
    (tmp_path / "mine.yaml").write_text(json.dumps(whole))
    assert hwnas("train", tmp_path / "mine.yaml") == 2
    assert message in capsys.readouterr().err


# ---- a metric of one's own -----------------------------------------------------------------------

OWN = """
def worst(answers, labels):
    assert answers.shape == labels.shape == (5, 6, 7), answers.shape
    return (answers != labels).mean((1, 2)).max()


def second(answers, labels):
    best = answers.argsort(1)[:, -2:]
    return 1 - (best == labels[:, None]).any(1).mean()


def broken(answers, labels):
    return answers["no"]


def far(answers, labels):
    return 3


NOTHING = 1
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "scores.py").write_text(OWN)
    sys.modules.pop("scores", None)
    own_metric.function.cache_clear()
    return lambda name, task=segmentation.TASK: own_metric.with_metric(task, name, tmp_path)


def _counted(task, logits, labels):
    """As it is counted in batches."""
    return np.concatenate(
        [task.counts(logits[:2], labels[:2]), task.counts(logits[2:], labels[2:])]
    )


def test_a_metric_of_ones_own_is_given_all_answers_and_labels(own):
    logits, labels = torch.randn(5, 3, 6, 7), torch.randint(3, (5, 6, 7), dtype=torch.uint8)
    task = own("scores:worst")
    right = (logits.argmax(1) == labels).float().mean((1, 2)).min()
    assert task.value(_counted(task, logits, labels), 5) == pytest.approx(float(right))
    assert task.metric == "1 - scores:worst"
    assert task.interval(_counted(task, logits, labels)) is None
    logits, labels = torch.randn(40, 9), torch.randint(9, (40,))
    task = own("scores:second", classification.TASK)
    right = (logits.topk(2, 1).indices == labels[:, None]).any(1).float().mean()
    assert task.value(_counted(task, logits, labels), 40) == pytest.approx(float(right))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scores:broken", r"IndexError: .*scores\.py, line 13\); mend it there"),
        ("scores:far", "scores:far returned 3, expected an error from 0 to 1"),
        ("scores:none", "module 'scores' has no attribute 'none'"),
        ("scores:NOTHING", "is a int, expected a function of answers and labels"),
        ("absent:f", "No module named 'absent'"),
    ],
)
def test_a_metric_that_gives_no_error_is_told_in_one_line(own, name, message):
    task = own(name)
    found = _counted(task, torch.randn(5, 3, 6, 7), torch.zeros(5, 6, 7, dtype=torch.uint8))
    with pytest.raises(ConfigError, match=message) as refused:
        task.value(found, 5)
    assert "\n" not in str(refused.value)


def test_another_metric_is_another_version(own, tmp_path):
    before = own("scores:worst").version
    assert before.startswith("scores:worst ")
    assert own("scores:far").version != before
    (tmp_path / "scores.py").write_text(OWN + "# changed")
    assert own("scores:worst").version != before


@pytest.mark.slow
def test_another_metric_is_measured_anew_and_nothing_is_trained_again(job, tmp_path, capsys):
    shutil.copytree(job, tmp_path, dirs_exist_ok=True)
    (tmp_path / "scores.py").write_text("def half(answers, labels):\n    return 0.5")
    given = (tmp_path / "mine.yaml", "--set", "task.metric=scores:half", *ACCEPT)
    assert hwnas("run", *given, "--json") == 0
    assert not {"space", "train"} & set(json.loads(capsys.readouterr().out)["done"])
    found = json.loads(next(tmp_path.glob("run/packages/*/best/manifest.json")).read_text())
    assert found["task"]["metric"] == "1 - scores:half"
    assert found["measured"]["test_accuracy"] == 0.5
    assert "| 1 - scores:half, 24 test images" in next(tmp_path.rglob("MODEL_CARD.md")).read_text()
