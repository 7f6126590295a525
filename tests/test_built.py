"""What an engine builds of a package on the device: brought home, bound to it, run by example.py.

The worker is a real process on a machine with a modelled GPU and TensorRT of a version.
"""

from __future__ import annotations

import ctypes
import runpy
import sys
from types import SimpleNamespace

import fake_cuda
import fake_tensorrt
import numpy as np
import onnx
import pytest
import tensorrt_api
import torch
from onnx import numpy_helper
from test_example import build

from hwnas.commands import on_devices
from hwnas.images import tensors
from hwnas.measuring import here, parity, remote
from hwnas.measuring.connections import local
from hwnas.networks import spaces
from hwnas.run import model, package, verify
from hwnas.settings.config import ProfileConfig
from profilers.errors import FileFormatError, VerificationError
from profilers.schema import Target, read_json, write_json

FP32, FP16 = (Target("host", "tensorrt", precision=name) for name in ("fp32", "fp16"))
GPU = "CUDA 12.6, Modelled GPU (compute capability 8.7)"
OLD, NEW = f"10.3.0, {GPU}", f"10.16.1, {GPU}"
SPACE = spaces.load("tiny").restricted([16]).for_data(3, 2)
QUICK = ProfileConfig(budget_s=5, rounds=5)


@pytest.fixture
def machine(monkeypatch):
    """`machine(version)`: workers of this machine find TensorRT of that version."""

    def install(version):
        command = fake_tensorrt.worker(version)
        monkeypatch.setattr(local, "local_command", lambda target, folder: command)

    install("10.3.0")
    return install


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A package in fp16 for TensorRT, not measured yet."""
    pixels = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    split = tensors.Split(pixels, torch.arange(2))
    images = tensors.Dataset(split, split, split, ("cat", "dog"), (0.5,) * 3, (0.25,) * 3, "")
    found = build(tmp_path_factory.mktemp("made"), images, FP16)
    arch = SPACE.largest
    real = {"architecture": arch.to_json(), "id": arch.id}
    package.write_manifest(found, {**package.read_manifest(found), **real})
    return found


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def built(folder, target=FP16):
    return here.built_files(target, [folder / package.MODEL])[0]


# ---- from the device -----------------------------------------------------------------------------


def test_what_measuring_built_is_what_comes_home(machine, folder):
    here.measure_models(FP16, [folder / package.MODEL], QUICK)
    plan, timing = built(folder)
    assert plan.startswith(b"modelled plan of 10.3.0 ")
    assert timing.startswith(b"+anchor.onnx")
    assert built(folder) == [plan, timing]


def test_an_engine_that_builds_nothing_says_so(folder):
    with pytest.raises(Exception, match="runtime ort-cpu builds no files on a device"):
        built(folder, Target("host", "ort-cpu"))


def test_a_model_that_is_only_run_leaves_nothing_on_the_device(machine, folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    images = np.zeros((3, 3, 16, 16), np.float32)
    here.run_model(FP16, folder / package.MODEL, images)
    left = (folder / "cache/hwnas-worker").rglob("*")
    assert sorted(path.name for path in left if path.is_file()) == [".hwnas", "lock"]


# ---- in the package ------------------------------------------------------------------------------


@pytest.fixture
def whole(machine, folder):
    """The package with what TensorRT 10.3.0 built of it."""
    package.keep_built(folder, FP16, built(folder), OLD)
    return folder


def test_a_package_says_what_was_built_and_where_it_loads(whole):
    manifest = package.read_manifest(whole)
    assert manifest["built"] == {"engine_version": OLD, "files": ["model.plan", "model.timing"]}
    assert {"model.plan", "model.timing", package.MODEL} <= set(manifest["files"])
    card = (whole / package.CARD).read_text()
    assert f"are what TensorRT {OLD} built of it in fp16" in card
    assert not package.lacks_built(manifest, FP16, OLD)
    assert package.lacks_built(manifest, FP16, NEW)
    package.keep_built(whole, FP16, [b"other", b"files"], NEW)
    assert package.read_manifest(whole)["built"]["engine_version"] == NEW


def test_a_plan_that_was_changed_is_refused(whole):
    (whole / "model.plan").write_bytes(b"other")
    with pytest.raises(VerificationError, match=r"model\.plan was changed"):
        package.read_manifest(whole)


@pytest.mark.parametrize(
    ("wrong", "about"),
    [
        ([], "built is neither null nor"),
        ({"engine_version": OLD}, "built is neither null nor"),
        ({"engine_version": 1, "files": []}, "built is neither null nor"),
        ({"engine_version": OLD, "files": ["../x"]}, "is not a plain name"),
        ({"engine_version": OLD, "files": [["x"]]}, "is not a plain name"),
    ],
)
def test_a_manifest_that_cannot_have_been_built_so_is_refused(folder, wrong, about):
    content = read_json(folder / package.MANIFEST)
    write_json(folder / package.MANIFEST, {**content, "built": wrong})
    with pytest.raises(FileFormatError, match=about):
        package.read_manifest(folder)


def test_verifying_brings_home_what_was_built_and_again_where_the_engine_is_another(
    folder, machine
):
    best = folder / "packages" / "best"
    best.mkdir(parents=True)
    for name in (package.MANIFEST, *package.FILES):
        (folder / name).rename(best / name)
    context = SimpleNamespace(
        run=SimpleNamespace(packages=lambda target: best.parent),
        space=SPACE,
        target=lambda name: FP16,
        config=SimpleNamespace(export=SimpleNamespace(per="target")),
    )
    for version, by in (("10.3.0", OLD), ("10.16.1", NEW)):
        machine(version)
        manifests = {best: package.read_manifest(best)}
        state = verify._built_state(context, FP16.name, manifests, {"tensorrt": by})
        assert state.words == "built by another tensorrt, or not: best"
        assert verify._take_built(context, FP16, by)
        assert (
            (best / "model.plan").read_bytes().startswith(b"modelled plan of " + version.encode())
        )
        manifests = {best: package.read_manifest(best)}
        assert verify._built_state(context, FP16.name, manifests, {"tensorrt": by}).current
        assert not verify._take_built(context, FP16, by)


# ---- one package on a device ---------------------------------------------------------------------


@pytest.fixture
def timed(monkeypatch):
    """Names of the files that were to be timed."""
    names = []
    monkeypatch.setattr(
        remote, "measure_models", lambda target, paths, *_: [names.append(paths[0].name)]
    )
    return names


def verified(folder, target=FP16):
    return on_devices.verified(folder, target, None)["written"]


def test_the_plan_of_a_package_is_what_is_verified_where_it_fits(whole, timed):
    assert verified(whole) == ""
    assert timed == ["model.plan"]
    other = onnx.load(whole / package.MODEL)
    for tensor in other.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = 1.1 * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(other, whole / "other.onnx")
    package.keep_built(whole, FP16, here.built_files(FP16, [whole / "other.onnx"])[0], OLD)
    with pytest.raises(VerificationError, match=r"outputs on host\.tensorrt.* differ"):
        verified(whole)


def test_a_plan_of_another_version_or_precision_is_said(whole, machine, timed):
    told = "nothing in it was built for tensorrt in fp32; model.onnx was built anew"
    assert told in verified(whole, FP32)
    machine("10.16.1")
    told = f"model.plan was built by {OLD}, the device has {NEW}; model.onnx was built anew"
    assert told in verified(whole)
    assert timed == [package.MODEL] * 2


# ---- example.py ----------------------------------------------------------------------------------


@pytest.fixture
def example(monkeypatch, capsys):
    """Logits of example.py on a machine with TensorRT of a version, and what it says."""

    def run(folder, version, gpu=b"Modelled GPU"):
        library = fake_cuda.Library(gpu=gpu)
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module(version, library))
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        made = runpy.run_path(str(folder / package.EXAMPLE))
        images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
        logits = np.stack(list(made["outputs"](list(images))))
        allowed = tensorrt_api.members(version)
        for name, used in sys.modules["tensorrt"].used.items():
            assert used <= allowed[name] | tensorrt_api.OPTIONAL.get(name, set())
        expected = model.run_model(folder / package.MODEL, Target("host", "ort-cpu"), images)
        assert parity.difference(expected, logits) < 2e-3
        return capsys.readouterr().err

    return run


def test_the_example_runs_the_plan_where_it_fits_without_a_word(whole, example):
    assert example(whole, "10.3.0") == ""


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1", "10.16.1"])
def test_the_example_builds_anew_for_another_version_and_says_so_in_one_line(
    whole, example, version
):
    (line,) = example(whole, version).splitlines()
    assert f"model.plan was built by TensorRT {OLD}; here is TensorRT {version}, " in line
    assert "is built now" in line


def test_the_example_builds_anew_on_another_gpu(whole, example):
    told = example(whole, "10.3.0", gpu=b"Orin")
    assert "here is TensorRT 10.3.0, Orin (compute capability 8.7)" in told


def test_the_example_builds_a_package_that_was_never_measured(folder, example):
    assert "model.plan is not built yet; here is TensorRT 8.6.1" in example(folder, "8.6.1")


def test_types_of_a_graph_that_rule_are_no_silent_fp32(whole, example):
    with pytest.raises(
        SystemExit, match=r"^[^\n]*model\.onnx is fp32, and TensorRT 11\.4\.0 build"
    ):
        example(whole, "11.4.0")
