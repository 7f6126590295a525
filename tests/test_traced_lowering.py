"""A traced model as a space: its networks are what the model is without some of its units."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import onnxruntime
import own_models
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from user_models import Attends, Joined, Levels, Mobile, Pooled, ResNet, Series, randomised

from hwnas.networks import onnx_graph
from hwnas.networks.counts import exact_costs
from hwnas.networks.families.traced import KEPT, WIDTH, Traced
from hwnas.networks.slots import check_family, distinct_ops
from hwnas.networks.space import SearchSpace
from hwnas.supernet.activation_score import score
from hwnas.supernet.network import extract, folded_weights
from hwnas.traced import weights
from hwnas.traced.analyse import analyse
from hwnas.traced.lowering import lowered
from hwnas.traced.samples import networks_gap
from profilers.errors import ConfigError, VerificationError

MODELS = {
    "resnet": (ResNet, (1, 28, 28), (20, 28)),
    "mobile": (Mobile, (3, 32, 32), (24, 32)),
    "attends": (Attends, (3, 8, 8), (8,)),
    "joined": (Joined, (3, 16, 16), (16,)),
    "levels": (Levels, (3, 16, 16), (16, 24)),
    "pooled": (Pooled, (1, 16, 16), (16, 32)),
    "series": (Series, (2, 40), (40, 32)),
}


class Own:
    """A model, its analysis, its space, and its supernet in the model's own order or sorted."""

    def __init__(self, name):
        build, shape, sizes = MODELS[name]
        self.model = randomised(build())
        self.analysis = analyse(self.model, shape)
        self.lowered = lowered(self.analysis, widths=4, round_to=4)
        family = self.lowered.family
        self.space = SearchSpace("own", family, sizes, sizes, shape[0], family.n_classes)

    def supernet(self, kind):
        order = weights.orders(weights.importance(self.analysis, kind))
        return weights.own_supernet(self.space, self.lowered, self.analysis, order)

    def images(self, resolution, n=2):
        generator = torch.Generator().manual_seed(resolution)
        return torch.randn(n, *self.space.input_shape(resolution), generator=generator)


@pytest.fixture(scope="module", params=sorted(MODELS))
def own(request):
    return Own(request.param)


@pytest.fixture(scope="module")
def resnet():
    return Own("resnet")


