"""Calls that only move values, as primitives: shapes, parts, joins, upsampling, padding."""

from __future__ import annotations

import math

from torch import fx

from hwnas.networks.axes import WHOLE, Axis, Stretch, groups_of
from hwnas.networks.graph import INPUTS
from hwnas.traced.call import OF_THE_BATCH, Call, Made, call_of, full, spread
from hwnas.traced.plain import op_of


def reshape(call: Call) -> list[Made]:
    """Another shape of the same values."""
    before, after = call.axes(call.input), call.axes()
    if full(before[0]) != full(after[0]) or len(after) < 2:
        raise call.refuse("reshapes across the batch axis", "keep the batch as the first axis")
    return [_reshaped(call, call.input)]


def _reshaped(call: Call, source: fx.Node | Made) -> Made:
    before, after = call.axes(call.input), call.axes()
    if len(after) == 2:
        return call.make("reshape", source)
    sizes: list[Axis] = []
    aligned = True
    for back in range(1, len(after)):
        axis = after[-back]
        aligned = aligned and back < len(before) and axis == before[-back] and not groups_of(axis)
        sizes.append(() if aligned else axis)
    return call.make("reshape", source, sizes=tuple(reversed(sizes)))


def select(call: Call) -> list[Made]:
    """One place of an axis, without the axis."""
    axis = call.args["dim"] % len(call.axes(call.input))
    size = full(call.axes(call.input)[axis])
    if not axis:
        raise call.refuse("takes one image out of the batch", "treat all images alike")
    if groups_of(call.axes(call.input)[axis]):
        raise call.refuse(
            "takes one of some channels that may be cut", "name the layer that makes them in keep"
        )
    sizes = whole_of(range(size)[call.args["index"]]), whole_of(1)
    taken = call.make("slice", call.input, sizes=sizes, axis=axis - 1, name="_place")
    return [taken, _reshaped(call, taken)]


def expand(call: Call) -> list[Made]:
    """Values spread over an axis, as arithmetic does by itself."""
    if not {op_of(user) for user in call.node.users} <= {"add", "sub", "mul", "div"}:
        raise call.refuse(
            "expands a tensor for an operator other than + - * /", "expand nothing else"
        )
    return []


def permute(call: Call) -> list[Made]:
    """Axes in another order."""
    n = len(call.axes())
    if call.name == "permute":
        order = [d % n for d in call.args["dims"]]
    else:
        order = list(range(n))
        first, other = call.args.get("dim0", 0) % n, call.args.get("dim1", 1) % n  # as in t()
        order[first], order[other] = order[other], order[first]
    if order[0]:
        raise call.refuse("moves the batch axis", "keep the batch as the first axis")
    return [call.make("transpose", call.input, axes=tuple(d - 1 for d in order[1:]))]


def concat(call: Call) -> list[Made]:
    """Values one after another; one may be a table of weights, as a class token is."""
    axis, given = call.args["dim"] % len(call.axes()), call.args["tensors"]
    if not axis:
        raise call.refuse("concatenates along the batch", "concatenate along another axis")
    if len(given) > len(INPUTS):
        raise call.refuse(
            f"concatenates {len(given)} tensors", f"concatenate at most {len(INPUTS)} at once"
        )
    value = next(node for node in given if not call.tensor(node))
    tables = {node: _token(call, node, value, axis) for node in given if call.tensor(node)}
    made = call.make("concat", *(tables[n][-1] if n in tables else n for n in given), axis=axis - 1)
    return [*(node for nodes in tables.values() for node in nodes), made]


def _token(call: Call, table: fx.Node, value: fx.Node, axis: int) -> list[Made]:
    """A table of weights for each image: the first places of a value, times 0, plus the table."""
    axes = call.axes(table)
    if full(axes[axis]) > full(call.axes(value)[axis]) or len(axes) != len(call.axes()):
        raise call.refuse(
            f"concatenates a parameter that is longer than the activation, {table.name}",
            "shorten it, or leave it out",
        )
    name = f"_{table.name}"
    first = call.make("slice", value, sizes=((), axes[axis]), axis=axis - 1, name=f"{name}_first")
    none = call.make("affine", first, factor=0.0, offset=0.0, name=f"{name}_zero")
    along = [n for n in range(1, len(axes)) if full(axes[n]) > 1]
    sizes = tuple(axes[n] for n in along)
    made = call.make("plus", none, sizes=sizes, weights={"bias": table}, name=name,
                     axes=tuple(n - 1 for n in along))  # fmt: skip
    return [first, none, made]


def _part(call: Call, source: fx.Node, axis: int, start: int) -> list[Made]:
    whole = call.axes(source)[axis]
    if not axis:
        raise call.refuse("takes a part of the batch", "treat all images alike")
    if full(whole) == full(call.axes()[axis]):
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


