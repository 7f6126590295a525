"""The least value and every non-dominated combination of metrics, by deciding place after place.

Walks along the places of a space and carries, for each state, the partial values that no other ones
beat. A state is what is still open: the options of the choices that a later place depends on too,
told apart only as far as a place so far has told them apart (all depths are one state until a block
is there at one and absent at another). What follows joins the same to two values of one state, so
what is dominated now is dominated at the end: the answer is exact, and nothing is rounded. Where
places share no choice this is the multiple-choice knapsack; in general it is bucket elimination
along a path (Dechter 1999, "Bucket elimination: a unifying framework for reasoning") with sets of
non-dominated values in place of minima.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.pricing import pareto
from hwnas.pricing.places import places
from hwnas.pricing.terms import Terms

Class = tuple[int, ...]  # options of a choice that no place so far has told apart
Parts = tuple[tuple[Class, ...], ...]  # of each shared choice
State = tuple[Class, ...]  # of the open choices, in the order of their columns


class _Step(NamedTuple):
    """A place and which of its columns, the resolution left out, meet which others.

    Attributes:
        place: its number.
        own: columns that no other place has.
        shared: the others.
        before, after: open columns before and after it.
        closing: columns that no later place has, of those open before and of the shared ones.
    """

    place: int
    own: tuple[int, ...]
    shared: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    closing: tuple[int, ...]


class _Options(NamedTuple):
    """What a place adds.

    Attributes:
        parts: for each shared column its options, split where the place tells them apart.
        values: (m, R, shared options..., k) value of each combination of own options; infinite
            where it is not allowed.
    """

    parts: Parts
    values: np.ndarray


class _Trace(NamedTuple):
    """Of each label after a step: the label before it, its own options, the options of the columns
    that the step closes.
    """

    parent: np.ndarray
    own: np.ndarray
    closed: np.ndarray


def front(
    terms: Sequence[Terms],
    allowed: np.ndarray | None = None,
    limits: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """(n, n_choices) genomes of every non-dominated combination of metrics, one network each,
    resolution by resolution; links are not applied.

    A link is monotone, so within one resolution it changes nothing about which network is best for
    a budget; between resolutions the caller drops what is dominated.

    Args:
        terms: m metrics of one space, all minimised.
        allowed: (P, R, sizes...) cells to choose from (`Terms.within`); None: all.
        limits: (m,) largest joined values wanted; None: no limits.
    """
    space, steps = terms[0].space, path(terms[0].space)
    bounds = np.full(len(terms), np.inf) if limits is None else np.asarray(limits, dtype=np.float64)
    found = []
    for r, (sums, traces) in enumerate(_walks(terms, allowed, bounds)):
        genome = _read_back(space, steps, traces, sums.shape[1])
        genome[:, 0] = r
        found.append(genome)
    return np.concatenate(found)


def least(terms: Terms, allowed: np.ndarray | None = None) -> float:
    """The smallest value any network of allowed cells reaches; infinite if there is none."""
    ends = [sums for sums, _ in _walks([terms], allowed, np.array([np.inf]))]
    smallest = np.concatenate(ends, axis=1).min(initial=np.inf)
    if terms.link is None or np.isinf(smallest):
        return float(smallest)
    return float(terms.link(np.array([smallest]))[0])


def _walks(
    terms: Sequence[Terms], allowed: np.ndarray | None, limits: np.ndarray
) -> Iterator[tuple[np.ndarray, list[_Trace]]]:
    """At each resolution the (m, n) joined values at the end of the path, and their traces."""
    space = terms[0].space
    join = _Join(np.array([metric.largest for metric in terms]))
    steps = path(space)
    stacked = np.stack([metric.tables for metric in terms])
    if allowed is not None:
        stacked = np.where(allowed, stacked, np.inf)
    options = [_options(space, stacked, step) for step in steps]
    to_come = _to_come(join, options)
    for r in range(len(space.resolutions)):
        states: dict[State, np.ndarray] = {(): np.zeros((len(terms), 1))}
        traces = []
        for step, offered, rest in zip(steps, options, to_come, strict=True):
            states, trace = _through(join, step, offered.parts, offered.values[:, r], states)
            if np.isfinite(limits).any():
                states, trace = _within(join, states, trace, rest[:, r], limits)
            traces.append(trace)
        yield np.concatenate(list(states.values()), axis=1), traces


def _within(
    join: _Join,
    states: dict[State, np.ndarray],
    trace: _Trace,
    rest: np.ndarray,
    limits: np.ndarray,
) -> tuple[dict[State, np.ndarray], _Trace]:
    """The labels that can still end within the limits."""
    fits = {
        state: (join(sums, rest[:, None]) <= limits[:, None]).all(axis=0)
        for state, sums in states.items()
    }
    kept = np.concatenate(list(fits.values()))
    left = {state: sums[:, fits[state]] for state, sums in states.items()}
    return left, _Trace(*(part[kept] for part in trace))


class _Join:
    """Joins partial values: sums are added, of maxima the larger one stays."""

    def __init__(self, largest: np.ndarray) -> None:
        self._largest, self.adds = largest, not largest.any()

    def __call__(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(m, ...) joined values."""
        joined = one + other
        if not self.adds:
            mine = self._largest
            joined[mine] = np.maximum(*np.broadcast_arrays(one[mine], other[mine]))
        return np.asarray(joined)


