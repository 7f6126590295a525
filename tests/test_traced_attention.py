"""Transformers as spaces: heads, MLPs and branches, with the batch wherever attention puts it."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import own_models as models
import pytest
import torch
from own_models import SHAPE, Forward, conv
from torch import nn
from user_models import randomised

from hwnas.networks import onnx_graph
from hwnas.networks.slots import check_family
from hwnas.networks.spaces import of_model
from hwnas.settings.config import SpaceConfig
from hwnas.supernet.network import extract, folded_weights
from hwnas.traced import weights
from hwnas.traced.analyse import analyse
from hwnas.traced.lowering import lowered
from hwnas.traced.samples import networks_gap, sample
from profilers.errors import ConfigError

# model: heads of each attention, by the name of its group
HEADS = {
    models.multihead_vit: {"attention.a.in_proj_weight": (2, 4)},
    models.normed_heads: {"qkv": (2, 4)},
    models.swin: {"one.qkv": (1, 2), "two.qkv": (2, 4), "three.qkv": (1, 2, 3)},
}


@functools.cache
def own(make):
    """A model, its analysis, its space, and its supernet with sorted units."""
    model = randomised(make())
    analysis = analyse(model, SHAPE)
    low = lowered(analysis, widths=2 if "swin" not in make.__name__ else 3, round_to=4)
    space = of_model(low.family, [SHAPE[-1]], low.bn_eps)
    order = weights.orders(weights.importance(analysis, "norm"))
    return model, analysis, space, weights.own_supernet(space, low, analysis, order), order


@pytest.mark.parametrize("make", HEADS, ids=lambda make: make.__name__)
def test_heads_come_and_go_whole_whatever_their_channels_are_rounded_to(make):
    space = own(make)[2]
    offered = {group.name: group.widths for group in space.family.groups}
    assert {name: offered[name] for name in HEADS[make]} == HEADS[make]


@pytest.mark.parametrize("make", HEADS, ids=lambda make: make.__name__)
def test_networks_of_fewer_heads_narrower_mlps_and_skipped_branches_are_the_model_cut(make):
    model, analysis, space, net, order = own(make)
    rng = np.random.default_rng(0)
    check_family(space, 16, rng)
    assert networks_gap(net, analysis, order, 4) < 1e-12
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(net(x, space.largest), model(x), rtol=1e-4, atol=1e-5)
        for arch in (space.largest, space.smallest, *(space.random(rng) for _ in range(3))):
            subnet = extract(net, arch)
            made = onnx_graph.to_bytes(onnx_graph.build(arch.ops, folded_weights(subnet), 2))
            (got,) = onnxruntime.InferenceSession(made).run(None, {onnx_graph.INPUT: x.numpy()})
            assert np.allclose(got, subnet(x).numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_that_mixes_the_images_of_a_batch_is_refused():
    def attends(batch_first):
        attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        return Forward(
            lambda m, x: m.head(m.a(y := m.embed(x).flatten(2).mT, y, y)[0].mean(1)),
            embed=conv(3, 8), a=attention, head=nn.Linear(8, 5),
        )  # fmt: skip

    settings = SpaceConfig(model="mine:build", input=SHAPE)
    sample(attends(batch_first=True), settings, SHAPE[-1])
    with pytest.raises(ConfigError, match=r"mine:build mixes the images.*batch_first=True"):
        sample(attends(batch_first=False), settings, SHAPE[-1])
