"""`hwnas init`: settings that fit a folder of images; what the data are, before training."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from hwnas.cli import main
from hwnas.images.survey import survey
from hwnas.networks import spaces
from hwnas.run import first_settings, summary
from hwnas.settings.config_file import load_config
from profilers.errors import ConfigError


def hwnas(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def image(path, size=(48, 40), grey=False, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if grey else (*size[::-1], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")


def folder(root, classes=3, n=6, **how):
    for label in range(classes):
        for k in range(n):
            image(root / f"class{label}" / f"{k}.jpg", seed=k, **how)
    return root


@pytest.mark.parametrize("name", ["fotos-📷", "no", "null", "my photos", "1.5"])
def test_settings_name_the_folder_that_was_given_whatever_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / name)
    assert hwnas("init", "mine.yaml", "--images", name) == 0
    assert load_config(tmp_path / "mine.yaml").data.root == name


@pytest.fixture
def trapped(tmp_path):
    """A folder with all that phones, archives and systems put into one."""
    root = folder(tmp_path / "photos")
    image(root / "class0" / "other.jfif", (30, 64), grey=True)
    image(root / "class1" / "summer" / "beach" / "1.JPG", (64, 64))
    image(root / "class1" / "caf\udce9.jpg")
    for name in ("class0/._0.jpg", "__MACOSX/class0/._0.jpg", "class2/Thumbs.db", ".DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
    (root / "notes.txt").write_text("ours")
    (root / "class2" / "live.heic").write_bytes(b"")
    (root / "class2" / "empty.jpg").write_bytes(b"")
    (root / "class2" / "cut.jpg").write_bytes((root / "class2" / "0.jpg").read_bytes()[:300])
    return root


def test_settings_for_a_folder_fit_it_and_say_why(trapped, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert hwnas("init", "mine.yaml", "--images", "photos") == 0
    said = capsys.readouterr().out
    assert "21 images in 3 classes: class0 7, class1 8, class2 6" in said
    assert "48 x 40 px (19), 30 x 64 px (1), 64 x 64 px (1), cut to 28 px" in said
    assert "1 grey, 20 in colour, all read as colour" in said
    assert "6 files: 4 hidden" in said
    assert "1 in no folder of a class, 1 no image: .heic" in said
    for name in ("class2/cut.jpg", "class2/empty.jpg"):
        assert f"cannot be read, will be skipped: {name}: cannot be read as an image" in said
    settings = load_config(tmp_path / "mine.yaml")
    data = settings.data
    assert (data.kind, data.root, data.image_size) == ("image_folder", "photos", 28)
    assert (data.skip_broken, data.augment) == (True, "flip")
    assert (settings.space.name, settings.train.epochs, settings.train.batch_size) == (
        "mbv3-28",
        200,
        8,
    )
    lines = (tmp_path / "mine.yaml").read_text().splitlines()
    bare = [line for line in lines if ":" in line and "#" not in line]
    assert bare == ["data:", "train:", "search:"]


def test_a_class_whose_name_holds_a_newline_stays_in_its_comment(trapped, tmp_path, monkeypatch):
    (trapped / "class2").rename(trapped / "cla\nss: 2")
    monkeypatch.chdir(tmp_path)
    assert hwnas("init", "mine.yaml", "--images", "photos") == 0
    assert load_config(tmp_path / "mine.yaml").data.root == "photos"
    assert "cla ss: 2 6" in (tmp_path / "mine.yaml").read_text()


def test_the_settings_of_init_run_to_a_package_and_the_data_are_summed_up_first(
    trapped, tmp_path, capsys
):
    assert hwnas("init", tmp_path / "mine.yaml", "--images", trapped) == 0
    few = ("train.epochs=1", "space.name=tiny", "space.resolutions=[8]", "train.threads=1")
    overrides = [word for setting in few for word in ("--set", setting)]
    assert hwnas("train", tmp_path / "mine.yaml", *overrides) == 0
    said = capsys.readouterr().err
    first, *_ = [said.index(text) for text in ("data: 21 images in 3 classes", "train: started")]
    assert first < said.index("train: started")
    assert "2 file(s) cannot be read and are skipped: class2/cut.jpg, class2/empty.jpg" in said
    assert "3 class(es) have fewer than 20 images to train on" in said
    about = json.loads((tmp_path / "runs" / "mine" / "data.json").read_text())
    assert {name: sum(n) for name, n in about["images_by_class"].items()} == about["images"]
    assert sum(n for _, _, n in about["sizes"]) == 21
    assert about["grey"] == 1


@pytest.mark.parametrize(
    ("size", "grey", "space", "cut", "augment"),
    [
        ((8, 8), True, "tiny", 16, "shift"),
        ((28, 28), True, "mbv3-28", 28, "shift"),
        ((200, 120), False, "mbv3-64", 64, "flip"),
    ],
)
def test_the_space_follows_the_size_of_the_images(tmp_path, size, grey, space, cut, augment):
    found = survey(str(folder(tmp_path / "photos", n=3, size=size, grey=grey)))
    chosen = first_settings.fitting(found)
    assert (chosen.space, chosen.size, chosen.augment) == (space, cut, augment)
    assert cut in spaces.load(space).profiled


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: folder(root, classes=1), "the only class is 'class0', expected at least 2"),
        (lambda root: folder(root, n=1), "3 of 3 classes have fewer than 3 images .*'class0' .1."),
        (lambda root: image(root / "1.jpg"), "holds no folders; expected one folder of images for"),
        (lambda root: folder(root / "Train"), "Train looks like a part of the data"),
        (lambda root: None, "does not exist; give the file or folder"),
        (lambda root: root.write_text(""), "is a file, expected a folder"),
        (lambda root: (folder(root), (root / "new").mkdir()), "new holds no image; known: "),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_and_nothing_is_written(
    tmp_path, make, message, capsys
):
    make(tmp_path / "photos")
    assert hwnas("init", tmp_path / "mine.yaml", "--images", tmp_path / "photos") == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(message, said), said
    assert not (tmp_path / "mine.yaml").exists()


def test_a_file_that_is_there_is_replaced_by_force_alone(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("mine")
    assert hwnas("init", tmp_path / "mine.yaml") == 2
    assert "exists; --force replaces it" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert hwnas("init", tmp_path / "mine.yaml", "--force") == 0
    settings = load_config(tmp_path / "mine.yaml")
    assert (settings.data.kind, settings.run) == ("digits", "runs/mine")


def test_the_run_folder_has_the_name_of_the_settings_file(tmp_path):
    assert hwnas("init", tmp_path / "my pi: 5.yaml") == 0
    assert load_config(tmp_path / "my pi: 5.yaml").run == "runs/my pi: 5"


def test_a_small_test_set_says_what_it_can_tell():
    data = {
        "classes": ["a", "b"],
        "images": {"train": 200, "val": 40, "test": 60},
        "images_by_class": {"train": [195, 5], "val": [20, 20], "test": [30, 30]},
    }
    few, tests = summary.warnings(data)
    assert few.startswith("1 class(es) have fewer than 20 images to train on (b)")
    assert tests.startswith("with 60 test images, two accuracies near 90% must differ by about 11")
    assert summary.lines(data)[0] == "data: 300 images in 2 classes: a 245, b 55"


def test_parts_of_the_data_that_are_there_ask_for_fewer_images_of_a_class(tmp_path):
    for part in ("train", "val", "test"):
        folder(tmp_path / part, n=1)
    assert survey(str(tmp_path)).parts == {"train": 3, "val": 3, "test": 3}
    with pytest.raises(ConfigError, match="only class"):
        survey(str(folder(tmp_path / "photos", classes=1, n=3)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init", "photos"), "photos is a folder, .* hwnas init mine.yaml --images photos"),
        (("init", "photos", "--force"), "photos is a folder"),
        (("run", "photos"), "photos is a folder, expected a settings file; `hwnas init"),
        (
            ("init", "mine.yaml", "--images", "fotos"),
            "--images 'fotos' does not exist; did you mean",
        ),
    ],
)
def test_a_folder_in_place_of_a_file_is_told_the_command_that_was_meant(
    tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", n=1)
    assert hwnas(*words) == 2
    assert re.search(said, capsys.readouterr().err)
