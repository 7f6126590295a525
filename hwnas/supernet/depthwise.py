"""A faster gradient of the weights of depthwise convolutions on CPUs.

oneDNN's fast kernel of this gradient takes three columns, and no more rows than the map has; with
5x5 weights it falls back to one that is 3 to 70 times slower. So columns of a large kernel are
given to it three at a time, and each tap that is left is summed over the pixels that it touches:
one product and sum of two slices. It is used where a short measurement finds it faster.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.networks.primitives import Primitive

FEW_STEPS = 200  # of a run: too few for the measurement to pay
ROUNDS = 3
WORTH = 0.9  # of the other way's time

_used: ContextVar[bool] = ContextVar("split gradients", default=False)


@contextmanager
def split_gradients(used: bool) -> Iterator[None]:
    """Whether convolutions that suit are differentiated in parts in this context."""
    token = _used.set(used)
    try:
        yield
    finally:
        _used.reset(token)


def in_use() -> bool:
    """Whether they are differentiated so in this context."""
    return _used.get()


def suits(p: Primitive, x: Tensor, weight: Tensor, pads: Any) -> bool:
    """Whether a convolution shall be differentiated in parts, and can be."""
    if not in_use() or not torch.is_grad_enabled() or x.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled(x.device.type):  # the gradient has another type than x then
        return False
    return (
        weight.ndim == 4
        and tuple(weight.shape[:2]) == (x.shape[1], 1)
        and "bias" not in p.weights
        and all(d == 1 for d in p.args["dilation"])
        and all(k >= 5 and k % 2 and pad == k // 2 for k, pad in _axes(weight, pads))
    )


def _axes(weight: Tensor, pads: Any) -> Iterable[tuple[int, int]]:
    return zip(weight.shape[2:], pads, strict=True)


def convolve(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """A depthwise convolution padded to keep its size.

    Args:
        x: (n, c, h, w).
        weight: (c, 1, k, l), k and l odd.
    """
    y: Tensor = _Depthwise.apply(x, weight, stride)  # type: ignore[no-untyped-call]
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, _pads(weight), 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        of_x = _backward(grad, x, weight, ctx.stride, 0) if wants_x else None
        return of_x, weight_gradient(grad, x, weight, ctx.stride) if wants_weight else None, None


def _pads(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2] // 2, weight.shape[3] // 2


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], wanted: int
) -> Tensor:
    """torch's own gradient of x (wanted: 0) or of the weight (1)."""
    mask = [wanted == 0, wanted == 1, False]
    pads, channels = _pads(weight), len(weight)
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, pads, (1, 1), False, (0, 0), channels, mask
    )
    gradient: Tensor = found[wanted]
    return gradient


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """Gradient of the weight (c, 1, k, l) of a depthwise convolution; see `convolve`.

    Args:
        grad: (n, c, h', w') of the output.
    """
    channels, _, *size = weight.shape
    down, along = size[0] // 2, size[1] // 2  # taps before the middle
    taps, done = x.new_empty((*size, channels)), set()
    for row, column, step, part in _fast_parts(grad, x, size, stride):
        for j in range(part.shape[2]):
            at = along + column + step * j
            if at < size[1]:
                taps[down + row : down + row + part.shape[1], at] = part[:, :, j].t()
                done |= {(down + row + i, at) for i in range(part.shape[1])}
    images, grads = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    for i, j in itertools.product(range(size[0]), range(size[1])):
        if (i, j) not in done:
            rows = _overlap(i - down, stride[0], x.shape[2], grad.shape[2])
            columns = _overlap(j - along, stride[1], x.shape[3], grad.shape[3])
            product = images[:, rows[0], columns[0]] * grads[:, rows[1], columns[1]]
            torch.sum(product, (0, 1, 2), out=taps[i, j])
    return taps.permute(2, 0, 1).unsqueeze(1)


