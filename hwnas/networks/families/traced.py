"""A traced model: groups of units with a width each, residual branches that may be skipped.

`hwnas.traced` reads it off a torch model. Regions are its nodes in groups of one that computes and
what follows it alone; a size that depends on widths is an `Axis`. A group keeps its first units,
so that a network's weights are leading parts of the largest one's, stretch by stretch.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from hwnas.networks.axes import Axis, Stretch, cuts, size
from hwnas.networks.families import Choice, Gate
from hwnas.networks.graph import INPUTS, window
from hwnas.networks.ops import Op, op
from hwnas.networks.ops.region import Step, step_name, written
from hwnas.networks.placed import START, Cut, PlacedOp
from hwnas.networks.primitives import Shape, resolve
from profilers.errors import ConfigError, FileFormatError

NORMS = (("scale", 0), ("bias", 0))
WEIGHT_AXES = {  # role and axis of the weights; `sizes` has the axes
    "conv": (("weight", 0), ("weight", 1), ("bias", 0)),
    "linear": (("weight", 0), ("weight", 1), ("bias", 0)),
    "batch_norm": NORMS,
    "layer_norm": NORMS,
    "group_norm": NORMS,
}
TABLES = {"times": "factor", "plus": "bias"}  # role; `sizes` has the axes that `axes` names
IDEMPOTENT = ("relu", "relu6")  # twice is as once
WINDOW = ("kernel", "stride", "dilation", "pads")
WIDTH, KEPT = ".width", ".kept"  # ends of the names of choices


class Node(NamedTuple):
    """A primitive of the model.

    Attributes:
        name: unique in the model.
        kind: of a primitive, or `adaptive_pool`.
        reads: names of nodes, or START.
        args: of the primitive, but for what `sizes` says.
        sizes: conv, linear: axes of the weight; norms: its channels; times, plus: the axes that the
            table is along; reshape: each axis after the batch, an empty one being the input's own
            of the same place from the end, none at all for all in a row; slice: what is before it,
            and itself.
        groups: that decide shapes of what it reads and gives, and of its weights; indices.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    args: tuple[tuple[str, Any], ...] = ()
    sizes: tuple[Axis, ...] = ()
    groups: tuple[int, ...] = ()


class Region(NamedTuple):
    """A slot: nodes of which each reads the one before."""

    slot: str
    nodes: tuple[Node, ...]


class Group(NamedTuple):
    """Units of one width, and the widths offered, ascending; the last is all of them."""

    name: str
    widths: tuple[int, ...]


