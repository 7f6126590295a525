"""The primitives that ops are made of: output shape, weights and cost of each, one rule a kind.

A primitive reads tensors of its op by name and gives one. Shapes leave the batch out: (channels,
height, width), (channels, time), (tokens, features) or (features,). One MAC is one
multiply-accumulate (2 FLOPs): convolutions, linear layers and matrix products have some; what works
element by element, moves or pools counts none, as in once-for-all and in torch's FLOP counter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Shape = tuple[int, ...]
Shapes = Sequence[Shape]  # of the inputs of a primitive
Args = Mapping[str, Any]

# Activations without arguments.
ACTIVATIONS = ("none", "relu", "relu6", "h_swish", "silu", "mish", "gelu", "gelu_tanh", "tanh",
               "sigmoid", "h_sigmoid")  # fmt: skip
GATES = ("sigmoid", "h_sigmoid")  # activations between 0 and 1, which something is multiplied by
BENDS = {*ACTIVATIONS, "leaky_relu"} - {"none", *GATES}  # activations that are no gates
NORM_EPS = 1e-5  # of LayerNorm and GroupNorm where they say no other


class Primitive(NamedTuple):
    """One primitive of an op, resolved.

    Attributes:
        kind: of RULES.
        name: of its output, unique in the op.
        inputs: names of what it reads; an op's own inputs are `in`, `in2`, ...
        shapes: of its inputs.
        shape: of its output.
        args: what its rule takes besides, by name.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    shape: Shape
    args: Args

    @property
    def weights(self) -> dict[str, Shape]:
        """Shapes of its weights, by what they are called."""
        return RULES[self.kind].weights(self.shapes, self.args)

    @property
    def macs(self) -> int:
        """Multiply-accumulates at batch 1."""
        return RULES[self.kind].macs(self.shapes, self.shape, self.args)


class Rule(NamedTuple):
    """What a kind of primitive gives, of the shapes of its inputs and its arguments.

    Attributes:
        shape: of its output; raises ValueError where the inputs do not fit.
        weights: shapes by name.
        macs: of shapes, output shape and arguments.
        inputs: how many it reads; 0: any number.
    """

    shape: Callable[[Shapes, Args], Shape]
    weights: Callable[[Shapes, Args], dict[str, Shape]] = lambda shapes, args: {}
    macs: Callable[[Shapes, Shape, Args], int] = lambda shapes, shape, args: 0
    inputs: int = 1


def resolve(kind: str, name: str, inputs: Sequence[str], shapes: Shapes, args: Args) -> Primitive:
    """The primitive of a kind over inputs of known shapes.

    Raises:
        ValueError: no such kind, or inputs that do not fit it.
    """
    if kind not in RULES:
        raise ValueError(f"{name}: primitive {kind!r} is not one of {', '.join(sorted(RULES))}")
    rule = RULES[kind]
    if rule.inputs and len(inputs) != rule.inputs:
        raise ValueError(f"{name}: {kind} reads {rule.inputs} tensors, {len(inputs)} are named")
    shape = rule.shape(shapes, args)
    if any(n < 1 for n in shape):
        raise ValueError(f"{name}: {kind} of {list(shapes)} leaves nothing: {shape}")
    return Primitive(kind, name, tuple(inputs), tuple(shapes), shape, args)


# ---- rules -------------------------------------------------------------------------------------


def _window(shapes: Shapes, args: Args) -> Shape:
    """Places of a window over the spatial axes: kernel, stride, dilation, padding of each axis."""
    axes = zip(
        shapes[0][1:], args["kernel"], args["stride"], args["dilation"], args["pads"], strict=True
    )
    for name in ("kernel", "stride", "dilation"):
        if min(args[name]) < 1:
            raise ValueError(f"{name} {args[name]} is less than 1")
    return tuple(
        (n + sum(pad) - dilation * (kernel - 1) - 1) // stride + 1
        for n, kernel, stride, dilation, pad in axes
    )


def _conv_weights(shapes: Shapes, args: Args) -> dict[str, Shape]:
    per_group, rest = divmod(shapes[0][0], args["groups"])
    if rest or args["out"] % args["groups"]:
        raise ValueError(
            f"{args['groups']} groups do not divide {shapes[0][0]} or {args['out']} channels"
        )
    weights = {"weight": (args["out"], per_group, *args["kernel"])}
    return {**weights, "bias": (args["out"],)} if args["bias"] else weights


def _linear_weights(shapes: Shapes, args: Args) -> dict[str, Shape]:
    weights: dict[str, Shape] = {"weight": (args["out"], shapes[0][-1])}
    return {**weights, "bias": (args["out"],)} if args["bias"] else weights


def _same(shapes: Shapes, args: Args) -> Shape:
    """Element by element: tensors of one shape, or 1 where one is spread."""
    for shape in shapes:
        if len(shape) != len(shapes[0]):
            raise ValueError(f"shapes {list(shapes)} do not match")
    out = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    if any(n not in (1, wanted) for shape in shapes for n, wanted in zip(shape, out, strict=True)):
        raise ValueError(f"shapes {list(shapes)} do not match")
    return out


