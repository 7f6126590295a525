"""Fit of the accuracy predictor: ridge on the masked one-hot, then a monotone link.

The ridge fits errors or their logarithms, its strength comes from leave-one-out errors (closed
form), the link is fitted to leave-one-out scores; which of the two, and whether the link may bend,
is decided by cross-validation. The scores that are reported repeat all of that without the networks
they are computed on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hwnas.networks.counts import SUMS
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors.predictor import Predictor, encode, feature_names, score_terms
from hwnas.pricing import elimination
from hwnas.pricing.links import MonotoneLink
from hwnas.pricing.terms import Terms, op_terms
from hwnas.tables.validation import kendall_tau
from profilers.errors import ConfigError

FEWEST = 8  # measured subnets that a fit needs
FOLDS = 5
ALPHAS = np.logspace(-3, 3, 25)
PRIOR_SPREAD = 5.0  # standard deviation of a prior's column; a feature's is at most 0.5
LEAST_ERROR = 1e-6  # predicted errors stay above it, so that better networks stay apart
NEAR = 0.01  # width of the bands of accuracy in which ranks are compared, a fraction


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge fit.

    Attributes:
        weights: (F,).
        intercept: of the score.
        loo: (n,) score of each row by a fit without it.
        alpha: strength chosen.
    """

    weights: np.ndarray
    intercept: float
    loo: np.ndarray
    alpha: float


class Prior(NamedTuple):
    """What each feature adds to a score that is known before the subnets are measured.

    Attributes:
        weights: (F,); the predictor is fitted with them.
        apart: (F,) of a score that knows none of the subnets: cross-validation, which says how
            good the predictor is, goes by it. None: there is none.
    """

    weights: np.ndarray
    apart: np.ndarray | None


def fit_predictor(
    space: SearchSpace,
    rows: Iterable[tuple[Architecture, float]],
    seed: int,
    supernet_sha256: str,
    prior: Prior | None = None,
) -> Predictor:
    """The predictor of measured subnets.

    Args:
        space: the search space; what it offers is what the predictor knows.
        rows: architectures of the space and their top-1 accuracy on validation images, a fraction;
            several rows of one architecture count as their mean.
        seed: of the folds.
        supernet_sha256: of the file that the subnets were cut from.
        prior: used where it makes the leave-one-out errors smaller. None: there is none.

    Raises:
        ConfigError: too few different subnets, or an accuracy that is not in [0, 1].
    """
    archs, error = merged(rows)
    genome = space.genome(archs)
    data = Subnets(space, encode(space, genome), error, seed, prior.weights if prior else None)
    ridge, link, _ = _fit(data)
    macs = np.log(op_terms(space, SUMS["macs"]).evaluate(genome))
    apart = replace(data, prior=prior.apart if prior else None)
    left_out = left_out_predictions(apart, _by_fit)
    by_macs = left_out_predictions(replace(data, features=macs[:, None], prior=None), _by_macs)
    scores = {"n": float(len(error)), "alpha": ridge.alpha, **scores_of(left_out, error)}
    scores |= {f"macs_{name}": value for name, value in scores_of(by_macs, error).items()}
    return Predictor(
        space,
        supernet_sha256,
        feature_names(space),
        ridge.weights,
        ridge.intercept,
        link,
        float(np.std(error - left_out, ddof=1)),
        scores,
    )


def fit_ensemble(
    space: SearchSpace, rows: Iterable[tuple[Architecture, float]], seed: int, n: int
) -> list[Terms]:
    """Predictions of n refits on subnets drawn with replacement; they differ where the measured
    subnets leave it open.

    Link and strength are those of the fit on all subnets.

    Args:
        space, rows, seed: as for `fit_predictor`.
        n: refits.
    """
    archs, error = merged(rows)
    features = encode(space, space.genome(archs))
    ridge, link, target = _fit(Subnets(space, features, error, seed))
    rng, names = np.random.default_rng([seed, n]), feature_names(space)
    out = []
    for _ in range(n):
        drawn = rng.integers(0, len(error), len(error))
        again = fit_ridge(features[drawn], target[drawn], (ridge.alpha,))
        terms = score_terms(space, names, again.weights, again.intercept)
        out.append(replace(terms, link=link))
    return out


