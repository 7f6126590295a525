"""Parallel convolutions of one input, summed, as the one convolution that they are.

RepVGG (Ding et al., arXiv 2101.03697) and MobileOne train several branches and deploy their sum.
Each branch is a convolution, with or without BatchNorm, or a BatchNorm alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from hwnas.traced.plain import arguments, op_of
from hwnas.traced.program import Program, module_of

CONVS = {"conv1d", "conv2d"}
STATISTICS = ("running_mean", "running_var", "weight", "bias")
SHARED = ("stride", "dilation", "groups")  # arguments that branches must agree in


class _Branch(NamedTuple):
    """A convolution or none, and the BatchNorm after it or none, of one source."""

    source: fx.Node
    conv: fx.Node | None
    norm: fx.Node | None


def fuse(program: Program) -> int:
    """Put one convolution in the place of each sum of parallel ones, in place; how many there are.

    The new weight and bias are named after the module that the sum is in: `NAME.fused.weight`.
    """
    count = 0
    for node in list(program.graph.graph.nodes):
        if op_of(node) == "add" and not any(op_of(user) == "add" for user in node.users):
            branches = _branches(node, program)
            if branches and _replaced(node, branches, program, count):
                count += 1
    if count:
        graph = program.graph.graph
        graph.eliminate_dead_code()
        for node in list(graph.nodes):
            if node.name in program.tensors and not node.users:
                del program.tensors[node.name]
                program.names.pop(node.name, None)
                graph.erase_node(node)
        program.graph.recompile()
    return count


def _branches(node: fx.Node, program: Program) -> list[_Branch]:
    """The branches that a sum adds up, or nothing where one is something else."""
    out: list[_Branch] = []
    left: list[Any] = [node]
    while left:
        one = left.pop()
        alone = one is node or (isinstance(one, fx.Node) and len(one.users) == 1)
        if alone and op_of(one) == "add" and arguments(one).get("alpha", 1) == 1:
            left += [arguments(one)["self"], arguments(one)["other"]]
            continue
        branch = _branch(one, program) if alone else None
        if branch is None:
            return []
        out.append(branch)
    same = len({branch.source for branch in out}) == 1 and len(out) > 1
    return out if same and _agree([b.conv for b in out if b.conv]) and _fits(out) else []


def _branch(node: fx.Node, program: Program) -> _Branch | None:
    norm = node if op_of(node) == "batch_norm" else None
    if norm and (arguments(norm)["training"] or not _has_own(norm, STATISTICS)):
        return None
    source = arguments(norm)["input"] if norm else node
    if op_of(source) in CONVS and len(source.users) == 1:
        given = arguments(source)
        held = ("weight",) if given["bias"] is None else ("weight", "bias")
        if not _has_own(source, held):
            return None
        known = all(
            v is None or v.name in program.tensors for v in (given["weight"], given["bias"])
        )
        return _Branch(given["input"], source, norm) if known and _centred(source) else None
    return _Branch(source, None, norm) if norm else None


def _has_own(call: fx.Node, roles: Iterable[str]) -> bool:
    """Whether a call has tensors of some roles that no other call shares."""
    held = [arguments(call)[role] for role in roles]
    return all(isinstance(tensor, fx.Node) and len(tensor.users) == 1 for tensor in held)


def _centred(conv: fx.Node) -> bool:
    """Whether its kernel is odd and padded so that sizes stay."""
    given = arguments(conv)
    kernel = given["weight"].meta["val"].shape[2:]
    pads = given["padding"]
    if isinstance(pads, str) or any(n % 2 == 0 for n in kernel):
        return False
    return all(d == 1 for d in given["dilation"]) and list(pads) == [n // 2 for n in kernel]


def _agree(convs: list[fx.Node]) -> bool:
    said = {tuple(str(arguments(conv)[name]) for name in SHARED) for conv in convs}
    return len(said) == 1


def _fits(branches: list[_Branch]) -> bool:
    """Whether a BatchNorm alone, if there is one, has the shape that the convolutions give."""
    conv = next(branch.conv for branch in branches if branch.conv)
    strides = arguments(conv)["stride"]
    same = conv.meta["val"].shape == branches[0].source.meta["val"].shape and set(strides) == {1}
    return same or all(branch.conv for branch in branches)


def _replaced(node: fx.Node, branches: list[_Branch], program: Program, number: int) -> bool:
    """Write the convolution of some branches in the place of their sum."""
    conv = next(branch.conv for branch in branches if branch.conv)
    given, graph = arguments(conv), program.graph.graph
    parts = [_weights(branch, conv, program) for branch in branches]
    kernel = [max(sizes) for sizes in zip(*(w.shape[2:] for w, _ in parts), strict=True)]
    weight = sum((_padded(w, kernel) for w, _ in parts), torch.zeros(()))
    bias = sum((b for _, b in parts), torch.zeros(()))
    path = module_of(node)
    found = {"weight": weight, "bias": bias}
    first = next(iter(graph.nodes))
    made = {}
    for role, tensor in found.items():
        with graph.inserting_before(first):
            made[role] = graph.placeholder(f"p_fused{number}_{role}")
        made[role].meta["val"] = tensor.to(conv.meta["val"].dtype)
        program.tensors[made[role].name] = made[role].meta["val"]
        program.names[made[role].name] = f"{path}.fused{'' if path else number}.{role}".lstrip(".")
    pads = [n // 2 for n in kernel]
    words = (given["input"], made["weight"], made["bias"], given["stride"], pads,
             given["dilation"], given["groups"])  # fmt: skip
    with graph.inserting_before(node):
        new = graph.call_function(conv.target, words)  # type: ignore[arg-type]
    new.meta = {**conv.meta, "val": node.meta["val"]}
    node.replace_all_uses_with(new)
    return True


def _weights(branch: _Branch, like: fx.Node, program: Program) -> tuple[Tensor, Tensor]:
    """Weight and bias of a branch as a convolution, float64."""
    if branch.conv:
        given = arguments(branch.conv)
        weight = program.tensors[given["weight"].name].double()
        bias = torch.zeros(len(weight), dtype=torch.float64)
        if given["bias"] is not None:
            bias = program.tensors[given["bias"].name].double()
    else:
        weight, bias = _identity(like)
    if branch.norm is None:
        return weight, bias
    said = arguments(branch.norm)
    mean, var, scale, shift = (program.tensors[said[name].name].double() for name in STATISTICS)
    factor = scale / torch.sqrt(var + said["eps"])
    spread = (-1, *(1,) * (weight.dim() - 1))
    return weight * factor.view(spread), shift + (bias - mean) * factor


def _identity(like: fx.Node) -> tuple[Tensor, Tensor]:
    """The convolution that changes nothing, in the groups of another one."""
    shape = arguments(like)["weight"].meta["val"].shape
    channels, per_group = shape[:2]
    weight = torch.zeros(channels, per_group, *(1,) * (len(shape) - 2), dtype=torch.float64)
    rows = torch.arange(channels)
    weight[(rows, rows % per_group, *(0,) * (len(shape) - 2))] = 1.0
    return weight, torch.zeros(channels, dtype=torch.float64)


def _padded(weight: Tensor, kernel: Iterable[int]) -> Tensor:
    """A kernel in the middle of a larger one."""
    over = [(wanted - n) // 2 for wanted, n in zip(kernel, weight.shape[2:], strict=True)]
    return F.pad(weight, [n for side in reversed(over) for n in (side, side)])