def part(call: Call) -> list[Made]:
    """A run of places of an axis, or one in each of several rows of them."""
    axis, step = call.args["dim"] % len(call.axes()), call.args["step"]
    whole = call.axes(call.input)[axis]
    start = range(full(whole))[slice(call.args["start"], None)].start
    if step == 1:
        return _part(call, call.input, axis, start)
    count = full(call.axes()[axis])
    if not axis or groups_of(whole) or start >= step or count * step != full(whole):
        raise call.refuse(
            "slices images, channels that may be cut, or with a step that does not divide the axis",
            "use the stride of a convolution or a pool",
        )
    before, after = call.axes()[1:axis], call.axes()[axis + 1 :]
    rows = (*before, whole_of(count), whole_of(step), *after)
    shaped = call.make("reshape", call.input, sizes=rows, name="_rows")
    sizes = whole_of(start), whole_of(1)
    one = call.make("slice", shaped, sizes=sizes, axis=axis, name="_place")
    return [shaped, one, call.make("reshape", one, sizes=call.axes()[1:])]


def whole_of(n: int) -> Axis:
    """An axis of n places that stay."""
    return (Stretch(WHOLE, 0, n),)


def roll(call: Call) -> list[Made]:
    """Places moved round an axis: its end, then its start; axis by axis."""
    axes = [dim % len(call.axes()) for dim in spread(call.args["dims"], 1)]
    if 0 in axes:
        raise call.refuse("rolls images through the batch", "treat all images alike")
    shifts = zip(axes, spread(call.args["shifts"], 1), strict=True)
    firsts = [(axis, -shift % full(call.axes()[axis])) for axis, shift in shifts]
    moved = [(axis, first) for axis, first in firsts if first]
    made: list[Made] = []
    for left, (axis, first) in zip(reversed(range(len(moved))), moved, strict=True):
        source = made[-1] if made else call.input
        made += _rolled(call, source, axis, first, f"_turn{left}" if left else "")
    return made


def _rolled(call: Call, source: fx.Node | Made, axis: int, first: int, name: str) -> list[Made]:
    """The places of an axis from one on, then those before it."""
    count = full(call.axes()[axis]) - first
    parts = [
        call.make("slice", source, sizes=sizes, axis=axis - 1, name=f"{name}_{part}")
        for part, sizes in (
            ("end", (whole_of(first), whole_of(count))),
            ("start", ((), whole_of(first))),
        )
    ]
    return [*parts, call.make("concat", *parts, axis=axis - 1, name=name)]


def getitem(call: Call) -> list[Made]:
    """One output of a split or chunk."""
    split = call_of(call.args["self"], call.analysis)
    if split.name.startswith("_native_batch_norm_legit"):
        raise split.refuse(*OF_THE_BATCH)
    if split.name not in ("split", "split_with_sizes", "chunk"):
        raise split.refuse(
            "has several outputs, which hwnas cannot measure and export yet",
            "use split or chunk, or operators of one output",
        )
    parts = split.node.meta["val"]
    axis = split.args["dim"] % parts[0].dim()
    start = sum(part.shape[axis] for part in parts[: call.args["index"]])
    return _part(call, split.input, axis, start)


def upsample(call: Call) -> list[Made]:
    """Larger maps by a whole factor: nearest, or linear between places."""
    before, after = (n.meta["val"].shape[2:] for n in (call.input, call.node))
    factors = {a / b for a, b in zip(after, before, strict=True)}
    factor = factors.pop()
    if factors or factor % 1:
        raise call.refuse(
            "resizes by a factor that is not whole, or not the same for all axes",
            "use a whole scale_factor",
        )
    if factor == 1:
        return []
    mode = "nearest"
    if "linear" in call.name:
        mode = "corners" if call.args["align_corners"] else "linear"
    return [call.make("upsample", call.input, factor=int(factor), mode=mode)]


def pad(call: Call) -> list[Made]:
    """Zeros, or another number, around maps; channels that are last go first meanwhile."""
    flat, n, value = call.args["pad"], len(call.axes()) - 1, float(call.args.get("value") or 0)
    if call.args.get("mode", "constant") != "constant":
        raise call.refuse(f"pads with mode={call.args['mode']!r}", "pad with a constant")
    if not math.isfinite(value):
        raise call.refuse("pads with infinity", "give the padding to the max pool behind it")
    pairs = [(flat[i], flat[i + 1]) for i in range(len(flat) - 2, -1, -2)]
    pairs = [(0, 0)] * (n - len(pairs)) + pairs
    if len(pairs) > n or min(flat) < 0 or (any(pairs[0]) and any(pairs[-1])):
        raise call.refuse(
            "pads the batch or channels, or by less than 0", "pad height and width only"
        )
    if not any(pairs[0]):
        return [call.make("pad", call.input, pads=tuple(pairs[1:]), value=value)]
    turned = call.make("transpose", call.input, axes=(n - 1, *range(n - 1)), name="_turned")
    padded = call.make("pad", turned, pads=tuple(pairs[:-1]), value=value, name="_padded")
    return [turned, padded, call.make("transpose", padded, axes=(*range(1, n), 0))]
