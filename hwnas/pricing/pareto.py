"""Array functions on costs, all minimised: domination ranks, crowding, hypervolume, subsets.

Rows are points, columns objectives. Infinite costs are allowed, NaN is refused. Ranks and
hypervolume of three and more objectives come from moocore (C, numpy only); what two objectives need
most often is a sort and a running minimum.
"""

from __future__ import annotations

import heapq

import moocore
import numpy as np

AT_ONCE = 8  # points that may be dropped for one computation of all contributions
_LATER, _EARLIER = np.tril_indices(AT_ONCE, -1)  # every pair of them, by the later one


def _points(costs: np.ndarray) -> np.ndarray:
    """costs as a float (n, m) array.

    Raises:
        ValueError: not 2-D, no objective, or NaN in it.
    """
    points = np.asarray(costs, dtype=np.float64)
    if points.ndim != 2 or not points.shape[1]:
        raise ValueError(f"costs has shape {points.shape}, expected (points, objectives)")
    if np.isnan(points).any():
        raise ValueError("costs holds NaN; drop or price those points first")
    return points


def non_dominated(costs: np.ndarray) -> np.ndarray:
    """(n,) whether no other point dominates a point; of equal points only the first one counts.

    Args:
        costs: (n, m), all minimised.
    """
    points = _points(costs)
    if not len(points):
        return np.zeros(0, dtype=bool)
    if points.shape[1] == 2:
        keep = np.zeros(len(points), dtype=bool)
        keep[staircase(points[:, 0], points[:, 1])] = True
        return keep
    return np.asarray(moocore.is_nondominated(_ordered(points)), dtype=bool)


