"""What may be taken out of a trained model: its groups of units and its residual branches.

Method: Dependency graphs of channels (Fang et al. 2023, "DepGraph") unite layers by rules of their
own for each; here each value has a label, and moves of data are run on labels, so a shuffle or a
split of heads needs no rule.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from hwnas.networks.axes import WHOLE as WHOLE_GROUP
from hwnas.networks.axes import Axis
from hwnas.settings.errors import ConfigError
from hwnas.traced.analysis import Analysis
from hwnas.traced.batched import batch_first
from hwnas.traced.branches import branches
from hwnas.traced.fusing import fuse
from hwnas.traced.groups import Place, Ranked, axes_of, module_name, places, ranked, settle
from hwnas.traced.labels import Labels, shape_of
from hwnas.traced.program import Program, exported
from hwnas.traced.rules import label


def analyse(
    model: nn.Module, shape: tuple[int, ...], keep: Sequence[str] = (), skip_blocks: bool = True
) -> Analysis:
    """What may be taken out of a model.

    Args:
        shape: of an input, without the batch.
        keep: patterns like `head.*`: what such modules or weights make stays whole.
        skip_blocks: whether residual branches may be skipped.

    Raises:
        ConfigError: the model cannot be exported, or a pattern matches nothing.
    """
    program = exported(model, shape)
    fuse(program)
    batch_first(program)
    return analysed(program, keep, skip_blocks)


def analysed(program: Program, keep: Sequence[str] = (), skip_blocks: bool = True) -> Analysis:
    """What may be taken out of a model that is a graph already; as `analyse`.

    Raises:
        ConfigError: that is nothing.
    """
    labels = labelled(program, keep)
    found = places(labels)
    ranks = ranked(labels, found, program.names)
    axes = _axes(program, found, ranks)
    skips = branches(program.graph, axes) if skip_blocks else ()
    whole = _whole(labels, program.names, ranks)
    if not ranks.groups and not skips:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in [*whole.items()][:3])
        raise ConfigError(
            f"nothing can be taken out of the model, all stays whole ({reasons}): shorten "
            "space.keep, or change these layers"
        )
    return Analysis(
        program=program.graph,
        tensors=program.tensors,
        names=program.names,
        axes=axes,
        groups=ranks.groups,
        branches=skips,
        whole=whole,
    )


def labelled(program: Program, keep: Sequence[str]) -> Labels:
    """Labels of every node, of which each tensor stays a rectangle when any unit goes."""
    labels = Labels(program.tensors, _keeper(program.names, keep))
    nodes = list(program.graph.graph.nodes)
    for node in nodes:
        if node.op == "placeholder" and node.name not in program.tensors:
            whole = labels.units.whole("it is combined with the model's input")
            labels.values[node.name] = whole.reshape((1,) * len(shape_of(node)))
        elif node.op == "call_function":
            labels.values[node.name] = label(labels, node)
        elif node.op == "output":
            for source in node.all_input_nodes:
                labels.units.freeze(labels.of(source), "it makes the model's output")
    settle(labels, nodes)
    return labels


def _keeper(names: Mapping[str, str], keep: Sequence[str]) -> Callable[[str], str]:
    """Why what a tensor makes stays whole, by the name of its node."""
    for pattern in keep:
        if not any(_matches(name, pattern) for name in names.values()):
            modules = sorted({module_name(name) for name in names.values()})
            close = difflib.get_close_matches(pattern, modules, n=1, cutoff=0)
            raise ConfigError(
                f"space.keep: {pattern!r} names no layer of the model; the nearest is {close[0]!r}"
            )

    def kept(node: str) -> str:
        name = names.get(node, "")
        return next((f"space.keep names it: {p}" for p in keep if _matches(name, p)), "")

    return kept


def _matches(name: str, pattern: str) -> bool:
    """A weight matches by its name, and by the path of each module that it is in."""
    parts = itertools.accumulate(name.split("."), lambda path, part: f"{path}.{part}")
    return any(fnmatch.fnmatchcase(path, pattern) for path in parts)


def _axes(program: Program, found: Sequence[Place], ranks: Ranked) -> dict[str, tuple[Axis, ...]]:
    """How the sizes of every node of one tensor depend on widths."""
    on: dict[str, dict[int, np.ndarray]] = {}
    for place in found:
        on.setdefault(place.name, {})[place.axis] = place.ids
    owners: dict[int, str] = {}
    axes = {}
    for node in program.graph.graph.nodes:
        value = node.meta.get("val")
        if node.op == "output" or not isinstance(value, Tensor):
            continue
        name = node.name
        if name in program.tensors:
            tensor = id(program.tensors[name])
            owners[tensor] = owners.get(tensor) or name
            name = owners[tensor]
        axes[node.name] = axes_of(shape_of(node), on.get(name, {}), ranks)
    return axes


def _whole(labels: Labels, names: Mapping[str, str], ranks: Ranked) -> dict[str, str]:
    """Why channels stay whole, by the name of the weight that makes them."""
    whole = dict(labels.computed)
    for tensor, axis in labels.makers:
        ids = labels.sides[tensor][axis]
        roots = labels.units.find(ids)
        stays = ranks.group[roots] == WHOLE_GROUP
        if not stays.any():
            continue
        first = int(np.argmax(stays))
        reason = "no other of its channels is used in the same places"
        if roots[first] == 0:
            reason = labels.units.reason(int(ids[first]))
        if not stays.all():
            reason = f"{int(stays.sum())} of {len(ids)} channels: {reason}"
        whole[module_name(names.get(tensor, tensor))] = reason
    return whole
