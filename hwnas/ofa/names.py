"""What once-for-all calls the tensors of its supernets: our tensor names to theirs, with shapes.

Theirs are those of the current code's elastic networks; `theirs_of` brings a file's older and
static spellings to them by the rules of its `load_state_dict`.

Source: ofa/imagenet_classification/elastic_nn/networks of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import NamedTuple

from hwnas.networks.family import DeepStem
from hwnas.networks.space import SearchSpace
from profilers import counts
from profilers.schema import OpSpec


class Entry(NamedTuple):
    """One tensor: its name in our supernet, its name in theirs, its shape in theirs.

    Theirs lacks the two trailing 1s of a linear layer, which is a 1x1 convolution in ours.
    """

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
    numbers = {b.slot: i for i, b in enumerate(space.blocks, start=_first_block(space))}
    elastic = {b.slot: space.choices[b.kernel].options for b in space.blocks}
    out: list[Entry] = []
    for slot, spec in space.largest.ops:
        for conv in counts.convolutions(spec):
            ours = f"slots.{slot.replace('.', '_')}.{conv.name}"
            layer = _layer(space, slot, conv.name, numbers)
            doubled = slot in elastic or isinstance(space.stem, DeepStem)
            out += _conv_entries(ours, layer, conv, spec, doubled)
            if conv.groups > 1 and slot in elastic:
                out += _matrices(ours, layer, elastic[slot])
    return out


def _first_block(space: SearchSpace) -> int:
    return 0 if isinstance(space.stem, DeepStem) else 1  # blocks.0 is not elastic in MobileNets


def _layer(space: SearchSpace, slot: str, conv: str, numbers: dict[str, int]) -> str:
    """Their layer that holds a convolution."""
    if slot == "stage0.block1":
        return f"blocks.0.conv.{_MBCONV[conv]}"
    if slot in numbers and isinstance(space.stem, DeepStem):
        return f"blocks.{numbers[slot]}.{_BOTTLENECK[conv]}"
    if slot in numbers:
        return f"blocks.{numbers[slot]}.conv.{ {**_MBCONV, **_SQUEEZE}[conv] }"
    if slot == "expand":
        return "final_expand_layer" if space.head.width else "feature_mix_layer"
    fixed = {"stem": "first_conv", "mix": "feature_mix_layer", "classifier": "classifier", **_STEM}
    return fixed[slot]


def _conv_entries(
    ours: str, layer: str, conv: counts.Conv, spec: OpSpec, doubled: bool
) -> Iterator[Entry]:
    """Weight, bias and BatchNorm of one convolution; elastic layers double the last name."""
    again = 2 if doubled else 1
    shape: tuple[int, ...] = (conv.out_channels, conv.in_channels // conv.groups)
    if spec.kind == "linear":
        prefix = layer + ".linear" * again
        yield Entry(f"{ours}.weight", f"{prefix}.weight", shape)
        yield Entry(f"{ours}.bias", f"{prefix}.bias", shape[:1])
        return
    shape += (conv.kernel_size, conv.kernel_size)
    if conv.norm == "bias":  # squeeze-excite, never doubled
        yield Entry(f"{ours}.weight", f"{layer}.weight", shape)
        yield Entry(f"{ours}.bias", f"{layer}.bias", shape[:1])
        return
    yield Entry(f"{ours}.weight", layer + ".conv" * again + ".weight", shape)
    if conv.norm == "bn":
        for mine, theirs in _BN:
            yield Entry(f"{ours}.{mine}", layer + ".bn" * again + f".{theirs}", shape[:1])


def _matrices(ours: str, layer: str, kernel_sizes: tuple[int, ...]) -> Iterator[Entry]:
    """Kernel transforms from each kernel size to the next smaller one."""
    sizes = sorted(kernel_sizes, reverse=True)
    for larger, smaller in itertools.pairwise(sizes):
        step = f"{larger}to{smaller}"
        shape = (smaller**2, smaller**2)
        yield Entry(f"{ours}.transform_{step}", f"{layer}.conv.{step}_matrix", shape)


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
