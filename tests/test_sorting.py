"""Sorted channels: the max network computes the same, and what comes first matters most."""

from __future__ import annotations

import pytest
import torch

from hwnas.networks import spaces
from hwnas.supernet.network import Layer, Supernet, layers_of
from hwnas.supernet.sorting import sort_channels


@pytest.mark.parametrize("name", ["tiny", "ofa-proxyless-w10", "ofa-resnet50d", "tcn-128"])
def test_sorting_channels_changes_nothing_of_the_max_network(name):
    space = spaces.load(name)
    space = space.restricted([min(space.resolutions)])
    torch.manual_seed(0)
    net, before = Supernet(space).double().eval(), {}  # so that the order of a sum hardly tells
    for layer in net.modules():
        if isinstance(layer, Layer) and layer.kind == "batch_norm":
            for value in (layer.running_mean, layer.running_var, layer.scale, layer.bias):
                value.data.uniform_(0.5, 1.5)  # of no two channels alike
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.rand(2, *space.input_shape(space.resolutions[0]), dtype=torch.float64)
    with torch.no_grad():
        expected = net(x, space.largest)
        sort_channels(net)
        torch.testing.assert_close(net(x, space.largest), expected, rtol=1e-9, atol=1e-9)
    moved = [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]
    assert moved


def test_channels_are_sorted_by_what_reads_them():
    torch.manual_seed(0)
    net = Supernet(spaces.load("tiny"))
    sort_channels(net)
    project = layers_of(net, "stage1.block1")["project"].weight
    importance = project.abs().sum((0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)
    first = {key: value.clone() for key, value in net.state_dict().items()}
    sort_channels(net)
    assert all(torch.equal(value, first[key]) for key, value in net.state_dict().items())
