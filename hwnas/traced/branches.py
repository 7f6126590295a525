"""Residual branches that may be skipped: x + f(x) becomes x."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping

from torch import Tensor, fx

from hwnas.networks.axes import Axis
from hwnas.traced.analysis import Branch
from hwnas.traced.plain import arguments, op_of
from hwnas.traced.program import module_of


def branches(graph: fx.GraphModule, axes: Mapping[str, tuple[Axis, ...]]) -> tuple[Branch, ...]:
    """Additions of a value and of what is computed from it alone, both of one size."""
    order = {node: n for n, node in enumerate(graph.graph.nodes)}
    found = []
    for node in graph.graph.nodes:
        for shortcut, end in _sides(node):
            if axes[shortcut.name] != axes[node.name] or axes[end.name] != axes[node.name]:
                continue
            inside = _between(node, shortcut, end, order)
            if inside:
                found.append((node, shortcut, inside))
                break
    return _named(found)


def _sides(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """(shortcut, end of the branch) as an addition may be read, both ways."""
    if op_of(node) != "add" or arguments(node).get("alpha", 1) != 1:
        return []
    a, b = node.args[:2]
    if not (isinstance(a, fx.Node) and isinstance(b, fx.Node)) or a is b:
        return []
    return [(x, f) for x, f in ((a, b), (b, a)) if x.op == f.op == "call_function"
            and isinstance(x.meta["val"], Tensor)]  # fmt: skip


def _between(
    add: fx.Node, shortcut: fx.Node, end: fx.Node, order: Mapping[fx.Node, int]
) -> frozenset[fx.Node] | None:
    """Nodes of a branch: all come after its shortcut, read it or tensors of their own, and nobody
    else reads them. None where there is no such branch.
    """
    inside: set[fx.Node] = set()
    todo = [end]
    while todo:
        node = todo.pop()
        if node is shortcut or node in inside or node.op != "call_function":
            continue
        if order[node] < order[shortcut]:
            return None
        inside.add(node)
        todo += node.all_input_nodes
    reads = any(shortcut in node.all_input_nodes for node in inside)
    alone = all(user in inside or user is add for node in inside for user in node.users)
    return frozenset(inside) if reads and alone else None


def _named(found: list[tuple[fx.Node, fx.Node, frozenset[fx.Node]]]) -> tuple[Branch, ...]:
    """Branches, each called after the module that all of it is in, or that most of it is in."""
    common = [_common(inside) for _, _, inside in found]
    times = Counter(common)
    out: list[Branch] = []
    taken: Counter[str] = Counter()
    for (add, shortcut, inside), name in zip(found, common, strict=True):
        if times[name] > 1 or not name:
            name = _largest(inside, name)
        taken[name] += 1
        name = name if taken[name] == 1 else f"{name}:{taken[name]}"
        nodes = frozenset(node.name for node in inside)
        out.append(Branch(name, add.name, shortcut.name, nodes))
    return tuple(out)


def _common(inside: frozenset[fx.Node]) -> str:
    paths = [module_of(node).split(".") for node in inside]
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in same)


def _largest(inside: frozenset[fx.Node], above: str) -> str:
    """The part of a module that most nodes are in."""
    depth = len(above.split(".")) + 1 if above else 1
    paths = [module_of(node).split(".") for node in inside]
    parts = Counter(".".join(path[:depth]) for path in paths if len(path) >= depth and path[0])
    return min(parts, key=lambda name: (-parts[name], name)) if parts else above or "branch"
