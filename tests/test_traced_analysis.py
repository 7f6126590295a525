"""What an analysis finds in small models of the kinds that users have, and its proof."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import own_models as models
import pytest
import torch
from own_models import SHAPE, Forward, conv, head, unit
from torch import nn

from hwnas.networks.axes import WHOLE, Stretch
from hwnas.settings.errors import ConfigError, VerificationError
from hwnas.traced.analyse import analyse, analysed
from hwnas.traced.analysis import Branch
from hwnas.traced.program import exported
from hwnas.traced.proof import prove
from hwnas.traced.units import Units

# model: units of each group, branches
FOUND = {
    models.residual: (
        {"0.0": 8, "1.0.f.0.0": 12, "1.1.f.0.0": 6, "2.0": 16, "3.f.0.0": 10},
        ["1.0.f", "1.1.f", "3.f"],
    ),
    models.depthwise_excited: ({"inner.0.0": 12, "squeeze.1": 4, "out": 8}, []),
    models.concatenated: ({"a.0": 8, "b.0": 6, "head.0.0": 8}, []),
    models.shuffled: ({"stem.0": 8, "stem.0:2": 8, "branch.0.0": 8, "head.0.0": 8}, []),
    models.few_groups: ({"0.0": 8, "1.0": 6, "2.0": 8}, []),
    models.many_groups: ({"0.0": 8, "2.0": 8}, []),
    models.split: ({"stem.0": 4, "stem.0:2": 8, "b.0": 8}, []),
    models.gated: ({"stem.0": 8}, []),
    models.flattened: ({"0.0.0": 6, "0.2.0": 10, "2": 12}, []),
    models.vit: ({"embed": 16, "attention.qkv": 4, "mlp.0": 24}, ["attention", "mlp"]),
    models.fused_vit: ({"embed": 16, "attention.qkv": 4, "mlp.0": 24}, ["attention", "mlp"]),
    models.multihead_vit: (
        {"embed": 16, "attention.a.in_proj_weight": 4, "mlp.0": 24},
        ["attention", "mlp"],
    ),
    models.fused_swin: (
        {
            "embed": 8,
            "one.qkv": 2,
            "mlp1.1": 12,
            "two.qkv": 4,
            "mlp2.1": 12,
            "merge": 12,
            "three.qkv": 3,
        },
        ["one", "mlp1", "two", "mlp2", "three"],
    ),
    models.normed_heads: ({"embed": 16, "qkv": 4}, ["norm"]),
    models.convnext: ({"stem": 8, "mlp.0": 20}, ["mlp"]),
    models.group_norms: (
        {"0": 16, "1.0": 16, "2.0": 16, "3.0": 8, "4.0": 16, "5.0": 8, "6.0": 8},
        [],
    ),
    models.upsampled: ({"0.0": 8, "1": 12, "4": 4}, []),
    models.repvgg: ({"stem.0": 8, "fused0": 8}, []),
    models.shared_weight: ({"0.0": 8}, []),
    models.shared_module: ({"0.0": 8, "3.0": 8}, []),
    models.padded_shortcut: ({"stem.0": 8, "down.0.0": 6}, []),
    models.blurred: ({"stem.0": 8, "head.0.0": 6}, []),
    models.written: ({"b": 12}, []),
    models.mean_over_channels: ({"a.0": 8}, []),
    models.autocast: ({"a.0": 8, "b.0": 12}, []),
    models.scaled_tokens: ({"a.0": 8}, []),
    models.standardised: ({"head.0.0": 6}, []),
}


@functools.cache
def found(make):
    """A model and its analysis, which no test changes."""
    model = make()
    return model, analyse(model, SHAPE)


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
def test_a_model_with_parts_taken_out_equals_the_masked_whole(make):
    model, analysis = found(make)
    groups, branches = FOUND[make]
    assert {group.name: group.units for group in analysis.groups} == groups
    assert [branch.name for branch in analysis.branches] == branches
    proof = prove(analysis, 4, 0, model)
    assert proof.worst < 1e-12
    assert proof.same < 1e-6


def test_sizes_say_which_units_an_axis_holds():
    flat = found(models.flattened)[1]
    assert flat.axes["p_2_weight"] == ((Stretch(2, 0, 12),), (Stretch(1, 0, 10, 4),))
    assert flat.axes["p_2_bias"] == ((Stretch(2, 0, 12),),)
    wide = found(models.concatenated)[1]
    joined = (Stretch(0, 0, 8), Stretch(1, 0, 6), Stretch(WHOLE, 0, 3))
    assert wide.axes["p_head_0_0_weight"][1] == wide.axes["cat"][1] == joined
    assert wide.axes["cat"][2] == (Stretch(WHOLE, 0, 8),)
    mixed = found(models.shuffled)[1]
    names = [group.name for group in mixed.groups]
    a, b = names.index("stem.0"), names.index("stem.0:2")
    assert mixed.axes["p_head_0_0_weight"][1] == (Stretch(a, 0, 8, 2),)
    assert mixed.axes["p_stem_0_weight"][0] == (Stretch(a, 0, 8), Stretch(b, 0, 8))
    pairs = found(models.many_groups)[1]
    assert pairs.axes["p_0_0_weight"][0] == (Stretch(0, 0, 8, 2),)
    every = found(models.few_groups)[1]
    assert every.axes["p_0_0_weight"][0] == (Stretch(0, 0, 8), Stretch(0, 0, 8))


def test_a_group_names_every_axis_that_its_units_are_on():
    analysis = analysed(exported(models.repvgg(), SHAPE))
    on = {f"{analysis.names[name]} {axis}" for name, axis in analysis.groups[0].weights}
    convolutions = {f"{name}.weight {axis}" for name in ("large.0", "small.0") for axis in (0, 1)}
    norms = {
        f"{norm}.{part} 0"
        for norm in ("stem.1", "large.1", "small.1", "same")
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    assert on == {"stem.0.weight 0", "head.2.weight 1"} | convolutions | norms


def test_what_two_layers_share_has_one_set_of_units():
    analysis = found(models.shared_weight)[1]
    nodes = {node.name: node for node in analysis.program.graph.nodes}
    weights = [nodes[n].args[1].name for n in nodes if n.startswith("conv2d")]
    assert analysis.tensors[weights[1]] is analysis.tensors[weights[2]]
    assert analysis.axes[weights[1]] == ((Stretch(0, 0, 8),), (Stretch(0, 0, 8),), *ONES)


ONES = ((Stretch(WHOLE, 0, 3),), (Stretch(WHOLE, 0, 3),))


NEEDS = "needs all of it (forward, node"
COMPUTED = "forward computes its weight (node sub): make that a parameter"


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (models.residual, "4.2", "it makes the model's output"),
        (models.mean_over_channels, "b.0", f"a mean over channels {NEEDS} mean)"),
        (
            models.written,
            "a.0",
            f"slice_scatter, which hwnas does not know, {NEEDS} slice_scatter)",
        ),
        (models.standardised, "a.0", COMPUTED),
        (models.standardised, "sub", COMPUTED),
        (models.padded_shortcut, "down.1", "8 of 16 channels: it is added to padding"),
    ],
)
def test_what_stays_whole_says_why(make, name, reason):
    assert found(make)[1].whole[name] == reason


def test_what_is_kept_stays_whole_and_so_does_what_goes_with_it():
    free = found(models.residual)[1]
    kept = analyse(models.residual(), SHAPE, keep=["1.1.*"], skip_blocks=False)
    assert [group.name for group in kept.groups] == ["1.0.f.0.0", "2.0", "3.f.0.0"]
    reason = "space.keep names it: 1.1.*"
    assert {name: kept.whole[name] for name in ("0.0", "1.1.f.0.0")} == {
        "0.0": reason, "1.1.f.0.0": reason,
    }  # fmt: skip
    assert free.branches
    assert kept.branches == ()
    assert prove(kept, 2, 0).worst < 1e-12


def test_a_model_of_which_all_stays_whole_is_refused():
    with pytest.raises(ConfigError, match=r"all stays whole .*0\.0: space.keep names it: \*"):
        analyse(nn.Sequential(unit(3, 8), head(8)), SHAPE, keep=["*"])


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(
        ConfigError, match=r"space.keep: '4\.3' names no layer .* nearest is '4\.2'"
    ):
        analyse(models.residual(), SHAPE, keep=["4.3"])


def test_a_model_is_left_as_it_was():
    model = models.residual().train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prove(analyse(model, SHAPE), 1, 0, model)
    assert model.training
    assert not model[1][0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def custom_op(x):
    return torch.ops.hwnas_tests.twice(x)


@pytest.fixture(scope="module")
def library():
    library = torch.library.Library("hwnas_tests", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    yield
    library._destroy()


def counted(m, x):
    m.count.add_(1)
    return m.a(x)


def _refused(function, **modules):
    return Forward(function, a=nn.Sequential(unit(3, 8), head(8)), **modules)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient


REFUSED = {
    "a gradient of one's own": (
        _refused(lambda m, x: m.a(Twice.apply(x))),
        "calls Twice, an autograd function of your own, whose gradient a graph does not have",
    ),
    "values decide the way": (
        _refused(lambda m, x: m.a(x) if x.sum() > 0 else m.a(-x)),
        r"cannot be exported: its control flow depends on values: .* \(.*test_traced_analysis\.py",
    ),
    "a value becomes a number": (
        _refused(lambda m, x: m.a(x) * x.max().item()),
        "the model's own forward: node item makes a Python number of a tensor: keep",
    ),
    "values decide a shape": (
        _refused(lambda m, x: m.a(x)[:, torch.nonzero(x.flatten() > 0)[0]]),
        "depends on values",
    ),
    "a dictionary": (
        _refused(lambda m, x: {"out": m.a(x), "aux": x}),
        "returns a dict with out, aux: wrap it in a module whose forward returns one tensor",
    ),
    "several outputs": (_refused(lambda m, x: (m.a(x), x)), "returns a tuple: wrap it"),
    "another shape": (
        nn.Sequential(conv(4, 8), head(8)),
        r"does not run on 1×3×8×8 .space.input.: RuntimeError: .*input.* to have 4 channels",
    ),
    "a write to itself": (
        _refused(counted, count=torch.zeros(())),
        "writes to its own 'count' while it runs",
    ),
    "an operator of others": (
        _refused(lambda m, x: m.a(custom_op(x))),
        r"node twice calls hwnas_tests\.twice\.default, an operator that torch does not have",
    ),
}


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_search_space_is_refused_in_one_line(name):
    model, reason = REFUSED[name]
    with pytest.raises(ConfigError, match=reason) as refusal:
        analyse(model, SHAPE)
    assert "\n" not in str(refusal.value)


class TwoInputs(nn.Module):
    def forward(self, x, mask):
        return x * mask


def test_several_inputs_are_refused():
    with pytest.raises(ConfigError, match=r"takes 2 inputs \(x, mask\).*wrap it"):
        analyse(TwoInputs(), SHAPE)


def test_weights_that_overlap_in_memory_are_refused():
    memory = torch.randn(12 * 8)
    model = nn.Sequential(unit(3, 8), conv(8, 8, 1), conv(8, 8, 1), head(8))
    model[1].weight = nn.Parameter(memory[:64].view(8, 8, 1, 1))
    model[2].weight = nn.Parameter(memory[32:].view(8, 8, 1, 1))
    with pytest.raises(ConfigError, match=r"1\.weight and 2\.weight share a part of their memory"):
        analyse(model, SHAPE)


def test_a_wrong_skip_is_noticed():
    analysis = found(models.residual)[1]
    first, second, _ = analysis.branches
    wrong = dataclasses.replace(
        analysis, branches=(Branch("x", second.add, first.shortcut, second.nodes),)
    )
    with pytest.raises(VerificationError, match=r"skip_blocks|keep"):
        prove(wrong, 8, 0)


def test_a_branch_that_others_read_is_no_branch():
    def forward(m, x):
        x = m.stem(x)
        y = m.f(x)
        return m.head(torch.cat([x + y, y], 1))

    model = Forward(forward, stem=unit(3, 8), f=unit(8, 8), head=head(16))
    assert analyse(model, SHAPE).branches == ()


def test_a_graph_that_is_not_the_model_is_noticed():
    with pytest.raises(VerificationError, match="differs from the model"):
        prove(found(models.residual)[1], 0, 0, models.residual())


UNION = Units.union


def _left_out(monkeypatch, fault):
    """Leave out one union of those that unite anything; how many there have been."""
    seen = [0]

    def union(units, a, b):
        if not np.array_equal(*np.broadcast_arrays(units.find(a), units.find(b))):
            seen[0] += 1
            if seen[0] == fault:
                return
        UNION(units, a, b)

    monkeypatch.setattr(Units, "union", union)
    return seen


@pytest.mark.parametrize("make", [models.depthwise_excited, models.shuffled])
def test_a_union_that_is_missing_is_noticed(monkeypatch, make):
    program = exported(make(), SHAPE)
    seen = _left_out(monkeypatch, 0)
    sound = analysed(program)
    noticed = 0
    for fault in range(1, seen[0] + 1):
        _left_out(monkeypatch, fault)
        broken = analysed(program)
        if broken.axes != sound.axes and not _proven(broken, 4, 0):
            noticed += 1
        else:  # what it says is said by others too
            assert _proven(broken, 20, 1)
    assert noticed > seen[0] // 2


def _proven(analysis, trials, seed):
    try:
        return prove(analysis, trials, seed).worst < 1e-12
    except VerificationError:
        return False
