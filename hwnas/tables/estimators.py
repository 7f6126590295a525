"""Estimators of op costs: what is known of single ops, tied to the times of whole networks.

Every estimator is additive: latency = intercept(resolution) + sum of rows, or a bend of this sum
(`hwnas.tables.bend`). A row is a weighted sum of views of its op (timed alone, timed in place, one
per op, its tensors, its weights) plus, if `freedom` is not 0, a deviation of its own that fits the
whole networks better. With a bend, all of this is fitted to the sums that the bend turns into the
latencies.

The model is a linear mixed one, solved in its dual form, which has the size of the networks:
    y = A b + X d + e,    e ~ N(0, diag(y^2 / w)),    d ~ N(0, freedom diag(s^2))
with y the latencies, A the networks' sums of views and the resolution, X how often each op occurs,
s the usual size of each row and w Huber's weights: relative errors count, outliers little. b is the
generalised least-squares estimate and d the best linear unbiased prediction (Henderson 1975, "Best
linear unbiased estimation and prediction under a selection model").

Every op costs something, but the cost of an op that is in all networks cannot be told from their
times. So a row below NEAR of its usual size is held at that, and the others are fitted to what is
left, until none is lower. If the networks are then further off, the ops do cost less: the floor is
then SMALLEST of the usual size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwnas.networks.ops import parse_key
from hwnas.tables.bend import STRAIGHT, Bend

HUBER = 1.5  # robust spreads at which a residual begins to count less
ITERATIONS = 6  # of reweighting
MIN_SPREAD = 1e-6  # relative; exact simulated data have none
NEAR, SMALLEST = 0.2, 0.01  # of its usual size, that a row is at least ...
FURTHER, FURTHER_BY = 1.1, 0.001  # ... and when networks are further off by it: times, plus a share
MEASURED_VIEWS = ("alone", "in_place")


@dataclass(frozen=True)
class Estimator:
    """A way to estimate rows: which views it weighs, and how far one row may leave them.

    Attributes:
        freedom: variance of a row's relative deviation over that of a network's time.
        bend: share of the bend.
    """

    name: str
    views: tuple[str, ...]
    freedom: float = 0.0
    bend: float = 0.0

    @property
    def label(self) -> str:
        """Name with freedom and bend: unique among the candidates."""
        freedom = f", freedom {self.freedom:g}" if self.freedom else ""
        return self.name + freedom + (f", bend {self.bend:g}" if self.bend else "")


_PLACED = ("in place + alone + per op + ends", ("in_place", "alone", "per_op", "ends"))
_ALONE = ("alone + per op + ends + weights", ("alone", "per_op", "ends", "weights"))
# As good as all 91 combinations of views, freedoms and bends: benchmarks/estimators.py.
CANDIDATES = (
    *(Estimator(*views, freedom) for views in (_PLACED, _ALONE) for freedom in (10.0, 1000.0)),
    *(Estimator(*_ALONE, freedom=10.0, bend=bend) for bend in (0.1, 0.2, 0.4)),
)
BASELINE = Estimator("macs", ("macs",))  # for comparison, never chosen


def candidates(in_place: bool) -> list[Estimator]:
    """The estimators to choose from.

    Args:
        in_place: whether times of ops inside networks may be used.
    """
    return [one for one in CANDIDATES if in_place or "in_place" not in one.views]


@dataclass(frozen=True)
class Evidence:
    """What rows are estimated from; `gather` makes it.

    Attributes:
        views: (K,) arrays by name: `alone` and `in_place` in ms, and the fixed views.
        n_ops: (N, K) how often each op occurs in each network.
        resolution: (N,) px.
        latency_ms: (N,) of the networks.
        size_ms: (K,) usual size of a row, which its deviation is relative to.
        kinship: (N, N) covariance of the networks' relative deviations at freedom 1: how much of
            their time is spent in the same ops.
        reference_ms: median latency of all networks there were, for a bend.
    """

    views: Mapping[str, np.ndarray]
    n_ops: np.ndarray
    resolution: np.ndarray
    latency_ms: np.ndarray
    size_ms: np.ndarray
    kinship: np.ndarray
    reference_ms: float

    def only(self, networks: np.ndarray) -> Evidence:
        """The same with some networks, by index."""
        return Evidence(
            self.views,
            self.n_ops[networks],
            self.resolution[networks],
            self.latency_ms[networks],
            self.size_ms,
            self.kinship[np.ix_(networks, networks)],
            self.reference_ms,
        )

    def without(self, ops: np.ndarray) -> Evidence:
        """The same networks without some of their ops, by (K,) truth."""
        if not ops.any():
            return self
        n_ops = np.where(ops, 0.0, self.n_ops)
        return replace(self, n_ops=n_ops, kinship=_kinship(n_ops, self.size_ms, self.latency_ms))

    def straight(self, bend: Bend) -> Evidence:
        """The same with the sums that a bend makes the latencies of."""
        sums = bend.sums(self.latency_ms)
        found = gather(self.views, self.n_ops, self.resolution, sums)
        return replace(found, reference_ms=self.reference_ms)


def gather(
    views: Mapping[str, np.ndarray],
    n_ops: np.ndarray,
    resolution: np.ndarray,
    latency_ms: np.ndarray,
) -> Evidence:
    """The evidence of some networks; arguments as its attributes."""
    size_ms = views["alone"] * np.median(latency_ms / (n_ops @ views["alone"]))
    kinship = _kinship(n_ops, size_ms, latency_ms)
    reference_ms = float(np.median(latency_ms))
    return Evidence(views, n_ops, resolution, latency_ms, size_ms, kinship, reference_ms)


def _kinship(n_ops: np.ndarray, size_ms: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    shares = n_ops * size_ms / latency_ms[:, None]
    return np.asarray(shares @ shares.T)


@dataclass(frozen=True)
class Estimate:
    """Finished costs.

    Attributes:
        rows_ms: (K,) positive.
        intercept_ms: by resolution.
        weights: of each view: ms per unit of the view.
        held: (K,) rows at their floor: networks say no more than that they are small.
        bend: from the sum of intercept and rows to the latency.
    """

    rows_ms: np.ndarray
    intercept_ms: dict[int, float]
    weights: dict[str, float]
    held: np.ndarray
    bend: Bend = STRAIGHT

    def predict(self, n_ops: np.ndarray, resolution: np.ndarray) -> np.ndarray:
        """(N,) ms."""
        fixed = np.array([self.intercept_ms[int(size)] for size in resolution])
        return self.bend(fixed + n_ops @ self.rows_ms)


def fixed_views(keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The views that need no measurement.

    An op timed alone pays for converting the tensors at its ends, and finds its weights in the
    cache; in a network it is the other way round. So `ends` holds the elements of input and output,
    `weights` the bytes of the weights. `per_op` is 1, `macs` the multiply-accumulates.
    """
    ops = [parse_key(key) for key in keys]
    columns = {
        "per_op": [1] * len(ops),
        "ends": [op.elements for op in ops],
        "weights": [op.weight_bytes for op in ops],
        "macs": [op.macs for op in ops],
    }
    return {name: np.array(column, dtype=float) for name, column in columns.items()}


