"""Search spaces: choices and architectures; `lower` is in a file of its own.

An architecture is a tuple of option values in the order of `space.choices`, canonical: choices that
change nothing (of blocks that are not there) are 0, so equal networks are equal objects. A space
either has depth choices or offers expand ratio 0 on residual blocks, never both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hwnas.networks import blocks, lowering
from hwnas.networks.family import DeepStem, Head, Stage, Stem, constants
from hwnas.networks.lowering import Block, PlacedOp
from profilers.errors import ConfigError
from profilers.schema import canonical_json, sha256_text

__all__ = ["Architecture", "Choice", "DeepStem", "Head", "PlacedOp", "SearchSpace", "Stage", "Stem"]


class Choice(NamedTuple):
    """One searchable dimension and its option values, ascending."""

    name: str
    options: tuple[int, ...]


@dataclass(frozen=True)
class SearchSpace:
    """A family of networks as data.

    Attributes:
        resolutions: input sizes offered, px, ascending.
        profiled: input sizes measured unless the user lists others.
        bn_eps: of every BatchNorm.
        on_request: further input sizes, px, offered where somebody asks for them by number.
    """

    name: str
    resolutions: tuple[int, ...]
    profiled: tuple[int, ...]
    stem: Stem | DeepStem
    stages: tuple[Stage, ...]
    head: Head
    in_channels: int = 1
    n_classes: int = 10
    bn_eps: float = 1e-5
    on_request: range = range(0)

    @functools.cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Every searchable dimension: resolution, stem, then each stage: depth, width, blocks."""
        out = [Choice("resolution", self.resolutions)]
        if isinstance(self.stem, DeepStem):
            out.append(Choice("stem.depth", self.stem.depths))
            out.append(Choice("stem.mid_width", self.stem.mid_widths))
            out.append(Choice("stem.width", self.stem.widths))
        for s, stage in enumerate(self.stages, start=1):
            if stage.depths:
                out.append(Choice(f"stage{s}.depth", stage.depths))
            if stage.widths:
                out.append(Choice(f"stage{s}.width", stage.widths))
            for b in range(1, stage.n_blocks + 1):
                absent = (0,) if not stage.depths and self._residual(s - 1, b - 1) else ()
                out.append(Choice(f"stage{s}.block{b}.kernel_size", stage.kernel_sizes))
                name = f"stage{s}.block{b}.{_expand_name(stage)}"
                out.append(Choice(name, absent + stage.expand_ratios))
        return tuple(out)

    @functools.cached_property
    def columns(self) -> dict[str, int]:
        """Column of each choice, by name."""
        return {choice.name: i for i, choice in enumerate(self.choices)}

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every elastic block, in order, with the columns of its choices."""
        return tuple(
            Block(
                f"stage{s}.block{b}",
                s - 1,
                b - 1,
                self.columns[f"stage{s}.block{b}.kernel_size"],
                self.columns[f"stage{s}.block{b}.{_expand_name(stage)}"],
                self.columns.get(f"stage{s}.depth", -1),
                self.columns.get(f"stage{s}.width", -1),
            )
            for s, stage in enumerate(self.stages, start=1)
            for b in range(1, stage.n_blocks + 1)
        )

    @functools.cached_property
    def depends_on(self) -> dict[str, tuple[int, ...]]:
        """For each slot, the columns of the choices that its op depends on, ascending."""
        return lowering.depends_on(self)

    @functools.cached_property
    def gates(self) -> tuple[tuple[int, ...], ...]:
        """For each choice, the columns of those that can make it dead."""
        out: list[tuple[int, ...]] = [()] * len(self.choices)
        for block in self.blocks:
            depth = (block.depth,) if block.depth >= 0 else ()
            out[block.expand] = depth
            out[block.kernel] = depth or (block.expand,)
        return tuple(out)

    @functools.cached_property
    def elastic_columns(self) -> tuple[int, ...]:
        """Columns of the choices that several ops depend on: widths, and those of a deep stem."""
        stem = tuple(i for name, i in self.columns.items() if name.startswith("stem."))
        widths = {block.width for block in self.blocks if block.width >= 0}
        return stem + tuple(sorted(widths))

    def _residual(self, stage: int, block: int) -> bool:
        """Whether a block of a stage of fixed width adds its input to its output."""
        here = self.stages[stage]
        if block:
            return True
        stem = self.stem.first_width or self.stem.width if isinstance(self.stem, Stem) else 0
        given = self.stages[stage - 1].width if stage else stem
        return blocks.is_residual(given, here.width, here.stride)

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
        row = np.array([given])
        dead = self._dead(row)[0]
        for choice, value, is_dead in zip(self.choices, given, dead, strict=True):
            if value not in choice.options and not (is_dead and value == 0):
                raise ConfigError(
                    f"{choice.name} = {str(value)[:20]} is not offered by space {self.name}; "
                    f"options: {choice.options}"
                )
        return Architecture(self, tuple(np.where(dead, 0, row[0]).tolist()))

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
        values = self.option_values[np.arange(len(self.choices)), genome]
        values[self._dead(values)] = 0
        return np.asarray(values)

    def _dead(self, values: np.ndarray) -> np.ndarray:
        """(n, n_choices) whether a choice changes nothing: beyond the depth, or expand ratio 0."""
        dead = np.zeros(values.shape, dtype=bool)
        gated, plain = self._gates
        kernel, expand, depth, position = gated
        dead[:, kernel] = dead[:, expand] = values[:, depth] <= position
        dead[:, plain[0]] = values[:, plain[1]] == 0
        return dead

    @functools.cached_property
    def _gates(self) -> tuple[np.ndarray, np.ndarray]:
        """(4, G) columns of kernel, expand and depth, and position, of the blocks that a depth
        gates; (4, P) of the others.
        """
        rows = [(b.kernel, b.expand, b.depth, b.position) for b in self.blocks]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
        gated = columns[2] >= 0
        return columns[:, gated], columns[:, ~gated]

    def genome(self, archs: Iterable[Architecture]) -> np.ndarray:
        """(n, n_choices) option indices of architectures; dead choices get index 0."""
        index = [{value: i for i, value in enumerate(choice.options)} for choice in self.choices]
        rows = [[table.get(v, 0) for table, v in zip(index, a.values, strict=True)] for a in archs]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self.choices))

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

    @functools.cached_property
    def smallest(self) -> Architecture:
        """Every choice at its smallest option."""
        return self.architectures(np.zeros((1, len(self.choices)), dtype=np.int64))[0]

    @functools.cached_property
    def size(self) -> int:
        """How many different networks there are."""
        total = len(self.resolutions)
        for column in self.elastic_columns:
            total *= len(self.choices[column].options)
        for stage in range(len(self.stages)):
            counts = [self._block_count(b) for b in self.blocks if b.stage == stage]
            prefix, kept = 1, {0: 1}
            for i, count in enumerate(counts, start=1):
                prefix *= count
                kept[i] = prefix
            total *= sum(kept[d] for d in self.stages[stage].depths or (len(counts),))
        return total

    def _block_count(self, block: Block) -> int:
        expands = self.choices[block.expand].options
        return len(self.choices[block.kernel].options) * sum(e > 0 for e in expands) + (
            0 in expands
        )

    # ---- lowering ------------------------------------------------------------------------------

    def lower(self, arch: Architecture) -> tuple[PlacedOp, ...]:
        """The network as placed ops, in order."""
        if arch.space.geometry != self.geometry:
            raise ConfigError(f"architecture is of another geometry than space {self.name}")
        return lowering.lower(self, arch.values)

    @functools.cached_property
    def geometry(self) -> str:
        """Hash of every constant that enters `lower`; what is offered does not count."""
        named = {
            "family": "resnet-d" if isinstance(self.stem, DeepStem) else "mbv3",
            "name": self.name,
            "stem": constants(self.stem),
            "stages": [constants(stage) for stage in self.stages],
            "head": constants(self.head),
            "in_channels": self.in_channels,
            "n_classes": self.n_classes,
        }
        return sha256_text(canonical_json(named))

    def offered(self) -> dict[str, list[int]]:
        """Option values of each choice, by name."""
        return {choice.name: list(choice.options) for choice in self.choices}

    @property
    def every_resolution(self) -> tuple[int, ...]:
        """Input sizes that may be asked for, px, ascending."""
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

    def input_shape(self, resolution: int) -> tuple[int, ...]:
        """Shape of an input of a resolution: (channels, px, px)."""
        return (self.in_channels, resolution, resolution)

    @property
    def unit(self) -> str:
        """What a resolution counts: px, or steps of a series."""
        return "steps" if len(self.input_shape(1)) == 2 else "px"

    def for_data(self, in_channels: int, n_classes: int) -> SearchSpace:
        """The same space for images of in_channels channels and n_classes classes."""
        return replace(self, in_channels=in_channels, n_classes=n_classes)


def _whole(value: Any) -> int:
    """An option value as it stands: half of a pixel, or NaN, is not dropped but refused."""
    if not isinstance(value, (int, float, np.integer)) or isinstance(value, bool) or value % 1:
        raise ConfigError(f"option {str(value)[:20]!r} is no whole number")
    return int(value)


def _expand_name(stage: Stage) -> str:
    return "expand_percent" if stage.block == "bottleneck" else "expand_ratio"


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
        """Input size, px."""
        return self["resolution"]

    @functools.cached_property
    def ops(self) -> tuple[PlacedOp, ...]:
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
