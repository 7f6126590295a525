"""An analysed model as a traced family: regions of primitives, offered widths, weights by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import fx, nn

from hwnas.networks.families.traced import KEPT, WIDTH, Group, Node, Region, Skip, Traced
from hwnas.networks.graph import INPUTS
from hwnas.networks.ops.region import step_name
from hwnas.networks.placed import START, holders, merging
from hwnas.traced.analysis import Analysis
from hwnas.traced.call import call_of
from hwnas.traced.calls import nodes_of
from profilers.errors import ConfigError

RESERVED = set(dir(nn.ModuleDict()))  # the supernet keeps slots in one, by name
ANCHORS = {"conv", "linear", "matmul", "max_pool", "avg_pool", "adaptive_pool", "mean", "concat"}
ANCHORS |= {"upsample", "softmax"}
WEIGHTED = {"conv", "linear", "batch_norm", "layer_norm", "group_norm", "times", "plus"}
JOINS = {"add", "mul"}  # after one of these a region takes no norm: a skipped branch ends there
MOST_OPS = 4096  # combinations of widths and branches that one region may depend on
BN_EPS = 1e-5


@dataclass(frozen=True)
class Lowered:
    """A model as a family, and where its weights come from.

    Attributes:
        sources: name of a tensor of the analysis by (slot, primitive, role).
        bn_eps: of every BatchNorm that says no other.
        whole: reason by name, of groups that offer one width.
    """

    family: Traced
    sources: Mapping[tuple[str, str, str], str]
    bn_eps: float
    whole: Mapping[str, str]


def lowered(analysis: Analysis, widths: int, round_to: int) -> Lowered:
    """The family of an analysed model.

    Args:
        analysis: of it.
        widths: how many a group offers, evenly up to all of its units.
        round_to: the channels of a width are a multiple of it, but for the largest.

    Raises:
        ConfigError: a node that is not a primitive, weights that several nodes share.
    """
    found = _nodes(analysis)
    tensors = found.tensors
    nodes, eps = _usual_eps(found.nodes)
    regions = _regions(nodes, tensors, analysis)
    source, output = _ends(analysis)
    steps = [round_to // math.gcd(round_to, places) for places in _places(analysis)]
    groups = tuple(
        Group(group.name, _offered(group.units, widths, step))
        for group, step in zip(analysis.groups, steps, strict=True)
    )
    skips = _skips(analysis, found)
    family = Traced(tuple(source.meta["val"].shape[1:]), _classes(output), groups, skips, regions)
    family, whole = _limited(family)
    for group in groups:
        if len(group.widths) == 1 and group.name not in whole:
            whole[group.name] = f"space.widths is {widths}, space.round_to {round_to}"
    return Lowered(family, _sources(family, tensors), eps, whole)


def _places(analysis: Analysis) -> list[int]:
    """Channels of a unit of each group, where they are made: a head is many."""
    out = []
    for number, group in enumerate(analysis.groups):
        name, axis = group.weights[0]
        out.append(next(s.repeat for s in analysis.axes[name][axis] if s.group == number))
    return out


def _offered(units: int, widths: int, step: int) -> tuple[int, ...]:
    """Widths, ascending: even shares, rounded to a step, and all of the units."""
    shares = (units * n / widths for n in range(1, widths))
    rounded = {max(step, round(share / step) * step) for share in shares}
    return (*sorted(n for n in rounded if n < units), units)


# ---- nodes ---------------------------------------------------------------------------------------


class _Nodes(NamedTuple):
    """Primitives in order, by each the call that it is part of and its weights by role, and for
    what changes nothing the node that it is.
    """

    nodes: list[Node]
    calls: dict[str, str]
    tensors: dict[str, Mapping[str, str]]
    same: dict[str, str]


def _nodes(analysis: Analysis) -> _Nodes:
    source, output = _ends(analysis)
    found = _Nodes([], {}, {}, {source.name: START})
    for node in _needed(source, output):
        call = call_of(node, analysis)
        made = nodes_of(call)
        if not made:
            found.same[node.name] = _real(call.input.name, found.same)
        for one, weights in made:
            reads = tuple(_real(name, found.same) for name in one.reads)
            if strange := [r for r in reads if r != START and r not in found.calls]:
                raise call.refuse(
                    f"reads {strange[0]}, which does not depend on the input", "make it a parameter"
                )
            found.nodes.append(one._replace(reads=reads))
            found.calls[one.name] = node.name
            if weights:
                found.tensors[one.name] = weights
    _refuse_shared(found.tensors, analysis.names)
    return found


def _usual_eps(nodes: Sequence[Node]) -> tuple[list[Node], float]:
    """The nodes, their BatchNorms saying an eps only where it is not that of most."""
    said = Counter(dict(n.args)["eps"] for n in nodes if n.kind == "batch_norm")
    usual = said.most_common(1)[0][0] if said else BN_EPS
    out = [
        n._replace(args=()) if n.kind == "batch_norm" and dict(n.args)["eps"] == usual else n
        for n in nodes
    ]
    return out, usual


def _real(name: str, same: Mapping[str, str]) -> str:
    return same.get(name, name)


def _ends(analysis: Analysis) -> tuple[fx.Node, fx.Node]:
    """The node of the input, and the one that the output is."""
    graph = analysis.program.graph
    inputs = [n for n in graph.nodes if n.op == "placeholder" and n.name not in analysis.tensors]
    output = next(n for n in graph.nodes if n.op == "output").all_input_nodes
    if len(inputs) != 1 or len(output) != 1:
        raise ConfigError(
            f"the model has {len(inputs)} inputs and {len(output)} outputs; wrap it so that one "
            "tensor goes in and one comes out"
        )
    return inputs[0], output[0]


def _classes(output: fx.Node) -> int:
    shape = tuple(output.meta["val"].shape)
    if len(shape) not in (2, 4):
        raise ConfigError(
            f"the model's output {output.name} has shape {shape}, expected (images, classes) or "
            "(images, classes, height, width); wrap it so that it gives one number for each class"
        )
    return int(shape[1])


def _needed(source: fx.Node, output: fx.Node) -> list[fx.Node]:
    """Calls between the input and the output, in order; a call of several outputs is identified
    by what takes them.
    """
    after = {source}
    for node in output.graph.nodes:
        if not after.isdisjoint(node.all_input_nodes):
            after.add(node)
    wanted: set[fx.Node] = set()
    left = [output]
    while left:
        node = left.pop()
        if node not in wanted:
            wanted.add(node)
            left += node.all_input_nodes
    return [
        node
        for node in output.graph.nodes
        if node in wanted & after
        and node.op == "call_function"
        and not isinstance(node.meta.get("val"), (list, tuple))
    ]


def _refuse_shared(tensors: Mapping[str, Mapping[str, str]], names: Mapping[str, str]) -> None:
    users: dict[str, str] = {}
    for node, weights in tensors.items():
        for tensor in weights.values():
            if tensor in users:
                raise ConfigError(
                    f"{names.get(tensor, tensor)} is a weight of two calls, {users[tensor]} and "
                    f"{node}; hwnas would train two copies: give each its own layer"
                )
            users[tensor] = node


# ---- regions -------------------------------------------------------------------------------------


def _regions(
    nodes: Sequence[Node], tensors: Mapping[str, Mapping[str, str]], analysis: Analysis
) -> tuple[Region, ...]:
    """Nodes in groups: one that computes, and what follows it alone and reads nothing later."""
    readers = Counter(name for node in nodes for name in node.reads)
    groups: list[list[Node]] = []
    at: dict[str, int] = {START: -1}
    for node in nodes:
        number = _joined(node, groups, at, readers)
        if number < 0:
            groups.append([node])
            number = len(groups) - 1
        else:
            before = groups[number][-1].name  # what it follows comes first
            others = list(node.reads)
            others.remove(before)
            groups[number].append(node._replace(reads=(before, *others)))
        at[node.name] = number
    names = _slots(groups, tensors, analysis)
    return tuple(Region(name, tuple(group)) for name, group in zip(names, groups, strict=True))


def _joined(
    node: Node, groups: Sequence[Sequence[Node]], at: Mapping[str, int], readers: Counter[str]
) -> int:
    """The number of the region that a node joins, or -1."""
    if node.kind in ANCHORS:
        return -1
    either = node.reads if node.kind in JOINS else node.reads[:1]
    ending = [at[name] for name in either if at[name] >= 0 and readers[name] == 1
              and groups[at[name]][-1].name == name]  # fmt: skip
    number = max(ending, default=-1)
    if number < 0 or any(at[name] > number for name in node.reads):
        return -1
    kinds = {n.kind for n in groups[number]}
    if node.kind in WEIGHTED and kinds & JOINS:
        return -1
    reads = sum(len(n.reads) for n in groups[number]) - len(groups[number]) + len(node.reads)
    return number if reads < len(INPUTS) else -1


def _slots(
    groups: Sequence[Sequence[Node]],
    tensors: Mapping[str, Mapping[str, str]],
    analysis: Analysis,
) -> list[str]:
    """A name for each region: of the layer whose weight it starts with, else of its first node."""
    out: list[str] = []
    for group in groups:
        weights = tensors.get(group[0].name, {})
        known = [analysis.names[name] for name in weights.values() if name in analysis.names]
        name = known[0].rpartition(".")[0] if known else group[0].name
        taken = {other.replace(".", "_") for other in out} | RESERVED
        number, unique = 1, name or group[0].name
        while unique.replace(".", "_") in taken:
            number += 1
            unique = f"{name}.{number}"
        out.append(unique)
    return out


def _skips(analysis: Analysis, found: _Nodes) -> tuple[Skip, ...]:
    """Branches by the nodes that they are made of; one call may be several nodes."""
    out = []
    for name, add, shortcut, inside in analysis.branches:
        own = tuple(node for node, call in found.calls.items() if call in inside)
        if own and add in found.calls:
            out.append(Skip(name, add, _real(shortcut, found.same), own))
    return tuple(out)


# ---- choices -------------------------------------------------------------------------------------


def _limited(family: Traced) -> tuple[Traced, dict[str, str]]:
    """The family with as few groups held whole as keep every region below MOST_OPS: combinations
    of what its op, and what waits in memory meanwhile, depend on.
    """
    whole: dict[str, str] = {}
    options = {choice.name: len(choice.options) for choice in family.choices()}
    groups = {group.name + WIDTH: group.name for group in family.groups}
    depends = {slot: set(names) for slot, names in family.depends_on().items()}
    branches = {name for name in options if name.endswith(KEPT)}
    largest = {choice.name: choice.options[-1] for choice in family.choices()}
    network = family.lower(largest, family.input, family.n_classes)
    waiting, reads = holders(network), {placed.slot: placed.reads for placed in network}
    empties = {slot: own & branches for slot, own in depends.items()}
    for slot, own in depends.items():
        names = own.union(*(depends[other] for other in waiting.get(slot, ())))
        if waiting.get(slot):
            names |= merging((*reads[slot], *waiting[slot]), reads, empties)
        for name in sorted(names & set(groups), key=lambda name: (options[name], name)):
            if math.prod(options[n] for n in names) <= MOST_OPS:
                break
            options[name] = 1
            whole[groups[name]] = f"{slot} depends on {len(names)} choices, too many to measure"
    kept = (Group(g.name, g.widths[-1:] if g.name in whole else g.widths) for g in family.groups)
    return replace(family, groups=tuple(kept)), whole


def _sources(
    family: Traced, tensors: Mapping[str, Mapping[str, str]]
) -> dict[tuple[str, str, str], str]:
    found = {}
    for slot, nodes in family.regions:
        kinds = [node.kind for node in nodes]
        for number, node in enumerate(nodes):
            name = step_name(kinds[:number], node.kind)
            for role, tensor in tensors.get(node.name, {}).items():
                found[slot, name, role] = tensor
    return found
