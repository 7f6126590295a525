"""Torch models with a corner each: what is lowered computes the same everywhere, or is refused."""

from __future__ import annotations

import math
import re

import numpy as np
import onnxruntime
import pytest
import torch
from own_models import Forward
from torch import nn
from torch.nn import functional as F
from user_models import randomised

from hwnas.networks import onnx_graph
from hwnas.networks.slots import check_family
from hwnas.networks.spaces import of_model
from hwnas.supernet.network import extract, folded_weights
from hwnas.traced import weights
from hwnas.traced.analyse import analyse
from hwnas.traced.lowering import lowered
from profilers.errors import ConfigError

PX = 16


def conv(given=3, out=8, kernel=3, **how):
    return nn.Conv2d(given, out, kernel, padding=kernel // 2, **how)


def unit(given=8, out=8):
    return nn.Sequential(conv(given, out, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def images(function, *, out=8, **modules):
    """A function of the module and the image, and layers behind it whose channels may be cut."""
    modules |= {"last": unit(out, 8), "head": nn.Linear(8, 4)}
    return Forward(lambda m, x: m.head(m.last(function(m, x)).mean((2, 3))), **modules)


def maps(function, **modules):
    """A function of the module and maps that its stem makes."""
    return images(lambda m, x: function(m, m.stem(x)), stem=unit(3), **modules)


def c2f(m, y):
    a, b = m.wide(y), m.other(y)
    b1 = b + m.one(b)
    b2 = b1 + m.two(b1)
    return m.joined(torch.cat([a, b, b1, b2], 1))


def sums(m, y):
    """Residual sums without and with ReLU behind them."""
    y = y + m.one(y)
    return F.relu(y + m.two(y))


class Block(nn.Module):
    """Two convolutions that may be left out."""

    def __init__(self):
        super().__init__()
        self.one, self.two = unit(), conv(8)

    def forward(self, x):
        return x + self.two(self.one(x))


class Series(nn.Module):
    """A linear layer over time, and a BatchNorm over channels behind it."""

    def __init__(self):
        super().__init__()
        self.m = nn.Sequential(
            nn.Conv1d(2, 8, 3, padding=1),
            nn.ReLU(),
            nn.Linear(16, 12),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Conv1d(8, 8, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.m(x).mean(2))


def pooled(kernel, stride, padding):
    return maps(
        lambda m, y: m.pool(y), pool=nn.MaxPool2d(kernel, stride, padding=padding, ceil_mode=True)
    )


MODELS = {
    "a clamp from below": maps(lambda m, y: y.clamp(min=0.1)),
    "a clamp from above": maps(lambda m, y: m.one(y).clamp(max=0.4), one=conv(8)),
    "an input three times": images(lambda m, x: m.stem(torch.cat([x, x, x], 1)), stem=unit(9)),
    "an input beside what is made of it": images(
        lambda m, x: F.relu(x + m.stem(x)), stem=conv(3, 3), out=3
    ),
    "a max pool with dilation": maps(
        lambda m, y: m.pool(y), pool=nn.MaxPool2d(3, 2, padding=1, dilation=2)
    ),
    "ceil_mode, padded by less than the stride": pooled(3, 3, 1),
    "ceil_mode, a window in the padding, 15 px": pooled(2, 2, 1),
    "ceil_mode, windows of one": pooled(1, 2, 0),
    "ceil_mode, as in ResNets": pooled(3, 2, 1),
    "ceil_mode, without padding, 15 px": pooled(2, 2, 0),
    "layers named as methods": images(
        lambda m, x: m.keys(x) * m.values(x).sigmoid(), keys=conv(), values=conv()
    ),
    "blocks that are joined (C2f)": maps(
        c2f, wide=unit(), other=unit(), one=unit(), two=unit(), joined=unit(32, 8)
    ),
    "a long way round three blocks": maps(
        lambda m, y: y + m.four(m.three(m.two(m.one(y)))),
        **{name: Block() for name in ("one", "two", "three")},
        four=conv(8),
    ),
    "every second place": maps(lambda m, y: y[:, :, 1::2, ::4]),
    "places moved round": maps(lambda m, y: y.roll((3, -2, 16), (2, 3, 2))),
    "a table of what is computed of weights": maps(
        lambda m, y: (y + m.one(m.t.sin())) / m.u.exp(),
        t=nn.Parameter(torch.ones(8, 1, 1)),
        u=nn.Parameter(torch.ones(8, 1, 1)),
        one=nn.Softsign(),
    ),
    "sums with and without ReLU": maps(sums, one=conv(8), two=conv(8)),
    "a series and a norm over another axis": Series(),
}


def shape_of(name):
    px = 15 if "15 px" in name else PX
    return (2, PX) if "series" in name else (3, px, px)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_the_same_as_its_space_its_networks_and_its_files(name):
    model, shape, rng = randomised(MODELS[name]), shape_of(name), np.random.default_rng(0)
    analysis = analyse(model, shape)
    low = lowered(analysis, widths=2, round_to=4)
    space = of_model(low.family, [shape[-1]], low.bn_eps)
    check_family(space, 64, rng)
    order = weights.orders(weights.importance(analysis, "none"))
    net = weights.own_supernet(space, low, analysis, order).eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    for arch in (space.largest, space.smallest, space.random(rng)):
        subnet = extract(net, arch).eval()
        with torch.no_grad():
            wanted = model(x) if arch == space.largest else net(x, arch)
            assert torch.allclose(subnet(x), wanted, rtol=1e-4, atol=1e-5)
        made = onnx_graph.to_bytes(onnx_graph.build(arch.ops, folded_weights(subnet), 2))
        session = onnxruntime.InferenceSession(made)
        assert [given.name for given in session.get_inputs()] == [onnx_graph.INPUT]
        (got,) = session.run(None, {onnx_graph.INPUT: x.numpy()})
        assert np.allclose(got, subnet(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def twice(m, y):
    for _ in range(2):
        y = F.relu(m.one(y) + m.two(y))
    return y


REFUSED = {
    "a parameter that divides twice": (
        lambda m, y: (y / m.t) / m.t,
        {"t": nn.Parameter(torch.full((8, 1, 1), 2.0))},
        "the div of an activation",
    ),
    "branches called twice": (
        twice,
        {"one": conv(8), "two": conv(8, 8, 1)},
        "weight of two calls",
    ),
    "a divisor of one's own": (
        lambda m, y: m.pool(y),
        {"pool": nn.AvgPool2d(2, divisor_override=1)},
        "divisor_override",
    ),
    "a rounded quotient": (
        lambda m, y: torch.div(y, m.one(y).sigmoid() + 1, rounding_mode="floor"),
        {"one": conv(8)},
        "rounding_mode",
    ),
    "whole numbers": (lambda m, y: y.int().float(), {}, "whole numbers"),
    "statistics of the batch": (
        lambda m, y: m.norm(y),
        {"norm": nn.BatchNorm2d(8, track_running_stats=False)},
        "track_running_stats",
    ),
    "a mean over all": (lambda m, y: y - y.mean(), {}, "over the batch"),
    "a bound that is a tensor": (
        lambda m, y: torch.clamp(y, max=m.one(y)),
        {"one": conv(8)},
        "a tensor as a bound",
    ),
    "padding with infinity": (lambda m, y: F.pad(y, (1, 1), value=-math.inf), {}, "infin"),
    "a step that does not divide": (lambda m, y: y[:, :, ::3], {}, "a step that does not divide"),
    "images that change places": (lambda m, y: y.roll(1, 0), {}, "rolls images"),
    "attention to what came before": (
        lambda m, y: F.scaled_dot_product_attention(y, y, y, is_causal=True),
        {},
        "scaled_dot_product_attention.*cannot measure",
    ),
    "too many tensors": (lambda m, y: torch.cat([y] * 70, 1)[:, :8], {}, "70"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_computed_otherwise_is_refused_by_its_name(name):
    function, modules, words = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        lowered(analyse(randomised(maps(function, **modules)), (3, PX, PX)), 2, 4)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_branch_with_a_norm_without_scale_is_no_part_of_a_fused_sum():
    plain = nn.BatchNorm2d(8, affine=False)
    model = randomised(maps(lambda m, y: F.relu(m.one(y) + m.norm(y)), one=conv(8), norm=plain))
    low = lowered(analyse(model, (3, PX, PX)), 2, 4)
    assert "add" in [node.kind for region in low.family.regions for node in region.nodes]
