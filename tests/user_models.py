"""Small torch models as users have them, for the tests of traced spaces."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self, given: int, out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(given, out, 3, stride, 1, bias=False)
        self.one_norm = nn.BatchNorm2d(out)
        self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.two_norm = nn.BatchNorm2d(out)
        self.down = nn.Identity()
        if stride > 1 or given != out:
            self.down = nn.Sequential(
                nn.Conv2d(given, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = F.relu(self.one_norm(self.one(x)))
        return F.relu(self.two_norm(self.two(y)) + self.down(x))


class ResNet(nn.Module):
    """Four residual blocks, two of which may be skipped."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.Sequential(
            Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 32, 1), Residual(32, 48, 2)
        )
        self.head = nn.Linear(48, classes)

    def forward(self, x):
        return self.head(self.body(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


class Inverted(nn.Module):
    """A depthwise block with squeeze-excite and a residual."""

    def __init__(self, width: int, middle: int) -> None:
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(width, middle, 1), nn.BatchNorm2d(middle, 0.01)
        self.depthwise = nn.Conv2d(middle, middle, 3, padding=1, groups=middle, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(middle)
        self.reduce, self.restore = nn.Conv2d(middle, 8, 1), nn.Conv2d(8, middle, 1)
        self.project, self.project_norm = nn.Conv2d(middle, width, 1), nn.BatchNorm2d(width)

    def forward(self, x):
        y = F.hardswish(self.expand_norm(self.expand(x)))
        y = F.hardswish(self.depthwise_norm(self.depthwise(y)))
        gate = self.restore(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1))))
        return x + self.project_norm(self.project(y * F.hardsigmoid(gate)))


class Mobile(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.body = nn.Sequential(Inverted(16, 32), Inverted(16, 48))
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, classes))

    def forward(self, x):
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.body(self.stem(x)), 1), 1))


class Joined(nn.Module):
    """Concatenations, a channel shuffle, parts of channels, a flatten of a map, pools."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(3, 24, 5, padding=2), nn.BatchNorm2d(24), nn.SiLU())
        self.join = nn.Conv2d(40, 32, 1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.deep = nn.Conv2d(32, 24, 3, 2, padding=1)
        self.flat = nn.Linear(24 * 2 * 2, 40)
        self.head = nn.Linear(40, classes)

    def forward(self, x):
        x = F.max_pool2d(x, 3, 2, 1)
        y = F.relu(self.join(torch.cat([self.left(x), self.right(x)], 1)))
        kept, made = y.chunk(2, 1)
        y = torch.cat([kept, F.relu(self.middle(made))], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = F.avg_pool2d(F.relu(self.deep(y)), 2)
        return self.head(F.relu(self.flat(torch.flatten(y, 1))))


class Pooled(nn.Module):
    """Pools to sizes that its maps have already, at 16 px."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(1, 16, 8, 8), nn.Conv2d(16, 24, 3, 2, 1)
        self.reduce, self.restore = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        y = F.relu(self.deep(F.adaptive_avg_pool2d(F.relu(self.stem(x)), 2)))
        gate = self.restore(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1))))
        return self.head((y * F.hardsigmoid(gate)).mean((2, 3)))


class Levels(nn.Module):
    """Norms of all kinds, tables of numbers, maps made larger, a ReLU that leaks."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.norm = nn.LayerNorm(16, eps=1e-6)
        self.deep = nn.Sequential(
            nn.Conv2d(16, 24, 3, 2, 1), nn.GroupNorm(4, 24), nn.LeakyReLU(0.1)
        )
        self.join = nn.Conv2d(40, 16, 1)
        self.groups = nn.GroupNorm(8, 16)
        self.mix = nn.Sequential(nn.Linear(16, 32), nn.GELU("tanh"), nn.Linear(32, 16))
        self.gamma = nn.Parameter(torch.full((16,), 0.5))
        self.pool = nn.Sequential(nn.GroupNorm(1, 16), nn.AvgPool2d(3, 1, 1))
        self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1, 16, 1, 1))
        self.last = nn.Conv2d(16, 8, 3)
        self.factor, self.offset = (nn.Parameter(torch.full((1, 8, 1, 1), v)) for v in (0.5, 0.1))
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem((x - self.mean) / self.std)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        up = F.interpolate(self.deep(x), scale_factor=2, mode="bilinear")
        x = self.groups(self.join(torch.cat([x, up], 1)))
        x = x + (self.mix(x.permute(0, 2, 3, 1)) * self.gamma).permute(0, 3, 1, 2)
        x = x + self.scale * (self.pool(x) - x)
        x = self.last(F.pad(F.mish(1 - x + self.shift), (1, 1, 2, 0), value=1.0))
        length = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        shares = length / (length.mean(1, keepdim=True) + 1e-6)
        x = x + torch.addcmul(self.offset, self.factor, x * shares)
        return self.head(x.mean((2, 3)))


class Attends(nn.Module):
    """A transformer block of 4 heads over patches and a class token, with places."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.places = nn.Parameter(torch.zeros(1, 5, 16))
        self.norm = nn.LayerNorm(16, eps=1e-6)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        n, t, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0))
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, c))
        x = x + self.mlp(x)
        return self.head(F.hardtanh(x[:, 0], -2, 2))


class Series(nn.Module):
    """Dilated one-dimensional convolutions."""

    def __init__(self, channels: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.one = nn.Sequential(
            nn.Conv1d(channels, 16, 5, padding=2), nn.BatchNorm1d(16), nn.GELU()
        )
        self.two = nn.Sequential(
            nn.Conv1d(16, 16, 3, padding=4, dilation=4), nn.BatchNorm1d(16), nn.ReLU()
        )
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = self.one(x)
        return self.head((x + self.two(x)).mean(2))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with every parameter and statistic random, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and value.dim() > 1:
            value.data.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif value.is_floating_point():
            low = 0.5 if "var" in name else 0.3
            value.data.uniform_(low, 1.2, generator=generator)
    return model.eval()


def build() -> nn.Module:
    """As settings name it."""
    return ResNet()
