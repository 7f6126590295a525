"""The proof of an analysis: a model with units and branches taken out equals the masked whole.

Both run side by side, node by node, in float64 with random parameters: on one side tensors are cut
and sizes follow, on the other every value of a unit that goes is zero and the end of every branch
that is skipped is. What stays must be equal at every node, so the first node that differs is named.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn

from hwnas.networks.axes import WHOLE, Axis
from hwnas.settings.errors import VerificationError
from hwnas.traced.analysis import Analysis, Branch
from hwnas.traced.plain import arguments, op_of
from hwnas.traced.program import module_of
from hwnas.traced.resized import Call, Mask, called, masked_norm, resized

LIMIT = 1e-9  # relative, in float64, of the output
# Of a node within: products of activations grow, and what is cut off after them loses digits. A
# mistake is far above both.
NODE_LIMIT = 1e-6
SAME_LIMIT = 1e-5  # relative, of the graph and the model in the model's own precision
FEWEST = 0.25  # share of its units that a group keeps at least


class Proof(NamedTuple):
    """What a proof found.

    Attributes:
        trials: random networks that were compared.
        worst: relative error of the output, over all trials.
        same: relative error of the whole graph and the model; None: no model was given.
    """

    trials: int
    worst: float
    same: float | None


class Cut(NamedTuple):
    """What a trial takes out.

    Attributes:
        left: for each node of one tensor, what stays of each axis.
        skipped: branches, by the node of their addition.
        gone: nodes of branches that are skipped.
    """

    left: Mapping[str, Sequence[Mask]]
    skipped: Mapping[str, str]
    gone: frozenset[str]


def prove(analysis: Analysis, trials: int, seed: int, model: nn.Module | None = None) -> Proof:
    """Compare random networks with the masked whole; the first takes out no branch, and of the
    others each branch is taken out in one.

    Args:
        model: the whole graph must equal it.

    Raises:
        VerificationError: they differ, or a network does not run; names what to keep.
    """
    rng = np.random.default_rng(seed)
    same = None if model is None else _same(analysis, model)
    worst = 0.0
    turns = rng.integers(min(1, trials - 1), trials, len(analysis.branches)) if trials else ()
    with torch.no_grad():
        for trial in range(trials):
            tensors = random_tensors(analysis, rng)
            pairs = zip(analysis.branches, turns, strict=True)
            cut = _random_cut(analysis, rng, [branch for branch, turn in pairs if turn == trial])
            worst = max(worst, _compare(analysis, tensors, cut, rng))
    return Proof(trials, worst, same)


@torch.no_grad()
def masked(analysis: Analysis, keep: Sequence[Mask], skipped: Collection[str], x: Tensor) -> Tensor:
    """What the model, its own weights in float64, gives of an input where units of some groups and
    branches of some names are zero.

    Args:
        keep: (units,) of each group, which stay.
        x: of the shape that the model was traced with, batch 1.
    """
    cut = _cut_of(analysis, keep, [b for b in analysis.branches if b.name in skipped])
    tensors = {n: t.double() if t.is_floating_point() else t for n, t in analysis.tensors.items()}
    sides = _Sides({}, {})
    for node in analysis.program.graph.nodes:
        if node.op == "output":
            found: Tensor = sides.whole[node.all_input_nodes[0]]
            return found
        given = tensors if node.op != "placeholder" else {node.name: x.double(), **tensors}
        sides.whole[node] = _whole(node, sides, given, cut, np.random.default_rng(0))
    raise AssertionError("a graph has an output")


def random_tensors(analysis: Analysis, rng: np.random.Generator) -> dict[str, Tensor]:
    """Every parameter and statistic random, so that no zero hides a mistake; constants as they are.

    Weights keep the size of what passes through them; what is taken the root of is positive.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    drawn: dict[int, Tensor] = {}
    for name, tensor in analysis.tensors.items():
        if id(tensor) in drawn or not tensor.is_floating_point():
            drawn.setdefault(id(tensor), tensor)
        elif name not in analysis.names:
            drawn[id(tensor)] = tensor.double()
        else:
            value = torch.empty(tensor.shape, dtype=torch.float64)
            spread = 1.2 / math.sqrt(max(1, math.prod(tensor.shape[1:])))
            if tensor.ndim > 1:
                value.normal_(0, spread, generator=generator)
            else:
                value.uniform_(0.3, 1.0, generator=generator)
            drawn[id(tensor)] = value
    return {name: drawn[id(tensor)] for name, tensor in analysis.tensors.items()}


