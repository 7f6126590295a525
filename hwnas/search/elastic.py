"""The cost of a population of a space with elastic widths: a table for each op's own choices.

There an op's shape depends on its neighbours' widths, so no table of blocks holds it. Each place
has a table over the few choices its op depends on (`lowering.depends_on`), read off `space.lower`
of representative architectures; a network is one gather for each place.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwnas import lowering
from hwnas.search.grid import on_grid
from hwnas.space import SearchSpace
from profilers.schema import OpSpec

Table = tuple[tuple[int, ...], np.ndarray]  # columns, one axis for each


class _Place(NamedTuple):
    """A slot, the columns its op depends on (ascending), and its op at each of their options."""

    slot: str
    columns: tuple[int, ...]
    specs: np.ndarray  # of OpSpec, None where the op is absent; one axis for each column


@dataclass(frozen=True, eq=False)
class ElasticTerms:
    """A metric that joins the values of an architecture's ops: their sum, or the largest.

    Attributes:
        space: whose genomes it prices.
        values: of each place, one axis for each of its columns; absent ops are 0.
        fixed: (R,) what every network of a resolution has besides.
        largest: whether the largest counts, not the sum.
        link: never falling, applied to the sum; None: the sum is the metric.
    """

    space: SearchSpace
    values: tuple[np.ndarray, ...]
    fixed: np.ndarray
    largest: bool = False
    link: Callable[[np.ndarray], np.ndarray] | None = None

    @functools.cached_property
    def _table(self) -> np.ndarray:
        return np.concatenate([self.fixed, *(values.reshape(-1) for values in self.values)])

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) metric of (n, n_choices) genomes."""
        rows = np.asarray(genome).T
        start, index = len(self.fixed), [rows[0].astype(np.intp)]
        for place, values in zip(_places(self.space), self.values, strict=True):
            cell = np.zeros(rows.shape[1], dtype=np.intp)
            for column, size in zip(place.columns, values.shape, strict=True):
                cell = cell * size + rows[column]
            index.append(cell + start)
            start += values.size
        found = self._table.take(np.stack(index))
        joined = np.asarray(found.max(axis=0) if self.largest else found.sum(axis=0))
        return self.link(joined) if self.link else joined

    def tables(self) -> list[Table]:
        """What is joined: tables and the columns of their axes, ascending."""
        places = zip(_places(self.space), self.values, strict=True)
        return [((0,), self.fixed), *((place.columns, values) for place, values in places)]

    def smallest(self) -> float:
        """The smallest value any network reaches: choices are eliminated one after the other."""
        factors = self.tables()
        for column in range(len(self.space.choices) - 1, -1, -1):
            touching = [factor for factor in factors if column in factor[0]]
            if not touching:
                continue
            columns, joined = self._joined(touching)
            axis = columns.index(column)
            rest = (*columns[:axis], *columns[axis + 1 :])
            factors = [factor for factor in factors if column not in factor[0]]
            factors.append((rest, joined.min(axis=axis)))
        least = np.asarray(self._joined(factors)[1])
        return float(self.link(least) if self.link else least)

    def _joined(self, factors: list[Table]) -> Table:
        """Several tables as one over all their columns."""
        columns = tuple(sorted({column for own, _ in factors for column in own}))
        join = np.maximum if self.largest else np.add
        total = np.zeros([len(self.space.choices[c].options) for c in columns])
        for own, values in factors:
            shape = [values.shape[own.index(c)] if c in own else 1 for c in columns]
            total = join(total, values.reshape(shape))
        return columns, total


def elastic_terms(
    space: SearchSpace,
    cost_of: Callable[[OpSpec], float],
    intercept: Callable[[int], float] | None = None,
    largest: bool = False,
) -> ElasticTerms:
    """The terms of a metric that is the sum of its ops' costs, or the largest of them.

    Args:
        space: of elastic widths.
        cost_of: cost of one op, in the metric's unit, not negative where the largest counts.
        intercept: what a network of a resolution (px) costs besides its ops; None: nothing.
        largest: whether the largest counts, not the sum.
    """
    price = functools.cache(cost_of)
    values = []
    for place in _places(space):
        flat = [0.0 if spec is None else price(spec) for spec in place.specs.reshape(-1)]
        values.append(on_grid(np.array(flat)).reshape(place.specs.shape))
    fixed = [intercept(px) if intercept else 0.0 for px in space.resolutions]
    return ElasticTerms(space, tuple(values), on_grid(np.array(fixed)), largest)


@functools.lru_cache(maxsize=8)
def _places(space: SearchSpace) -> tuple[_Place, ...]:
    """Every slot of a space with its ops."""
    depends = lowering.depends_on(space)
    empty = {
        slot: np.full([len(space.choices[c].options) for c in columns], None, dtype=object)
        for slot, columns in depends.items()
    }
    genome = _representatives(space)
    for row, arch in zip(genome, space.architectures(genome), strict=True):
        for slot, spec in arch.ops:
            empty[slot][tuple(row[list(depends[slot])])] = spec
    return tuple(_Place(slot, depends[slot], specs) for slot, specs in empty.items())


def _representatives(space: SearchSpace) -> np.ndarray:
    """(n, n_choices) genomes in which every place sees every combination of what it depends on.

    Along the network widths alternate between two options, so each pair of neighbours occurs.
    """
    widths = {c: i for i, c in enumerate(c for c in space.elastic_columns if _is_width(space, c))}
    sizes = dict.fromkeys(("kernel", "expand", "depth"), 1)
    kind_of = {}
    for column, choice in enumerate(space.choices[1:], start=1):
        if column not in widths:
            kind = _kind(choice.name)
            kind_of[column] = kind
            sizes[kind] = max(sizes[kind], len(choice.options))
    most = max(len(space.choices[c].options) for c in widths)
    axes = [range(len(space.resolutions)), range(most), range(most)]
    axes += [range(sizes[kind]) for kind in ("kernel", "expand", "depth")]
    out = []
    for resolution, even, odd, *rest in itertools.product(*axes):
        chosen = dict(zip(("kernel", "expand", "depth"), rest, strict=True))
        row = [resolution] + [
            (odd if widths[c] % 2 else even) if c in widths else chosen[kind_of[c]]
            for c in range(1, len(space.choices))
        ]
        out.append(np.minimum(row, space.n_options - 1))
    return np.array(out)


def _is_width(space: SearchSpace, column: int) -> bool:
    return space.choices[column].name.endswith("width")


def _kind(name: str) -> str:
    """Which kind of choice a name says: kernel, expand or depth."""
    last = name.split(".")[-1]
    return "depth" if last == "depth" else last.split("_")[0]
