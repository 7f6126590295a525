"""Files of which some ops are in int8."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hwnas.networks import ranges as taken
from profilers import precisions, qdq, runtimes
from profilers.devices import host
from profilers.schema import Target


def recipe_of(target: Target) -> str:
    """How int8 is written for this machine and a target's engine."""
    own = runtimes.engine(target.runtime).recipe
    return precisions.recipe("int8", host.hardware(), own)


def partly(
    model: bytes, recipe: str, slots: Collection[str], ranges: taken.Ranges | None = None
) -> bytes:
    """A file with the ops of some slots in int8; without ranges by the rule of kits."""
    part = precisions.load("int8")
    found = qdq.placed(model, part.RECIPES[recipe].least_channels)
    integer = {
        node.outputs[0]
        for node in found.nodes
        if node.outputs[0] in found.integer and node.name.partition("/")[0] in slots
    }
    touched: set[str] = set()
    for node in found.nodes:
        if node.outputs[0] in integer - set(found.moved):
            touched |= {*node.inputs, found.clipped.get(node.outputs[0], node.outputs[0])}
    for name in found.pairs:
        if found.moved.get(name) in touched:
            touched.add(name)
    left = found._replace(
        integer=integer,
        pairs=[name for name in found.pairs if name in touched],
        clipped={source: end for source, end in found.clipped.items() if source in integer},
        moved={name: source for name, source in found.moved.items() if name in touched},
    )
    by_rule = {name: part.RULES.get(maker, part.RULE) for name, maker in left.ranged.items()}
    return qdq.written(left, Path(), part.RECIPES[recipe], ranges or by_rule)
