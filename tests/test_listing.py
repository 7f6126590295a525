"""Folders of images: what is read, what is left out and said, what is refused by name."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.images.image_files import centre_crops
from hwnas.images.listing import HIDDEN, OUTSIDE, SUFFIXES, left_out, list_folder
from hwnas.images.sources import fingerprint_source
from hwnas.images.tensors import load
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError


def _image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of six images."""
    for name in ("cat", "dog"):
        for n in range(6):
            _image(tmp_path / "photos" / name / f"{n}.jpg", n)
    return tmp_path / "photos"


def _count(root: Path, stream: bool) -> int:
    data = load(DataConfig(kind="image_folder", root=str(root), stream=stream))
    return len(data.train) + len(data.val) + len(data.test)


@pytest.mark.parametrize("stream", [False, True])
def test_images_of_every_usual_suffix_and_of_sub_folders_are_read(photos, stream):
    for n, suffix in enumerate((".jfif", ".JPG", ".jpe", ".JPEG")):
        _image(photos / "cat" / f"more{n}{suffix}")
    _image(photos / "dog" / "summer" / "beach" / "0.jpg")
    for n, suffix in enumerate((".bmp", ".webp", ".tif", ".tiff", ".png", ".gif", ".tga", ".ppm")):
        Image.new("RGB", (8, 8), (n, n, n)).save(photos / "dog" / f"other{n}{suffix}")
    assert _count(photos, stream) == 12 + 4 + 1 + 8
    assert left_out(photos) == (0, (), {})


def test_every_suffix_that_is_read_is_one_that_pillow_knows():
    Image.init()
    known = set(Image.registered_extensions()) | {".avif"}  # built into Pillow 11.3 and newer
    assert set(SUFFIXES) <= known


@pytest.mark.parametrize("stream", [False, True])
def test_what_systems_and_archives_leave_behind_is_no_image_and_is_counted(photos, stream):
    for name in ("cat/._0.jpg", "cat/.DS_Store", "cat/Thumbs.db", "__MACOSX/cat/._1.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"\0\5\x16\7")
    _image(photos / "dog" / ".thumbnails" / "0.jpg")
    for name in ("readme.txt", "cat/1.heic", "dog/notes/2.txt"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text("no image")
    assert _count(photos, stream) == 12
    found = left_out(photos)
    assert found.n == 8
    assert found.examples[:3] == ("cat/1.heic", "dog/notes/2.txt", "readme.txt")
    assert found.why == {HIDDEN: 5, OUTSIDE: 1, "no image: .heic": 1, "no image: .txt": 1}


def test_a_folder_beside_the_parts_is_left_out_and_counted(photos, tmp_path):
    (tmp_path / "all").mkdir()
    photos.rename(tmp_path / "all" / "train")
    _image(tmp_path / "all" / "extra" / "cat" / "0.jpg")
    assert _count(tmp_path / "all", False) == 12
    assert left_out(tmp_path / "all") == (1, ("extra/cat/0.jpg",), {OUTSIDE: 1})


@pytest.mark.parametrize("name", ["Train", "validation", "testing"])
def test_parts_under_other_names_are_no_classes(photos, tmp_path, name):
    (tmp_path / "all").mkdir()
    photos.rename(tmp_path / "all" / name)
    with pytest.raises(ConfigError, match=rf"{name} looks like a part .*train, test, val.*rename"):
        list_folder(tmp_path / "all")


def test_links_that_lead_round_in_a_circle_are_left_out(photos):
    (photos / "cat" / "again").symlink_to(photos / "cat")
    assert _count(photos, False) == 12
    assert left_out(photos) == (1, ("cat/again",), {"no image": 1})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("folder", ["", "cat", "dog/summer"])
def test_a_folder_that_may_not_be_looked_into_is_named_and_not_left_out(
    photos, monkeypatch, folder, stream
):
    _image(photos / "dog" / "summer" / "0.jpg")

    def denied(look):
        def looked(path="."):
            if Path(os.fsdecode(path)) == photos / folder:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return look(path)

        return looked

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, denied(getattr(os, name)))
    reason = f"{photos / folder} cannot be read: Permission denied"
    with pytest.raises(ConfigError, match=reason):
        _count(photos, stream)
    with pytest.raises(ConfigError, match=reason):
        left_out(photos)
    if stream:
        with pytest.raises(ConfigError, match=reason):
            fingerprint_source(DataConfig(kind="image_folder", root=str(photos), stream=True))


def test_all_files_that_cannot_be_read_are_named_at_once(photos):
    for n in range(23):
        (photos / "cat" / f"bad{n:02}.jpg").write_bytes(b"no image")
    expected = r"23 of 35 images cannot be read: cat/bad00\.jpg, .*cat/bad19\.jpg and 3 more, below"
    with pytest.raises(ConfigError, match=expected) as refused:
        _count(photos, stream=False)
    assert "bad20" not in str(refused.value)
    streamed = [bytes(path) for path in sorted(photos.rglob("*.jpg"))]
    with pytest.raises(ConfigError, match=expected):
        centre_crops(streamed, 8)


def test_files_that_cannot_be_read_are_skipped_by_name_where_that_is_asked_for(photos):
    for n in (1, 2):
        (photos / "cat" / f"{n}.jpg").write_bytes(b"no image")
    (photos / "dog" / "0.jpg").write_bytes((photos / "dog" / "1.jpg").read_bytes()[:200])
    skipping = DataConfig(kind="image_folder", root=str(photos), skip_broken=True)
    data = load(skipping)
    assert len(data.train) + len(data.val) + len(data.test) == 9
    assert data.seen is not None
    assert list(data.seen.skipped) == ["cat/1.jpg", "cat/2.jpg", "dog/0.jpg"]
    assert all(why.startswith("cannot be read as an image") for why in data.seen.skipped.values())
    for path in (photos / "cat").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ConfigError, match="class 'cat' has no training image"):
        load(skipping)
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"12 of 12 images cannot be read"):
        load(skipping)