def staircase(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Indices of the non-dominated points of two costs, by ascending first cost; of equal points
    the one that comes first.

    A sort and a running minimum. The sort need not be stable, because points of equal first cost
    are one group of which only the least second cost can stay.

    Args:
        first: (n,), no NaN.
        second: (n,), no NaN.
    """
    order = np.argsort(first)
    along, height = first[order], second[order]
    starts = np.flatnonzero(np.concatenate(([True], along[1:] != along[:-1])))
    lowest = height if len(starts) == len(along) else np.minimum.reduceat(height, starts)
    falls = np.ones(len(lowest), dtype=bool)
    falls[1:] = lowest[1:] < np.minimum.accumulate(lowest)[:-1]
    if len(starts) == len(along):
        return np.asarray(order[falls])
    least = np.repeat(lowest, np.diff(starts, append=len(along)))
    candidates = np.where(height == least, order, len(order))
    return np.asarray(np.minimum.reduceat(candidates, starts)[falls])


def ranks(costs: np.ndarray, violation: np.ndarray | None = None) -> np.ndarray:
    """(n,) non-dominated rank, 0 the best; equal points share a rank.

    A feasible point dominates an infeasible one, and of two infeasible ones the one of less
    violation dominates. Source: Deb et al. 2002, "A fast and elitist multiobjective genetic
    algorithm: NSGA-II", sec. VI (constraint domination).

    Args:
        costs: (n, m), all minimised.
        violation: (n,), relative, 0 = feasible; None: all are.
    """
    points = _points(costs)
    if violation is None or not violation.any():
        return _feasible_ranks(points)
    feasible = violation == 0
    out = np.empty(len(points), dtype=np.int64)
    out[feasible] = _feasible_ranks(points[feasible])
    worse = np.unique(violation[~feasible], return_inverse=True)[1]
    out[~feasible] = worse + (out[feasible].max() + 1 if feasible.any() else 0)
    return out


def _feasible_ranks(points: np.ndarray) -> np.ndarray:
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(_ordered(points)), dtype=np.int64)


def _ordered(points: np.ndarray) -> np.ndarray:
    """Finite points in the same order in every objective; moocore 0.3.2 misjudges infinite costs of
    three objectives.
    """
    if np.isfinite(points).all():
        return points
    places = [np.unique(column, return_inverse=True)[1] for column in points.T]
    return np.stack(places, axis=1).astype(np.float64)


def crowding_distance(costs: np.ndarray, rank: np.ndarray | None = None) -> np.ndarray:
    """Crowding distance of each point within its front.

    Source: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", sec.
    III-B. An objective in which a front has no extent is skipped.

    Args:
        costs: (n, m), all minimised; an infinite cost counts as the largest finite one.
        rank: (n,) the front each point belongs to; None: one front.

    Returns:
        (n,), dimensionless; infinite at both ends of each objective of each front.
    """
    points = _points(costs)
    total = np.zeros(len(points))
    if not len(points):
        return total
    front = np.zeros(len(points), dtype=np.int64) if rank is None else rank
    along = np.sort(front)
    begins = np.flatnonzero(along[1:] != along[:-1]) + 1
    starts, ends = np.append(0, begins), np.append(begins, len(along)) - 1
    which = np.zeros(len(along), dtype=np.int64)
    which[begins] = 1
    which = np.cumsum(which)
    for column in points.T:
        order = np.lexsort((column, front))
        values = _finite(column)[order]
        extent = (values[ends] - values[starts])[which]
        gap = np.zeros(len(values))
        np.divide(values[2:] - values[:-2], extent[1:-1], out=gap[1:-1], where=extent[1:-1] > 0)
        gap[starts] = gap[ends] = np.inf
        total[order] += gap
    return total


def _finite(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if known.all():
        return values
    finite = values[known]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return np.asarray(np.clip(values, low, high))


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """Volume that the points dominate below the reference point, in the product of their units.

    Args:
        costs: (n, m), all minimised; points that are not below the reference in every objective
            add nothing.
        reference: (m,), finite.

    Raises:
        ValueError: reference is of another length or not finite.
    """
    points = _points(costs)
    corner = _corner(points, reference)
    inside = points[(points < corner).all(axis=1)]
    if not len(inside):
        return 0.0
    if points.shape[1] == 1:
        return float(corner[0] - inside.min())
    return float(moocore.hypervolume(inside, ref=corner))


def _corner(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != points.shape[1:] or not np.isfinite(corner).all():
        raise ValueError(
            f"reference point {corner.tolist()} does not fit {points.shape[1]} objectives; "
            "give one finite number for each"
        )
    return corner


def contributions(costs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(n,) hypervolume that each point alone dominates, in the product of the objectives' units; 0
    for a point that is dominated, repeated or not below the reference in every objective.

    Args:
        costs: (n, m), m >= 2, all minimised.
        reference: (m,), finite.

    Raises:
        ValueError: reference is of another length or not finite.
    """
    points = _points(costs)
    corner = _corner(points, reference)
    return _alone(points, corner, np.all(points < corner, axis=1))


def _alone(points: np.ndarray, corner: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(n,) as `contributions`; inside: (n,) whether below the corner in every objective."""
    alone = np.zeros(len(points))
    if inside.any():
        alone[inside] = moocore.hv_contributions(points[inside], ref=corner)
    return alone


def without_least(costs: np.ndarray, reference: np.ndarray, size: int) -> np.ndarray:
    """Indices of the points that stay if the one of least hypervolume contribution is dropped, of
    equal ones the last, one after the other; the largest contribution first.

    Args:
        costs: (n, m), m >= 2, all minimised, none dominates another.
        reference: (m,), finite.
        size: how many stay.

    Raises:
        ValueError: reference is of another length or not finite.
    """
    points = _points(costs)[::-1]  # so that of equal ones the first is dropped
    corner = _corner(points, reference)
    inside, stay = np.all(points < corner, axis=1), np.arange(len(points))
    alone = _alone(points, corner, inside)
    while len(stay) > size:
        order = np.argsort(alone, kind="stable")
        n = _apart(points[stay[order]], min(AT_ONCE, len(stay) - size))
        stay = stay[np.sort(order[n:])]
        alone = _alone(points[stay], corner, inside[stay])
    return np.asarray(len(points) - 1 - stay[::-1][np.argsort(-alone[::-1], kind="stable")])


def _apart(points: np.ndarray, n: int) -> int:
    """How many of the first n points can be dropped in order, by the contributions they have now.

    Contributions only grow as points are dropped. That of a point is still what it was if no volume
    is dominated by it and by a dropped one alone, that is if a point that stays is no worse than
    the worse of both in every objective.
    """
    pairs = n * (n - 1) // 2
    later, earlier = _LATER[:pairs], _EARLIER[:pairs]
    worse = np.maximum(points[later], points[earlier])
    covered = np.ones((pairs, len(points) - n), dtype=bool)
    for limit, stays in zip(worse.T, points[n:].T, strict=True):  # quicker than .all of a 3-D array
        covered &= stays <= limit[:, None]
    alone = np.flatnonzero(~covered.any(axis=1))
    return int(later[alone[0]]) if len(alone) else n


def spread_subset(costs: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """Indices of k points chosen greedily, each adding the most hypervolume, in that order.

    The gain of a point never grows as others are chosen (hypervolume is submodular), so a gain
    computed earlier is an upper bound and only the largest bounds are looked at again.

    Args:
        costs: (n, m), all minimised.
        reference: (m,).
        k: how many; fewer come back when fewer points add anything.
    """
    points = _points(costs)
    bounds = [(-hypervolume(points[i : i + 1], reference), i, 0) for i in range(len(points))]
    heapq.heapify(bounds)
    chosen: list[int] = []
    covered = 0.0
    while bounds and len(chosen) < k:
        gain, point, seen = heapq.heappop(bounds)
        if gain >= 0:
            break
        if seen < len(chosen):
            fresh = hypervolume(points[[*chosen, point]], reference) - covered
            heapq.heappush(bounds, (-fresh, point, len(chosen)))
            continue
        chosen.append(point)
        covered = hypervolume(points[chosen], reference)
    return np.array(chosen, dtype=np.int64)