def merged(
    rows: Iterable[tuple[Architecture, float]],
) -> tuple[list[Architecture], np.ndarray]:
    """Each architecture once, in the order of values, and its mean error.

    Raises:
        ConfigError: too few different subnets, or an accuracy that is not in [0, 1].
    """
    found: dict[Architecture, list[float]] = {}
    for arch, top1 in rows:
        if not 0 <= top1 <= 1:
            raise ConfigError(f"accuracy {top1!r} of network {arch.id} is not in [0, 1]")
        found.setdefault(arch, []).append(1 - top1)
    if len(found) < FEWEST:
        raise ConfigError(
            f"an accuracy predictor needs {FEWEST} different subnets, {len(found)} were measured; "
            "raise accuracy.measure"
        )
    archs = sorted(found, key=lambda arch: arch.values)
    return archs, np.array([np.mean(found[arch]) for arch in archs])


# ---- fit ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Subnets:
    """Encoded subnets (n, F), their errors (n,), the seed of the folds, and a prior or None."""

    space: SearchSpace
    features: np.ndarray
    error: np.ndarray
    seed: int
    prior: np.ndarray | None = None

    def rows(self, chosen: np.ndarray) -> Subnets:
        """Some of the subnets."""
        return replace(self, features=self.features[chosen], error=self.error[chosen])


class _Fitted(NamedTuple):
    """A ridge, its link, and what the ridge was fitted to: errors or their logarithms, (n,)."""

    ridge: Ridge
    link: MonotoneLink
    target: np.ndarray


def _fit(data: Subnets) -> _Fitted:
    """Ridge and link of measured subnets."""
    trials: list[tuple[float, Ridge, Knots, np.ndarray]] = []
    positive = data.error[data.error > 0]
    floor = positive.min() / 2 if len(positive) else LEAST_ERROR  # no error at all has no logarithm
    targets = (data.error, np.log(np.maximum(data.error, floor)))
    priors = (None,) if data.prior is None else (None, data.prior)
    for target, prior in itertools.product(targets, priors):
        ridge = fit_ridge(data.features, target) if prior is None else _by_prior(data, target)
        by_score = replace(data, features=ridge.loo[:, None])
        for shape in (_line, _bend):
            loss = np.mean((left_out_predictions(by_score, _by_shape(shape)) - data.error) ** 2)
            trials.append((float(loss), ridge, shape(ridge.loo, data.error), target))
    _, ridge, knots, target = min(trials, key=lambda trial: trial[0])
    terms = score_terms(data.space, feature_names(data.space), ridge.weights, ridge.intercept)
    return _Fitted(ridge, _extended(*knots, *_reach(terms)), target)


def _by_prior(data: Subnets, target: np.ndarray) -> Ridge:
    """A ridge with one more column, the prior's score, whose weight is folded into the features'.

    It is little shrunk, because it varies PRIOR_SPREAD standard deviations; the features are left
    to say where the prior is wrong.
    """
    prior = np.zeros(data.features.shape[1]) if data.prior is None else data.prior
    score = data.features @ prior
    scale = PRIOR_SPREAD / (float(score.std()) or 1.0)
    ridge = fit_ridge(np.column_stack((data.features, scale * score)), target)
    folded = ridge.weights[:-1] + ridge.weights[-1] * scale * prior
    return replace(ridge, weights=folded)


def fit_ridge(
    features: np.ndarray, target: np.ndarray, alphas: Sequence[float] | np.ndarray = ALPHAS
) -> Ridge:
    """Ridge regression with an intercept, its strength that of the least leave-one-out error.

    Closed form by singular values: leaving a row out divides its residual by 1 - leverage.

    Args:
        features: (n, F).
        target: (n,).
        alphas: strengths to choose from.
    """
    centre, mean, n = features.mean(axis=0), target.mean(), len(target)
    left, singular, right = _svd(features - centre)
    along = left.T @ (target - mean)
    best = None
    for alpha in alphas:
        shrink = singular**2 / (singular**2 + alpha)
        leverage = (left**2) @ shrink + 1 / n
        loo = target - (target - mean - left @ (shrink * along)) / np.maximum(1 - leverage, 1e-9)
        loss = float(np.mean((target - loo) ** 2))
        if best is None or loss < best[0]:
            weights = right.T @ (singular / (singular**2 + alpha) * along)
            best = loss, Ridge(weights, float(mean - centre @ weights), loo, float(alpha))
    if best is None:
        raise AssertionError("no ridge strength to try")
    return best[1]


