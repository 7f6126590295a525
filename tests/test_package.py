"""Manifests of packages: what is written is read back, what is damaged is refused with a remedy."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hwnas.networks import spaces
from hwnas.run import export, model, package
from profilers import runtimes
from profilers.errors import FileFormatError, HwnasError, VerificationError
from profilers.schema import (
    canonical_json,
    read_json,
    sha256_text,
    target_from_name,
    write_json,
)

MANIFEST = {
    "name": "best",
    "id": sha256_text(canonical_json({"space": "tiny", "choices": {}}))[:12],
    "space": "tiny",
    "made_of": "0" * 64,
    "model": "model.onnx",
    "classes": ["cat", "dog"],
    "task": {"name": "classification", "metric": "top-1 accuracy"},
    "architecture": {"space": "tiny", "choices": {}},
    "input": {"name": "image", "shape": [1, 8, 8], "size": 8, "scale": "none", "resize": "none"},
    "target": target_from_name("host.ort-cpu.fp32.b1.t1").to_json(),
    "budgets": {},
    "predicted": {
        "latency_ms": 0.1,
        "error": 0.02,
        "macs": 1000,
        "params": 100,
        "weight_bytes": 400,
        "peak_activation_bytes": 256,
    },
    "measured": None,
    "parity": {"max_relative_difference": 1e-6},
    "settings": {},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / package.MODEL).write_bytes(b"onnx")
    package.write_manifest(tmp_path, MANIFEST)
    return tmp_path


def refused(folder, error: type[HwnasError], about: str) -> None:
    """Reading the package fails in one line that says what to do."""
    with pytest.raises(error, match=about) as raised:
        package.read_manifest(folder)
    assert str(raised.value).endswith(f"; delete {folder} and run `hwnas export`")
    assert "\n" not in str(raised.value)


def test_a_package_is_read_back(folder):
    found = package.read_manifest(folder)
    assert set(found.pop("files")) == set(package.FILES)
    assert found.pop("format")
    assert found == MANIFEST


@pytest.mark.parametrize("name", package.FILES)
def test_a_file_that_is_gone_or_changed_is_named(folder, name):
    (folder / name).write_text("changed")
    refused(folder, VerificationError, f"{name} was changed")
    (folder / name).unlink()
    refused(folder, FileFormatError, f"lacks {name}")


def test_a_manifest_that_is_gone_or_truncated_is_refused(folder):
    path = folder / package.MANIFEST
    path.write_text(path.read_text()[:100])
    refused(folder, FileFormatError, "truncated")
    path.unlink()
    refused(folder, FileFormatError, "does not exist")


@pytest.mark.parametrize("key", [*package.KEYS, "measured"])
def test_a_manifest_without_a_key_that_is_read_is_refused(folder, key):
    content = read_json(folder / package.MANIFEST)
    del content[key]
    write_json(folder / package.MANIFEST, content)
    refused(folder, FileFormatError, f"{key} is missing")


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"model": "../model.onnx"}, "is not a plain name of a file"),
        ({"files": {}}, "files are not MODEL_CARD.md, "),
        ({"files": {"model.onnx": ""}}, "files are not MODEL_CARD.md, "),
        ({"predicted": {"latency_ms": 0, "error": 0.1}}, "predicted lacks"),
        ({"predicted": {"latency_ms": 1}}, "predicted lacks"),
        ({"measured": {}}, "measured lacks a positive latency_ms"),
        ({"measured": {"latency_ms": 0, "test_accuracy": 1}}, "measured lacks a positive latency"),
        ({"measured": {"latency_ms": None}}, "measured lacks a test_accuracy"),
        ({"measured": {"latency_ms": 1, "test_accuracy": 1}}, "say where its accuracy was taken"),
        ({"measured": [1]}, "measured is missing or neither null nor an object"),
    ],
)
def test_a_manifest_that_cannot_be_judged_is_refused(folder, changes, about):
    content = read_json(folder / package.MANIFEST)
    write_json(folder / package.MANIFEST, {**content, **changes})
    refused(folder, FileFormatError, about)


def test_a_predicted_error_of_nothing_is_one(folder):
    content = read_json(folder / package.MANIFEST)
    content["predicted"]["error"] = 0.0
    write_json(folder / package.MANIFEST, content)
    assert package.read_manifest(folder)["predicted"]["error"] == 0.0


@pytest.mark.parametrize(
    ("data", "source", "resize"),
    [
        (
            {"size": 8},
            (8, None),
            "shorter side to 8 px, bilinear with antialias, then the centre of 8 px cut out",
        ),
        (
            {"size": 16},
            (16, None),
            "shorter side to 16 px, bilinear with antialias, then the centre of 16 px cut out; "
            "to 8 px, bilinear without antialias, after normalising",
        ),
        (
            {"size": 0, "preparation": "imagenet"},
            (8, 10),
            "shorter side to 10 px, bilinear with antialias, then the centre of 8 px cut out",
        ),
    ],
    ids=["stored", "stored larger", "streamed"],
)
def test_the_input_says_what_becomes_of_an_image(data, source, resize):
    arch = spaces.load("tiny").restricted([8]).smallest
    told = package.input_of(arch, {"channels": 1, "mean": [0.5], "std": [0.25], **data})
    assert (told["source_size"], told["resize_side"]) == source
    assert (told["resize"], told["size"], told["channels"]) == (resize, 8, 1)


@pytest.mark.parametrize(
    ("length", "cut", "resize"),
    [
        (128, 0, "none"),
        (128, 128, "cut to 128 steps or padded with its last value"),
        (200, 0, "from 200 to 128 steps, linear without antialias, after normalising"),
        (
            200,
            200,
            "cut to 200 steps or padded with its last value; to 128 steps, linear without "
            "antialias, after normalising",
        ),
    ],
)
def test_the_input_says_what_becomes_of_a_series(length, cut, resize):
    space = spaces.load("tcn-128")
    arch = space.restricted([128]).smallest
    data = {"channels": 6, "mean": [0.0] * 6, "std": [1.0] * 6, "size": length}
    told = package.input_of(arch, {**data, "preparation": "series", "series_length": cut})
    assert (told["resize"], told["source_size"], told["fit_length"]) == (resize, length, bool(cut))
    assert told["shape"] == [6, 128]


def test_a_package_that_could_not_be_timed_is_a_package(folder):
    untimed = {"latency_ms": None, "test_accuracy": 0.9, "test_images": 9, "accuracy_on": "host"}
    package.write_manifest(folder, {**MANIFEST, "measured": untimed})
    assert package.read_manifest(folder)["measured"] == untimed


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"id": "0123456789ab"}, "its architecture is not 0123456789ab"),
        ({"budgets": {"latency_ms": -1}}, "budgets are"),
        ({"budgets": {"latency_ms": True}}, "budgets are"),
        ({"predicted": {**MANIFEST["predicted"], "error": 2.0}}, r"an error in \[0, 1\]"),
        ({"predicted": {**MANIFEST["predicted"], "macs": -1}}, "a predicted value is not a number"),
        ({"measured": {"latency_ms": 0.1, "test_accuracy": 97.0}}, r"test_accuracy in \[0, 1\]"),
        ({"target": {**MANIFEST["target"], "threads": 2}}, "its target's name is not that"),
        ({"classes": [1]}, "what its card says, is incomplete"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(folder, changes, about):
    content = read_json(folder / package.MANIFEST)
    write_json(folder / package.MANIFEST, {**content, **changes})
    refused(folder, FileFormatError, about)


def test_the_card_says_where_the_accuracy_was_taken_and_what_is_against_the_latency(folder):
    told = {"latency_ms": 0.1, "median_ms": 0.1, "test_accuracy": 0.9, "test_images": 1000}
    doubt = {"verdict": "disturbed", "reason": "it was busy"}
    measured = {**told, **doubt, "accuracy_on": "host", "test_interval": [0.88, 0.917]}
    package.write_manifest(folder, {**MANIFEST, "measured": measured})
    card = (folder / package.CARD).read_text()
    where = "1000 test images in ONNX Runtime on the host"
    assert f"| top-1 accuracy (95 % interval), {where} | | 90.00% (88.0 to 91.7) |" in card
    assert "| measured latency is disturbed | | it was busy |" in card
    package.write_manifest(folder, {**MANIFEST, "measured": {**measured, "accuracy_on": "target"}})
    assert "1000 test images on the target" in (folder / package.CARD).read_text()


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"accepted": ["unreliable", "gap"]}, "overridden by name (`--accept`): unreliable, gap."),
        ({"statistics": "imported"}, "not calibrated for this network"),
        (
            {"finetuned": {"val_accuracy_before": 0.5, "val_accuracy": 0.75}},
            "50.00% before, 75.00% after",
        ),
    ],
)
def test_the_card_says_what_is_unusual_about_a_package(folder, facts, told):
    assert told not in " ".join((folder / package.CARD).read_text().split())
    package.write_manifest(folder, {**MANIFEST, **facts})
    assert told in " ".join((folder / package.CARD).read_text().split())


@pytest.mark.parametrize("runtime", runtimes.names())
def test_the_card_runs_the_file_of_its_engine_without_python(folder, runtime):
    target = {**MANIFEST["target"], "runtime": runtime, "precision": "fp32", "threads": 3}
    package.write_manifest(folder, {**MANIFEST, "target": target})
    card = (folder / package.CARD).read_text()
    engine = runtimes.load(runtime).ENGINE
    assert ("Without Python:" in card) == (not engine.modelled)
    assert engine.modelled or f"- {engine.title}: {engine.licence}." in card
    if "```cpp" in card:
        assert f'"{engine.file}"' in card
        assert engine.gpu or "hreads(3)" in card


@pytest.mark.slow
def test_the_lines_of_openvino_compile(folder):
    include = Path(pytest.importorskip("openvino").__file__).parent / "include"
    if not (shutil.which("g++") and include.is_dir()):
        pytest.skip("no g++, or no headers of OpenVINO")
    target = {**MANIFEST["target"], "runtime": "openvino"}
    package.write_manifest(folder, {**MANIFEST, "target": target})
    lines = re.search(r"```cpp\n(.*?)```", (folder / package.CARD).read_text(), re.DOTALL)[1]
    head, _, body = lines.partition("\n\n")
    (folder / "run.cpp").write_text(
        f"{head}\nint main() {{\n{body}return int(logits - input);\n}}\n"
    )
    words = [
        "g++",
        "-std=c++17",
        "-fsyntax-only",
        "-isystem",
        str(include),
        str(folder / "run.cpp"),
    ]
    subprocess.run(words, check=True)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "- Training data: their licence is not known here."),
        (
            {"imported": {"from": "once-for-all", "file": "ofa.pth", "sha256": "ab" * 32}},
            "made of `ofa.pth` of once-for-all (sha256 abababababab). The code of once-for-all is",
        ),
        ({"origin": {"model": "timm:resnet18", "weights_sha256": ""}}, "`pretrained_cfg` names"),
        ({"origin": {"model": "mine:build", "weights_sha256": ""}}, "whoever published them names"),
    ],
)
def test_the_card_names_licences_of_others_where_they_are_known(folder, facts, told):
    package.write_manifest(folder, {**MANIFEST, **facts})
    assert told in " ".join((folder / package.CARD).read_text().split())


def test_the_card_tells_energy_where_it_is_predicted_or_measured(folder):
    def card(predicted, measured):
        facts = {"predicted": {**MANIFEST["predicted"], **predicted}}
        told = {"latency_ms": 0.1, "median_ms": 0.1, "test_accuracy": None, **measured}
        package.write_manifest(folder, {**MANIFEST, **facts, "measured": told})
        lines = (folder / package.CARD).read_text().splitlines()
        return [line for line in lines if line.startswith("| energy")]

    gross, net = "| energy, mJ (with the power at rest)", "| energy, mJ (net of it)"
    measured = {"energy_mj": 2.0, "energy": {"net_energy_mj": 1.5}}
    assert card({}, {}) == []
    assert card({"energy_mj": 1.0}, {}) == [f"{gross} | 1 |  |", f"{net} | |  |"]
    assert card({}, measured) == [f"{gross} |  | 2 |", f"{net} | | 1.5 |"]


def test_a_package_stays_as_it_is_where_its_next_model_cannot_be_made(folder, monkeypatch):
    """As one in int8 whose training images are all the same."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def refused(context, evaluator, target, arch, place):
        (place / package.MODEL).write_bytes(b"half of it")
        raise VerificationError("images are all the same")

    monkeypatch.setattr(model, "write", refused)
    target = target_from_name("host.ort-cpu.int8.b1.t1")
    with pytest.raises(VerificationError, match="all the same"):
        export._made(None, None, target, None, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
