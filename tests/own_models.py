"""Small models of the kinds that users have, each with one thing that an analysis must know."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

PX = 8
SHAPE = (3, PX, PX)


class Forward(nn.Module):
    """Modules by name, and what they do with an input."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            if isinstance(module, torch.Tensor) and not isinstance(module, nn.Parameter):
                self.register_buffer(name, module)
            else:
                setattr(self, name, module)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def conv(inputs, outputs, size=3, **more):
    """A convolution that keeps the number of pixels."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **more)


def unit(inputs, outputs, size=3, **more):
    """Convolution, BatchNorm, ReLU in place."""
    return nn.Sequential(
        conv(inputs, outputs, size, bias=False, **more), nn.BatchNorm2d(outputs), nn.ReLU(True)
    )


def head(channels, classes=5):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def block(channels, inner):
    """x + f(x), then ReLU in place."""
    f = nn.Sequential(unit(channels, inner), conv(inner, channels), nn.BatchNorm2d(channels))
    return Forward(lambda m, x: F.relu(x + m.f(x), inplace=True), f=f)


def residual():
    blocks = nn.Sequential(block(8, 12), block(8, 6))
    return nn.Sequential(unit(3, 8), blocks, unit(8, 16, stride=2), block(16, 10), head(16))


def depthwise_excited():
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(12, 4, 1), nn.SiLU(), conv(4, 12, 1))
    return Forward(
        lambda m, x: m.head(m.out((y := m.inner(x)) * m.squeeze(y).sigmoid())),
        inner=nn.Sequential(unit(3, 12, 1), unit(12, 12, groups=12)),
        squeeze=squeeze,
        out=conv(12, 8, 1),
        head=head(8),
    )


def concatenated():
    return Forward(
        lambda m, x: m.head(torch.cat([m.a(x), m.b(x), x], 1)),
        a=unit(3, 8),
        b=unit(3, 6, 1),
        head=nn.Sequential(unit(17, 8), head(8)),
    )


def shuffled():
    def forward(m, x):
        a, b = m.stem(x).chunk(2, 1)
        y = torch.cat([a, m.branch(b)], 1)
        return m.head(y.view(1, 2, 8, PX, PX).transpose(1, 2).reshape(1, 16, PX, PX))

    branch = nn.Sequential(unit(8, 8, 1), conv(8, 8, groups=8), unit(8, 8, 1))
    return Forward(
        forward, stem=unit(3, 16), branch=branch, head=nn.Sequential(unit(16, 8), head(8))
    )


def few_groups():
    return nn.Sequential(unit(3, 16), unit(16, 12, groups=2), unit(12, 8), head(8))


def many_groups():
    return nn.Sequential(unit(3, 16), unit(16, 24, groups=8), unit(24, 8), head(8))


def split():
    def forward(m, x):
        a, b = m.stem(x).split([4, 8], 1)
        return m.head(torch.cat([a.sigmoid(), m.b(b)], 1))

    return Forward(forward, stem=unit(3, 12), b=unit(8, 8, 1), head=head(12))


def gated():
    def forward(m, x):
        a, b = m.stem(x).chunk(2, 1)
        return m.head(a * b.sigmoid())

    return Forward(forward, stem=unit(3, 16), head=head(8))


def flattened():
    features = nn.Sequential(unit(3, 6), nn.MaxPool2d(2), unit(6, 10), nn.MaxPool2d(2))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(40, 12), nn.ReLU(), nn.Linear(12, 5))


class Attention(nn.Module):
    """Heads of one projection, with a bias of its own for each pair of tokens and head."""

    def __init__(self, width, heads, tokens):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(2 * tokens, heads))
        self.register_buffer("place", torch.arange(tokens * tokens) % (2 * tokens))

    def forward(self, x):
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        bias = self.table[self.place].view(tokens, tokens, -1).permute(2, 0, 1).unsqueeze(0)
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5 + bias
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, width))


class Fused(nn.Module):
    """Attention as one call."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(y.transpose(1, 2).reshape(n, tokens, width))


def vit(attention=None):
    def forward(m, x):
        y = m.embed(x).flatten(2).transpose(1, 2)
        y = torch.cat([m.token.expand(len(y), -1, -1), y], 1) + m.places
        y = y + m.attention(m.norm1(y))
        y = y + m.mlp(m.norm2(y))
        return m.head(m.norm(y)[:, 0])

    return Forward(
        forward,
        embed=nn.Conv2d(3, 16, 4, 4),
        token=nn.Parameter(torch.zeros(1, 1, 16)),
        places=nn.Parameter(torch.zeros(1, 5, 16)),
        norm1=nn.LayerNorm(16),
        attention=attention or Attention(16, 4, 5),
        norm2=nn.LayerNorm(16),
        mlp=nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16)),
        norm=nn.LayerNorm(16),
        head=nn.Linear(16, 5),
    )


