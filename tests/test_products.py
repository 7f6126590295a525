"""Convolutions that run as products of matrices give what convolutions give."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hwnas.networks import primitives
from hwnas.supernet import forward

SQUARE = {"pads": ((0, 0), (0, 0)), "stride": (1, 1), "kernel": (1, 1), "dilation": (1, 1)}


def convolution(size, bias="", **given):
    args = {**SQUARE, "out": 6, "groups": 1, "bias": bool(bias), **given}
    return primitives.resolve("conv", "c", ("in",), ((4, *size),), args)


def results(p, monkeypatch, pixels):
    """Output and gradients, and whether a product gave them."""
    torch.manual_seed(0)
    taken = []
    linear = F.linear
    monkeypatch.setattr(forward, "FEW_PIXELS", pixels)
    monkeypatch.setattr(forward.F, "linear", lambda *g: taken.append(1) or linear(*g))
    x = torch.randn(3, *p.shapes[0]).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = {role: torch.randn(shape, requires_grad=True) for role, shape in p.weights.items()}
    y = forward.FORWARD["conv"](p, [x], weights)
    y.backward(torch.randn(y.shape))
    monkeypatch.undo()
    return [y, x.grad, *(w.grad for w in weights.values())], bool(taken)


@pytest.mark.parametrize("bias", ["", "bias"])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (6, 6)])
def test_a_product_is_the_convolution_and_so_are_its_gradients(size, bias, monkeypatch):
    p = convolution(size, bias)
    (product, taken), (plain, other) = (results(p, monkeypatch, n) for n in (36, 0))
    assert taken
    assert not other
    for ours, torchs in zip(product, plain, strict=True):
        assert ours.shape == torchs.shape
        assert (ours - torchs).abs().max() <= 1e-5 * torchs.abs().max()


@pytest.mark.parametrize(
    "given",
    [{"stride": (2, 2)}, {"kernel": (3, 3)}, {"groups": 2}, {"pads": ((1, 1), (0, 0))}],
    ids=str,
)
def test_what_is_no_product_is_none(given, monkeypatch):
    assert not results(convolution((6, 6), **given), monkeypatch, 36)[1]


def test_a_larger_map_is_none(monkeypatch):
    assert not results(convolution((6, 7)), monkeypatch, 36)[1]
