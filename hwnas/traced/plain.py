"""An exported graph made plain: no calls that change nothing, no constants that are computed."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

# With the values of their input unchanged. A copy is one too: nothing is written in place.
SAME = {"alias", "clone", "contiguous", "detach", "lift_fresh_copy", "lift_fresh"}
RESHAPES = {"reshape", "flatten", "unflatten", "squeeze", "unsqueeze"}
DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}
SHAPE_ONLY = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}


def op_of(node: fx.Node) -> str:
    """What a node calls, without namespace and overload; getitem for that of Python."""
    if node.op != "call_function":
        return ""
    if node.target is operator.getitem:
        return "getitem"
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).split("::")[-1] if schema else str(node.target)


def arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments of an aten call by their names in its schema, those left out by their defaults."""
    names = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: a.default_value for a in names if a.has_default_value()}
    given |= {a.name: value for a, value in zip(names, node.args, strict=False)}
    return given | dict(node.kwargs)


def made_plain(graph: fx.GraphModule, tensors: dict[str, Tensor], names: dict[str, str]) -> None:
    """Change a graph in place so that less has to be understood, and drop tensors unread."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function":
            _simplify(graph, node)
    graph.graph.eliminate_dead_code()
    _fold(graph, tensors, {name for name in tensors if name in names})
    _join(graph, tensors, names)
    for node in list(graph.graph.nodes):
        if node.op == "call_function":
            _turn(graph, node, tensors, names)
    graph.graph.eliminate_dead_code()
    for node in list(graph.graph.nodes):
        if node.name in tensors and not node.users:
            del tensors[node.name]
            names.pop(node.name, None)
            graph.graph.erase_node(node)
    graph.recompile()


def _simplify(graph: fx.GraphModule, node: fx.Node) -> None:
    op = op_of(node)
    source = node.args[0] if node.args else None
    if op.startswith(("_assert", "sym_constrain")):
        graph.graph.erase_node(node)
    elif op in SAME | DROPOUTS or (op == "_to_copy" and _type(node) == _type(source)):
        node.replace_all_uses_with(source)  # type: ignore[arg-type]
        graph.graph.erase_node(node)
    elif op in ("view", "_unsafe_view"):
        node.target = aten.reshape.default  # without the copies, not every layout has a view
    elif op in ("getitem", "select"):
        _select(graph, node)
    elif op == "split":
        parts = [part.shape[arguments(node)["dim"]] for part in node.meta["val"]]
        node.target = aten.split_with_sizes.default  # sizes of its own for each part
        node.args, node.kwargs = (source, parts, arguments(node)["dim"]), {}
    elif op == "_native_batch_norm_legit_no_training":
        _batch_norm(graph, node)
    elif op == "pad" and not any(arguments(node)["pad"]):
        node.replace_all_uses_with(source)  # type: ignore[arg-type]
    elif op == "scaled_dot_product_attention":
        _attention(graph, node)


def _select(graph: fx.GraphModule, node: fx.Node) -> None:
    """What unbind takes, or what is taken of a permuted value, as one place of the value itself:
    queries, keys and values are often brought to the front, before the batch.
    """
    source: Any = node.args[0]
    if op_of(node) == "select":
        dim, index = (arguments(node)[name] for name in ("dim", "index"))
    elif isinstance(source, fx.Node) and op_of(source) == "unbind":
        dim, index, source = arguments(source)["dim"], node.args[1], source.args[0]
    else:
        return  # or it went with its BatchNorm
    order = list(range(source.meta["val"].ndim))
    dim %= len(order)
    if op_of(source) == "permute":
        order, source = [n % len(order) for n in arguments(source)["dims"]], source.args[0]
    axis = order.pop(dim)
    order = [n - (n > axis) for n in order]
    with graph.graph.inserting_before(node):
        made = graph.graph.call_function(aten.select.int, (source, axis, index))
        made.meta = {**node.meta, "val": source.meta["val"].select(axis, index)}
        if order != sorted(order):
            made = graph.graph.call_function(aten.permute.default, (made, order))
            made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    graph.graph.erase_node(node)


def _attention(graph: fx.GraphModule, node: fx.Node) -> None:
    """softmax(scale q kᵀ + mask) v, call by call; the scale stays when features of a head go."""
    a = arguments(node)
    q, k, v, mask = (a[name] for name in ("query", "key", "value", "attn_mask"))
    if a["is_causal"] or a["enable_gqa"] or (mask and not mask.meta["val"].is_floating_point()):
        return

    def call(target: Any, *args: Any) -> fx.Node:
        with graph.graph.inserting_before(node):
            made = graph.graph.call_function(target, args)
        made.meta = {**node.meta, "val": target(*fx.map_arg(args, lambda n: n.meta["val"]))}
        return made

    last = call(aten.matmul.default, q, call(aten.transpose.int, k, -2, -1))
    last = call(aten.mul.Tensor, last, a["scale"] or q.meta["val"].shape[-1] ** -0.5)
    for part in _summands(mask) if mask else ():
        last = call(aten.add.Tensor, last, part)
    last = call(aten.matmul.default, call(aten.softmax.int, last, -1), v)
    node.replace_all_uses_with(last)
    graph.graph.erase_node(node)


def _summands(node: fx.Node) -> list[fx.Node]:
    """What a value is the sum of: a bias of places, and a mask of windows."""
    parts = node.all_input_nodes
    if op_of(node) != "add" or len(parts) != 2 or node.kwargs:
        return [node]
    return [summand for part in parts for summand in _summands(part)]


TURNED: dict[str, tuple[Any, Any]] = {
    "sub": (aten.add.Tensor, torch.neg),
    "div": (aten.mul.Tensor, torch.reciprocal),
}


def _turn(
    graph: fx.GraphModule, node: fx.Node, tensors: dict[str, Tensor], names: dict[str, str]
) -> None:
    """Write x - t as x + (-t), and x / t as x * (1 / t), where t is a tensor of the model."""
    target, turned = TURNED.get(op_of(node), (None, None))
    table: Any = node.args[1] if target and len(node.args) == 2 and not node.kwargs else None
    held = tensors.get(table.name) if isinstance(table, fx.Node) else None
    if isinstance(table, fx.Node) and table.name in names and len(table.users) > 1:
        return  # its copies would be trained apart
    if held is None or not held.is_floating_point() or not (value := turned(held)).isfinite().all():
        return
    constant = _constant(graph, node, value, table.meta, tensors)
    if table.name in names:
        names[constant.name] = names[table.name]
    node.target, node.args = target, (node.args[0], constant)


def _type(node: Any) -> Any:
    return node.meta["val"].dtype if isinstance(node, fx.Node) else None


def _batch_norm(graph: fx.GraphModule, node: fx.Node) -> None:
    """BatchNorm as one node of one tensor, as the model wrote it."""
    value = next(user for user in node.users if user.args[1] == 0)
    x, weight, bias, mean, variance, momentum, eps = node.args
    with graph.graph.inserting_before(node):
        plain = graph.graph.call_function(
            aten.batch_norm.default,
            (x, weight, bias, mean, variance, False, momentum, eps, False),
        )
    plain.meta = dict(value.meta)
    value.replace_all_uses_with(plain)
    for user in [*node.users, node]:
        graph.graph.erase_node(user)


def _fold(graph: fx.GraphModule, tensors: dict[str, Tensor], state: set[str]) -> None:
    """What depends on neither the input nor the state becomes a constant, and indices do."""
    known: dict[fx.Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op in ("placeholder", "get_attr"):
            tensor = tensors.get(node.name)
            if tensor is not None and (node.name not in state or not tensor.is_floating_point()):
                known[node] = tensor
        elif node.op == "call_function":
            _evaluate(node, known)
    for node, value in known.items():
        outside = [user for user in node.users if user not in known]
        if node.op == "call_function" and outside and isinstance(value, Tensor):
            slim = _slim(value, node, outside)
            meta = {**node.meta, "val": node.meta["val"].new_empty(slim.shape)}
            node.replace_all_uses_with(_constant(graph, node, slim, meta, tensors))


def _evaluate(node: fx.Node, known: dict[fx.Node, Any]) -> None:
    """Add the value of a node to those that are known, where its inputs are."""
    args, kwargs = node.args, node.kwargs
    if op_of(node) in SHAPE_ONLY and args[0] not in known:
        value = args[0].meta["val"]  # type: ignore[union-attr]
        args = (torch.zeros(value.shape, dtype=value.dtype), *args[1:])
        if any(isinstance(a, fx.Node) for a in (*args, *kwargs.values())):
            return
    elif not all(source in known for source in node.all_input_nodes):
        return
    known[node] = node.target(  # type: ignore[operator]
        *fx.map_arg(args, known.__getitem__), **fx.map_arg(kwargs, known.__getitem__)
    )


def _slim(value: Tensor, node: fx.Node, users: list[fx.Node]) -> Tensor:
    """A constant without the repetitions that arithmetic makes by itself."""
    for user in users:
        others = [n.meta["val"].shape for n in user.all_input_nodes if n is not node]
        if op_of(user) not in ("add", "mul") or others != [user.meta["val"].shape]:
            return value
    for axis in range(value.ndim):
        first = value.narrow(axis, 0, min(1, value.shape[axis]))
        value = first if torch.equal(first.expand_as(value), value) else value
    return value


def _join(graph: fx.GraphModule, tensors: dict[str, Tensor], names: dict[str, str]) -> None:
    """What is computed of weights alone becomes a table of weights, unless others read them too: a
    bias for each pair of places is often looked up in a smaller table.
    """
    known: dict[fx.Node, Any] = {n: tensors[n.name] for n in graph.graph.nodes if n.name in tensors}
    inside: dict[fx.Node, set[fx.Node]] = {}  # what each is made of, but for constants
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            inside[node] = {node} if node.name in names else set()
            continue
        inside[node] = {node}.union(*(inside[source] for source in node.all_input_nodes))
        _evaluate(node, known)
    for node in [n for n in known if n.op == "call_function"]:
        outside = [user for user in node.users if user not in known]
        alone = all({*n.users} <= inside[node] for n in inside[node] - {node})
        if outside and alone and not _is_view(node) and not any(_weighs(u, node) for u in outside):
            first = next(n for n in graph.graph.nodes if n in inside[node] and n.name in names)
            made = _constant(graph, node, known[node], node.meta, tensors)
            names[made.name] = names[first.name]
            node.replace_all_uses_with(made)


def _is_view(node: fx.Node) -> bool:
    """Whether it is a tensor itself, in another shape."""
    while op_of(node) in RESHAPES | {"expand"}:
        node = node.args[0]  # type: ignore[assignment]
    return node.op != "call_function"


def _weighs(user: fx.Node, node: fx.Node) -> bool:
    """Whether a call reads a node as its weight."""
    return op_of(user) not in ("", "getitem") and arguments(user).get("weight") is node


def _constant(
    graph: fx.GraphModule,
    node: fx.Node,
    value: Tensor,
    meta: dict[str, Any],
    tensors: dict[str, Tensor],
) -> fx.Node:
    """A tensor that is there before a node."""
    target = f"constant_{node.name}"
    graph.register_buffer(target, value.contiguous(), persistent=False)
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(target)
    constant.meta = dict(meta)
    tensors[constant.name] = value.contiguous()
    return constant