def fused_vit():
    return vit(Fused(16, 4))


def multihead_vit():
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    return vit(Forward(lambda m, x: m.a(x, x, x, need_weights=False)[0], a=attention))


class Windows(nn.Module):
    """Attention in windows of a map whose channels are last, shifted or not, as Swin's: a bias for
    each distance, and where a shift joins what is far apart a mask.
    """

    def __init__(self, width, heads, px, size, shift=0, fused=False):
        super().__init__()
        self.heads, self.size, self.shift, self.fused = heads, size, shift, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads))
        places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
        apart = places[:, None] - places[None] + size - 1
        self.register_buffer("places", apart[..., 0] * (2 * size - 1) + apart[..., 1])
        far = (torch.arange(px) >= px - size).int() + (torch.arange(px) >= px - shift)
        parts = self.cut((3 * far[:, None] + far).view(1, px, px, 1)).squeeze(2)
        far = parts[:, None] != parts[:, :, None]
        mask = torch.zeros(far.shape).masked_fill(far, -100.0) if shift else None
        self.register_buffer("mask", mask, persistent=False)

    def cut(self, x):
        """(windows of all images, places, channels)"""
        n, high, wide, width = x.shape
        x = x.view(n, high // self.size, self.size, wide // self.size, self.size, width)
        return x.transpose(2, 3).reshape(-1, self.size**2, width)

    def forward(self, x):
        n, high, wide, width = x.shape
        x = x.roll((-self.shift, -self.shift), (1, 2)) if self.shift else x
        y = self.cut(x)
        places = y.shape[1]
        qkv = self.qkv(y).reshape(len(y), places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.table[self.places].permute(2, 0, 1).unsqueeze(0)
        y = (self.in_one if self.fused else self.by_hand)(*qkv.unbind(0), bias)
        y = self.proj(y.transpose(1, 2).reshape(len(y), places, width))
        y = y.view(n, high // self.size, wide // self.size, self.size, self.size, width)
        y = y.transpose(2, 3).reshape(n, high, wide, width)
        return y.roll((self.shift, self.shift), (1, 2)) if self.shift else y

    def by_hand(self, q, k, v, bias):
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + bias
        if self.shift:
            shape = scores.shape
            scores = scores.view(-1, len(self.mask), *shape[1:]) + self.mask[:, None][None]
            scores = scores.view(shape)
        return scores.softmax(-1) @ v

    def in_one(self, q, k, v, bias):
        if self.shift:
            each = self.mask[None, :, None].expand(len(q) // len(self.mask), -1, self.heads, -1, -1)
            bias = bias + each.reshape(-1, *each.shape[2:])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def swin(fused=False):
    """Two blocks, a merge of patches, and a block on a map that is padded to whole windows."""

    def forward(m, x):
        x = m.embed(x).permute(0, 2, 3, 1)
        for windows, mlp in ((m.one, m.mlp1), (m.two, m.mlp2)):
            x = x + windows(m.norm(x))
            x = x + mlp(x)
        x = torch.cat([x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)], -1)
        x = m.merge(x)
        x = x + m.three(F.pad(m.norm3(x), (0, 0, 0, 2, 0, 2)))[:, :4, :4]
        return m.head(x.mean((1, 2)))

    def mlp():
        return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    return Forward(
        forward, embed=conv(3, 8), norm=nn.Identity(), one=Windows(8, 2, 8, 4, fused=fused),
        mlp1=mlp(), two=Windows(8, 4, 8, 4, 2, fused), mlp2=mlp(), norm3=nn.LayerNorm(12),
        merge=nn.Linear(32, 12, bias=False), three=Windows(12, 3, 6, 3), head=nn.Linear(12, 5),
    )  # fmt: skip


def fused_swin():
    return swin(fused=True)


def normed_heads():
    """Queries and keys with a norm over each head's channels, of two kinds."""

    def forward(m, x):
        y = m.embed(x).flatten(2).transpose(1, 2)
        n, tokens, width = y.shape
        q, k, v = m.qkv(y).reshape(n, tokens, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
        shares = (m.norm(q) @ F.normalize(k, dim=-1).transpose(-2, -1) * m.scale.exp()).softmax(-1)
        y = y + m.proj((shares @ v).transpose(1, 2).reshape(n, tokens, width))
        return m.head(y.mean(1))

    return Forward(
        forward, embed=nn.Conv2d(3, 16, 4, 4), qkv=nn.Linear(16, 48), norm=nn.LayerNorm(4),
        scale=nn.Parameter(torch.zeros(4, 1, 1)), proj=nn.Linear(16, 16), head=nn.Linear(16, 5),
    )  # fmt: skip


def convnext():
    def forward(m, x):
        x = m.stem(x)
        y = m.mlp(m.norm(m.depthwise(x).permute(0, 2, 3, 1))) * m.scale
        return m.head(x + y.permute(0, 3, 1, 2))

    return Forward(
        forward,
        stem=conv(3, 8),
        depthwise=conv(8, 8, groups=8),
        norm=nn.LayerNorm(8, eps=1e-6),
        mlp=nn.Sequential(nn.Linear(8, 20), nn.GELU(), nn.Linear(20, 8)),
        scale=nn.Parameter(torch.full((8,), 1e-6)),
        head=head(8),
    )


def group_norms():
    def normed(channels, groups):
        return nn.Sequential(conv(channels, channels), nn.GroupNorm(groups, channels), nn.ReLU())

    return nn.Sequential(
        conv(3, 16), normed(16, 1), unit(16, 16, 1), normed(16, 8), unit(16, 16, 1),
        normed(16, 2), unit(16, 8), head(8),
    )  # fmt: skip


def upsampled():
    return nn.Sequential(
        unit(3, 8, stride=2),
        nn.ConvTranspose2d(8, 12, 2, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 12, 3, padding=1, groups=12),
        conv(12, 16),
        nn.PixelShuffle(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        conv(4, 2),
    )


def repvgg():
    def forward(m, x):
        x = m.stem(x)
        y = F.relu(m.large(x) + m.small(x) + m.same(x))
        return m.head(y)

    def normed(size):
        return nn.Sequential(conv(8, 8, size, bias=False), nn.BatchNorm2d(8))

    return Forward(
        forward, stem=unit(3, 8), large=normed(3), small=normed(1), same=nn.BatchNorm2d(8),
        head=head(8),
    )  # fmt: skip


def shared_weight():
    model = nn.Sequential(unit(3, 8), conv(8, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), head(8))
    model[3].weight = model[1].weight
    return model


def shared_module():
    once = unit(8, 8)
    return nn.Sequential(unit(3, 8), once, unit(8, 8, 1), once, head(8))


def padded_shortcut():
    def forward(m, x):
        x = m.stem(x)
        return m.head(F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + m.down(x)))

    return Forward(
        forward, stem=unit(3, 8), down=nn.Sequential(unit(8, 6, stride=2), conv(6, 16)),
        head=head(16),
    )  # fmt: skip


def blurred():
    """A buffer is the weight of a convolution."""
    return Forward(
        lambda m, x: m.head(F.conv2d(m.stem(x), m.kernel, stride=2, padding=1, groups=8)),
        stem=unit(3, 8),
        kernel=torch.full((8, 1, 3, 3), 1 / 9),
        head=nn.Sequential(unit(8, 6), head(6)),
    )


def written():
    """Part of a tensor is written, and a constant is made."""

    def forward(m, x):
        y = m.a(x)
        y[:, :2] = 0.5
        return m.head(m.b(y) + torch.arange(12.0).view(1, 12, 1, 1).sin())

    return Forward(forward, a=unit(3, 8), b=conv(8, 12), head=head(12))


def mean_over_channels():
    def forward(m, x):
        y = m.b(m.a(x))
        return m.head(y / (y.mean(1, keepdim=True) + 2))

    return Forward(forward, a=unit(3, 8), b=unit(8, 12), head=head(12))


def autocast():
    def forward(m, x):
        y = m.a(x)
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            y = m.b(y.float())
        return m.head(F.dropout(y, 0.5, m.training))

    return Forward(forward, a=unit(3, 8), b=unit(8, 12), head=head(12))


def scaled_tokens():
    """Channels of two layers at different places, then one scale for all places."""

    def forward(m, x):
        a, b = m.a(x).flatten(2).mean(2, keepdim=True), m.b(x).flatten(2)
        return m.head((torch.cat([a, b], 2).transpose(1, 2) * m.scale).mean(1))

    scale = nn.Parameter(torch.ones(8))
    return Forward(forward, a=unit(3, 8), b=unit(3, 8), scale=scale, head=nn.Linear(8, 5))


def standardised():
    """A weight is computed while the model runs."""

    def forward(m, x):
        w = m.b.weight
        return m.head(F.conv2d(m.a(x), w - w.mean((1, 2, 3), keepdim=True), padding=1))

    return Forward(forward, a=unit(3, 8), b=conv(8, 12), head=nn.Sequential(unit(12, 6), head(6)))