def off(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("kind", ["none", "norm", "scale"])
def test_the_max_network_is_the_model_at_every_resolution_however_units_are_sorted(own, kind):
    net = own.supernet(kind)
    for resolution in own.space.resolutions:
        arch = own.space.architecture([resolution, *own.space.largest.values[1:]])
        x = own.images(resolution)
        with torch.no_grad():
            assert off(net(x, arch), own.model(x)) < 1e-5
            assert off(extract(net, arch)(x), own.model(x)) < 1e-5


def test_sorting_changes_the_order_of_units(resnet):
    plain, sorted_ = resnet.supernet("none"), resnet.supernet("norm")
    small = resnet.space.smallest
    x = resnet.images(small.resolution)
    with torch.no_grad():
        assert off(plain(x, small), sorted_(x, small)) > 0.01


def masked(own, arch):
    """The ResNet itself, its units beyond the widths and its skipped branches made zero by hand."""
    model = copy.deepcopy(own.model)

    def width(name):
        return arch[name + WIDTH]

    def zero_from(n):
        return lambda module, given, out: out * (torch.arange(out.shape[1]) < n).view(1, -1, 1, 1)

    model.norm.register_forward_hook(zero_from(width("stem")))
    wide = {
        0: width("stem"),
        1: width("body.1.two"),
        2: width("body.1.two"),
        3: width("body.3.two"),
    }
    for number, block in enumerate(model.body):
        skipped = f"body.{number}{KEPT}" in own.space.columns and not arch[f"body.{number}{KEPT}"]
        inner = width(f"body.{number}.one") or own.model.body[number].one.out_channels
        block.one_norm.register_forward_hook(zero_from(inner))
        block.two_norm.register_forward_hook(zero_from(0 if skipped else wide[number]))
        if isinstance(block.down, nn.Sequential):
            block.down[1].register_forward_hook(zero_from(wide[number]))
    return model


def test_a_network_is_the_model_with_the_units_and_branches_made_zero_that_it_lacks(resnet):
    net = resnet.supernet("none")
    rng = np.random.default_rng(0)
    archs = [resnet.space.smallest, *(resnet.space.random(rng) for _ in range(14))]
    skipped = set()
    for arch in archs:
        x = resnet.images(arch.resolution)
        skipped.add(tuple(arch[name] for name in resnet.space.columns if name.endswith(KEPT)))
        with torch.no_grad():
            assert off(net(x, arch), masked(resnet, arch)(x)) < 1e-5
    assert len(skipped) == 4


def test_what_is_exported_equals_torch(own):
    net, rng = own.supernet("norm"), np.random.default_rng(1)
    for arch in [own.space.largest, own.space.smallest, *(own.space.random(rng) for _ in range(6))]:
        subnet = extract(net, arch)
        model = onnx_graph.build(arch.ops, folded_weights(subnet), 2)
        session = onnxruntime.InferenceSession(onnx_graph.to_bytes(model))
        x = own.images(arch.resolution)
        with torch.no_grad():
            expected = subnet(x)
        got = session.run(None, {onnx_graph.INPUT: x.numpy()})[0]
        assert off(torch.from_numpy(got), expected) < 1e-4
        stored = {w.name: w.shape for w in onnx_graph.weights_of(arch.ops)}
        assert (
            sum(4 * int(np.prod(s)) for s in stored.values()) == exact_costs(arch)["weight_bytes"]
        )


def test_networks_are_the_model_without_their_units_however_units_are_sorted(own):
    order = weights.orders(weights.importance(own.analysis, "norm"))
    net = weights.own_supernet(own.space, own.lowered, own.analysis, order)
    assert networks_gap(net, own.analysis, order, 6) < 1e-12
    plain = own.supernet("none")
    with pytest.raises(VerificationError, match="differs from the model without its units"):
        networks_gap(plain, own.analysis, order, 6)


def test_a_network_that_is_left_without_any_activation_tells_no_images_apart():
    own = Own("attends")
    net, x = own.supernet("norm"), own.images(8, n=4)
    plain, whole = (score(extract(net, a), x) for a in (own.space.smallest, own.space.largest))
    assert plain.n_units == 1
    assert plain.distinguishing < whole.distinguishing


def test_a_network_of_patches_moves_nothing_that_stays_where_it_is():
    family = Own("attends").lowered.family
    moved = [dict(n.args)["axes"] for r in family.regions for n in r.nodes if n.kind == "transpose"]
    assert moved
    assert all(list(axes) != sorted(axes) for axes in moved)


def test_every_slot_depends_on_what_the_family_says(own):
    check_family(own.space, 200, np.random.default_rng(0))


def test_the_family_reads_back_from_json(own):
    data = json.loads(json.dumps(own.lowered.family.to_json()))
    assert Traced.from_json(data) == own.lowered.family


def test_macs_and_parameters_of_the_max_network_are_those_of_the_model(resnet):
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        resnet.model(resnet.images(28, n=1))
    costs = exact_costs(resnet.space.largest)
    assert 2 * costs["macs"] == counter.get_total_flops()
    assert costs["params"] == sum(p.numel() for p in resnet.model.parameters())


def test_a_skipped_branch_and_its_inner_widths_are_one_network(resnet):
    inner = {"body.0.one" + WIDTH: 4, "body.0" + KEPT: 0}
    named = {choice.name: choice.options[-1] for choice in resnet.space.choices}
    without = resnet.space.architecture([{**named, **inner}[n] for n in resnet.space.columns])
    assert without["body.0.one" + WIDTH] == 0
    assert not {op.slot for op in without.ops} & {"body.0.one", "body.0.two"}
    assert exact_costs(without)["macs"] < exact_costs(resnet.space.largest)["macs"]


def test_keys_are_few_and_read_back(own):
    from hwnas.networks.ops import parse_key

    keys = distinct_ops(own.space)
    assert all(parse_key(key).key == key for key in keys)
    assert len(keys) < 400


def test_importance_finds_the_units_that_matter():
    own = Own("resnet")
    group = next(n for n, g in enumerate(own.analysis.groups) if g.name == "body.0.one")
    with torch.no_grad():
        own.model.body[0].one.weight[5] *= 100
        own.model.body[0].one_norm.weight[7] = 50
    assert weights.orders(weights.importance(own.analysis, "norm"))[group][0] == 5
    assert weights.orders(weights.importance(own.analysis, "scale"))[group][0] == 7
    gradients = {name: torch.zeros_like(t) for name, t in own.analysis.tensors.items()}
    made = own.analysis.groups[group].weights[0][0]
    gradients[made][9] = 1000.0
    assert weights.orders(weights.importance(own.analysis, "taylor", gradients))[group][0] == 9


def test_data_of_other_channels_or_classes_are_refused(resnet):
    with pytest.raises(ConfigError, match="takes 1 channels, the data have 3"):
        resnet.space.for_data(3, 10).largest.ops  # noqa: B018
    with pytest.raises(ConfigError, match="tells 10 classes apart, the data have 7"):
        resnet.space.for_data(1, 7).largest.ops  # noqa: B018


def test_a_resolution_at_which_nothing_is_left_is_refused_by_the_name_of_the_layer():
    model = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    analysis = analyse(randomised(nn.Sequential(*model, nn.Linear(16, 4))), (1, 12, 12))
    space = SearchSpace("own", lowered(analysis, 4, 4).family, (4, 12), (4, 12), 1, 4)
    with pytest.raises(ConfigError, match=r"0 at \(1, 4, 4\): .*leaves nothing"):
        space.smallest.ops  # noqa: B018


class Strange(nn.Module):
    def __init__(self, act, classes=4):
        super().__init__()
        self.one, self.act, self.head = nn.Conv2d(3, 8, 3), act, nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.act(self.one(x)).mean((2, 3)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.shared, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        x = self.shared(F.relu(self.shared(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.two(F.relu(self.one(x))).flatten(2)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            Strange(nn.Softsign()),
            r"act: node abs_1 \(aten.abs.default\) is an operator that hwnas cannot",
        ),
        (Tied(), "shared.weight is a weight of two calls.*give each its own"),
        (Maps(), "has shape .*expected .images, classes."),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, nn.Module) else None,
)
def test_a_model_that_cannot_be_lowered_is_refused_by_the_name_of_the_node(model, words):
    analysis = analyse(randomised(model), (3, 12, 12))
    with pytest.raises(ConfigError) as caught:
        lowered(analysis, 4, 4)
    assert re.search(words, str(caught.value))
    assert "\n" not in str(caught.value)


def test_parallel_convolutions_are_fused_into_the_one_that_they_are():
    model = randomised(own_models.repvgg())
    analysis = analyse(model, (3, 16, 16))
    low = lowered(analysis, widths=4, round_to=4)
    kinds = [node.kind for region in low.family.regions for node in region.nodes]
    assert kinds.count("conv") == 2
    assert kinds.count("add") == 0
    space = SearchSpace("own", low.family, (16,), (16,), 3, low.family.n_classes)
    order = weights.orders(weights.importance(analysis, "norm"))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net = weights.own_supernet(space, low, analysis, order)
        assert off(net(x, space.largest), model(x)) < 1e-5