class Skip(NamedTuple):
    """A residual branch: without its nodes the addition returns its shortcut."""

    name: str
    add: str
    shortcut: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """A model as a search space.

    Attributes:
        input: shape of what it takes, without the batch, as it was traced.
        n_classes: of its output.
        regions: in order.
    """

    input: Shape
    n_classes: int
    groups: tuple[Group, ...]
    skips: tuple[Skip, ...]
    regions: tuple[Region, ...]
    name: ClassVar[str] = "traced"

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.input, self.groups, self.skips, self.regions))

    def __hash__(self) -> int:
        return self._hash

    # ---- what a family says ------------------------------------------------------------------

    def choices(self) -> Sequence[Choice]:
        """Whether each branch is kept, then the width of each group."""
        return [
            *(Choice(skip.name + KEPT, (0, 1)) for skip in self.skips),
            *(Choice(group.name + WIDTH, group.widths) for group in self.groups),
        ]

    def gates(self) -> Mapping[str, Gate]:
        """A width, or an inner branch, that is in one branch only."""
        found: dict[str, Gate] = {}
        for skip in self.skips:
            if gate := self._innermost({skip.add}, but=skip):
                found[skip.name + KEPT] = gate + KEPT, 1
        for number, group in enumerate(self.groups):
            users = {n.name for r in self.regions for n in r.nodes if number in n.groups}
            if gate := self._innermost(users):
                found[group.name + WIDTH] = gate + KEPT, 1
        return found

    def _innermost(self, nodes: set[str], but: Skip | None = None) -> str:
        """The smallest branch that holds all of some nodes, or nothing."""
        holding = [skip for skip in self.skips if skip is not but and nodes <= set(skip.nodes)]
        return min(holding, key=lambda skip: len(skip.nodes)).name if holding else ""

    def input_shape(self, channels: int, resolution: int) -> Shape:
        """The model's own channels at a resolution.

        Raises:
            ConfigError: data of other channels.
        """
        if channels != self.input[0]:
            raise ConfigError(
                f"the model takes {self.input[0]} channels, the data have {channels}; build the "
                "model for these data"
            )
        return (channels, *(resolution,) * (len(self.input) - 1))

    def lower(self, chosen: Mapping[str, int], shape: Shape, n_classes: int) -> list[PlacedOp]:
        """The network of the widths and branches chosen.

        Raises:
            ConfigError: another number of classes, or shapes that do not match.
        """
        if n_classes != self.n_classes:
            raise ConfigError(
                f"the model tells {self.n_classes} classes apart, the data have {n_classes}; "
                "build the model for these data"
            )
        widths = tuple(chosen[g.name + WIDTH] or g.widths[-1] for g in self.groups)
        skipped = [skip for skip in self.skips if not chosen[skip.name + KEPT]]
        return _lowered(self, widths, tuple(skipped), shape)

    def depends_on(self) -> Mapping[str, Iterable[str]]:
        """A region on the widths of its nodes, and on the branches that it ends or is part of."""
        found: dict[str, list[str]] = {}
        for region in self.regions:
            groups = sorted({g for node in region.nodes for g in node.groups})
            names = {node.name for node in region.nodes}
            within = [s.name + KEPT for s in self.skips if names & {s.add, *s.nodes}]
            found[region.slot] = [*within, *(self.groups[g].name + WIDTH for g in groups)]
        return found

    def constants(self) -> Mapping[str, Any]:
        """All but the widths that are offered."""
        return {
            **self.to_json(),
            "groups": [[group.name, group.widths[-1]] for group in self.groups],
        }

    # ---- as JSON -------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Traced:
        """The family of plain values.

        Raises:
            FileFormatError: they are not what `to_json` gives.
        """
        try:
            return cls(
                tuple(data["input"]),
                int(data["n_classes"]),
                tuple(Group(str(name), tuple(widths)) for name, widths in data["groups"]),
                tuple(Skip(a, b, c, tuple(nodes)) for a, b, c, nodes in data["skips"]),
                tuple(
                    Region(str(slot), tuple(map(_node, nodes))) for slot, nodes in data["regions"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"it is not a traced model ({error}); analyse it again") from None


def _node(data: Sequence[Any]) -> Node:
    name, kind, reads, args, sizes, groups = data
    axes = tuple(tuple(Stretch(*map(int, stretch)) for stretch in axis) for axis in sizes)
    named = tuple((str(key), _tuples(value)) for key, value in args)
    return Node(str(name), str(kind), tuple(reads), named, axes, tuple(groups))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


# ---- lowering ------------------------------------------------------------------------------------


def _lowered(
    family: Traced, widths: tuple[int, ...], skipped: tuple[Skip, ...], shape: Shape
) -> list[PlacedOp]:
    gone = {name for skip in skipped for name in skip.nodes}
    instead = {skip.add: skip.shortcut for skip in skipped}
    slots, shapes = {START: START}, {START: shape}
    kinds = {node.name: node.kind for region in family.regions for node in region.nodes}
    out: list[PlacedOp] = []
    for region in family.regions:
        nodes = tuple(n for n in region.nodes if n.name not in gone and n.name not in instead)
        if not nodes:
            continue
        own = {node.name for node in nodes}
        reads = [_resolved(name, instead) for node in nodes for name in node.reads]
        given = tuple(slots[name] for name in reads if name not in own)
        last = nodes[-1]
        read = instead.get(last.reads[0], last.reads[0])  # whatever other branches are left out
        if len(nodes) == 1 and last.kind in IDEMPOTENT and kinds.get(read) == last.kind:
            slots[last.name] = given[0]
            continue
        mine = tuple(widths[g] for g in sorted({g for n in nodes for g in n.groups}))
        try:
            made, taken = _made(nodes, mine, tuple(shapes[slot] for slot in given))
        except ValueError as error:
            where = f"{region.slot} at {shape}"
            raise ConfigError(f"{where}: {error}; leave this resolution out") from None
        if made is None:
            slots[last.name] = given[0]
            continue
        out.append(PlacedOp(region.slot, made, given, taken))
        slots[last.name], shapes[region.slot] = region.slot, made.shape
    return out


def _resolved(name: str, instead: Mapping[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name


@functools.lru_cache(maxsize=1 << 16)
def _made(
    nodes: tuple[Node, ...], own: tuple[int, ...], shapes: tuple[Shape, ...]
) -> tuple[Op | None, tuple[Cut, ...]]:
    """The op of a region (None: it changes nothing), and the parts of its weights.

    Args:
        nodes: that are there; each reads the one before.
        own: widths of the groups that the nodes name, by their index.
        shapes: of what is read.
    """
    widths = dict(zip(sorted({g for node in nodes for g in node.groups}), own, strict=True))
    steps: list[Step] = []
    taken: list[Cut] = []
    left = list(zip(INPUTS, shapes, strict=False))
    last, shape = left.pop(0)
    for node in nodes:
        others = [left.pop(0) for _ in node.reads[1:]]
        for kind, args in _resolved_args(node, shape, widths):
            step = Step(kind, tuple(name for name, _ in others), args)
            name = step_name([s.kind for s in steps], kind)
            taken += _cuts(node, name, widths)
            steps.append(step)
            full = {**args, "shape": _flat(shape)} if args.get("shape") == () else args
            reads, given = (last, *step.others), (shape, *(of for _, of in others))
            last, shape = name, resolve(kind, name, reads, given, full).shape
    if not steps:
        return None, ()
    return op("region", *shapes, does=written(steps, len(shapes[0]) - 1)), tuple(taken)


def _flat(shape: Shape) -> Shape:
    return (math.prod(shape),)


def _resolved_args(
    node: Node, shape: Shape, widths: Mapping[int, int]
) -> list[tuple[str, dict[str, Any]]]:
    """Kind and arguments of the primitives of a node whose (first) input has a shape."""
    args, sizes = dict(node.args), [size(axis, widths) for axis in node.sizes]
    if node.kind in ("conv", "linear"):
        args["out"] = sizes[0]
    if node.kind == "conv":
        args["groups"] = shape[0] // max(1, sizes[1])
    if "each" in args:  # channels of a group
        args["groups"] = shape[0] // args.pop("each")
    if node.kind == "reshape":
        places = range(-len(sizes), 0)
        args["shape"] = tuple(
            n if axis else shape[at] for axis, n, at in zip(node.sizes, sizes, places, strict=True)
        )
    if node.kind == "slice":
        args |= {"start": sizes[0], "stop": sizes[0] + sizes[1]}
    if args.pop("ceil", False):
        windows = zip(shape[1:], *(args[name] for name in WINDOW), strict=True)
        args["pads"] = tuple(itertools.starmap(_up_to_the_end, windows))
    if node.kind == "adaptive_pool":
        return _pooled(node, shape, args["out"])
    return [(node.kind, args)]


def _up_to_the_end(
    n: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]
) -> tuple[int, int]:
    """Padding before and after n places where torch's pools with ceil_mode go on to the end: the
    last window begins in the input, or in the padding before it.
    """
    span = dilation * (kernel - 1) + 1
    last = max(0, -(-(n + 2 * pads[0] - span) // stride))  # number of the last window
    if last * stride >= n + pads[0]:
        last -= 1
    return pads[0], max(0, last * stride + span - n - pads[0])


def _pooled(node: Node, shape: Shape, out: Shape) -> list[tuple[str, dict[str, Any]]]:
    """Pooling to a size: a mean, or windows that tile the input; of one place where the input has
    that size already, so that the region is there at every resolution.
    """
    places = shape[1:]
    if set(out) == {1}:
        return [("mean", {"axes": tuple(range(1, len(shape))), "keep": True})]
    if any(n % wanted for n, wanted in zip(places, out, strict=True)):
        raise ConfigError(
            f"{node.name} pools {places} places to {out}, which do not divide them; leave this "
            "resolution out"
        )
    tile = tuple(n // wanted for n, wanted in zip(places, out, strict=True))
    return [("avg_pool", window(len(out), {"kernel": tile, "stride": tile, "pads": (0, 0)}))]


def _cuts(node: Node, name: str, widths: Mapping[int, int]) -> list[Cut]:
    """The parts of a node's weights that are not leading ones."""
    found = []
    for role, number, axis in _weight_axes(node):
        places = cuts(axis, widths)
        if len(places) > 1 or places[0][0]:
            found.append(Cut(name, role, number, places))
    return found


def _weight_axes(node: Node) -> list[tuple[str, int, Axis]]:
    """Role of each weight, number of an axis of it, and how that depends on widths."""
    if node.kind in TABLES:
        along = dict(node.args)["axes"]
        return [
            (TABLES[node.kind], axis - along[0], of)
            for axis, of in zip(along, node.sizes, strict=True)
        ]
    return [(role, axis, node.sizes[axis]) for role, axis in WEIGHT_AXES.get(node.kind, ())]
