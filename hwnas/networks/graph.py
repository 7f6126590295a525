"""An op as a small graph of primitives, and the form of it that is exported.

`Body` is what an op kind's constructor writes its primitives into. The export folds each BatchNorm
into the convolution or linear layer before it, and writes out what ONNX has no operator for; then
every primitive is one ONNX node, so what is counted over it is counted of the file.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.networks.primitives import ACTIVATIONS, Primitive, Shape, resolve

INPUTS = ("in", *(f"in{n}" for n in range(2, 65)))  # what an op reads, in its order
FOLDS = ("conv", "linear")  # what takes a BatchNorm in


@dataclass(frozen=True, eq=False)
class Graph:
    """The primitives of an op in an order in which each comes after what it reads.

    Attributes:
        inputs: shapes of what the op reads.
        primitives: the last one's output is the op's.
    """

    inputs: tuple[Shape, ...]
    primitives: tuple[Primitive, ...]

    @property
    def shape(self) -> Shape:
        """Of the output."""
        return self.primitives[-1].shape

    @functools.cached_property
    def unread(self) -> tuple[tuple[str, ...], ...]:
        """After each primitive, the tensors it read that no later one reads."""
        last = {name: i for i, p in enumerate(self.primitives) for name in p.inputs}
        return tuple(
            tuple(name for name in dict.fromkeys(p.inputs) if last[name] == i)
            for i, p in enumerate(self.primitives)
        )


class Body:
    """The primitives of an op while its constructor writes them."""

    def __init__(self, inputs: Sequence[Shape]) -> None:
        self.inputs = tuple(inputs)
        self.shapes: dict[str, Shape] = dict(zip(INPUTS, self.inputs, strict=False))
        self._primitives: list[Primitive] = []

    def add(self, kind: str, name: str, *inputs: str, **args: Any) -> str:
        """A primitive that reads tensors by name; returns its name.

        Raises:
            ValueError: an unknown primitive, a name that is taken, or inputs that are not there
                (yet) or do not fit.
        """
        if name in self.shapes:
            raise ValueError(f"{name} is the name of two tensors; give one another name")
        missing = [source for source in inputs if source not in self.shapes]
        if missing:
            raise ValueError(
                f"{name} reads {missing[0]}, which does not exist; write that one first, "
                "and no cycle"
            )
        shapes = [self.shapes[source] for source in inputs]
        made = resolve(kind, name, inputs, shapes, args)
        self._primitives.append(made)
        self.shapes[name] = made.shape
        return name

    def conv(
        self, name: str, source: str, out: int, norm: str = "bn", act: str = "none", **args: Any
    ) -> str:
        """A convolution, its BatchNorm (norm `bn`) or bias (`bias`, or neither: empty), and an
        activation; returns the last one's name.

        Args:
            name: of the convolution.
            source: what it reads.
            out: channels.
            norm, act: what follows.
            args: kernel (1), stride (1), dilation (1), groups (1), pads: (before, after) of every
                axis, or of each one; `dilation * (kernel - 1) // 2` on both sides.
        """
        last = self.add(
            "conv", name, source, **window(len(self.shapes[source]) - 1, args), out=out,
            groups=args.get("groups", 1), bias=norm == "bias",
        )  # fmt: skip
        if norm == "bn":
            last = self.add("batch_norm", f"{name}_norm", last)
        return self.act(name, last, act)

    def act(self, name: str, source: str, act: str) -> str:
        """An activation named after what it follows; returns the source itself for `none`."""
        if act not in ACTIVATIONS:
            raise ValueError(f"activation {act!r} is not one of {', '.join(ACTIVATIONS)}")
        if act == "none":
            return source
        return self.add(act, f"{name}_{'act' if act == 'h_swish' else act}", source)

    def squeeze(self, name: str, source: str, hidden: int) -> str:
        """Squeeze-excite: the source times a gate for each channel."""
        shape = self.shapes[source]
        pooled = self.mean(f"{name}_pool", source)
        reduced = self.conv(f"{name}_reduce", pooled, hidden, "bias", "relu")
        gate = self.conv(f"{name}_expand", reduced, shape[0], "bias")
        gate = self.add("h_sigmoid", f"{name}_gate", gate)
        return self.add("mul", f"{name}_scale", source, gate)

    def mean(self, name: str, source: str) -> str:
        """The mean over all spatial axes, which keep size 1."""
        axes = tuple(range(1, len(self.shapes[source])))
        return self.add("mean", name, source, axes=axes, keep=True)

    def graph(self) -> Graph:
        """The graph that was written.

        Raises:
            ValueError: it is empty, or has outputs besides the last one.
        """
        if not self._primitives:
            raise ValueError("it has no primitive; write one at least")
        read = {source for p in self._primitives for source in p.inputs}
        unread = [p.name for p in self._primitives[:-1] if p.name not in read]
        if unread:
            raise ValueError(
                f"it has the outputs {unread[0]} and {self._primitives[-1].name}; read the first "
                "one or leave it out"
            )
        unused = [name for name in INPUTS[: len(self.inputs)] if name not in read]
        if unused:
            raise ValueError(f"its input {unused[0]} is not read; read it or take it away")
        return Graph(self.inputs, tuple(self._primitives))


def window(axes: int, args: dict[str, Any]) -> dict[str, Any]:
    """Kernel, stride, dilation and padding of each of some axes; numbers stand for all axes."""
    out: dict[str, Any] = {
        name: given if isinstance(given := args.get(name, 1), tuple) else (given,) * axes
        for name in ("kernel", "stride", "dilation")
    }
    pads = args.get("pads")
    if pads is None:
        both = zip(out["kernel"], out["dilation"], strict=True)
        pads = tuple((d * (k - 1) // 2,) * 2 for k, d in both)
    elif not isinstance(pads[0], tuple):
        pads = (tuple(pads),) * axes
    return {**out, "pads": pads}


# ---- the exported form --------------------------------------------------------------------------


def exported(graph: Graph) -> tuple[Primitive, ...]:
    """The primitives of the exported op, one for each ONNX node, in order."""
    return tuple(
        step for p in folded(graph) for step in (EXPANDED[p.kind](p) if p.kind in EXPANDED else [p])
    )


def folded(graph: Graph) -> list[Primitive]:
    """The primitives with every BatchNorm folded that can be: its layer has a bias then."""
    reads = Counter(source for p in graph.primitives for source in p.inputs)
    by_name = {p.name: p for p in graph.primitives}
    into = {
        p.name: p.inputs[0]
        for p in graph.primitives
        if p.kind == "batch_norm"
        and p.inputs[0] in by_name
        and by_name[p.inputs[0]].kind in FOLDS
        and (by_name[p.inputs[0]].kind == "conv" or len(p.shape) == 1)  # over the axis it makes
        and reads[p.inputs[0]] == 1
    }
    taking = set(into.values())
    return [
        p._replace(
            inputs=tuple(into.get(source, source) for source in p.inputs),
            args={**p.args, "bias": True} if p.name in taking else p.args,
        )
        for p in graph.primitives
        if p.name not in into
    ]


def _h_swish(p: Primitive) -> list[Primitive]:
    gate = f"{p.name.removesuffix('_act')}_gate"
    return [
        resolve("h_sigmoid", gate, p.inputs, p.shapes, {}),
        resolve("mul", p.name, (*p.inputs, gate), p.shapes * 2, {}),
    ]


def _silu(p: Primitive) -> list[Primitive]:
    gate = f"{p.name}_gate"
    return [
        resolve("sigmoid", gate, p.inputs, p.shapes, {}),
        resolve("mul", p.name, (*p.inputs, gate), p.shapes * 2, {}),
    ]


def _gelu(p: Primitive) -> list[Primitive]:
    """x / 2 * (1 + erf(x / sqrt 2)), since opset 17 has no Gelu."""
    n, shapes = p.name, p.shapes
    return [
        resolve("affine", f"{n}_x", p.inputs, shapes, {"factor": math.sqrt(0.5), "offset": 0.0}),
        resolve("erf", f"{n}_erf", (f"{n}_x",), shapes, {}),
        resolve("affine", f"{n}_gate", (f"{n}_erf",), shapes, {"factor": 1.0, "offset": 1.0}),
        resolve("affine", f"{n}_half", p.inputs, shapes, {"factor": 0.5, "offset": 0.0}),
        resolve("mul", n, (f"{n}_half", f"{n}_gate"), shapes * 2, {}),
    ]


def _gelu_tanh(p: Primitive) -> list[Primitive]:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    n, body = p.name, Body(p.shapes)
    square = body.add("mul", f"{n}_square", "in", "in")
    bent = body.add("affine", f"{n}_bent", square, factor=0.044715, offset=0.0)
    bent = body.add("affine", f"{n}_more", bent, factor=1.0, offset=1.0)
    x = body.add("affine", f"{n}_x", "in", factor=math.sqrt(2 / math.pi), offset=0.0)
    gate = body.add("tanh", f"{n}_tanh", body.add("mul", f"{n}_cube", x, bent))
    gate = body.add("affine", f"{n}_gate", gate, factor=1.0, offset=1.0)
    half = body.add("affine", f"{n}_half", "in", factor=0.5, offset=0.0)
    body.add("mul", n, half, gate)
    return _named(body, p)


def _mish(p: Primitive) -> list[Primitive]:
    """x * tanh(ln(1 + e^x))."""
    n, body = p.name, Body(p.shapes)
    gate = body.add("tanh", f"{n}_gate", body.add("softplus", f"{n}_softplus", "in"))
    body.add("mul", n, "in", gate)
    return _named(body, p)


def _affine(p: Primitive) -> list[Primitive]:
    """A factor, then an offset, where there are both."""
    if p.args["factor"] == 1.0 or not p.args["offset"]:
        return [p]
    scaled, (args, shapes) = f"{p.name}_scaled", (p.args, p.shapes)
    return [
        resolve("affine", scaled, p.inputs, shapes, {**args, "offset": 0.0}),
        resolve("affine", p.name, (scaled,), shapes, {**args, "factor": 1.0}),
    ]


def _linear(p: Primitive) -> list[Primitive]:
    """Of a matrix: a product, then the bias."""
    if len(p.shape) == 1:
        return [p]
    name = f"{p.name}_product" if p.args["bias"] else p.name
    product = resolve("product", name, p.inputs, p.shapes, {"out": p.args["out"]})
    if not p.args["bias"]:
        return [product]
    axes = {"axes": (len(p.shape) - 1,)}
    return [product, resolve("plus", p.name, (name,), [p.shape], axes)]


def _batch_norm(p: Primitive) -> list[Primitive]:
    """One that could not be folded: a factor and an offset for each channel."""
    scaled = f"{p.name}_scaled"
    return [
        resolve("times", scaled, p.inputs, p.shapes, {"axes": (0,)}),
        resolve("plus", p.name, (scaled,), p.shapes, {"axes": (0,)}),
    ]


def _group_norm(p: Primitive) -> list[Primitive]:
    """Each group in a row, since opset 17 has no GroupNormalization."""
    n, groups, body = p.name, p.args["groups"], Body(p.shapes)
    last = body.add("reshape", f"{n}_rows", "in", shape=(groups, math.prod(p.shape) // groups))
    last = body.add("level", f"{n}_level", last, eps=p.args["eps"])
    last = body.add("reshape", f"{n}_back", last, shape=p.shape)
    body.add("plus", n, body.add("times", f"{n}_scaled", last, axes=(0,)), axes=(0,))
    return _named(body, p)


def _attention(p: Primitive) -> list[Primitive]:
    """Softmax of scaled products of queries and keys, times values, head by head."""
    n, heads, (tokens, features) = p.name, p.args["heads"], p.shape
    each = features // heads
    body = Body(p.shapes)
    parts = []
    for role, source, axes in zip("qkv", INPUTS, ((1, 0, 2), (1, 2, 0), (1, 0, 2)), strict=False):
        split = body.add("reshape", f"{n}_{role}", source, shape=(tokens, heads, each))
        parts.append(body.add("transpose", f"{n}_{role}_heads", split, axes=axes))
    scores = body.add("matmul", f"{n}_scores", parts[0], parts[1])
    scores = body.add("affine", f"{n}_scaled", scores, factor=each**-0.5, offset=0.0)
    shares = body.add("softmax", f"{n}_shares", scores)
    mixed = body.add("matmul", f"{n}_mixed", shares, parts[2])
    joined = body.add("transpose", f"{n}_joined", mixed, axes=(1, 0, 2))
    body.add("reshape", n, joined, shape=p.shape)
    return _named(body, p)


def _named(body: Body, p: Primitive) -> list[Primitive]:
    """What was written in the place of a primitive, reading what that reads."""
    named = dict(zip(INPUTS, p.inputs, strict=False))
    return [
        step._replace(inputs=tuple(named.get(source, source) for source in step.inputs))
        for step in body.graph().primitives
    ]


EXPANDED = {
    "affine": _affine,
    "h_swish": _h_swish,
    "silu": _silu,
    "mish": _mish,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "attention": _attention,
}


def peak_elements(
    sizes: Mapping[str, int],
    steps: Iterable[tuple[str, int, Sequence[str]]],
    keep: Collection[str] = (),
) -> int:
    """Most elements alive at once while steps run, one after another.

    A tensor is alive from the step that writes it to the last one that reads it.

    Args:
        sizes: elements of what is there before, by name.
        steps: (output, its elements, what it reads).
        keep: tensors that are alive to the end.
    """
    sequence = list(steps)
    last = {name: i for i, (_, _, reads) in enumerate(sequence) for name in reads}
    last |= dict.fromkeys(keep, len(sequence))
    alive = dict(sizes)
    peak = sum(alive.values())
    for i, (output, elements, _) in enumerate(sequence):
        alive[output] = elements
        peak = max(peak, sum(alive.values()))
        alive = {name: n for name, n in alive.items() if last.get(name, len(sequence)) > i}
    return peak