@functools.lru_cache(maxsize=32)
def path(space: SearchSpace) -> tuple[_Step, ...]:
    """The places in order, with the columns that are open between them."""
    columns = [own[1:] for own in places(space).columns]
    held = {c: [p for p, own in enumerate(columns) if c in own] for own in columns for c in own}
    out: list[_Step] = []
    opened: tuple[int, ...] = ()
    for place, mine in enumerate(columns):
        own = tuple(c for c in mine if len(held[c]) == 1)
        shared = tuple(c for c in mine if len(held[c]) > 1)
        known = sorted({*opened, *shared})
        after = tuple(c for c in known if held[c][-1] > place)
        closing = tuple(c for c in known if held[c][-1] == place)
        out.append(_Step(place, own, shared, opened, after, closing))
        opened = after
    return tuple(out)


def _options(space: SearchSpace, stacked: np.ndarray, step: _Step) -> _Options:
    """What a place adds, of (m, P, R, sizes...) tables."""
    plan = places(space)
    own = plan.columns[step.place][1:]
    values = stacked[:, step.place][(slice(None), *plan.cells(step.place))]
    sizes = tuple(space.n_options[list(own)].tolist())
    values = values.reshape(*values.shape[:2], *sizes)
    values = values.transpose(0, 1, *(own.index(c) + 2 for c in (*step.shared, *step.own)))
    values = values.reshape(*values.shape[: 2 + len(step.shared)], -1)
    parts = tuple(_told_apart(values, axis) for axis in range(2, values.ndim - 1))
    return _Options(parts, values)