def _concat(shapes: Shapes, args: Args) -> Shape:
    axis = args["axis"]
    others = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(others) != 1:
        raise ValueError(f"shapes {list(shapes)} differ in more than axis {axis}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _mean(shapes: Shapes, args: Args) -> Shape:
    kept = (1 if i in args["axes"] else n for i, n in enumerate(shapes[0]))
    if args["keep"]:
        return tuple(kept)
    return tuple(n for i, n in enumerate(shapes[0]) if i not in args["axes"])


def _matmul(shapes: Shapes, args: Args) -> Shape:
    first, other = shapes
    if first[-1] != other[-2]:
        raise ValueError(f"matrices {first} and {other} cannot be multiplied")
    return (*_same((first[:-2], other[:-2]), args), first[-2], other[-1])


def _attention(shapes: Shapes, args: Args) -> Shape:
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or shapes[0][1] % args["heads"]:
        raise ValueError(
            f"attention of {args['heads']} heads takes three (tokens, features), not {list(shapes)}"
        )
    return shapes[0]


def _reshape(shapes: Shapes, args: Args) -> Shape:
    shape: Shape = tuple(args["shape"])
    if math.prod(shape) != math.prod(shapes[0]):
        raise ValueError(f"{shapes[0]} cannot be reshaped to {shape}")
    return shape


def _slice(shapes: Shapes, args: Args) -> Shape:
    axis, out = args["axis"], list(shapes[0])
    if not 0 <= args["start"] < args["stop"] <= out[axis]:
        raise ValueError(f"slice {args['start']}:{args['stop']} is not in axis {axis} of {out}")
    out[axis] = args["stop"] - args["start"]
    return tuple(out)


def _per_channel(names: Sequence[str], axis: int) -> Callable[[Shapes, Args], dict[str, Shape]]:
    return lambda shapes, args: dict.fromkeys(names, (shapes[0][axis],))


def _along(name: str) -> Callable[[Shapes, Args], dict[str, Shape]]:
    """A weight of one number for each place along some axes, shaped to be spread over the others;
    without axes one number.
    """

    def weights(shapes: Shapes, args: Args) -> dict[str, Shape]:
        axes = args["axes"]
        first = min(axes, default=len(shapes[0]) - 1)
        spread = tuple(n if axis in axes else 1 for axis, n in enumerate(shapes[0]))
        return {name: spread[first:]}

    return weights


def _group_norm(shapes: Shapes, args: Args) -> Shape:
    if shapes[0][0] % args["groups"]:
        raise ValueError(f"{args['groups']} groups do not divide {shapes[0][0]} channels")
    return shapes[0]


_UNARY = Rule(lambda shapes, args: shapes[0])
_POOL = Rule(lambda shapes, args: (shapes[0][0], *_window(shapes, args)))

RULES: dict[str, Rule] = {
    "conv": Rule(
        lambda shapes, args: (args["out"], *_window(shapes, args)),
        _conv_weights,
        lambda shapes, shape, args: (
            math.prod(shape) * (shapes[0][0] // args["groups"]) * math.prod(args["kernel"])
        ),
    ),
    "linear": Rule(
        lambda shapes, args: (*shapes[0][:-1], args["out"]),
        _linear_weights,
        lambda shapes, shape, args: math.prod(shape) * shapes[0][-1],
    ),
    "product": Rule(  # of the exported form: a matrix times a weight (features in, out)
        lambda shapes, args: (*shapes[0][:-1], args["out"]),
        lambda shapes, args: {"weight": (shapes[0][-1], args["out"])},
    ),
    "times": Rule(lambda shapes, args: shapes[0], _along("factor")),  # a table, along `axes`
    "plus": Rule(lambda shapes, args: shapes[0], _along("bias")),
    "batch_norm": Rule(lambda shapes, args: shapes[0], _per_channel(["scale", "bias"], 0)),
    "layer_norm": Rule(lambda shapes, args: shapes[0], _per_channel(["scale", "bias"], -1)),
    "group_norm": Rule(_group_norm, _per_channel(["scale", "bias"], 0)),
    "level": _UNARY,  # of the exported form: mean 0 and variance 1 over the last axis
    **{name: _UNARY for name in ACTIVATIONS if name != "none"},
    "leaky_relu": _UNARY,  # times `slope` below 0
    "clip": _UNARY,  # between `low` and `high`, either of which may be infinite
    "affine": _UNARY,  # times `factor`, or plus `offset`
    "erf": _UNARY,
    "softplus": _UNARY,
    **{name: Rule(_same, inputs=2) for name in ("add", "sub", "mul", "div")},
    "concat": Rule(_concat, inputs=0),
    "max_pool": _POOL,
    "avg_pool": _POOL,  # padding counts nothing
    "mean": Rule(_mean),
    "length": Rule(_mean),  # square root of the sum of squares
    "matmul": Rule(
        _matmul,
        macs=lambda shapes, shape, args: math.prod(shape) * shapes[0][-1],
        inputs=2,
    ),
    "softmax": _UNARY,  # over the last axis
    "attention": Rule(
        _attention,
        macs=lambda shapes, shape, args: 2 * shape[0] * shape[0] * shape[1],
        inputs=3,
    ),
    "reshape": Rule(_reshape),
    "transpose": Rule(lambda shapes, args: tuple(shapes[0][axis] for axis in args["axes"])),
    "slice": Rule(_slice),
    "upsample": Rule(  # by a whole factor; `mode`: nearest, linear, or linear from corner to corner
        lambda shapes, args: (shapes[0][0], *(n * args["factor"] for n in shapes[0][1:]))
    ),
    "pad": Rule(  # zeros, or `value`, at the spatial axes
        lambda shapes, args: (
            shapes[0][0],
            *(n + sum(pad) for n, pad in zip(shapes[0][1:], args["pads"], strict=True)),
        )
    ),
}
