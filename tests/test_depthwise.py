"""The gradient of depthwise weights in parts: it is torch's, and changes nothing else."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hwnas.images import tensors
from hwnas.networks import primitives, spaces
from hwnas.settings.config import DataConfig, TrainConfig
from hwnas.supernet import depthwise, training
from hwnas.supernet.network import Supernet
from profilers.schema import read_lines

SHAPES = [
    (size, kernel, stride)
    for size in ((1, 1), (2, 3), (4, 4), (5, 7), (8, 8), (9, 10), (11, 6))
    for kernel in ((5, 5), (7, 7), (5, 7))
    for stride in ((1, 1), (2, 2))
]


@pytest.mark.parametrize(("size", "kernel", "stride"), SHAPES)
def test_the_gradient_of_a_depthwise_weight_is_torchs(size, kernel, stride):
    torch.manual_seed(0)
    x, weight = torch.randn(6, 5, *size), torch.randn(5, 1, *kernel)
    pads = (kernel[0] // 2, kernel[1] // 2)
    grad = torch.randn_like(F.conv2d(x, weight, None, stride, pads, 1, 5))
    exact = torch.nn.grad.conv2d_weight(x.double(), weight.shape, grad.double(), stride, pads, 1, 5)
    found = depthwise.weight_gradient(grad, x, weight, stride)
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def test_all_gradients_of_a_supernet_are_equal_either_way(monkeypatch):
    space, used = spaces.load("mbv3-28").restricted([20]), []
    torch.manual_seed(0)
    net, x = Supernet(space).train(), torch.rand(4, 1, 20, 20)
    exact = depthwise.weight_gradient
    monkeypatch.setattr(depthwise, "weight_gradient", lambda *g: used.append(1) or exact(*g))
    found = []
    for summed in (False, True):
        net.zero_grad()
        with depthwise.split_gradients(summed):
            net(x, space.largest).square().mean().backward()
        found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        assert bool(used) == summed
    for plain, ours in zip(*found, strict=True):
        assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max() + 1e-12


def test_a_resumed_run_keeps_the_way_that_it_began_with(tmp_path, monkeypatch):
    digits = tensors.load(DataConfig(kind="digits"))
    settings = TrainConfig(epochs=1, batch_size=128, threads=1, checkpoint_s=1e-6)
    space = spaces.load("tiny").restricted([8])
    job = training.Job(settings, space, digits, "none", tmp_path)

    def crash(share: float, text: str) -> None:
        if share > 0.5:
            raise RuntimeError("killed")

    monkeypatch.setattr(depthwise, "is_faster", lambda *given: True)
    with pytest.raises(RuntimeError, match="killed"):
        training.train(job, crash)
    monkeypatch.setattr(depthwise, "is_faster", lambda *given: False)
    training.train(job, lambda share, text: None)
    events, _ = read_lines(tmp_path / "events.jsonl")
    assert {event["split_gradients"] for event in events} == {True}


def test_short_runs_are_not_measured_and_long_ones_are():
    space = spaces.load("tiny").restricted([8])
    used = [p for placed in space.largest.ops for p in placed.op.graph.primitives]
    assert depthwise.is_faster(used, 64, depthwise.FEW_STEPS - 1) is False
    assert depthwise.is_faster(used, 64, depthwise.FEW_STEPS) in (True, False)
    assert depthwise.is_faster([p for p in used if p.kind != "conv"], 64, 10**6) is False


def test_convolutions_with_other_pads_are_not_measured():
    """TensorFlow's pads of an even map at stride 2: one place before, two behind."""
    like = {"kernel": (5, 5), "stride": (2, 2), "dilation": (1, 1), "groups": 8, "out": 8}
    like["bias"] = False
    args = {**like, "pads": ((1, 2), (1, 2))}
    conv = primitives.resolve("conv", "conv", ["x"], [(8, 2, 2)], args)
    assert depthwise.is_faster([conv], 4, 10**6) is False


def test_only_convolutions_of_each_channel_by_itself_are_measured():
    """A plain one of one output channel, and groups of several inputs, are none."""
    args = {"kernel": (7, 7), "stride": (1, 1), "dilation": (1, 1), "pads": ((3, 3), (3, 3))}
    args["bias"] = False
    for given, groups in ((2, 1), (8, 4)):
        named = {**args, "groups": groups, "out": groups}
        conv = primitives.resolve("conv", "conv", ["x"], [(given, 8, 8)], named)
        assert depthwise.is_faster([conv], 4, 10**6) is False


def test_gradients_under_autocast_are_torchs():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 1, 5, 5, requires_grad=True)
    args = {"kernel": (5, 5), "stride": (1, 1), "dilation": (1, 1), "pads": ((2, 2), (2, 2))}
    args["bias"] = False
    conv = primitives.resolve("conv", "c", ["x"], [(4, 8, 8)], {**args, "groups": 4, "out": 4})
    with depthwise.split_gradients(True):
        assert depthwise.suits(conv, x, weight, (2, 2))
        with torch.autocast("cpu", torch.bfloat16):
            assert not depthwise.suits(conv, x, weight, (2, 2))