def _random_cut(analysis: Analysis, rng: np.random.Generator, chosen: Sequence[Branch]) -> Cut:
    """Random units of every group, never all of them, and some branches."""
    keep = []
    for group in analysis.groups:
        count = int(rng.integers(math.ceil(FEWEST * group.units), group.units))
        keep.append(np.isin(np.arange(group.units), rng.permutation(group.units)[:count]))
    return _cut_of(analysis, keep, chosen)


def _cut_of(analysis: Analysis, keep: Sequence[Mask], chosen: Sequence[Branch]) -> Cut:
    masks: dict[Axis, Mask] = {}
    for axes in analysis.axes.values():
        for axis in axes:
            if axis not in masks:
                masks[axis] = _mask(axis, keep)
    left = {name: [masks[axis] for axis in axes] for name, axes in analysis.axes.items()}
    gone = frozenset().union(*(branch.nodes for branch in chosen))
    return Cut(left, {branch.add: branch.shortcut for branch in chosen}, gone)


def _mask(axis: Axis, keep: Sequence[Mask]) -> Mask:
    """Which places of an axis stay where each group keeps some of its units."""
    parts = [
        np.ones(s.units * s.repeat, bool) if s.group == WHOLE
        else np.repeat(keep[s.group][s.first : s.first + s.units], s.repeat)
        for s in axis
    ]  # fmt: skip
    return np.concatenate(parts) if parts else np.ones(0, bool)


class _Sides(NamedTuple):
    """Values of nodes, of the masked whole and of the network that is cut."""

    whole: dict[fx.Node, Any]
    cut: dict[fx.Node, Any]


def _compare(
    analysis: Analysis, tensors: Mapping[str, Tensor], cut: Cut, rng: np.random.Generator
) -> float:
    """Relative error of the output of one network against the masked whole."""
    sides, worst = _Sides({}, {}), 0.0
    nodes = analysis.program.graph.nodes
    last = {source: node for node in nodes for source in node.all_input_nodes}
    for node in nodes:
        if node.op == "output":
            _check_output(analysis, node, cut)
            continue
        limit = LIMIT if any(user.op == "output" for user in node.users) else NODE_LIMIT
        sides.whole[node] = _whole(node, sides, tensors, cut, rng)
        if node.name not in cut.gone:
            sides.cut[node] = _attempt(analysis, node, sides, tensors, cut)
            if node.name in cut.left:
                error = _error(sides.whole[node], sides.cut[node], cut.left[node.name])
                if not error <= limit:
                    what = f"differs from the masked one by {error:.2g} (at most {limit:g})"
                    raise _refusal(analysis, node, what)
                worst = error if limit == LIMIT else worst
        for source in node.all_input_nodes:
            if last[source] is node:
                del sides.whole[source]
                sides.cut.pop(source, None)
    return worst


def _whole(
    node: fx.Node, sides: _Sides, tensors: Mapping[str, Tensor], cut: Cut,
    rng: np.random.Generator,
) -> Any:  # fmt: skip
    """A node of the whole graph, with zeros where units go and where a skipped branch ends."""
    if node.op != "call_function":
        value = tensors.get(node.name)
        if value is None:
            value = torch.from_numpy(rng.standard_normal(tuple(node.meta["val"].shape)))
    else:
        values = sides.whole
        if node.name in cut.skipped:
            ends = [n for n in node.all_input_nodes if n.name != cut.skipped[node.name]]
            values = {**values, **{end: torch.zeros_like(values[end]) for end in ends}}
        value = _called(node, values, cut, masked=True)
    return _zeroed(value, cut.left[node.name]) if node.name in cut.left else value


def _zeroed(value: Tensor, masks: Sequence[Mask]) -> Tensor:
    for axis, mask in enumerate(masks):
        if not mask.all():
            shape = [-1 if a == axis else 1 for a in range(value.ndim)]
            stays = torch.from_numpy(mask).reshape(shape)
            value = torch.where(stays, value, torch.zeros((), dtype=value.dtype))
    return value