# ---- names and streams that are no text ---------------------------------------------------------

SETTINGS = """
run: run
data: {kind: image_folder, root: photos}
space: {name: tiny, resolutions: [8]}
train: {epochs: 1, threads: 1, batch_size: 4}
targets: [fake.fake.fp32.b1.t1]
"""


def _train(folder: Path, how: str = "", **environment) -> subprocess.CompletedProcess:
    (folder / "hwnas.yaml").write_text(SETTINGS)
    command = f"{sys.executable} -m hwnas train hwnas.yaml {how}"
    return subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, env={**os.environ, **environment}
    )


@pytest.mark.slow
def test_names_that_are_no_text_and_closed_streams_do_not_stop_a_command(photos, tmp_path):
    (photos / "cat" / "caf\udce9.heic").write_bytes(b"")
    (photos / "cat" / "größe.heic").write_bytes(b"")
    ended = _train(tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert ended.returncode == 0, ended.stderr
    assert rb"2 file(s) are left out, not images or in no folder of a class" in ended.stderr
    assert rb"caf\xe9.heic" in ended.stderr
    about = json.loads((tmp_path / "run" / "data.json").read_text())
    assert about["left_out"] == {
        "n": 2,
        "examples": ["cat/caf\\xe9.heic", "cat/größe.heic"],
        "why": {"no image: .heic": 2},
    }
    for closed in ("2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        (tmp_path / "run" / "data.json").unlink()
        ended = _train(tmp_path, closed)
        assert ended.returncode == 0
        assert b"warning" not in (tmp_path / "run" / ".lock").read_bytes()
        assert (tmp_path / "run" / "data.json").exists()


def test_a_class_whose_name_is_no_text_is_refused_readably(photos):
    (photos / "cat").rename(photos / "caf\udce9")
    with pytest.raises(ConfigError, match=r"class caf\\xe9 is not UTF-8; rename it"):
        list_folder(photos)
