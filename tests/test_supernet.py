"""The supernet against independent oracles: extracted subnets, torch's own counter, brute force."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hwnas.networks import onnx_graph, spaces
from hwnas.networks.ops import op
from hwnas.networks.placed import chain
from hwnas.networks.space import SearchSpace
from hwnas.supernet.network import (
    Subnet,
    Supernet,
    calibrate,
    extract,
    folded_weights,
)


def _space(name: str) -> SearchSpace:
    space = spaces.load(name)
    return space.for_data(space.in_channels, 10)  # a small classifier: the counts do not care


def _randomised(space: SearchSpace) -> Supernet:
    """A supernet whose every tensor differs from its initial value, so that no slice is trivial."""
    torch.manual_seed(0)
    net = Supernet(space)
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if "transform" in name or name.endswith(("scale", "bias", "running_mean")):
                value.add_(0.1 * torch.randn_like(value))
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    return net.eval()


def _images(space: SearchSpace, px: int, n: int = 2) -> torch.Tensor:
    return torch.randn((n, space.in_channels, px, px), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["tiny", "mbv3-28", "ofa-mbv3-w10"])
def test_a_subnet_taken_out_gives_the_supernets_outputs(name):
    space = _space(name)
    net, rng = _randomised(space), np.random.default_rng(0)
    archs = [space.largest, space.smallest, *(space.random(rng) for _ in range(6))]
    for arch in archs:
        images = _images(space, arch.resolution)
        with torch.no_grad():
            shared, alone = net(images, arch), extract(net, arch)(images)
        assert (shared - alone).abs().max() <= 1e-6 * max(1.0, shared.abs().max())


@pytest.mark.parametrize("name", spaces.names())
def test_macs_and_parameters_equal_torchs_own_counters(name):
    space, rng = _space(name), np.random.default_rng(2)
    archs = [space.largest, space.smallest, *(space.random(rng) for _ in range(58))]
    for arch in archs:
        with torch.device("meta"):
            subnet = Subnet(arch)
            images = torch.empty((1, *space.input_shape(arch.resolution)))
        params = sum(p.numel() for p in subnet.parameters())
        assert params == sum(placed.op.params for placed in arch.ops)
        with FlopCounterMode(display=False) as counter:
            subnet.eval()(images)
        assert counter.get_total_flops() == 2 * sum(placed.op.macs for placed in arch.ops)


def test_the_supernet_remembers_nothing_between_architectures():
    space = _space("tiny")
    net = _randomised(space)
    images = _images(space, 16)
    top = space.largest
    other = space.architecture([16, *space.smallest.values[1:]])
    with torch.no_grad():
        before = net(images, top)
        net(images, other)
        assert torch.equal(net(images, top), before)


def test_training_mode_gives_a_subnet_no_running_statistics():
    space = _space("tiny")
    net = _randomised(space).train()
    wide = {n: b.clone() for n, b in net.named_buffers()}
    small = space.architecture([16, *space.smallest.values[1:]])
    net(_images(space, 16, 8), small)
    changed = {n for n, b in net.named_buffers() if not torch.equal(b, wide[n])}
    assert not [n for n in changed if n.startswith("slots.stage1_block1.expand_norm")]


def test_expand_zero_equals_the_network_without_the_block_bit_for_bit():
    space = _space("tiny")
    net = _randomised(space)
    with_block = space.largest
    values = list(with_block.values)
    values[space.columns["stage1.block2.expand_ratio"]] = 0
    without = space.architecture(values)
    subnet = extract(net, with_block)
    kept = [placed for placed in with_block.ops if placed.slot != "stage1.block2"]
    images = _images(space, 16)
    with torch.no_grad():
        around = subnet.through(chain((slot, op) for slot, op, *_ in kept), images)
        assert torch.equal(extract(net, without)(images), around)


def _depthwise(mid: int):
    """A depthwise convolution of 3x3 as the first block of a stage has it."""
    made = op("mbconv", (16, 112, 112), mid=mid, out=24, kernel=3, stride=2)
    return next(p for p in made.graph.primitives if p.name == "depthwise")


def test_kernel_transforms_start_as_the_centre_crop():
    torch.manual_seed(0)
    space = _space("ofa-mbv3-w10")
    layer = Supernet(space).slots["stage1_block1"]["depthwise"]
    assert torch.equal(layer.values(_depthwise(48))["weight"], layer.weight[:48, :, 2:5, 2:5])


def test_kernel_three_is_transformed_from_the_transformed_kernel_five():
    space = _space("ofa-mbv3-w10")
    layer = _randomised(space).slots["stage1_block1"]["depthwise"]
    crop = layer.weight[:48, 0, 1:6, 1:6].reshape(48, 25)
    five = (crop @ layer.transform_7to5.T).reshape(48, 5, 5)
    three = (five[:, 1:4, 1:4].reshape(48, 9) @ layer.transform_5to3.T).reshape(48, 1, 3, 3)
    assert torch.allclose(layer.values(_depthwise(48))["weight"], three, atol=1e-6)


def test_images_of_another_size_are_refused():
    space = _space("tiny")
    with pytest.raises(ValueError, match=r"takes \(1, 16, 16\)"):
        Supernet(space)(_images(space, 12), space.largest)


def test_calibration_averages_batches_by_their_size_with_biased_variance():
    space = _space("tiny")
    subnet = extract(_randomised(space), space.largest)
    big, small = _images(space, 16, 12), _images(space, 16, 4) * 2 + 1
    calibrate(subnet, [big, small])
    conv, norm = (subnet.slots["stem"][name] for name in ("conv", "conv_norm"))
    with torch.no_grad():
        outputs = [torch.conv2d(x, conv.weight, None, 2, 1) for x in (big, small)]
    mean = sum(len(y) * y.mean((0, 2, 3)) for y in outputs) / 16
    var = sum(len(y) * y.var((0, 2, 3), correction=0) for y in outputs) / 16
    assert torch.allclose(norm.running_mean, mean, atol=1e-6)
    assert torch.allclose(norm.running_var, var, rtol=1e-5)
    assert not subnet.training


def test_folding_keeps_the_output_of_a_convolution_and_its_batchnorm():
    space = _space("tiny")
    subnet = extract(_randomised(space), space.largest)
    weights = folded_weights(subnet)
    conv, norm = (subnet.slots["stem"][name] for name in ("conv", "conv_norm"))
    images = _images(space, 16)
    plain = torch.nn.BatchNorm2d(len(norm.scale)).eval()
    plain.load_state_dict(
        {"weight": norm.scale, "bias": norm.bias, "running_mean": norm.running_mean,
         "running_var": norm.running_var, "num_batches_tracked": torch.tensor(1)}
    )  # fmt: skip
    with torch.no_grad():
        expected = plain(torch.conv2d(images, conv.weight, None, 2, 1))
    weight, bias = (torch.from_numpy(weights[f"stem/conv/{n}"]) for n in ("weight", "bias"))
    folded = torch.conv2d(images, weight, bias, 2, 1)
    assert torch.allclose(folded, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["ofa-proxyless-w13", "ofa-resnet50d"])
def test_the_exported_graph_gives_torchs_logits_at_a_size_that_halves_to_odd_numbers(name):
    space = _space(name).restricted([176])  # 176, 88, 44, 22, 11, 6
    subnet = extract(_randomised(space), space.smallest)
    images = _images(space, 176)
    graph = onnx_graph.build(subnet.arch.ops, folded_weights(subnet), batch=2)
    session = onnxruntime.InferenceSession(onnx_graph.to_bytes(graph))
    found = session.run(None, {onnx_graph.INPUT: images.numpy()})[0]
    with torch.no_grad():
        expected = subnet(images).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
