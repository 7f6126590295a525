"""Primitives one after another, as a traced model has them: one that computes, and what follows it.

The text says each step: `conv:64:k3x3:s2x2:p1x1/batch_norm/relu/add@in2`. A step reads the one
before it (the first one `in`), then what stands behind `@`. Arguments that are as usual are left
out, so equal regions have equal texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hwnas.networks.graph import Body
from hwnas.networks.primitives import ACTIVATIONS, NORM_EPS

EXAMPLES = (
    ((3, 9, 9), {"does": "conv:8:k3x3:s2x2:p1x1/batch_norm/relu"}),
    ((8, 8, 8), {"does": "conv:8:k3x3:p1x1:g8:b/batch_norm:e0.001/h_swish"}),
    ((8, 6, 6), {"does": "max_pool:k3x3:s2x2:p0.1x0.1"}),
    ((8, 3, 3), {"does": "mean:1.2:k/conv:6:b/relu/conv:8:b/h_sigmoid"}),
    ((4, 3), {"does": "reshape/linear:10:b"}),
    ((8, 20), {"does": "conv:6:k3:p2.0/batch_norm/silu"}),
    ((8, 5, 5), {"does": "group_norm:2/leaky_relu:0.1/times:0/plus:0/add@in"}),
    ((6, 4, 4), {"does": "transpose:1.2.0/layer_norm:e1e-06/transpose:2.0.1/gelu_tanh"}),
    ((6, 3, 4), {"does": "upsample:2:mlinear/mish"}),
    ((6, 3, 4), {"does": "upsample:3:mcorners/tanh"}),
    ((4, 6, 6), {"does": "pad:p0x1.2:v1.0/clip:l-0.5/length:1.2:k/affine:f2.0:o1.0"}),
    ((4, 3, 5), (1, 5, 4), {"does": "matmul@in2/softmax"}),
    ((4, 9), {"does": "upsample:2:mlinear/times:/plus:0.1/clip:l-1.0:h2.0"}),
)  # fmt: skip


class Step(NamedTuple):
    """A primitive of a region: kind, what it reads besides the step before, and arguments."""

    kind: str
    others: tuple[str, ...]
    args: Mapping[str, Any]


class _Field(NamedTuple):
    """An argument in the text: the letter before it, how it is written and read, and what it is
    where it is left out (None: it is always there; a function of the number of axes).
    """

    name: str
    letter: str
    write: Callable[[Any], str]
    read: Callable[[str], Any]
    usual: Callable[[int], Any] | None = None


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _pads(text: str) -> tuple[tuple[int, int], ...]:
    pairs = [list(map(int, part.split("."))) for part in text.split("x")]
    return tuple((pair[0], pair[-1]) for pair in pairs)


def _write_pads(pads: Sequence[tuple[int, int]]) -> str:
    return "x".join(f"{a}" if a == b else f"{a}.{b}" for a, b in pads)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("."))) if text else ()


def _join(sign: str) -> Callable[[Any], str]:
    return lambda values: sign.join(map(str, values))


def _flag(text: str) -> bool:
    if text:
        raise ValueError(f"a flag has no value, not {text!r}")
    return True


_OUT = _Field("out", "", str, int)
_BIAS = _Field("bias", "b", lambda value: "", _flag, lambda axes: False)
_WINDOW = (
    _Field("kernel", "k", _join("x"), _sizes, lambda axes: (1,) * axes),
    _Field("stride", "s", _join("x"), _sizes, lambda axes: (1,) * axes),
    _Field("pads", "p", _write_pads, _pads, lambda axes: ((0, 0),) * axes),
    _Field("dilation", "d", _join("x"), _sizes, lambda axes: (1,) * axes),
)
_AXIS = _Field("axis", "", str, int)
_AXES = _Field("axes", "", _join("."), _numbers)
_REDUCED = (_AXES, _Field("keep", "k", lambda value: "", _flag, lambda axes: False))
_EPS = _Field("eps", "e", repr, float, lambda axes: NORM_EPS)

FIELDS: dict[str, tuple[_Field, ...]] = {
    "conv": (_OUT, *_WINDOW, _Field("groups", "g", str, int, lambda axes: 1), _BIAS),
    "linear": (_OUT, _BIAS),
    "times": (_AXES,),
    "plus": (_AXES,),
    "batch_norm": (_Field("eps", "e", repr, float, lambda axes: 0.0),),  # usual: the space's
    "layer_norm": (_EPS,),
    "group_norm": (_Field("groups", "", str, int), _EPS),
    **{name: () for name in ACTIVATIONS if name != "none"},
    "leaky_relu": (_Field("slope", "", repr, float),),
    "clip": (
        _Field("low", "l", repr, float, lambda axes: -math.inf),
        _Field("high", "h", repr, float, lambda axes: math.inf),
    ),
    "affine": (_Field("factor", "f", repr, float), _Field("offset", "o", repr, float)),
    **dict.fromkeys(("add", "sub", "mul", "div"), ()),
    "concat": (_AXIS,),
    "max_pool": _WINDOW,
    "avg_pool": _WINDOW,
    "mean": _REDUCED,
    "length": _REDUCED,
    "matmul": (),
    "softmax": (),
    "attention": (_Field("heads", "", str, int),),
    "reshape": (_Field("shape", "", _join("x"), _sizes, lambda axes: ()),),  # usual: in a row
    "transpose": (_AXES,),
    "slice": (_AXIS, _Field("start", "f", str, int), _Field("stop", "t", str, int)),
    "upsample": (
        _Field("factor", "", str, int),
        _Field("mode", "m", str, str, lambda axes: "nearest"),
    ),
    "pad": (
        _Field("pads", "p", _write_pads, _pads),
        _Field("value", "v", repr, float, lambda axes: 0.0),
    ),
}


def written(steps: Sequence[Step], axes: int) -> str:
    """The text of steps.

    Args:
        steps: in order; arguments that are as usual may be there.
        axes: spatial ones of the first input: windows have so many numbers.
    """
    return "/".join(_written(step, axes) for step in steps)


def _written(step: Step, axes: int) -> str:
    words = [step.kind]
    for field in FIELDS[step.kind]:
        usual = field.usual and field.usual(axes)
        value = step.args.get(field.name, usual)
        if field.usual is None or value != usual:
            words.append(field.letter + field.write(value))
    return ":".join(words) + ("@" + "+".join(step.others) if step.others else "")


def steps_of(text: str, axes: int) -> list[Step]:
    """The steps of a text.

    Raises:
        ValueError: a step that cannot be read.
    """
    return [_step(part, axes) for part in text.split("/")]


def _step(text: str, axes: int) -> Step:
    said, _, others = text.partition("@")
    kind, *words = said.split(":")
    if kind not in FIELDS:
        raise ValueError(f"step {text!r}: {kind!r} is not one of {', '.join(sorted(FIELDS))}")
    args = {f.name: f.usual(axes) for f in FIELDS[kind] if f.usual is not None}
    left = list(FIELDS[kind])
    for word in words:
        while left and not word.startswith(left[0].letter):
            left.pop(0)
        if not left:
            raise ValueError(f"step {text!r}: {word!r} is unknown to {kind}, or out of order")
        field = left.pop(0)
        args[field.name] = field.read(word[len(field.letter) :])
    missing = [field.name for field in FIELDS[kind] if field.name not in args]
    if missing:
        raise ValueError(f"step {text!r} lacks {missing[0]}")
    return Step(kind, tuple(others.split("+")) if others else (), args)


def step_name(before: Sequence[str], kind: str) -> str:
    """Of the primitive of a step: its kind, numbered from the second on."""
    number = before.count(kind) + 1
    return kind if number == 1 else f"{kind}{number}"


def build(body: Body, does: str) -> None:
    """Does: the steps."""
    axes = len(body.shapes["in"]) - 1
    steps = steps_of(does, axes)
    if written(steps, axes) != does:
        raise ValueError(f"{does!r} is not canonical; expected {written(steps, axes)!r}")
    last = "in"
    for number, step in enumerate(steps):
        name = step_name([other.kind for other in steps[:number]], step.kind)
        args = dict(step.args)
        if step.kind == "reshape" and not args["shape"]:
            args["shape"] = (math.prod(body.shapes[last]),)
        last = body.add(step.kind, name, last, *step.others, **args)
