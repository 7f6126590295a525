"""Changes that a stage must notice: software, pixels, what a factory returns. And what it keeps."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_pipeline import SETTINGS, hwnas

from hwnas.images import contents
from hwnas.measuring import remote
from hwnas.settings import versions
from hwnas.tables import table as tables

TARGET = "fake.fake.fp32.b1.t1"
ACCEPTED = ("--accept", "emulated,unreliable")
SMALL = (
    SETTINGS.replace(f"[{TARGET}, fake.fake.fp32.b4.t1]", f"[{TARGET}]")
    .replace("epochs: 6", "epochs: 1")
    .replace("measure: 24", "measure: 12")
)


def run(folder, capsys):
    """The stages that a run made again, by what it said, and all that it said, in one line."""
    assert hwnas("run", folder / "hwnas.yaml", "--accept", "emulated,unreliable") == 0
    said = " ".join(capsys.readouterr().err.split())
    return set(re.findall(r"(\w+)(?:\.fake\S*)?: redone, ", said)), said


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "hwnas.yaml").write_text(SMALL)
    assert hwnas("run", folder / "hwnas.yaml", "--accept", "emulated,unreliable") == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


# ---- versions -----------------------------------------------------------------------------------

REDONE = {  # package: stages that are made again, those that are kept and say so
    "torch": ({"evaluate", "export"}, {"train"}),
    "onnxruntime": ({"verify"}, set()),
    "onnx": ({"export"}, set()),
    "scikit-learn": ({"evaluate"}, set()),
    "numpy": ({"search"}, set()),
    "pillow": ({"data"}, set()),
}


@pytest.mark.parametrize("package", REDONE)
def test_a_stage_whose_software_changed_is_made_again_but_training_and_says_why(
    copy, capsys, monkeypatch, package
):
    weights = (copy / "runs" / "digits" / "supernet.safetensors").read_bytes()
    done, said = run(copy, capsys)
    assert (done, "kept" in said) == (set(), False)
    installed = versions._installed
    monkeypatch.setattr(
        versions, "_installed", lambda name: "99.1" if name == package else installed(name)
    )
    redone, kept = REDONE[package]
    done, said = run(copy, capsys)
    again = {"export"} if package == "onnxruntime" else set()  # of a spread, what was slower
    assert redone <= done <= redone | again
    change = f"{package} was {installed(package)}, is 99.1"
    for stage in redone:
        name = f"{stage}.{TARGET}" if stage in ("search", "export", "verify") else stage
        assert f"{name}: redone, {change}" in said
    for stage in kept:
        assert f"{stage}: kept, {change}; delete" in said
    assert (copy / "runs" / "digits" / "supernet.safetensors").read_bytes() == weights
    done, said = run(copy, capsys)  # made by this version now, but for what was kept
    assert (done, "kept" in said) == (set(), bool(kept))


def test_other_code_of_ours_redoes_cheap_stages_and_is_said_of_weights_and_tables(
    copy, capsys, monkeypatch
):
    before = versions.code()
    monkeypatch.setattr(versions, "code", lambda: "0.2.0+12345678")
    done, said = run(copy, capsys)
    assert done == {"data", "evaluate", "search", "export"}
    for name in ("train", f"profile.{TARGET}"):
        assert f"{name}: kept, hwnas was {before}, is 0.2.0+12345678; delete" in said
    assert "accuracy.jsonl is used again" in said


def test_packages_are_measured_anew_where_the_engine_was_replaced(copy, capsys, monkeypatch):
    """By `hwnas verify` alone: no other stage asks the device what it is."""
    probe, arguments = remote.probe, ("--accept", "emulated,unreliable")

    def replaced(target, *rest):
        there = probe(target, *rest)
        return {**there, "engine_version": "99.1", "fingerprint": "f" * 64}

    def verify(*more):
        assert hwnas("verify", copy / "hwnas.yaml", *arguments, *more) == 0
        return capsys.readouterr()

    capsys.readouterr()
    assert json.loads(verify("--json").out)["done"] == []
    monkeypatch.setattr(remote, "probe", replaced)
    assert "fake was 1, is 99.1" in " ".join(verify().err.split())
    assert json.loads(verify("--json").out)["done"] == []


def test_our_code_is_known_by_its_sources_but_for_those_that_only_show_results(
    tmp_path, monkeypatch
):
    names = (
        "hwnas/supernet/training.py",
        "profilers/stats.py",
        "hwnas/report/render.py",
        "hwnas/cli.py",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a = 1\n")
    parts = {name: tmp_path / name for name in ("hwnas", "profilers")}
    monkeypatch.setattr(versions, "_PARTS", parts)
    seen = {}
    for name in ("", *names):
        if name:
            (tmp_path / name).write_text("a = 2\n")
        seen[name] = versions.code.__wrapped__()
    assert len(set(seen.values())) == 3
    assert seen["hwnas/cli.py"] == seen["profilers/stats.py"]


def test_a_package_that_is_not_installed_has_no_version_and_a_gpu_build_counts(monkeypatch):
    found = {"onnxruntime-gpu": "1.23"}

    def version(name):
        if name not in found:
            raise versions.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(versions.metadata, "version", version)
    assert versions._installed("onnxruntime") == "1.23"
    assert versions._installed("torch") == "none"


# ---- work that was cut short ---------------------------------------------------------------------


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "own", "other"),
    [
        (("evaluate",), "accuracy.seed=0", "accuracy.seed=1"),
        (("search", *ACCEPTED), "search.seed=0", "search.seed=1"),
        (("export", *ACCEPTED), "accuracy.bn_images=256", "accuracy.bn_images=128"),
    ],
)
def test_what_a_stage_wrote_before_it_was_killed_is_made_again_under_the_settings_of_before(
    copy, capsys, monkeypatch, stage, own, other
):
    def done(setting):
        code = hwnas(*stage, copy / "hwnas.yaml", "--set", setting, "--json")
        return code, json.loads(capsys.readouterr().out or "{}").get("done")

    assert done(own) == (0, [])
    with monkeypatch.context() as patched:
        patched.setattr(f"hwnas.run.{stage[0]}.mark_current", killed)
        assert done(other)[0] == 130
    assert [len(done(own)[1]) for _ in range(2)] == [1, 0]


def test_a_table_that_lacks_an_item_to_be_tried_again_is_no_edited_one(copy, capsys, monkeypatch):
    plain = remote.run_campaign

    def short(*arguments):
        return replace(plain(*arguments), passing=("covering-001: out of memory",))

    for name in (f"tables/{TARGET}.json", f"measurements/{TARGET}.jsonl"):
        (copy / "runs" / "digits" / name).unlink()
    with monkeypatch.context() as patched:
        patched.setattr(remote, "run_campaign", short)
        assert hwnas("profile", copy / "hwnas.yaml", *ACCEPTED) == 0
    assert "tried again by the next run: covering-001" in capsys.readouterr().err
    assert hwnas("profile", copy / "hwnas.yaml", *ACCEPTED) == 0


def test_packages_exported_alone_say_what_their_predictions_are_of(copy, capsys):
    run = copy / "runs" / "digits"
    path, front = run / "tables" / f"{TARGET}.json", run / "fronts" / f"{TARGET}.json"
    capsys.readouterr()
    assert hwnas("export", copy / "hwnas.yaml") == 0
    assert "older" not in capsys.readouterr().err
    then = json.loads(front.read_text())["hashes"]
    found = tables.load_table(path)
    tables.save(replace(found, protocol={**found.protocol, "created": "1970-01-01"}), path)
    shutil.rmtree(run / "packages")
    assert hwnas("export", copy / "hwnas.yaml") == 0
    assert f"{TARGET}: its front is of an older table" in " ".join(capsys.readouterr().err.split())
    for manifest in run.glob("packages/*/*/manifest.json"):
        told = json.loads(manifest.read_text())
        assert then.items() <= told["hashes"].items()
        assert told["accepted"] == ["emulated", "unreliable"]


# ---- pixels of streamed files -------------------------------------------------------------------


def bitmap(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def streamed(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(8):
            bitmap(tmp_path / "images" / name / f"{n}.bmp", 10 * label + n)
    data = "{kind: image_folder, root: images, stream: true}"
    settings = SMALL.replace("{kind: digits}", data).replace(
        "epochs: 1", "epochs: 1, batch_size: 4"
    )
    (tmp_path / "hwnas.yaml").write_text(settings)
    return tmp_path


def train(folder, capsys):
    assert hwnas("train", folder / "hwnas.yaml") == 0
    return " ".join(capsys.readouterr().err.split())


def test_other_pixels_in_a_streamed_file_of_equal_size_and_time_train_anew(streamed, capsys):
    assert "data: every file is read once" in train(streamed, capsys)
    assert "redone" not in train(streamed, capsys)
    path = streamed / "images" / "cat" / "3.bmp"
    before = path.stat()
    bitmap(path, 99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    said = train(streamed, capsys)
    assert "data: redone, source changed" in said
    assert "train: redone, data changed" in said


def test_streamed_files_that_were_only_moved_or_touched_train_nothing_anew(streamed, capsys):
    train(streamed, capsys)
    for path in (streamed / "images").rglob("*.bmp"):
        os.utime(path)
    shutil.copytree(streamed / "images", streamed / "again")
    shutil.rmtree(streamed / "images")
    (streamed / "again").rename(streamed / "images")
    said = train(streamed, capsys)
    assert "data: redone, source changed" in said
    assert "train: " not in said


def test_a_streamed_file_is_read_again_only_when_it_changed(tmp_path, monkeypatch):
    paths = []
    for n in range(5):
        paths.append(tmp_path / f"{n}.bmp")
        paths[-1].write_bytes(bytes([n]) * 50)
    listed = np.array([os.fsencode(path) for path in paths])
    base, index, real, read = len(os.fsencode(tmp_path)) + 1, tmp_path / "index.npy", [], []
    real.append(contents._content)
    monkeypatch.setattr(contents, "_content", lambda path: read.append(path) or real[0](path))

    def known(names=listed):
        read.clear()
        return [row.tobytes() for row in contents.digests(names, base, index)]

    first = known()
    assert (len(set(first)), len(read)) == (5, 5)
    assert (known(), read) == (first, [])
    assert (known(listed[::-1]), read) == (first[::-1], [])
    paths[2].write_bytes(b"x" * 50)
    assert known()[2] not in first
    assert read == [listed[2]]
    assert (known(listed[:3])[:2], read) == (first[:2], [])
    for damage in (b"", b"no array", index.read_bytes()[:-7]):
        index.write_bytes(damage)
        assert known()[:2] == first[:2]
        assert len(read) == 5


def test_a_streamed_file_that_cannot_be_read_is_named(streamed, capsys):
    broken = streamed / "images" / "cat" / "9.bmp"
    broken.symlink_to(streamed / "gone.bmp")
    assert hwnas("train", streamed / "hwnas.yaml") == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("hwnas:")]
    assert line.endswith(f": data.root: {broken} cannot be read: No such file or directory")


# ---- what a factory returns ---------------------------------------------------------------------


def test_other_data_of_a_factory_train_anew(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_images.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    given = np.load(__file__.replace('own_images.py', 'images.npy'))\n"
        "    return {'train_images': given, 'train_labels': np.arange(len(given)) % 2}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    settings = SMALL.replace("{kind: digits}", "{kind: factory, root: 'own_images:load'}")
    settings = settings.replace("epochs: 1", "epochs: 1, batch_size: 8")
    (tmp_path / "hwnas.yaml").write_text(settings)
    train(tmp_path, capsys)
    assert "train: " not in train(tmp_path, capsys)
    np.save(tmp_path / "images.npy", pixels ^ 1)
    said = train(tmp_path, capsys)
    assert "data: redone, source changed" in said
    assert "train: redone, data changed" in said