def _fast_parts(
    grad: Tensor, x: Tensor, size: list[int], stride: tuple[int, int]
) -> Iterator[tuple[int, int, int, Tensor]]:
    """What oneDNN's kernel of three columns gives of the gradient: offsets of the first row and
    column from the middle tap, from one column to the next, and (c, rows, columns).

    Where two neighbouring columns of a map count as channels of one, three columns of that map are
    every second one of five.
    """
    height, width = x.shape[2:]
    if height < size[0] or width < 5 or stride not in ((1, 1), (2, 2)):
        if min(height, width) >= 3:
            yield -1, -1, 1, _columns(grad, x, 3, stride)
        return
    rows, channels = size[0], x.shape[1]
    if stride == (2, 2):
        found = _columns(torch.cat((grad, grad), 1), _pairs(x), rows, (2, 1))
        yield -(rows // 2), -2, 2, found[:channels]
        yield -(rows // 2), -1, 2, found[channels:]
        return
    yield -(rows // 2), -1, 1, _columns(grad, x, rows, stride)
    found = _columns(_pairs(grad), _pairs(x), rows, stride)
    yield -(rows // 2), -2, 2, found[:channels] + found[channels:]


def _pairs(x: Tensor) -> Tensor:
    """(n, 2c, h, w / 2) two neighbouring columns as channels of one; a zero column behind where w
    is odd.
    """
    if x.shape[3] % 2:  # padded by nothing, torch copies all of it
        x = F.pad(x, (0, 1))
    x = x.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).view(n, h, w // 2, 2 * c).permute(0, 3, 1, 2)


def _columns(grad: Tensor, x: Tensor, rows: int, stride: tuple[int, int]) -> Tensor:
    """(c, rows, 3) gradient of a depthwise kernel of three columns, padded to keep its size."""
    return _backward(grad, x, x.new_empty((x.shape[1], 1, rows, 3)), stride, 1)[:, 0]


def _overlap(offset: int, stride: int, size: int, out: int) -> tuple[slice, slice]:
    """The pixels of the input that a tap touches, and those of the output that it adds to."""
    first = max(0, -(offset // stride))
    end = max(first, min(out, (size - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(start, max(start, (end - 1) * stride + offset + 1), stride), slice(first, end)


def is_faster(convolutions: Iterable[Primitive], batch: int, steps: int) -> bool:
    """Whether gradients in parts take less time here than torch's own, on noise.

    Args:
        convolutions: of the networks that are trained, of any kind.
        batch: images of a step.
        steps: of the run.
    """
    if steps < FEW_STEPS:
        return False
    shapes = {_shape(p) for p in convolutions if p.kind == "conv" and len(p.shape) == 3}
    spent = {True: 0.0, False: 0.0}
    for given, made, kernel, stride in sorted(shapes):
        if min(kernel) >= 5:
            like = torch.channels_last
            x, y = (torch.ones((batch, *t)).contiguous(memory_format=like) for t in (given, made))
            weight = torch.ones((made[0], 1, *kernel))
            for ours, seconds in _times(y, x, weight, stride).items():
                spent[ours] += seconds
    return spent[True] < WORTH * spent[False]


def _shape(p: Primitive) -> tuple[Any, ...]:
    """Of input, output, kernel (1x1 of all but plain depthwise convolutions), and the stride."""
    groups, dilated = p.args["groups"], any(d > 1 for d in p.args["dilation"])
    each = groups == p.shape[0] == p.shapes[0][0] and groups > 1  # one channel in, one out
    is_depthwise = each and not dilated and "bias" not in p.weights
    padded = zip(p.args["kernel"], p.args["pads"], strict=True)
    keeps_size = all(k % 2 and tuple(pad) == (k // 2, k // 2) for k, pad in padded)
    kernel = tuple(p.args["kernel"]) if is_depthwise and keeps_size else (1, 1)
    return tuple(p.shapes[0]), tuple(p.shape), kernel, tuple(p.args["stride"])


def _times(y: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int]) -> dict[bool, float]:
    """Seconds of the gradient in parts (True) and of torch's own: the shortest of some rounds."""
    best = {True: float("inf"), False: float("inf")}
    for _ in range(ROUNDS):
        for ours in best:
            started = time.perf_counter()
            weight_gradient(y, x, weight, stride) if ours else _backward(y, x, weight, stride, 1)
            best[ours] = min(best[ours], time.perf_counter() - started)
    return best
