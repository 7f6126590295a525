"""Public designs adapted to small images: MobileNetV3-small and the ResNets of CIFAR-10.

Sources: Howard et al. 2019, "Searching for MobileNetV3", table 2, with strides for 28 px (28, 14, 7
and 4 px in place of 112 to 7); He et al. 2016, "Deep Residual Learning for Image Recognition",
section 4.2, with a projection where the shape changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

# kernel, expanded and output channels, squeeze-excite, h-swish, stride
SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 1),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


def of_eight(channels: float) -> int:
    """The nearest multiple of 8 that is at least 8 and takes away no more than a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, given: int, out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(given, out, 3, stride, 1, bias=False)
        self.one_norm = nn.BatchNorm2d(out)
        self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.two_norm = nn.BatchNorm2d(out)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or given != out:
            project = nn.Conv2d(given, out, 1, stride, bias=False)
            self.short = nn.Sequential(project, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one_norm(self.one(x)))
        return F.relu(self.two_norm(self.two(y)) + self.short(x))


class ResNet(nn.Module):
    """ResNet of 6 x blocks + 2 layers, `width` channels at first."""

    def __init__(self, blocks: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        body, given = [], width
        for stage in range(3):
            for block in range(blocks):
                out = width << stage
                body.append(Residual(given, out, 2 if stage and not block else 1))
                given = out
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(given, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


class Inverted(nn.Module):
    """An inverted residual block of MobileNetV3."""

    def __init__(self, given: int, row: tuple[int, int, int, bool, bool, int]) -> None:
        super().__init__()
        kernel, middle, out, excite, swish, stride = row
        self.swish, self.same = swish, stride == 1 and given == out
        self.expand = nn.Conv2d(given, middle, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(middle)
        self.depthwise = nn.Conv2d(
            middle, middle, kernel, stride, kernel // 2, groups=middle, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(middle)
        self.excite = excite
        if excite:
            self.reduce = nn.Conv2d(middle, of_eight(middle / 4), 1)
            self.restore = nn.Conv2d(of_eight(middle / 4), middle, 1)
        self.project = nn.Conv2d(middle, out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        act = F.hardswish if self.swish else F.relu
        y = act(self.expand_norm(self.expand(x)))
        y = self.depthwise_norm(self.depthwise(y))
        if self.excite:
            gate = self.restore(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1))))
            y = y * F.hardsigmoid(gate)
        y = self.project_norm(self.project(act(y)))
        return x + y if self.same else y


class MobileNet(nn.Module):
    """MobileNetV3-small of a width for images of 28 px."""

    def __init__(self, width: float, channels: int, classes: int) -> None:
        super().__init__()
        given = of_eight(16 * width)
        self.stem = nn.Conv2d(channels, given, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(given)
        body = []
        for kernel, middle, out, excite, swish, stride in SMALL:
            row = (kernel, of_eight(middle * width), of_eight(out * width), excite, swish, stride)
            body.append(Inverted(given, row))
            given = row[2]
        self.body = nn.Sequential(*body)
        last, wide = of_eight(576 * width), of_eight(1024 * width)
        self.last, self.last_norm = nn.Conv2d(given, last, 1, bias=False), nn.BatchNorm2d(last)
        self.wide, self.head = nn.Linear(last, wide), nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(F.hardswish(self.norm(self.stem(x))))
        x = F.hardswish(self.last_norm(self.last(x))).mean((2, 3))
        return self.head(F.hardswish(self.wide(x)))


STOCK: dict[str, Callable[[int, int], nn.Module]] = {
    **{f"mobilenetv3-small-{w:g}": functools.partial(MobileNet, w) for w in (0.35, 0.5, 0.75, 1.0)},
    **{f"resnet{6 * n + 2}-{w}": functools.partial(ResNet, n, w)
       for n, w in ((1, 8), (1, 16), (1, 32), (2, 16), (3, 16))},
}  # fmt: skip
