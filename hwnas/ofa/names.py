"""What once-for-all calls the tensors of its supernets: our tensor names to theirs, with shapes.

Theirs are those of the current code's elastic networks; `theirs_of` brings a file's older and
static spellings to them by the rules of its `load_state_dict`.

Source: ofa/imagenet_classification/elastic_nn/networks of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

from hwnas.networks.primitives import Primitive
from hwnas.networks.slots import kernel_sizes
from hwnas.networks.space import SearchSpace
from hwnas.ofa.families import blocks_of, is_resnet, mobile_of


class Entry(NamedTuple):
    """One tensor: its name in our supernet, its name in theirs, its shape."""

    ours: str
    theirs: str
    shape: tuple[int, ...]


_BN = (
    ("scale", "weight"),
    ("bias", "bias"),
    ("running_mean", "running_mean"),
    ("running_var", "running_var"),
)
_MBCONV = {  # of an inverted residual, by our convolution: layer, name of its norm's group
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv",
    "project": "point_linear",
}
_SQUEEZE = {"se_reduce": "depth_conv.se.fc.reduce", "se_expand": "depth_conv.se.fc.expand"}
_BOTTLENECK = {"reduce": "conv1", "spatial": "conv2", "project": "conv3", "shortcut": "downsample"}
_STEM = {
    "stem.conv1": "input_stem.0",
    "stem.conv2": "input_stem.1.conv",
    "stem.conv3": "input_stem.2",
}


def entries(space: SearchSpace) -> list[Entry]:
    """Every tensor of a space's supernet, in the order of its ops.

    Args:
        space: one of once-for-all's.
    """
    first = 0 if is_resnet(space) else 1  # blocks.0 is not elastic in MobileNets
    numbers = {b.slot: i for i, b in enumerate(blocks_of(space), start=first)}
    kernels = kernel_sizes(space)
    out: list[Entry] = []
    for slot, op, *_ in space.largest.ops:
        for p in op.graph.primitives:
            if not p.weights:
                continue
            ours = f"slots.{slot.replace('.', '_')}.{p.name}"
            layer = _layer(space, slot, p.name.removesuffix("_norm"), numbers)
            again = 2 if slot in numbers or is_resnet(space) else 1
            if p.kind == "batch_norm":
                shape = (p.shape[0],)
                out += [Entry(f"{ours}.{a}", f"{layer}{'.bn' * again}.{b}", shape) for a, b in _BN]
            else:
                out += _layer_entries(ours, layer, p, again)
            if p.kind == "conv" and p.args["groups"] > 1 and slot in numbers:
                out += _matrices(ours, layer, kernels[slot, p.name])
    return out


def _layer(space: SearchSpace, slot: str, conv: str, numbers: dict[str, int]) -> str:
    """Their layer that holds a convolution."""
    if slot == "stage0.block1":
        return f"blocks.0.conv.{_MBCONV[conv]}"
    if slot in numbers and is_resnet(space):
        return f"blocks.{numbers[slot]}.{_BOTTLENECK[conv]}"
    if slot in numbers:
        return f"blocks.{numbers[slot]}.conv.{ {**_MBCONV, **_SQUEEZE}[conv] }"
    if slot == "expand":
        return "final_expand_layer" if mobile_of(space).head.width else "feature_mix_layer"
    fixed = {"stem": "first_conv", "mix": "feature_mix_layer", "classifier": "classifier", **_STEM}
    return fixed[slot]


def _layer_entries(ours: str, layer: str, p: Primitive, again: int) -> Iterator[Entry]:
    """Weight and bias of a convolution or linear layer; elastic ones double the last name, those of
    squeeze-excite, which alone have a bias, do not.
    """
    inner = "" if p.args["bias"] else ".conv" * again
    if p.kind == "linear":
        inner = ".linear" * again
    for role, shape in p.weights.items():
        yield Entry(f"{ours}.{role}", f"{layer}{inner}.{role}", shape)


def _matrices(ours: str, layer: str, kernels: list[tuple[int, ...]]) -> Iterator[Entry]:
    """Kernel transforms from each kernel size to the next smaller one."""
    for larger, smaller in itertools.pairwise(kernels):
        step = f"{larger[0]}to{smaller[0]}"
        n = math.prod(smaller)
        yield Entry(f"{ours}.transform_{step}", f"{layer}.conv.{step}_matrix", (n, n))


def theirs_of(key: str, expected: Collection[str]) -> str:
    """The expected name that a file's key stands for, or the key itself where there is none.

    The first rule that fits decides, as in their `load_state_dict`: released files say
    `mobile_inverted_conv` for `conv`; then elastic layers written as static ones and the reverse.
    """
    key = key.removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")
    if key in expected:
        return key
    for old, new in (
        (".bn.bn.", ".bn."),
        (".conv.conv.weight", ".conv.weight"),
        (".linear.linear.", ".linear."),
        (".linear.", ".linear.linear."),
        ("bn.", "bn.bn."),
        ("conv.weight", "conv.conv.weight"),
    ):
        if old in key:
            return key.replace(old, new)
    return key
