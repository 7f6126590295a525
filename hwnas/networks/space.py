"""Search spaces: choices and architectures of a family.

An architecture is a tuple of option values in the order of `space.choices`, canonical: choices that
change nothing (of blocks that are not there) are 0, so equal networks are equal objects.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hwnas.networks.families import Choice, Family
from hwnas.networks.placed import Network, PlacedOp, checked
from hwnas.networks.primitives import Shape
from profilers.errors import ConfigError
from profilers.schema import canonical_json, sha256_text

__all__ = ["Architecture", "Choice", "PlacedOp", "SearchSpace"]

RESOLUTION = "resolution"  # the choice that every space has, the first one


@dataclass(frozen=True)
class SearchSpace:
    """Networks of a family, as data.

    Attributes:
        resolutions: input sizes offered, ascending: px of images, steps of series.
        profiled: input sizes measured unless the user lists others.
        bn_eps: of every BatchNorm.
        on_request: further input sizes, offered where somebody asks for them by number.
        only: what is left of the options of some choices, by name (`narrowing`).
    """

    name: str
    family: Family
    resolutions: tuple[int, ...]
    profiled: tuple[int, ...]
    in_channels: int = 1
    n_classes: int = 10
    bn_eps: float = 1e-5
    on_request: range = range(0)
    only: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    @functools.cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Every searchable dimension: the resolution, then the family's.

        Raises:
            ConfigError: two choices of one name, or one without options.
        """
        found = (Choice(RESOLUTION, self.resolutions), *self.family.choices())
        names = [choice.name for choice in found]
        twice = [name for name in names if names.count(name) > 1]
        empty = [choice.name for choice in found if not choice.options]
        if twice or empty:
            raise ConfigError(
                f"space {self.name}: choice {(twice + empty)[0]!r} "
                f"{'appears twice' if twice else 'offers nothing'}; mend its family"
            )
        return tuple(Choice(c.name, self.only.get(c.name, tuple(c.options))) for c in found)

    @functools.cached_property
    def columns(self) -> dict[str, int]:
        """Column of each choice, by name."""
        return {choice.name: i for i, choice in enumerate(self.choices)}

    def _column(self, name: str, what: str) -> int:
        if name not in self.columns:
            raise ConfigError(
                f"space {self.name}: {what} names the choice {name!r}, which is not there; its "
                f"family {self.family.name} offers {', '.join(self.columns)}"
            )
        return self.columns[name]

    @functools.cached_property
    def depends_on(self) -> dict[str, tuple[int, ...]]:
        """For each slot, the columns of the choices that its op depends on, ascending, the
        resolution among them.
        """
        named = self.family.depends_on()
        slots = [placed.slot for placed in self.largest.ops]
        strange = sorted(set(named) - set(slots))
        if strange and not self.only:
            raise ConfigError(
                f"space {self.name}: depends_on names the slot {strange[0]!r}, which the largest "
                f"network lacks; its slots are {', '.join(slots)}"
            )
        return {
            slot: tuple(sorted({0, *(self._column(n, "depends_on") for n in named.get(slot, ()))}))
            for slot in slots
        }

    @functools.cached_property
    def gates(self) -> tuple[tuple[int, ...], ...]:
        """For each choice, the columns of those that can make it dead."""
        gate = self._gates[0]
        out: list[tuple[int, ...]] = []
        for column in range(len(self.choices)):
            found: list[int] = []
            while column := int(gate[column]):
                found.append(column)
            out.append(tuple(found))
        return tuple(out)

    @functools.cached_property
    def _gates(self) -> tuple[np.ndarray, np.ndarray, int]:
        """(n_choices,) column of each choice's gate (0: it has none) and the gate's least value;
        how many gates stand in a row at most.
        """
        gate, least = np.zeros((2, len(self.choices)), dtype=np.int64)
        for name, (by, value) in self.family.gates().items():
            column = self._column(name, "gates")
            gate[column], least[column] = self._column(by, "gates"), value
        longest, ahead = 0, gate
        while ahead.any():
            longest, ahead = longest + 1, gate[ahead]
            if longest > len(gate):
                raise ConfigError(f"space {self.name}: its choices gate each other in a circle")
        return gate, least, longest

    # ---- architectures -------------------------------------------------------------------------

    def architecture(self, values: Iterable[float]) -> Architecture:
        """The canonical architecture of option values in the order of `choices`.

        A dead choice may have any of its options, or 0.

        Raises:
            ConfigError: wrong number of values, or a value that is not offered.
        """
        given = [_whole(v) for v in values]
        if len(given) != len(self.choices):
            raise ConfigError(
                f"space {self.name} has {len(self.choices)} choices, {len(given)} values were given"
            )
        row = np.array(given)
        dead = self._dead(row[:, None])[:, 0]
        for choice, value, is_dead in zip(self.choices, given, dead, strict=True):
            if value not in choice.options and not (is_dead and value == 0):
                raise ConfigError(
                    f"{choice.name} = {str(value)[:20]} is not offered by space {self.name}; "
                    f"options: {choice.options}"
                )
        return Architecture(self, tuple(np.where(dead, 0, row).tolist()))

    def from_json(self, data: Mapping[str, Any]) -> Architecture:
        """The architecture of `{"space": name, "choices": {name: value}}`.

        Choices left out are dead.

        Raises:
            ConfigError: another space, an unknown choice, or a live choice left out.
        """
        if data.get("space") != self.name:
            raise ConfigError(
                f"architecture is of space {data.get('space')!r}, expected {self.name!r}"
            )
        named = data.get("choices")
        if not isinstance(named, Mapping):
            raise ConfigError('architecture lacks "choices"')
        unknown = sorted(set(named) - set(self.columns))
        if unknown:
            raise ConfigError(
                f"architecture has unknown choice {unknown[0]!r} for space {self.name}"
            )
        return self.architecture([named.get(choice.name, 0) for choice in self.choices])

    @functools.cached_property
    def option_values(self) -> np.ndarray:
        """(n_choices, most options) option values, padded with -1, for a genome to gather from."""
        width = max(len(choice.options) for choice in self.choices)
        table = np.full((len(self.choices), width), -1, dtype=np.int32)
        for i, choice in enumerate(self.choices):
            table[i, : len(choice.options)] = choice.options
        return table

    @functools.cached_property
    def n_options(self) -> np.ndarray:
        """(n_choices,) how many options each choice has."""
        return np.array([len(choice.options) for choice in self.choices])

    def canonical(self, genome: np.ndarray) -> np.ndarray:
        """Identity of each genome row: (n, n_choices) option values, dead choices 0.

        Args:
            genome: (n, n_choices) option indices.
        """
        return np.ascontiguousarray(self.by_choice(genome).T)

    def by_choice(self, genome: np.ndarray) -> np.ndarray:
        """(n_choices, n) `canonical` with a row for each choice, which is quicker to take."""
        width = self.option_values.shape[1]
        starts = np.arange(0, len(self.choices) * width, width)[:, None]
        values = self.option_values.reshape(-1).take(np.asarray(genome).T + starts)
        values[self._dead(values)] = 0
        return np.asarray(values)

    def _dead(self, values: np.ndarray) -> np.ndarray:
        """(n_choices, n) whether a choice changes nothing: its gate is below its least value, or
        dead itself.

        Args:
            values: (n_choices, n) of options.
        """
        gate, least, longest = self._gates
        dead = values.take(gate, axis=0) < least[:, None]
        for _ in range(longest - 1):
            dead |= dead.take(gate, axis=0)
        return np.asarray(dead)

    def genome(self, archs: Iterable[Architecture]) -> np.ndarray:
        """(n, n_choices) option indices of architectures; dead choices get index 0."""
        index = [{value: i for i, value in enumerate(choice.options)} for choice in self.choices]
        rows = [[table.get(v, 0) for table, v in zip(index, a.values, strict=True)] for a in archs]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self.choices))

    def holds(self, arch: Architecture) -> bool:
        """Whether every live choice of an architecture has an option that is offered here."""
        return tuple(self.canonical(self.genome([arch]))[0].tolist()) == arch.values

    def architectures(self, genome: np.ndarray) -> list[Architecture]:
        """The architecture of each genome row."""
        return [Architecture(self, tuple(row)) for row in self.canonical(genome).tolist()]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, n_choices) genomes, each choice uniform over its options."""
        return rng.integers(0, self.n_options, size=(n, len(self.choices)))

    def random(self, rng: np.random.Generator) -> Architecture:
        """One architecture, each choice uniform over its options."""
        return self.architectures(self.sample(1, rng))[0]

    @functools.cached_property
    def largest(self) -> Architecture:
        """Every choice at its largest option."""
        return self.architecture(choice.options[-1] for choice in self.choices)

    def largest_at(self, resolution: int) -> Architecture:
        """Every choice but the resolution at its largest option."""
        return self.architecture([resolution, *self.largest.values[1:]])

    @functools.cached_property
    def smallest(self) -> Architecture:
        """Every choice at its smallest option."""
        return self.architectures(np.zeros((1, len(self.choices)), dtype=np.int64))[0]

    @functools.cached_property
    def size(self) -> int:
        """How many different networks there are."""
        roots: dict[int, list[int]] = {}  # choices that are gated by one another, by the first gate
        for column, gates in enumerate(self.gates):
            roots.setdefault(gates[-1] if gates else column, []).append(column)
        return math.prod(self._count(columns) for columns in roots.values())

    def _count(self, columns: list[int]) -> int:
        """Different values of some choices, which no others gate."""
        gating = sorted({gate for column in columns for gate in self.gates[column]})
        free = [column for column in columns if column not in gating]
        total = 0
        for options in itertools.product(*(range(self.n_options[c]) for c in gating)):
            genome = np.zeros((1, len(self.choices)), dtype=np.int64)
            genome[0, gating] = options
            values = self.option_values[np.arange(len(self.choices)), genome]
            dead = self._dead(values.T)[:, 0]
            if any(dead[c] and at for c, at in zip(gating, options, strict=True)):
                continue  # the same network as with the first option
            total += math.prod(int(self.n_options[c]) for c in free if not dead[c])
        return total

    # ---- networks ------------------------------------------------------------------------------

    def input_shape(self, resolution: int) -> Shape:
        """Of the input of a network at a resolution, without the batch."""
        return self.family.input_shape(self.in_channels, resolution)

    def lower(self, arch: Architecture) -> Network:
        """The network as placed ops, in order.

        Raises:
            ConfigError: an architecture of another geometry, or a family whose ops are no network.
        """
        if arch.space.geometry != self.geometry:
            raise ConfigError(f"architecture is of another geometry than space {self.name}")
        shape = self.input_shape(arch.resolution)
        named = dict(zip(self.columns, arch.values, strict=True))
        try:
            return checked(self.family.lower(named, shape, self.n_classes), shape)
        except ConfigError as error:
            raise ConfigError(f"space {self.name}, family {self.family.name}: {error}") from None

    @functools.cached_property
    def geometry(self) -> str:
        """Hash of every constant that enters `lower`; what is offered does not count."""
        named = {
            "family": self.family.name,
            "name": self.name,
            **self.family.constants(),
            "in_channels": self.in_channels,
            "n_classes": self.n_classes,
        }
        return sha256_text(canonical_json(named))

    def offered(self) -> dict[str, list[int]]:
        """Option values of each choice, by name."""
        return {choice.name: list(choice.options) for choice in self.choices}

    @property
    def every_resolution(self) -> tuple[int, ...]:
        """Input sizes that may be asked for, ascending."""
        return tuple(sorted({*self.resolutions, *self.on_request}))

    def restricted(self, resolutions: Iterable[int]) -> SearchSpace:
        """The same space with these resolutions and no other.

        Raises:
            ConfigError: a resolution is none of `every_resolution`.
        """
        wanted = tuple(sorted(set(resolutions)))
        strange = [r for r in wanted if r not in self.every_resolution]
        if strange or not wanted:
            asked, more = self.on_request, ""
            if asked:
                more = f", and multiples of {asked.step} from {asked[0]} to {asked[-1]}"
            raise ConfigError(
                f"resolutions {strange or 'none'} not offered by space {self.name}; "
                f"options: {self.resolutions}{more}"
            )
        return replace(self, resolutions=wanted, profiled=wanted, on_request=range(0))

    @property
    def unit(self) -> str:
        """What a resolution counts: px, or steps of a series."""
        return "steps" if len(self.input_shape(1)) == 2 else "px"

    def for_data(self, in_channels: int, n_classes: int) -> SearchSpace:
        """The same space for data of in_channels channels and n_classes classes."""
        return replace(self, in_channels=in_channels, n_classes=n_classes)


def _whole(value: Any) -> int:
    """An option value as it stands: half of a pixel, or NaN, is not dropped but refused."""
    if not isinstance(value, (int, float, np.integer)) or isinstance(value, bool) or value % 1:
        raise ConfigError(f"option {str(value)[:20]!r} is not a whole number")
    return int(value)


@dataclass(frozen=True, eq=False)
class Architecture:
    """One network: canonical option values in the order of `space.choices`, compared by value."""

    space: SearchSpace
    values: tuple[int, ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Architecture):
            return NotImplemented
        return self.values == other.values and self.space.name == other.space.name

    def __hash__(self) -> int:
        return hash((self.space.name, self.values))

    def __getitem__(self, choice: str) -> int:
        return self.values[self.space.columns[choice]]

    @property
    def resolution(self) -> int:
        """Input size: px of images, steps of series."""
        return self.values[0]

    @functools.cached_property
    def ops(self) -> Network:
        """The network as placed ops."""
        return self.space.lower(self)

    def to_json(self) -> dict[str, Any]:
        """`{"space": name, "choices": {name: value}}`, live choices only."""
        named = zip(self.space.choices, self.values, strict=True)
        live = {choice.name: v for choice, v in named if v or 0 in choice.options}
        return {"space": self.space.name, "choices": live}

    @functools.cached_property
    def id(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON."""
        return sha256_text(canonical_json(self.to_json()))[:12]
