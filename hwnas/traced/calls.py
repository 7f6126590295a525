"""Calls of an exported program as primitives: one rule for each aten operator.

A rule gives the nodes of the traced family that a call is, none for one that changes nothing. What
no rule knows is refused by name: it cannot be measured or exported yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import fx

from hwnas.networks.axes import Axis, groups_of
from hwnas.networks.families.traced import Node
from hwnas.networks.graph import window
from hwnas.traced.analysis import Analysis
from hwnas.traced.plain import arguments, op_of
from profilers.errors import ConfigError

SAME = {"dropout", "dropout_", "feature_dropout", "alpha_dropout", "clone", "contiguous", "alias"}
SAME |= {"detach", "detach_", "to", "_to_copy", "lift_fresh_copy", "type_as", "identity"}
UNARY = {"relu": "relu", "relu6": "relu6", "hardswish": "h_swish", "silu": "silu"}
UNARY |= {"sigmoid": "sigmoid", "hardsigmoid": "h_sigmoid"}
NORM_EPS = 1e-5  # of LayerNorm, as the exported one has it


class Call(NamedTuple):
    """A call: its name without overload, its node, its arguments by name, and the analysis."""

    name: str
    node: fx.Node
    args: Mapping[str, Any]
    analysis: Analysis

    @property
    def input(self) -> fx.Node:
        """The first argument."""
        found: Any = self.node.args[0]
        return found  # type: ignore[no-any-return]

    def axes(self, node: fx.Node | None = None) -> tuple[Axis, ...]:
        """Of the output, or of another node."""
        return self.analysis.axes[(node or self.node).name]

    def refuse(self, why: str, instead: str = "write it otherwise, or wrap it away") -> ConfigError:
        """The error that names the call."""
        return ConfigError(f"node {self.node.name} ({self.node.target}) {why}; {instead}")

    def make(
        self, kind: str, *reads: fx.Node, sizes: tuple[Axis, ...] = (), name: str = "", **args: Any
    ) -> Node:
        """A node of the family, its groups those of all shapes that it meets."""
        met = [axis for n in (*reads, self.node) for axis in self.analysis.axes.get(n.name, ())]
        groups = {g for axis in (*met, *sizes) for g in groups_of(axis)}
        given = tuple(n.name for n in reads)
        return Node(name or self.node.name, kind, given, _items(args), sizes, tuple(sorted(groups)))


def _items(args: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(args.items())


def call_of(node: fx.Node, analysis: Analysis) -> Call:
    """The call of a node, its arguments by the names of the operator's schema."""
    name = op_of(node)
    if name == "getitem":
        return Call(name, node, {"self": node.args[0], "index": node.args[1]}, analysis)
    return Call(name if name in SAME else name.rstrip("_"), node, arguments(node), analysis)


def nodes_of(call: Call) -> list[Node]:
    """What a call is; empty: it gives what its first argument is.

    Raises:
        ConfigError: no rule knows it, or it does what no primitive does.
    """
    if call.name in SAME:
        return []
    if call.name in UNARY:
        return [call.make(UNARY[call.name], call.input)]
    if call.name not in RULES:
        raise call.refuse("is no primitive that hwnas can measure and export yet")
    return RULES[call.name](call)


# ---- rules ---------------------------------------------------------------------------------------


def _spread(values: Any, axes: int) -> tuple[int, ...]:
    given = tuple(values) if isinstance(values, (list, tuple)) else (values,)
    return given * axes if len(given) == 1 else given


def _conv(call: Call) -> list[Node]:
    a, weight = call.args, call.args["weight"]
    axes = call.axes(weight)
    if a.get("transposed"):
        raise call.refuse("is a transposed convolution, which is no primitive yet")
    n = len(axes) - 2
    kernel = tuple(_full(axis) for axis in axes[2:])
    dilation, stride = _spread(a["dilation"], n), _spread(a["stride"], n)
    given = {"kernel": kernel, "stride": stride, "dilation": dilation}
    pads = _pads(call, a["padding"], kernel, dilation)
    made = call.make("conv", call.input, sizes=axes[:2], **window(n, {**given, "pads": pads}),
                     bias=a["bias"] is not None)  # fmt: skip
    return [made]


