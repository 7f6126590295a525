"""A graph whose values all have the batch as their first axis.

Attention puts windows or heads beside the batch, or tokens before it, and back. With a batch of one
these are moves within one image: each such value gets an axis of one in front, and every call
between counts its axes from there. A call that then moves nothing goes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from hwnas.traced.plain import RESHAPES, arguments, aten, op_of
from hwnas.traced.program import Program
from hwnas.traced.rules import VALUE_BY_VALUE

ORDERS = {"permute", "transpose", "t", "movedim"}
ALIKE = {*VALUE_BY_VALUE.split(), "matmul"}  # of values whose last axes meet
LAST = {"linear", "layer_norm", "pad", "getitem"}  # of the last axes, or of several values
ALONG = {"cat", "select", "slice", "split_with_sizes", "chunk", "softmax", "_softmax", "mean",
         "linalg_vector_norm", "roll", "expand"}  # fmt: skip
KNOWN = RESHAPES | ORDERS | ALIKE | LAST | ALONG


class _Moves(NamedTuple):
    """Calls that depend on the input, and of these the ones where the batch is elsewhere: True, or
    False where it is first again after them.
    """

    of_images: set[fx.Node]
    moved: dict[fx.Node, bool]


def batch_first(program: Program) -> None:
    """Rewrite a graph in place; where one call cannot be rewritten, all stays as it is."""
    graph, moves = program.graph.graph, _moves(program)
    for node in moves.moved:
        if op_of(node) in RESHAPES | ORDERS:
            _reorder(graph, node, moves)
        else:
            _shift(graph, node, moves)
    if moves.moved:
        _clear(graph)
        program.graph.recompile()


def _clear(graph: fx.Graph) -> None:
    """One reshape in the place of several, and none that changes nothing."""
    for node in list(graph.nodes):
        if op_of(node) == "reshape":
            source: Any = node.args[0]
            while op_of(source) == "reshape":
                source = source.args[0]
            node.args = (source, *node.args[1:])
            if _shape(node) == _shape(source):
                node.replace_all_uses_with(source)
    graph.eliminate_dead_code()


def _moves(program: Program) -> _Moves:
    found = _Moves(set(), {})
    for node in program.graph.graph.nodes:
        reads = found.of_images.intersection(node.all_input_nodes)
        if reads or (node.op == "placeholder" and node.name not in program.tensors):
            found.of_images.add(node)
        within = any(found.moved.get(source) for source in reads)
        if not within and not (reads and _takes_away(node)):
            continue
        if op_of(node) not in KNOWN or (op_of(node) in ALONG and _dims(node) in (None, [])):
            return _Moves(set(), {})
        value = node.meta["val"]
        found.moved[node] = isinstance(value, (list, tuple)) or value.shape[:1] != (1,)
    return found


def _takes_away(node: fx.Node) -> bool:
    """Whether the first axis, the batch until here, is not after a call."""
    if op_of(node) in ORDERS:
        return _order(node)[0] != 0
    return op_of(node) in RESHAPES and node.meta["val"].shape[:1] != (1,)


def _order(node: fx.Node) -> list[int]:
    """The axis of the input that each axis of the output is."""
    sizes = torch.empty(*range(len(_shape(node))))
    moved = node.target(sizes, *node.args[1:])  # type: ignore[operator]
    return list(moved.shape)


def _dims(node: fx.Node) -> Any:
    """The axes that a call names."""
    given = arguments(node)
    return next((given[name] for name in ("dim", "dims", "size") if name in given), None)


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _reorder(graph: fx.Graph, node: fx.Node, moves: _Moves) -> None:
    """Write a reshape, or another order of axes, with a batch in front."""
    source: Any = node.args[0]
    shape = _shape(node)
    order = _order(node) if op_of(node) in ORDERS else []
    before = _shape(source)[1:] if moves.moved.get(source) else _shape(source)
    long = [axis for axis in order if before[axis] > 1]
    if long != sorted(long):
        lifted = _lifted(graph, node, source, moves)
        node.target, node.kwargs = aten.permute.default, {}
        node.args = (lifted, [0, *(axis + 1 for axis in order)])
        _settle(graph, node, moves)
        return
    wanted = (1, *shape) if moves.moved[node] else shape
    node.target, node.args, node.kwargs = aten.reshape.default, (source, list(wanted)), {}
    node.meta["val"] = node.meta["val"].reshape(wanted)


def _shift(graph: fx.Graph, node: fx.Node, moves: _Moves) -> None:
    """Write a call with a batch in front of what it reads, and of what it gives."""
    alike = op_of(node) in ALIKE
    reads = [source for source in node.all_input_nodes if source in moves.of_images]
    if op_of(node) == "cat":
        reads = node.all_input_nodes
    axes = max(len(_shape(n)) - bool(moves.moved.get(n)) for n in reads) if alike else 0
    front = {n: _lifted(graph, node, n, moves, axes) for n in reads}
    if op_of(node) in ALONG:
        _name_axes(node)
    node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda n: front.get(n, n))
    _settle(graph, node, moves)


def _name_axes(node: fx.Node) -> None:
    """Let a call name each axis as the one after it; those counted from the last stay."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = arguments(node)
    for name in ("dim", "dims", "size"):
        if name in given:
            dims = given[name]
            if name == "size":
                given[name] = [1, *dims]
            elif isinstance(dims, int):
                given[name] = dims + (dims >= 0)
            else:
                given[name] = [dim + (dim >= 0) for dim in dims]
    node.args = tuple(given[a.name] for a in schema if not a.kwarg_only)
    node.kwargs = {a.name: given[a.name] for a in schema if a.kwarg_only}


def _lifted(graph: fx.Graph, node: fx.Node, source: fx.Node, moves: _Moves, axes: int = 0) -> Any:
    """A value with a batch in front, for a call that reads it; with this many axes behind."""
    if isinstance(source.meta["val"], (list, tuple)):
        return source
    own = _shape(source)[1:] if moves.moved.get(source) else _shape(source)
    wanted = (1, *(1,) * (axes - len(own)), *own)
    if _shape(source) == wanted:
        return source
    return _reshaped(graph, node, source, wanted)


def _reshaped(graph: fx.Graph, node: fx.Node, source: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    """A reshape in front of a node."""
    with graph.inserting_before(node):
        made = graph.call_function(aten.reshape.default, (source, list(shape)))
    made.meta = {**node.meta, "val": source.meta["val"].reshape(shape)}
    return made


def _settle(graph: fx.Graph, node: fx.Node, moves: _Moves) -> None:
    """Say what a rewritten call gives, and take the batch away where it is first without."""
    value, next_node = node.meta["val"], node.next
    if isinstance(value, (list, tuple)):
        node.meta["val"] = [part.unsqueeze(0) for part in value]
        return
    node.meta["val"] = value.unsqueeze(0)
    if not moves.moved[node]:
        back = _reshaped(graph, next_node, node, tuple(value.shape))
        node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)