def _called(node: fx.Node, values: Mapping[fx.Node, Any], cut: Cut, masked: bool) -> Any:
    """What a call gives for the values of other nodes, in float64."""
    if node.target is operator.getitem:
        return values[node.args[0]][node.args[1]]  # type: ignore[index]
    given = dict(fx.node.map_aggregate(arguments(node), lambda a: _double(a, values)))
    call = Call(node, given, cut.left)
    if not masked:
        return resized(call)
    value = masked_norm(call)
    return called(node, given) if value is None else value


def _double(argument: Any, values: Mapping[fx.Node, Any]) -> Any:
    if isinstance(argument, fx.Node):
        return values[argument]
    return torch.float64 if argument in (torch.float32, torch.float16) else argument


def _cut(node: fx.Node, sides: _Sides, tensors: Mapping[str, Tensor], cut: Cut) -> Any:
    """A node of the network that is cut."""
    if node.name in cut.skipped:
        return {n.name: value for n, value in sides.cut.items()}[cut.skipped[node.name]]
    if node.op == "call_function":
        return _called(node, sides.cut, cut, masked=False)
    value = tensors[node.name] if node.name in tensors else sides.whole[node]
    return _taken(value, cut.left[node.name])


def _taken(value: Tensor, masks: Sequence[Mask]) -> Tensor:
    """The places of a tensor that stay."""
    for axis, mask in enumerate(masks):
        if not mask.all():
            value = value.index_select(axis, torch.from_numpy(np.flatnonzero(mask)))
    return value


def _attempt(
    analysis: Analysis, node: fx.Node, sides: _Sides, tensors: Mapping[str, Tensor], cut: Cut
) -> Any:
    try:
        return _cut(node, sides, tensors, cut)
    except (RuntimeError, KeyError, IndexError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refusal(analysis, node, f"does not run: {text}") from error


def _error(whole: Any, cut: Any, masks: Sequence[Mask]) -> float:
    """Relative error of what stays; infinite where sizes differ, or a value is not a number."""
    expected = _taken(whole, masks)
    if expected.shape != cut.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, cut) else math.inf
    finite = torch.isfinite(expected)
    if not torch.equal(torch.where(finite, 0, expected), torch.where(finite, 0, cut)):
        return math.inf
    expected, cut = torch.where(finite, expected, 0), torch.where(finite, cut, 0)
    return float((expected - cut).abs().max() / expected.abs().max().clamp_min(1e-30))


def _check_output(analysis: Analysis, node: fx.Node, cut: Cut) -> None:
    for source in node.all_input_nodes:
        if not all(mask.all() for mask in cut.left[source.name]):
            raise _refusal(analysis, source, "has fewer outputs")


def _refusal(analysis: Analysis, node: fx.Node, what: str) -> VerificationError:
    """One line: where the proof fails, and which groups to keep."""
    near = [node, *node.all_input_nodes]
    axes = [axis for n in near for axis in analysis.axes.get(n.name, ())]
    groups = sorted({s.group for axis in axes for s in axis} - {WHOLE})
    names = ", ".join(f'"{analysis.groups[group].name}"' for group in groups)
    advice = f"set space.keep: [{names}]" if names else "set space.skip_blocks: false"
    where = module_of(node) or "forward"
    return VerificationError(
        f"the proof fails at {where}, node {node.name} ({op_of(node) or node.op}): the network "
        f"with parts cut out {what}; {advice}"
    )


def _same(analysis: Analysis, model: nn.Module) -> float:
    """Relative error of the whole graph and the model, in the model's own precision."""
    inputs = [n for n in analysis.program.graph.nodes if n.op == "placeholder"]
    shape = next(n for n in inputs if n.name not in analysis.tensors).meta["val"]
    example = torch.rand(shape.shape, generator=torch.Generator().manual_seed(1)).to(shape.dtype)
    given = [analysis.tensors.get(node.name, example) for node in inputs]
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        expected, found = twin(example), analysis.program(*given)[0]
    error = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not error <= SAME_LIMIT:
        raise VerificationError(
            f"the exported graph differs from the model by {error:.2g} (at most {SAME_LIMIT:g}): "
            "its forward gives other values for the same input (a functional dropout needs "
            "training=self.training), or depends on more than it"
        )
    return error
