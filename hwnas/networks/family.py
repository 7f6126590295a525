"""The constants of a family of networks: stem, stages and head, as data.

Two families are made of them: inverted residuals after a plain stem (MobileNetV2, MobileNetV3), and
bottlenecks after a deep stem (ResNet-D). What the architectures of a space may choose is part of
its stages and of its stem; how the numbers become ops is `hwnas.networks.lowering`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stem:
    """First convolution, and a fixed block of expand ratio 1 and kernel 3 after it.

    Attributes:
        first_width: output channels of that block; 0: there is none.
        first_act: its activation.
    """

    width: int
    kernel_size: int
    stride: int
    act: str
    first_width: int = 0
    first_act: str = "relu"


@dataclass(frozen=True)
class DeepStem:
    """Two or three 3x3 convolutions (the first of stride 2), then a max pool of stride 2.

    The middle one adds its input to its output and may be left out.

    Attributes:
        mid_widths: channels offered after the first convolution, ascending.
        widths: channels offered after the last one, ascending.
        depths: how many convolutions may be kept, of 2 and 3.
    """

    mid_widths: tuple[int, ...]
    widths: tuple[int, ...]
    act: str
    depths: tuple[int, ...] = (2, 3)


@dataclass(frozen=True)
class Stage:
    """A run of blocks at one resolution.

    depths lists how many blocks may be kept (the first ones); empty means that residual blocks may
    be absent one by one (expand ratio 0) instead.

    Attributes:
        width: output channels, the most of them where the width is elastic.
        expand_ratios: mid channels over the input's; of a bottleneck, percent of the output's.
        widths: output channels offered, ascending; empty: width alone.
        block: `mbconv` or `bottleneck`.
    """

    width: int
    n_blocks: int
    stride: int
    act: str
    se: bool
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    block: str = "mbconv"


@dataclass(frozen=True)
class Head:
    """What follows the last stage: convolution, global average pool, `mix`, classifier.

    Attributes:
        expand: output channels of a 1x1 convolution with BatchNorm; 0: there is none.
        width: output channels of the 1x1 `mix` after the pool; 0: there is none.
    """

    expand: int
    width: int
    act: str


# Fields that spaces had before others were added: the others enter a geometry hash only where they
# are set, so that the hashes in older tables and supernets stay valid.
_FIRST_FIELDS = {
    "Stem": ("width", "kernel_size", "stride", "act", "first_width"),
    "Stage": ("width", "n_blocks", "stride", "act", "se"),
    "Head": ("expand", "width", "act"),
    "DeepStem": ("act",),
}
_OFFERED = ("kernel_sizes", "expand_ratios", "depths", "widths", "mid_widths")


def constants(part: Stem | DeepStem | Stage | Head) -> dict[str, object]:
    """What of a part enters its space's geometry hash: everything but the options offered."""
    first = _FIRST_FIELDS[type(part).__name__]
    return {
        name: getattr(part, name)
        for name, field in type(part).__dataclass_fields__.items()
        if name not in _OFFERED and (name in first or getattr(part, name) != field.default)
    }