def _pads(
    call: Call, padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        over = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((n // 2, n - n // 2) for n in over)
    if isinstance(padding, str):
        raise call.refuse(f"pads by {padding!r}", "pad by zeros")
    return tuple((n, n) for n in _spread(padding, len(kernel)))


def _full(axis: Axis) -> int:
    return sum(stretch.units * stretch.repeat for stretch in axis)


def _linear(call: Call) -> list[Node]:
    sizes = call.axes(call.args["weight"])[:2]
    return [call.make("linear", call.input, sizes=sizes, bias=call.args["bias"] is not None)]


def _batch_norm(call: Call) -> list[Node]:
    if call.args["training"] or call.args["running_mean"] is None:
        raise call.refuse("normalises by the batch", "give it running statistics")
    return [call.make("batch_norm", call.input, sizes=(call.axes(call.input)[1],))]


def _layer_norm(call: Call) -> list[Node]:
    if len(call.args["normalized_shape"]) != 1 or call.args["weight"] is None:
        raise call.refuse("normalises more than the last axis, or has no weight")
    if not math.isclose(call.args["eps"], NORM_EPS):
        raise call.refuse(f"has eps {call.args['eps']:g}", f"set it to {NORM_EPS:g}")
    return [call.make("layer_norm", call.input, sizes=(call.axes(call.input)[-1],))]


def _gelu(call: Call) -> list[Node]:
    if call.args["approximate"] != "none":
        raise call.refuse("is an approximate GELU", "use nn.GELU()")
    return [call.make("gelu", call.input)]


def _clamp(call: Call) -> list[Node]:
    low = call.args.get("min_val", call.args.get("min"))
    high = call.args.get("max_val", call.args.get("max"))
    if (low, high) not in ((0, 6), (0, None)):
        raise call.refuse(f"keeps values in {low} .. {high}", "use ReLU or ReLU6")
    return [call.make("relu6" if high else "relu", call.input)]


def _number(call: Call, value: Any) -> float | None:
    """A number, or a constant tensor of one; None for a value that is computed."""
    if isinstance(value, (int, float)):
        return float(value)
    constant = call.analysis.tensors.get(value.name) if isinstance(value, fx.Node) else None
    if constant is None:
        return None
    if constant.numel() != 1 or value.name in call.analysis.names:
        raise call.refuse(f"reads {value.name}, a table of numbers, which is no primitive yet")
    return float(constant)


def _binary(call: Call) -> list[Node]:
    left, right = call.args["self"], call.args["other"]
    if call.args.get("alpha", 1) != 1:
        raise call.refuse(f"scales what it adds by {call.args['alpha']}")
    if _number(call, left) is not None:
        left, right = right, left
    value = _number(call, right)
    if value is None:
        if call.name not in ("add", "mul"):
            raise call.refuse(f"is a {call.name} of two tensors, which is no primitive yet")
        return [call.make(call.name, left, right)]
    if call.name in ("add", "sub"):
        return [
            call.make("affine", left, factor=1.0, offset=value if call.name == "add" else -value)
        ]
    return [
        call.make("affine", left, factor=value if call.name == "mul" else 1 / value, offset=0.0)
    ]


def _pool(call: Call) -> list[Node]:
    a, n = call.args, len(call.axes()) - 2
    kernel = _spread(a["kernel_size"], n)
    stride = _spread(a["stride"] or kernel, n)
    pads = _spread(a["padding"], n)
    after = [p + (s - 1 if a["ceil_mode"] else 0) for p, s in zip(pads, stride, strict=True)]
    given = {"kernel": kernel, "stride": stride, "dilation": _spread(a.get("dilation", 1), n)}
    made = tuple(zip(pads, after, strict=True))
    if call.name.startswith("max") or not any(pads) or not a["count_include_pad"]:
        kind = f"{call.name[:3]}_pool"
        return [call.make(kind, call.input, **window(n, {**given, "pads": made}))]
    if a["ceil_mode"]:
        raise call.refuse("is a padded average pool with ceil_mode", "leave ceil_mode out")
    padded = call.make("pad", call.input, name=f"{call.node.name}_pad", pads=made)
    pooled = call.make("avg_pool", call.input, **window(n, {**given, "pads": ((0, 0),) * n}))
    return [padded, pooled._replace(reads=(padded.name,))]


def _adaptive(call: Call) -> list[Node]:
    out = _spread(call.args["output_size"], len(call.axes()) - 2)
    return [call.make("adaptive_pool", call.input, out=out)]


def _mean(call: Call) -> list[Node]:
    n = len(call.axes(call.input))
    dims = sorted(d % n for d in _spread(call.args["dim"], 1))
    if 0 in dims:
        raise call.refuse("is a mean over the batch")
    keep = bool(call.args["keepdim"])
    return [call.make("mean", call.input, axes=tuple(d - 1 for d in dims), keep=keep)]


def _reshape(call: Call) -> list[Node]:
    before, after = call.axes(call.input), call.axes()
    if _full(before[0]) != _full(after[0]) or len(after) < 2:
        raise call.refuse("mixes images of a batch")
    if len(after) == 2:
        return [call.make("reshape", call.input)]
    sizes = []
    aligned = True
    for back in range(1, len(after)):
        axis = after[-back]
        aligned = aligned and back < len(before) and axis == before[-back] and not groups_of(axis)
        sizes.append(() if aligned else axis)
    return [call.make("reshape", call.input, sizes=tuple(reversed(sizes)))]


def _permute(call: Call) -> list[Node]:
    n = len(call.axes())
    if call.name == "permute":
        order = [d % n for d in call.args["dims"]]
    else:
        order = list(range(n))
        first, other = call.args["dim0"] % n, call.args["dim1"] % n
        order[first], order[other] = order[other], order[first]
    if order[0]:
        raise call.refuse("moves the batch")
    return [call.make("transpose", call.input, axes=tuple(d - 1 for d in order[1:]))]


def _concat(call: Call) -> list[Node]:
    axis = call.args["dim"] % len(call.axes())
    if not axis:
        raise call.refuse("joins batches")
    return [call.make("concat", *call.args["tensors"], axis=axis - 1)]


def _part(call: Call, source: fx.Node, axis: int, start: int) -> list[Node]:
    whole = call.axes(source)[axis]
    if not axis:
        raise call.refuse("takes a part of the batch")
    if _full(whole) == _full(call.axes()[axis]):
        return []
    sizes = (prefix(whole, start), call.axes()[axis])
    return [call.make("slice", source, sizes=sizes, axis=axis - 1)]


def prefix(axis: Axis, n: int) -> Axis:
    """The first n places of an axis; a unit's places are not cut apart."""
    out = []
    for stretch in axis:
        units = min(stretch.units, n // stretch.repeat)
        if units <= 0:
            break
        out.append(stretch._replace(units=units))
        n -= units * stretch.repeat
    return tuple(out)


def _slice(call: Call) -> list[Node]:
    if call.args["step"] != 1:
        raise call.refuse("takes every n-th place")
    axis = call.args["dim"] % len(call.axes())
    size = _full(call.axes(call.input)[axis])
    start = range(size)[slice(call.args["start"], None)].start
    return _part(call, call.input, axis, start)


def _getitem(call: Call) -> list[Node]:
    """One output of a split or chunk."""
    split = call_of(call.args["self"], call.analysis)
    if split.name not in ("split", "split_with_sizes", "chunk"):
        raise split.refuse("has several outputs, which is no primitive yet")
    parts = split.node.meta["val"]
    axis = split.args["dim"] % parts[0].dim()
    start = sum(part.shape[axis] for part in parts[: call.args["index"]])
    return _part(call, split.input, axis, start)


def _upsample(call: Call) -> list[Node]:
    before, after = (n.meta["val"].shape[2:] for n in (call.input, call.node))
    factors = {a / b for a, b in zip(after, before, strict=True)}
    factor = factors.pop()
    if factors or factor % 1:
        raise call.refuse("is no upsampling by one whole factor")
    return [call.make("upsample", call.input, factor=int(factor))]


def _pad(call: Call) -> list[Node]:
    flat, n = call.args["pad"], len(call.axes()) - 2
    if call.args.get("mode", "constant") != "constant" or call.args.get("value"):
        raise call.refuse("pads by something but zeros")
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    if len(pairs) > n or min(flat) < 0:
        raise call.refuse("pads more than spatial axes, or cuts")
    pairs += [(0, 0)] * (n - len(pairs))
    return [call.make("pad", call.input, pads=tuple(reversed(pairs)))]


def _softmax(call: Call) -> list[Node]:
    if call.args["dim"] % len(call.axes()) != len(call.axes()) - 1:
        raise call.refuse("is a softmax over another axis than the last one")
    return [call.make("softmax", call.input)]


def _matmul(call: Call) -> list[Node]:
    return [call.make("matmul", *call.node.all_input_nodes)]


RULES: dict[str, Callable[[Call], list[Node]]] = {
    **dict.fromkeys(("conv1d", "conv2d", "convolution"), _conv),
    "linear": _linear,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    "layer_norm": _layer_norm,
    "gelu": _gelu,
    **dict.fromkeys(("hardtanh", "clamp", "clamp_min"), _clamp),
    **dict.fromkeys(("add", "sub", "mul", "div"), _binary),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"), _pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), _adaptive),
    "mean": _mean,
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
        _reshape,
    ),
    **dict.fromkeys(("permute", "transpose", "t"), _permute),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
    "slice": _slice,
    "getitem": _getitem,
    **dict.fromkeys(("upsample_nearest2d", "upsample_nearest1d"), _upsample),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    **dict.fromkeys(("matmul", "bmm"), _matmul),
}


def tensors_of(call: Call) -> dict[str, str]:
    """The weights and statistics of a call by role: names of nodes of `Analysis.tensors`.

    Raises:
        ConfigError: a weight that the model computes.
    """
    names = {"scale": "weight", "bias": "bias"}
    if call.name in ("conv1d", "conv2d", "convolution", "linear"):
        names = {"weight": "weight", "bias": "bias"}
    elif "batch_norm" in call.name:
        names |= {"running_mean": "running_mean", "running_var": "running_var"}
    elif call.name != "layer_norm":
        return {}
    found = {role: call.args[name] for role, name in names.items() if call.args.get(name)}
    for node in found.values():
        if node.name not in call.analysis.tensors:
            raise call.refuse(f"has {node.name} as a weight, which the model computes")
    return {role: node.name for role, node in found.items()}


def eps_of(call: Call) -> float | None:
    """Of a BatchNorm; None for another call."""
    return float(call.args["eps"]) if "batch_norm" in call.name else None