def pooled_in_place(in_place_ms: np.ndarray, alone_ms: np.ndarray) -> np.ndarray:
    """(K,) time of each op in place: median over the networks that were profiled.

    An op that occurs in none of them gets its time alone, times the usual ratio of the two.

    Args:
        in_place_ms: (N, K) by network, NaN where an op does not occur.
        alone_ms: (K,).
    """
    seen = ~np.isnan(in_place_ms).all(axis=0)
    if not seen.any():
        return np.full(len(alone_ms), np.nan)
    pooled = np.full(len(alone_ms), np.nan)
    pooled[seen] = np.nanmedian(in_place_ms[:, seen], axis=0)
    ratio = np.median(pooled[seen] / alone_ms[seen])
    return np.where(seen, pooled, ratio * alone_ms)


def estimate(estimator: Estimator, evidence: Evidence) -> Estimate:
    """Rows and intercepts that fit the networks.

    A measured view of negative weight is left out: an op that takes longer alone does not take less
    in a network. Without measured views, any view of negative weight is left out. The baseline's
    rows are at least 0.
    """
    bend = Bend(estimator.bend, evidence.reference_ms)
    if bend.share:
        evidence = evidence.straight(bend)
    first = _above(estimator, evidence, None)
    found = first
    if not set(estimator.views) & set(MEASURED_VIEWS):
        found = _above(estimator, evidence, first, 0.0 if estimator == BASELINE else SMALLEST)
    elif (first.rows_ms < NEAR * evidence.size_ms).any():
        found = _above(estimator, evidence, first, NEAR)
        if _gap(found, evidence) > FURTHER * _gap(first, evidence) + FURTHER_BY:
            found = _above(estimator, evidence, first, SMALLEST)
    return replace(found, bend=bend)