def _svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left vectors, singular values and right vectors, in no particular order.

    LAPACK's driver gives up on a few finite matrices of linked 0/1 columns. The eigenvectors of the
    squares are found then too: half of the digits, and a ridge needs fewer.
    """
    try:
        return np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        squares, vectors = np.linalg.eigh(matrix.T @ matrix)
        squares = np.where(squares > 1e-12 * squares[-1], squares, 0)
        singular = np.sqrt(squares)
        left = matrix @ vectors / np.where(singular > 0, singular, np.inf)
        return left, singular, vectors.T


# ---- link ---------------------------------------------------------------------------------------

Knots = tuple[np.ndarray, np.ndarray]


def _line(score: np.ndarray, error: np.ndarray) -> Knots:
    """Knots of the least-squares line, flat if it falls."""
    spread = score - score.mean()
    slope = max(float(spread @ (error - error.mean()) / max(spread @ spread, 1e-300)), 0.0)
    at = np.unique(np.quantile(score, [0.05, 0.95]))
    return at, np.clip(error.mean() + slope * (at - score.mean()), LEAST_ERROR, 1)


def _bend(score: np.ndarray, error: np.ndarray) -> Knots:
    """Knots of an isotonic fit to means of up to ten bins; equal values become one knot, so the
    line between knots rises everywhere.
    """
    order = np.argsort(score, kind="stable")
    bins = np.array_split(order, max(min(len(order) // 12, 10), 2))
    pools: list[tuple[float, float, int]] = []  # sums of score and error, rows
    for rows in bins:
        pool = (float(score[rows].sum()), float(error[rows].sum()), len(rows))
        while pools and pools[-1][1] / pools[-1][2] >= pool[1] / pool[2]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    at, value, n = np.array(pools).T
    kept = np.unique(at / n, return_index=True)[1]
    return (at / n)[kept], np.clip(value / n, LEAST_ERROR, 1)[kept]


def _extended(at: np.ndarray, value: np.ndarray, low: float, high: float) -> MonotoneLink:
    """The link through knots, its ends drawn on to the scores from low to high.

    Below the best network measured the slope goes on, but no error is promised below half of the
    smallest knot's; better scores stay better all the same.
    """
    slopes = np.diff(value) / np.diff(at) if len(at) > 1 else np.zeros(1)
    if low < at[0]:
        floor = max(value[0] - slopes[0] * (at[0] - low), value[0] / 2)
        at, value = np.append(low, at), np.append(floor, value)
    if high > at[-1]:
        ceiling = min(value[-1] + slopes[-1] * (high - at[-1]), 1.0)
        at, value = np.append(at, high), np.append(value, ceiling)
    return MonotoneLink(at, value)


def _reach(terms: Terms) -> tuple[float, float]:
    """Smallest and largest score of any network."""
    return elimination.least(terms), -elimination.least(terms.times(-1))


# ---- cross-validation ---------------------------------------------------------------------------


def left_out_predictions(
    data: Subnets, predict: Callable[[Subnets, np.ndarray], np.ndarray]
) -> np.ndarray:
    """(n,) prediction of each row by a fit without its fold.

    Args:
        data: all rows.
        predict: fits on the first argument and predicts the features of the second.
    """
    order = np.random.default_rng(data.seed).permutation(len(data.error))
    out = np.empty(len(order))
    for fold in np.array_split(order, min(FOLDS, len(order))):
        rest = np.setdiff1d(order, fold)
        out[fold] = predict(data.rows(rest), data.features[fold])
    return out


def _by_fit(train: Subnets, features: np.ndarray) -> np.ndarray:
    ridge, link, _ = _fit(train)
    return link(features @ ridge.weights + ridge.intercept)


def _by_macs(train: Subnets, macs: np.ndarray) -> np.ndarray:
    """Error by MACs alone: an isotonic fit, because more MACs make fewer errors."""
    return _by_shape(_bend)(replace(train, features=-train.features), -macs)


def _by_shape(
    shape: Callable[[np.ndarray, np.ndarray], Knots],
) -> Callable[[Subnets, np.ndarray], np.ndarray]:
    def predict(train: Subnets, score: np.ndarray) -> np.ndarray:
        given = np.concatenate((train.features[:, 0], score[:, 0]))
        knots = shape(train.features[:, 0], train.error)
        return _extended(*knots, float(given.min()), float(given.max()))(score[:, 0])

    return predict


def scores_of(predicted: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """How well errors are predicted: ranks overall and among near networks, and sizes."""
    off = predicted - error
    scores = {
        "kendall_tau": kendall_tau(predicted, error),
        "mae": float(np.abs(off).mean()),
        "rmse": float(np.sqrt((off**2).mean())),
    }
    bands = np.floor(error / NEAR)
    groups = [bands == band for band in np.unique(bands)]
    taus = [(kendall_tau(predicted[g], error[g]), int(g.sum())) for g in groups if g.sum() >= 5]
    if taus:
        near, sizes = zip(*taus, strict=True)
        scores["kendall_tau_near"] = float(np.average(near, weights=sizes))
    return scores


def centre_and_scale(error: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; 1 where there is none."""
    return float(error.mean()), float(error.std()) or 1.0
