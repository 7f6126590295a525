"""Outputs here and there: what differs by more than its tolerance is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_remote import model

from hwnas.images import tensors
from hwnas.measuring import parity, remote
from hwnas.networks import spaces
from hwnas.run import model as exports
from hwnas.run import package
from hwnas.run.model import compare
from hwnas.supernet.network import Supernet, extract, folded_weights
from profilers import precisions
from profilers.errors import VerificationError
from profilers.precisions import int8
from profilers.schema import Target

INPUT = {"shape": [1, 8, 8]}


def test_coarser_precisions_tolerate_more():
    assert set(precisions.names()) == {"fp32", "fp16", "int8"}
    assert parity.tolerance_of("fp32") < parity.tolerance_of("fp16") < parity.tolerance_of("int8")


def test_this_machine_agrees_with_itself(tmp_path):
    model(tmp_path / "m.onnx")
    found = parity.package_outputs(Target("host", "ort-cpu"), tmp_path / "m.onnx", INPUT)
    assert found == {
        "max_relative_difference": 0.0,
        "tolerance": parity.tolerance_of("fp32"),
        "images": parity.IMAGES,
    }


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda outputs: outputs * 1.001, "differ from this machine's by 0.001 of the largest"),
        (lambda outputs: outputs[:, :-1], "outputs of shape"),
        (lambda outputs: outputs * np.nan, "some are NaN or infinite"),
    ],
)
def test_outputs_that_differ_are_refused(tmp_path, monkeypatch, spoil, reason):
    expected = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    there = Target("board", "ort-cpu", hardware="host")
    monkeypatch.setattr(
        remote, "run_model", lambda target, *rest: spoil(expected) if target is there else expected
    )
    with pytest.raises(VerificationError, match=reason):
        parity.compare_outputs(there, tmp_path / "m.onnx", np.zeros((4, 1, 8, 8)))


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 3e-4), ("fp16", 2e-2), ("int8", 0.1)])
def test_outputs_may_differ_by_the_tolerance_and_no_more(tmp_path, monkeypatch, precision, limit):
    there = Target("board", "ort-cpu", hardware="host", precision=precision)
    model(tmp_path / "m.onnx")
    gaps = {id(there): limit}
    monkeypatch.setattr(
        remote, "run_model", lambda target, *rest: np.full((1, 1), gaps.get(id(target), 0.0))
    )
    found = parity.compare_outputs(there, tmp_path / "m.onnx", np.zeros((1, 1, 8, 8)))
    assert found["max_relative_difference"] == limit
    gaps[id(there)] = 1.01 * limit
    with pytest.raises(VerificationError, match=f"for {precision}"):
        parity.compare_outputs(there, tmp_path / "m.onnx", np.zeros((1, 1, 8, 8)))


def test_two_best_are_ties_where_twice_the_tolerance_could_swap_them():
    """Each of the two may be off by 1 % of the largest output of all, which is 10."""
    rows = [[9.81, 10, 0], [9.79, 10, 0], [-5, -5.19, -9], [-5, -5.21, -9], [0, 0, 0]]
    assert parity.ties(np.array(rows), 0.01).tolist() == [True, False, True, False, True]
    assert parity.ties(np.array([[1, 1, 0], [2, 1, 0]]), 0).tolist() == [True, False]


def test_the_difference_is_a_share_of_the_largest_output():
    expected = np.array([[1.0, -4.0], [2.0, 0.0]])
    assert parity.difference(expected, expected + 0.2 * np.eye(2)) == pytest.approx(0.05)
    assert parity.difference(np.zeros(3), np.array([0, 0.5, 0])) == 0.5
    for other in (expected[:1], expected * np.nan, np.full((2, 2), np.inf)):
        assert parity.difference(expected, other) == np.inf


GPU = """
from profilers.runtimes import ort_cpu

class Session:
    def __init__(self, real):
        self.real = real
    def run(self, inputs):
        return self.real.run(inputs) * FACTOR
    def __getattr__(self, name):
        return getattr(self.real, name)

class Runtime:
    version = staticmethod(ort_cpu.version)
    def load(self, path, target):
        return Session(ort_cpu.load(path, target))

RUNTIME = Runtime()
"""


@pytest.mark.parametrize(("factor", "agrees"), [("1", True), ("1.001", False)])
def test_another_engine_of_this_machine_is_compared(tmp_path, factor, agrees):
    model(tmp_path / "m.onnx")
    (tmp_path / "modelled_gpu.py").write_text(GPU.replace("FACTOR", factor))
    gpu = Target("host", "modelled_gpu:RUNTIME", plugins=(str(tmp_path / "modelled_gpu.py"),))
    if agrees:
        found = parity.output_fields(gpu, tmp_path / "m.onnx", INPUT)
        assert found["outputs"]["max_relative_difference"] == 0.0
    else:
        with pytest.raises(VerificationError, match=r"differ from this machine's by 0\.001"):
            parity.output_fields(gpu, tmp_path / "m.onnx", INPUT)


FLOAT = """
from dataclasses import replace
from pathlib import Path
from profilers.runtimes import ort_cpu

