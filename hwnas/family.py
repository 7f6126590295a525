"""The constants of a MobileNetV3-like family of networks: stem, stages and head, as data.

A space is made of them (hwnas.space); what its architectures may choose is part of a stage.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stem:
    """First convolution, and a fixed block of expand ratio 1, kernel 3 and relu after it.

    Attributes:
        first_width: output channels of that block; 0: there is none.
    """

    width: int
    kernel_size: int
    stride: int
    act: str
    first_width: int = 0


@dataclass(frozen=True)
class Stage:
    """A run of blocks at one resolution.

    depths lists how many blocks may be kept (the first ones); empty means that residual blocks may
    be absent one by one (expand ratio 0) instead.
    """

    width: int
    n_blocks: int
    stride: int
    act: str
    se: bool
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Head:
    """What follows the last stage.

    A 1x1 convolution to `expand` channels, global average pool, 1x1 `mix` to `width` channels and
    the classifier.
    """

    expand: int
    width: int
    act: str
