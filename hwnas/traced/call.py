"""A call of an exported program, as the rules that make primitives of it see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import fx

from hwnas.networks.axes import Axis, groups_of
from hwnas.networks.families.traced import Node
from hwnas.traced.analysis import Analysis
from hwnas.traced.plain import RESHAPES, arguments, op_of
from hwnas.traced.program import module_of
from profilers.errors import ConfigError

OF_THE_BATCH = (
    "normalises by statistics of the batch",
    "set track_running_stats=True and train it",
)


class Made(NamedTuple):
    """A node of the traced family that a call is, and its weights and statistics by role: names of
    nodes of `Analysis.tensors`.
    """

    node: Node
    weights: Mapping[str, str]


class Call(NamedTuple):
    """A call: its name without overload, its node, its arguments by name, and the analysis."""

    name: str
    node: fx.Node
    args: Mapping[str, Any]
    analysis: Analysis

    @property
    def input(self) -> fx.Node:
        """The first argument."""
        found: Any = self.node.args[0]
        return found  # type: ignore[no-any-return]

    def axes(self, node: fx.Node | None = None) -> tuple[Axis, ...]:
        """Of the output, or of another node."""
        return self.analysis.axes[(node or self.node).name]

    def tensor(self, node: fx.Node) -> str:
        """The tensor of the analysis that a node is, in other shapes maybe; empty: it is none."""
        while op_of(node) in RESHAPES or (op_of(node) == "expand" and not _grows(node)):
            node = node.args[0]  # type: ignore[assignment]
        return node.name if node.name in self.analysis.tensors else ""

    def refuse(self, why: str, instead: str) -> ConfigError:
        """The error that names the call: what it does that hwnas cannot, and what to do."""
        where = module_of(self.node) or "the model's own forward"
        return ConfigError(f"{where}: node {self.node.name} ({self.node.target}) {why}; {instead}")

    def make(
        self,
        kind: str,
        *reads: fx.Node | Made,
        sizes: tuple[Axis, ...] = (),
        name: str = "",
        weights: Mapping[str, fx.Node | None] | None = None,
        **args: Any,
    ) -> Made:
        """A node of the family, its groups those of all shapes that it meets.

        Args:
            reads: values, or nodes that this call is made of besides.
            name: what follows the name of the call, where it is made of several nodes.
            weights: by role; None: there is none.

        Raises:
            ConfigError: a weight that the model computes.
        """
        given = [r.node.name if isinstance(r, Made) else r.name for r in reads]
        axes = self.analysis.axes
        met = [axis for n in (*given, self.node.name) for axis in axes.get(n, ())]
        groups = {g for axis in (*met, *sizes) for g in groups_of(axis)}
        groups |= {g for r in reads if isinstance(r, Made) for g in r.node.groups}
        tensors = {role: self.weight(node) for role, node in (weights or {}).items() if node}
        made = Node(
            f"{self.node.name}{name}", kind, tuple(given), tuple(args.items()), sizes,
            tuple(sorted(groups)),
        )  # fmt: skip
        return Made(made, tensors)

    def weight(self, node: fx.Node) -> str:
        """As `tensor`.

        Raises:
            ConfigError: it is none.
        """
        found = self.tensor(node)
        if not found:
            raise self.refuse(
                f"has a weight that forward computes, {node.name}", "make it a parameter"
            )
        return found


def call_of(node: fx.Node, analysis: Analysis) -> Call:
    """The call of a node, its arguments by the names of the operator's schema."""
    name = op_of(node)
    if name == "getitem":
        return Call(name, node, {"self": node.args[0], "index": node.args[1]}, analysis)
    return Call(name.rstrip("_"), node, arguments(node), analysis)


def _grows(node: fx.Node) -> bool:
    source: Any = node.args[0]
    return bool(node.meta["val"].numel() != source.meta["val"].numel())


def spread(values: Any, axes: int) -> tuple[int, ...]:
    """A number for each of some axes; one stands for all."""
    given = tuple(values) if isinstance(values, (list, tuple)) else (values,)
    return given * axes if len(given) == 1 else given


def full(axis: Axis) -> int:
    """Places of an axis of which everything stays."""
    return sum(stretch.units * stretch.repeat for stretch in axis)