class Runtime:
    version = staticmethod(ort_cpu.version)
    def load(self, path, target):
        return ort_cpu.load(Path("FILE"), replace(target, precision="fp32"))

RUNTIME = Runtime()
"""


def test_an_engine_that_runs_the_float_network_of_an_int8_file_is_noticed(tmp_path):
    model(tmp_path / "m.onnx")
    (tmp_path / "int8.onnx").write_bytes(int8.rewritten(tmp_path / "m.onnx", "u8s8"))
    (tmp_path / "float_engine.py").write_text(FLOAT.replace("FILE", str(tmp_path / "m.onnx")))
    plugins = (str(tmp_path / "float_engine.py"),)
    lax = Target("host", "float_engine:RUNTIME", plugins=plugins)
    with pytest.raises(VerificationError, match="activations in float"):
        parity.package_outputs(replace(lax, precision="int8"), tmp_path / "int8.onnx", INPUT)


def test_rounding_is_how_far_outputs_are_on_the_way_from_float_to_what_the_file_says():
    plain = np.array([[1.0, -4.0]])
    meant = plain + 0.1
    for found, share in ((meant, 1.0), (plain, 0.0), (plain - 0.05, 0.5)):
        assert parity.rounding(meant, plain, found) == pytest.approx(share)
    assert parity.rounding(plain + 1e-6, plain, meant) is None
    assert parity.rounding(0 * meant, 0 * plain, meant) is None


@pytest.mark.parametrize("runtime", ["ort-cuda", "tensorrt"])
def test_a_gpu_in_this_machine_is_not_the_engine_that_the_export_was_compared_with(
    tmp_path, monkeypatch, runtime
):
    asked = []
    monkeypatch.setattr(parity, "package_outputs", lambda target, *rest: asked.append(target))
    gpu = Target("host", runtime)
    parity.output_fields(gpu, tmp_path / "missing.onnx", INPUT)
    assert asked == [gpu]


def test_nothing_is_compared_where_the_export_was_and_where_nothing_is_computed(tmp_path):
    for target in (Target("host", "ort-cpu"), Target("fake", "fake")):
        assert parity.output_fields(target, tmp_path / "missing.onnx", INPUT) == {}


# ---- the export, held against torch ----------------------------------------------------------


def network(scale):
    """A plain network of `tiny` and its images; its logits go up to 15, as those of a trained
    ImageNet classifier do, times a scale.
    """
    torch.manual_seed(0)
    space = spaces.load("tiny").restricted([8])
    net = extract(Supernet(space), space.largest).eval()
    pixels = torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8)
    split = tensors.Split(pixels, torch.zeros(24, dtype=torch.int64))
    classes = tuple(str(n) for n in range(10))
    images = tensors.Dataset(split, split, split, classes, (0.5,), (0.25,), "")
    with torch.no_grad():
        largest = net(tensors.prepare(pixels, 8, images)).abs().max()
        net.slots["classifier"].load_state_dict(
            {
                name: value * scale * 15 / largest
                for name, value in net.slots["classifier"].state_dict().items()
            }
        )
    return net, images


def exported(net, folder):
    package.write_model(folder, net.arch, folded_weights(net), 8, {})
    return folder / package.MODEL


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_an_export_is_held_against_torch_at_any_size_of_its_logits(tmp_path, scale):
    net, images = network(scale)
    found = compare(net, exported(net, tmp_path), Target("host", "ort-cpu", batch=8), images)
    assert found["max_relative_difference"] <= 1e-5
    assert found["same_top1"] == 1
    assert found["images"] == 24


def test_large_networks_are_held_against_torch_on_fewer_images(tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "PARITY_MACS", 10)
    net, images = network(1.0)
    found = compare(net, exported(net, tmp_path), Target("host", "ort-cpu", batch=8), images)
    assert found["images"] == exports.LEAST_IMAGES


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_an_export_with_one_other_weight_is_refused_at_any_size_of_its_logits(tmp_path, scale):
    net, images = network(scale)
    path = exported(net, tmp_path)
    with torch.no_grad():
        weight = next(value for name, value in net.named_parameters() if name.endswith("weight"))
        weight.view(-1)[0] += 0.1 * weight.abs().max()
    with pytest.raises(VerificationError, match="differs from the network it was made from"):
        compare(net, path, Target("host", "ort-cpu", batch=8), images)


def test_logits_that_are_no_numbers_are_refused(tmp_path):
    net, images = network(1.0)
    path = exported(net, tmp_path)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    with pytest.raises(VerificationError, match="some are NaN or infinite"):
        compare(net, path, Target("host", "ort-cpu", batch=8), images)