def _above(
    estimator: Estimator, evidence: Evidence, first: Estimate | None, share: float = -np.inf
) -> Estimate:
    """The estimate whose rows are at least a share of their usual size, without its bend.

    Args:
        estimator: with its views.
        evidence: networks.
        first: the estimate without that condition; None: it is asked for.
        share: of the usual size.
    """
    views = list(estimator.views if first is None else first.weights)
    floor_ms = share * evidence.size_ms
    held = np.zeros(len(floor_ms), bool) if first is None else first.rows_ms < floor_ms
    while True:
        held_ms = np.where(held, floor_ms, np.nan)
        weights, intercept, rows = _solve(views, estimator.freedom, evidence, held_ms)
        costs = set(MEASURED_VIEWS) & set(estimator.views) or set(views)
        wrong = [v for v in views if v in costs and weights[v] < 0]
        if wrong and len(views) > 1:
            views.remove(min(wrong, key=lambda view: weights[view]))
            continue
        low = ~held & (rows < floor_ms)
        if not low.any():
            return Estimate(rows, intercept, weights, held)
        held |= low


def _gap(found: Estimate, evidence: Evidence) -> float:
    """Mean distance of what an estimate without a bend gives from the networks, a share."""
    given = found.predict(evidence.n_ops, evidence.resolution)
    return float(np.abs(given / evidence.latency_ms - 1).mean())


def _solve(
    views: list[str], freedom: float, evidence: Evidence, held_ms: np.ndarray
) -> tuple[dict[str, float], dict[int, float], np.ndarray]:
    """Weights of the views, intercepts, and (K,) rows.

    Rows with a number in `held_ms` (K,) have that value; the others are fitted to what these leave.

    No intercept is negative, because a run costs something besides its ops: one that comes out
    below zero is left out. (A negative one makes the smallest networks look too fast: `mbv3-28`
    with batch 8 by up to 13 %.)
    """
    held = ~np.isnan(held_ms)
    left = 1 - evidence.n_ops @ np.where(held, held_ms, 0.0) / evidence.latency_ms
    evidence = evidence.without(held)
    per_key = np.stack([evidence.views[view] for view in views], axis=1)
    sizes = np.unique(evidence.resolution).tolist()
    kept = list(sizes)
    while True:
        common, pull = _reweighted(evidence, per_key, kept, freedom, left)
        found = dict(zip(kept, common[len(views) :].tolist(), strict=True))
        lowest = min(kept, key=found.__getitem__, default=None)
        if lowest is None or found[lowest] >= 0:
            break
        kept.remove(lowest)
    weights = dict(zip(views, common[: len(views)].tolist(), strict=True))
    intercept = {size: found.get(size, 0.0) for size in sizes}
    own = freedom * evidence.size_ms**2 * (evidence.n_ops.T @ (pull / evidence.latency_ms))
    rows = per_key @ common[: len(views)] + own
    return weights, intercept, np.where(held, held_ms, rows)


def _reweighted(
    evidence: Evidence, per_key: np.ndarray, sizes: list[int], freedom: float, left: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mixed model with Huber's weights, by iteration: what `mixed_model` returns.

    Args:
        evidence: networks.
        per_key: (K, F) views.
        sizes: resolutions with an intercept, px.
        freedom: of the estimator.
        left: (N,) shares of the latencies to explain.
    """
    y, kinship = evidence.latency_ms, freedom * evidence.kinship
    one_hot = (evidence.resolution[:, None] == np.array(sizes, dtype=int)).astype(float)
    design = np.hstack([evidence.n_ops @ per_key, one_hot]) / y[:, None]
    huber = np.ones(len(y))
    for _ in range(ITERATIONS):
        common, pull = mixed_model(design, kinship, huber, left)
        relative = left - design @ common - kinship @ pull
        spread = max(1.4826 * float(np.median(np.abs(relative))), MIN_SPREAD)
        huber = 1 / np.maximum(1.0, np.abs(relative) / (HUBER * spread))
    return common, pull


def mixed_model(
    design: np.ndarray, kinship: np.ndarray, huber: np.ndarray, observed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a mixed model of relative latencies.

    Args:
        design: (N, F) columns of the common coefficients.
        kinship: (N, N) covariance of what deviates from them, over that of the noise.
        huber: (N,) weights; an observation's noise has variance 1 / weight.
        observed: (N,) what is explained: 1, or what known ops leave of it.

    Returns:
        (F,) common coefficients; (N,) covariance^-1 times what they leave, of which kinship
        makes the deviations.
    """
    root = np.linalg.cholesky(np.diag(1 / huber) + kinship)
    whitened = np.linalg.solve(root, np.column_stack([design, observed]))
    norm = np.linalg.norm(whitened[:, :-1], axis=0)
    norm[norm == 0] = 1.0
    common = np.linalg.lstsq(whitened[:, :-1] / norm, whitened[:, -1], rcond=1e-10)[0] / norm
    pull = np.linalg.solve(root.T, whitened[:, -1] - whitened[:, :-1] @ common)
    return common, pull
