"""Calls that compute, as primitives: layers, norms, activations, arithmetic, pools, products."""

from __future__ import annotations

from typing import Any

from torch import fx

from hwnas.networks.graph import window
from hwnas.traced.call import OF_THE_BATCH, Call, Made, full, spread


def conv(call: Call) -> list[Made]:
    """A convolution."""
    a, weight = call.args, call.args["weight"]
    axes = call.axes(weight)
    if a.get("transposed"):
        raise call.refuse(
            "is a transposed convolution, which hwnas cannot measure and export yet",
            "use nn.Upsample and a convolution",
        )
    n = len(axes) - 2
    kernel = tuple(full(axis) for axis in axes[2:])
    dilation, stride = spread(a["dilation"], n), spread(a["stride"], n)
    given = {"kernel": kernel, "stride": stride, "dilation": dilation}
    pads = _pads(call, a["padding"], kernel, dilation)
    weights = {"weight": weight, "bias": a["bias"]}
    made = call.make("conv", call.input, sizes=axes[:2], weights=weights,
                     **window(n, {**given, "pads": pads}), bias=a["bias"] is not None)  # fmt: skip
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
        raise call.refuse(f"has padding {padding!r}", "pad with zeros")
    return tuple((n, n) for n in spread(padding, len(kernel)))


def linear(call: Call) -> list[Made]:
    """A linear layer."""
    weights = {role: call.args[role] for role in ("weight", "bias")}
    sizes = call.axes(call.args["weight"])[:2]
    bias = call.args["bias"] is not None
    return [call.make("linear", call.input, sizes=sizes, weights=weights, bias=bias)]


# ---- norms ---------------------------------------------------------------------------------------


def batch_norm(call: Call) -> list[Made]:
    """BatchNorm by its running statistics."""
    if call.args["training"] or call.args["running_mean"] is None:
        raise call.refuse(*OF_THE_BATCH)
    weights = {
        **_affine_weights(call),
        **{n: call.args[n] for n in ("running_mean", "running_var")},
    }
    sizes, eps = (call.axes(call.input)[1],), float(call.args["eps"])
    return [call.make("batch_norm", call.input, sizes=sizes, weights=weights, eps=eps)]


def _affine_weights(call: Call) -> dict[str, fx.Node | None]:
    return {"scale": call.args["weight"], "bias": call.args["bias"]}


def layer_norm(call: Call) -> list[Made]:
    """LayerNorm over the last axis."""
    if len(call.args["normalized_shape"]) != 1:
        raise call.refuse(
            "normalises over more than the last axis", "use nn.GroupNorm(1, channels)"
        )
    sizes = (call.axes(call.input)[-1],)
    weights, eps = _affine_weights(call), float(call.args["eps"])
    return [call.make("layer_norm", call.input, sizes=sizes, weights=weights, eps=eps)]


def group_norm(call: Call) -> list[Made]:
    """GroupNorm; which of its groups and channels may go is as `rules` has it."""
    axis, groups = call.axes(call.input)[1], int(call.args["num_groups"])
    each = full(axis) // groups
    kept: dict[str, Any] = {"each": each} if groups >= each else {"groups": groups}
    weights, eps = _affine_weights(call), float(call.args["eps"])
    return [call.make("group_norm", call.input, sizes=(axis,), weights=weights, **kept, eps=eps)]


# ---- value by value ------------------------------------------------------------------------------


def gelu(call: Call) -> list[Made]:
    """GELU, or its approximation by tanh."""
    kind = "gelu" if call.args["approximate"] == "none" else "gelu_tanh"
    return [call.make(kind, call.input)]


def leaky_relu(call: Call) -> list[Made]:
    """A ReLU that leaks."""
    return [call.make("leaky_relu", call.input, slope=float(call.args["negative_slope"]))]


def clamp(call: Call) -> list[Made]:
    """Values kept between two numbers; ReLU and ReLU6 may be written so."""
    low = call.args.get("min_val", call.args.get("min"))
    high = call.args.get("max_val", call.args.get("max"))
    if (low, high) in ((0, 6), (0, None)):
        return [call.make("relu6" if high else "relu", call.input)]
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise call.refuse("has a tensor as a bound", "clamp by numbers")
    ends: dict[str, Any] = {
        name: float(n) for name, n in (("low", low), ("high", high)) if n is not None
    }
    return [call.make("clip", call.input, **ends)]


def _number(call: Call, value: Any) -> float | None:
    """A number, or a constant tensor of one; None for other tensors."""
    if isinstance(value, (int, float)):
        return float(value)
    constant = call.analysis.tensors.get(value.name)
    if constant is None or constant.numel() != 1 or value.name in call.analysis.names:
        return None
    return float(constant)


