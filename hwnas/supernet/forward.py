"""The torch forward of every kind of primitive, over its inputs and weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.networks.primitives import NORM_EPS, Primitive
from hwnas.supernet import depthwise

# Pixels of the largest map whose 1x1 convolution is a product of matrices on a CPU. OneDNN's takes
# up to 4 times as long on maps of 1 pixel, 1.3 to 2 times on 4x4, about as long on 6x6 with many
# channels (forward and backward, one thread).
FEW_PIXELS = 36

Weights = Mapping[str, Tensor]
Forward = Callable[[Primitive, Sequence[Tensor], Weights], Tensor]


def _unary(function: Callable[[Tensor], Tensor]) -> Forward:
    return lambda p, x, w: function(x[0])


def _padded(p: Primitive, x: Tensor, value: float = 0.0) -> tuple[Tensor, Any]:
    """The input padded where both sides differ, and the padding that is left to do."""
    pads = p.args["pads"]
    if all(before == after for before, after in pads):
        return x, tuple(before for before, _ in pads)
    flat = itertools.chain.from_iterable(reversed(pads))
    return F.pad(x, tuple(flat), value=value), (0,) * len(pads)


def _conv(p: Primitive, x: Sequence[Tensor], w: Weights) -> Tensor:
    convolve = F.conv2d if len(p.args["kernel"]) == 2 else F.conv1d
    given, pads = _padded(p, x[0])
    a = p.args
    if a["groups"] > 1 and depthwise.suits(p, given, w["weight"], pads):
        return depthwise.convolve(given, w["weight"], a["stride"])
    if _is_product(a, given, pads):
        rows = F.linear(given.permute(0, 2, 3, 1), w["weight"].flatten(1), w.get("bias"))
        return rows.permute(0, 3, 1, 2)
    return convolve(
        given, w["weight"], w.get("bias"), a["stride"], pads, a["dilation"], a["groups"]
    )


def _is_product(args: Mapping[str, Any], x: Tensor, pads: tuple[int, ...]) -> bool:
    """Whether a convolution is a product of matrices, and faster as one."""
    return (
        x.ndim == 4
        and x.shape[2] * x.shape[3] <= FEW_PIXELS
        and x.device.type == "cpu"
        and args["groups"] == 1
        and tuple(args["kernel"]) == tuple(args["stride"]) == (1, 1)
        and not any(pads)
    )


def _max_pool(p: Primitive, x: Sequence[Tensor], w: Weights) -> Tensor:
    pool = F.max_pool2d if len(p.args["kernel"]) == 2 else F.max_pool1d
    given, pads = _padded(p, x[0], -torch.inf)
    return pool(given, p.args["kernel"], p.args["stride"], pads, p.args["dilation"])


def _avg_pool(p: Primitive, x: Sequence[Tensor], w: Weights) -> Tensor:
    """The mean of what a window holds of the input; where nothing is padded, of all of it."""
    pool = F.avg_pool2d if len(p.args["kernel"]) == 2 else F.avg_pool1d
    given, pads = _padded(p, x[0])
    kernel, stride = p.args["kernel"], p.args["stride"]
    if given is x[0]:
        return pool(given, kernel, stride, pads, count_include_pad=False)
    ones = F.pad(torch.ones_like(x[0][:1, :1]), _flat(p))
    return pool(given, kernel, stride) / pool(ones, kernel, stride)


def _flat(p: Primitive) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable(reversed(p.args["pads"])))


def _attention(p: Primitive, x: Sequence[Tensor], w: Weights) -> Tensor:
    heads, (tokens, features) = p.args["heads"], p.shape
    q, k, v = (t.view(-1, tokens, heads, features // heads).transpose(1, 2) for t in x)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, tokens, features)


def _slice(p: Primitive, x: Sequence[Tensor], w: Weights) -> Tensor:
    length = p.args["stop"] - p.args["start"]
    return x[0].narrow(p.args["axis"] + 1, p.args["start"], length)


def _upsample(p: Primitive, x: Sequence[Tensor], w: Weights) -> Tensor:
    mode = p.args.get("mode", "nearest")
    if mode == "nearest":
        return F.interpolate(x[0], scale_factor=p.args["factor"], mode=mode)
    kind = "bilinear" if len(p.shape) == 3 else "linear"
    size = tuple(p.shape[1:])
    return F.interpolate(x[0], size, mode=kind, align_corners=mode == "corners")


FORWARD: dict[str, Forward] = {
    "conv": _conv,
    "linear": lambda p, x, w: F.linear(x[0], w["weight"], w.get("bias")),
    "times": lambda p, x, w: x[0] * w["factor"],
    "plus": lambda p, x, w: x[0] + w["bias"],
    "layer_norm": lambda p, x, w: F.layer_norm(
        x[0], p.shape[-1:], w["scale"], w["bias"], p.args.get("eps", NORM_EPS)
    ),
    "group_norm": lambda p, x, w: F.group_norm(
        x[0], p.args["groups"], w["scale"], w["bias"], p.args["eps"]
    ),
    "relu": _unary(F.relu),
    "relu6": _unary(F.relu6),
    "h_swish": _unary(F.hardswish),
    "silu": _unary(F.silu),
    "mish": _unary(F.mish),
    "gelu": _unary(F.gelu),
    "gelu_tanh": _unary(lambda x: F.gelu(x, approximate="tanh")),
    "tanh": _unary(torch.tanh),
    "leaky_relu": lambda p, x, w: F.leaky_relu(x[0], p.args["slope"]),
    "sigmoid": _unary(torch.sigmoid),
    "h_sigmoid": _unary(F.hardsigmoid),
    "clip": lambda p, x, w: x[0].clamp(p.args["low"], p.args["high"]),
    "affine": lambda p, x, w: x[0] * p.args["factor"] + p.args["offset"],
    "erf": _unary(torch.erf),
    "softplus": _unary(F.softplus),
    "add": lambda p, x, w: x[0] + x[1],
    "sub": lambda p, x, w: x[0] - x[1],
    "mul": lambda p, x, w: x[0] * x[1],
    "div": lambda p, x, w: x[0] / x[1],
    "concat": lambda p, x, w: torch.cat(tuple(x), p.args["axis"] + 1),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "mean": lambda p, x, w: x[0].mean([axis + 1 for axis in p.args["axes"]], p.args["keep"]),
    "length": lambda p, x, w: torch.linalg.vector_norm(
        x[0], 2, [axis + 1 for axis in p.args["axes"]], p.args["keep"]
    ),
    "matmul": lambda p, x, w: x[0] @ x[1],
    "softmax": lambda p, x, w: F.softmax(x[0], -1),
    "attention": _attention,
    "reshape": lambda p, x, w: x[0].reshape(-1, *p.shape),
    "transpose": lambda p, x, w: x[0].permute(0, *(axis + 1 for axis in p.args["axes"])),
    "slice": _slice,
    "upsample": _upsample,
    "pad": lambda p, x, w: F.pad(x[0], _flat(p), value=p.args.get("value", 0.0)),
}
