"""Constructors of OpSpec: the only place where widths, hidden channels and residuals are worked
out.

Rules (make_divisible, squeeze-excite, residual) are those of once-for-all, ofa/utils/layers.py and
ofa/utils/pytorch_modules.py of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

from dataclasses import replace

from profilers.schema import OpSpec


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of divisor nearest to value, at least divisor and never more than 10 % below
    value.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def conv(
    in_size: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    act: str,
    residual: bool = False,
) -> OpSpec:
    """Convolution, BatchNorm, activation; then, where residual is true, the input is added."""
    return OpSpec(
        "conv",
        in_size,
        in_channels,
        0,
        out_channels,
        kernel_size,
        stride,
        act=act,
        residual=residual,
    )


def is_residual(in_channels: int, out_channels: int, stride: int) -> bool:
    """Whether a block adds its input to its output."""
    return stride == 1 and in_channels == out_channels


def mbconv(shape: OpSpec, expand_ratio: float, se: bool) -> OpSpec:
    """Inverted residual (MobileNetV2), with squeeze-excite (MobileNetV3) where se is true.

    Args:
        shape: in_size, in/out_channels, kernel_size, stride and act; the rest is worked out here.
        expand_ratio: mid channels over in channels, before rounding to a multiple of 8; 1 means no
            expansion.
        se: whether squeeze-excite follows the depthwise convolution.
    """
    mid = (
        shape.in_channels
        if expand_ratio == 1
        else make_divisible(round(shape.in_channels * expand_ratio))
    )
    return OpSpec(
        "mbconv",
        shape.in_size,
        shape.in_channels,
        mid,
        shape.out_channels,
        shape.kernel_size,
        shape.stride,
        make_divisible(mid // 4) if se else 0,
        shape.act,
        is_residual(shape.in_channels, shape.out_channels, shape.stride),
    )


def bottleneck(shape: OpSpec, percent: int) -> OpSpec:
    """Bottleneck of ResNet-D: 1x1, spatial and 1x1 convolution, added to a shortcut.

    Source: He et al. 2019, "Bag of tricks for image classification with convolutional neural
    networks", fig. 2; the rule of mid channels is once-for-all's.

    Args:
        shape: in_size, in/out_channels, kernel_size, stride and act; the rest is worked out here.
        percent: mid channels in percent of out channels, before rounding to a multiple of 8.
    """
    mid = make_divisible(round(shape.out_channels * percent / 100))
    residual = is_residual(shape.in_channels, shape.out_channels, shape.stride)
    return replace(shape, mid_channels=mid, residual=residual)


def max_pool(in_size: int, channels: int) -> OpSpec:
    """Largest of 3 x 3 pixels, every second one, padded by 1."""
    return OpSpec("max_pool", in_size, channels, 0, channels, 3, 2)


def pool(in_size: int, channels: int) -> OpSpec:
    """Mean over height and width."""
    return OpSpec("pool", in_size, channels, 0, channels)


def mix(in_channels: int, out_channels: int, act: str) -> OpSpec:
    """1x1 convolution on one pixel without BatchNorm or bias, then activation (MobileNetV3's last
    hidden layer).
    """
    return OpSpec("mix", 1, in_channels, 0, out_channels, act=act)


def linear(in_channels: int, out_channels: int) -> OpSpec:
    """Classifier with bias."""
    return OpSpec("linear", 1, in_channels, 0, out_channels)