def binary(call: Call) -> list[Made]:
    """Arithmetic of two values, of a value and a number, or of a value and a table of weights."""
    kind, left, right = call.name, call.args["self"], call.args["other"]
    if call.args.get("alpha", 1) != 1:
        raise call.refuse(f"has alpha={call.args['alpha']}", "multiply before it adds")
    if rounding := call.args.get("rounding_mode"):
        raise call.refuse(f"divides with rounding_mode={rounding!r}", "divide without rounding")
    if kind == "rsub":
        kind, left, right = "sub", right, left
    if (value := _number(call, right)) is not None:
        lines = {"add": (1.0, value), "sub": (1.0, -value), "mul": (value, 0.0)}
        return [_line(call, left, *lines.get(kind, (1 / value if value else 0.0, 0.0)))]
    if (value := _number(call, left)) is not None:
        if kind == "div":
            raise call.refuse("divides a number by an activation", "leave the division out")
        lines = {"add": (1.0, value), "sub": (-1.0, value), "mul": (value, 0.0)}
        return [_line(call, right, *lines[kind])]
    if call.tensor(left):
        left, right = right, left
    if not call.tensor(right):
        return [call.make(kind, left, right)]
    if kind not in ("add", "mul"):
        raise call.refuse(
            f"is the {kind} of an activation and a parameter",
            "add it, or multiply by it",
        )
    return [_table(call, "times" if kind == "mul" else "plus", left, right)]


def _line(call: Call, source: fx.Node, factor: float, offset: float) -> Made:
    return call.make("affine", source, factor=factor, offset=offset)


def addcmul(call: Call) -> list[Made]:
    """A table of weights, plus another one times a value."""
    bias, factor, source = (call.args[name] for name in ("self", "tensor1", "tensor2"))
    if call.args["value"] != 1:
        raise call.refuse(f"has value={call.args['value']}", "multiply before it adds")
    if call.tensor(source):
        factor, source = source, factor
    scaled = _table(call, "times", source, factor, "_scaled")
    return [scaled, _table(call, "plus", scaled, bias)]


def _table(call: Call, kind: str, source: fx.Node | Made, table: fx.Node, name: str = "") -> Made:
    """A value times, or plus, a table of weights that is spread over some of its axes."""
    wanted = call.axes()
    axes = ((),) * (len(wanted) - len(call.axes(table))) + call.axes(table)
    along = [n for n, axis in enumerate(axes) if full(axis) > 1]
    value = source if isinstance(source, fx.Node) else call.node
    if call.axes(value) != wanted or 0 in along or len(axes) > len(wanted):
        raise call.refuse(
            f"combines an activation with a larger parameter, {table.name}",
            "give the parameter the activation's shape, or sizes of 1",
        )
    role = "factor" if kind == "times" else "bias"
    return call.make(
        kind, source, sizes=tuple(axes[n] for n in along), name=name, weights={role: table},
        axes=tuple(n - 1 for n in along),
    )  # fmt: skip


# ---- pools, products -----------------------------------------------------------------------------


def pool(call: Call) -> list[Made]:
    """A pool of windows."""
    a, n = call.args, len(call.axes()) - 2
    kernel = spread(a["kernel_size"], n)
    stride = spread(a["stride"] or kernel, n)
    pads = spread(a["padding"], n)
    if a.get("divisor_override"):
        raise call.refuse("has a divisor_override", "leave it out, and scale behind it")
    given = {"kernel": kernel, "stride": stride, "dilation": spread(a.get("dilation", 1), n)}
    made = tuple((p, p) for p in pads)
    if call.name.startswith("max") or not any(pads) or not a["count_include_pad"]:
        args = window(n, {**given, "pads": made}) | ({"ceil": True} if a["ceil_mode"] else {})
        return [call.make(f"{call.name[:3]}_pool", call.input, **args)]
    if a["ceil_mode"]:
        raise call.refuse("is a padded average pool with ceil_mode=True", "set ceil_mode=False")
    padded = call.make("pad", call.input, name="_pad", pads=made)
    return [padded, call.make("avg_pool", padded, **window(n, {**given, "pads": ((0, 0),) * n}))]


def adaptive(call: Call) -> list[Made]:
    """A mean over this many windows."""
    out = spread(call.args["output_size"], len(call.axes()) - 2)
    return [call.make("adaptive_pool", call.input, out=out)]


def reduced(call: Call) -> list[Made]:
    """A mean, or a norm, over axes."""
    n = len(call.axes(call.input))
    if not call.args.get("dim") and call.args.get("dim") != 0:
        raise call.refuse("reduces over all axes, so over the batch", "name the axes")
    dims = sorted(d % n for d in spread(call.args["dim"], 1))
    if 0 in dims:
        raise call.refuse("reduces over the batch", "reduce over other axes")
    if call.args.get("ord", 2) != 2:
        raise call.refuse(f"is a norm of order {call.args['ord']}", "use order 2")
    kind, keep = "mean" if call.name == "mean" else "length", bool(call.args["keepdim"])
    return [call.make(kind, call.input, axes=tuple(d - 1 for d in dims), keep=keep)]


def softmax(call: Call) -> list[Made]:
    """A softmax over the last axis."""
    if call.args["dim"] % len(call.axes()) != len(call.axes()) - 1:
        raise call.refuse("is a softmax over another axis than the last", "transpose before it")
    return [call.make("softmax", call.input)]


def matmul(call: Call) -> list[Made]:
    """A product of two matrices of the input."""
    if any(call.tensor(node) for node in call.node.all_input_nodes):
        raise call.refuse("multiplies by a matrix that is a parameter", "use nn.Linear")
    return [call.make("matmul", *call.node.all_input_nodes)]