def _different(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, k) values of options that may differ, and (k,) their numbers: one option where all are
    alike, because the op is absent; those of infinite value are left out.
    """
    if (values == values[:, :1]).all():
        values = values[:, :1]
    number = np.flatnonzero(values[0] < np.inf)
    return values[:, number], number


def _told_apart(values: np.ndarray, axis: int) -> tuple[Class, ...]:
    """The indices of an axis, those of equal slices together."""
    classes: dict[bytes, list[int]] = {}
    for option in range(values.shape[axis]):
        classes.setdefault(values.take(option, axis=axis).tobytes(), []).append(option)
    return tuple(map(tuple, classes.values()))


def _to_come(join: _Join, options: Sequence[_Options]) -> list[np.ndarray]:
    """(m, R) what the places after each one add at least, each metric alone."""
    lows = [o.values.reshape(*o.values.shape[:2], -1).min(axis=2) for o in options]
    out = [np.zeros_like(lows[0])]
    for low in reversed(lows[1:]):
        out.append(join(low, out[-1]))
    return out[::-1]


def _through(
    join: _Join,
    step: _Step,
    parts: Parts,
    values: np.ndarray,
    states: dict[State, np.ndarray],
) -> tuple[dict[State, np.ndarray], _Trace]:
    """States after a place, each with (m, n) values, and how their labels came about."""
    found: dict[State, list[tuple[np.ndarray, ...]]] = {}
    distinct: dict[Class, tuple[np.ndarray, np.ndarray]] = {}
    start = 0
    for state, sums in states.items():
        for after, first, closed in _refined(step, parts, state):
            if first not in distinct:
                at: tuple[slice | int, ...] = (slice(None), *first)
                distinct[first] = _different(values[at])
            added, own = distinct[first]
            spread = join(sums[:, :, None], added[:, None, :]).reshape(len(sums), -1)
            alike = added.shape[1] == 1 and join.adds  # a shift leaves all of them non-dominated
            kept = np.arange(spread.shape[1]) if alike else keep(spread)
            parent, option = np.divmod(kept, max(len(own), 1))
            shut = np.empty((len(kept), len(closed)), dtype=np.int8)
            shut[:] = closed
            labels = spread[:, kept], start + parent, own[option], shut
            found.setdefault(after, []).append(labels)
        start += sums.shape[1]
    merged = [_merged(lists) for lists in found.values()]
    traces = zip(*(labels[1:] for labels in merged), strict=True)
    sums_of = {state: labels[0] for state, labels in zip(found, merged, strict=True)}
    return sums_of, _Trace(*(np.concatenate(parts) for parts in traces))


def _merged(lists: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """The non-dominated labels of several lists of one state."""
    if len(lists) == 1:
        return lists[0]
    sums, *trace = (
        np.concatenate(parts, axis=1 if i == 0 else 0)
        for i, parts in enumerate(zip(*lists, strict=True))
    )
    kept = keep(sums)
    return (sums[:, kept], *(part[kept] for part in trace))


def _refined(step: _Step, parts: Parts, state: State) -> Iterator[tuple[State, Class, Class]]:
    """What a state becomes at a place: the state after it, the place's shared options, and the
    options of the columns that no later place has.
    """
    classes = dict(zip(step.before, state, strict=True))
    splits = []
    for column, split in zip(step.shared, parts, strict=True):
        if column in classes:
            mine = classes[column]
            met = [(p[0], tuple(option for option in p if option in mine)) for p in split]
            splits.append([(first, part) for first, part in met if part])
        else:
            splits.append([(p[0], p) for p in split])
    for chosen in itertools.product(*splits):
        now = classes | {c: part for c, (_, part) in zip(step.shared, chosen, strict=True)}
        after = tuple(now[c] for c in step.after)
        yield after, tuple(first for first, _ in chosen), tuple(now[c][0] for c in step.closing)


def keep(sums: np.ndarray) -> np.ndarray:
    """Indices of the non-dominated columns of (m, n) sums, of equal ones the first, ascending by
    the first cost.
    """
    if not sums.shape[1]:
        return np.zeros(0, dtype=np.int64)
    if len(sums) == 1:
        return np.array([sums[0].argmin()])
    if len(sums) == 2:
        return pareto.staircase(sums[0], sums[1])
    kept = np.flatnonzero(pareto.non_dominated(sums.T))
    return np.asarray(kept[np.lexsort(sums[::-1, kept])])


def _read_back(
    space: SearchSpace, steps: Sequence[_Step], traces: Sequence[_Trace], n: int
) -> np.ndarray:
    """(n, n_choices) genomes of the last step's labels, by following parents; choices that change
    nothing get index 0.
    """
    genome = np.zeros((n, len(space.choices)), dtype=np.int64)
    at = np.arange(n)
    for step, trace in zip(reversed(steps), reversed(traces), strict=True):
        sizes = tuple(space.n_options[list(step.own)].tolist())
        if step.own:
            genome[:, step.own] = np.stack(np.unravel_index(trace.own[at], sizes), axis=1)
        genome[:, step.closing] = trace.closed[at]
        at = trace.parent[at]
    return genome
