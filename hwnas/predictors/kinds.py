"""Kinds of accuracy predictors by name, fitted by scikit-learn and written as plain arrays.

Ridge is the default: a sum, so that exact fronts can be computed, and with 100 to 200 measured
subnets it is about as good as any (docs/accuracy.md). The others are compared to it by the same
cross-validation. scikit-learn is loaded when one of them is fitted; a search never loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors.fit import Subnets, fit_predictor, left_out_predictions, merged, scores_of
from hwnas.predictors.nonlinear import LEAST_ERROR, NonlinearPredictor
from hwnas.predictors.predictor import Predictor, encode, feature_names
from hwnas.predictors.trees_and_kernels import Body, Expansion, Trees
from profilers.plugins import select

WORTH = 0.95  # auto leaves the ridge for a kind whose error is at most this share of the ridge's
MIN_TAU = 0.2  # below this Kendall's tau a predictor is as good as none: said, not hidden

Rows = Iterable[tuple[Architecture, float]]


def fit(
    space: SearchSpace,
    rows: Rows,
    seed: int,
    supernet_sha256: str,
    kind: str,
    prior: np.ndarray | None = None,
) -> Predictor | NonlinearPredictor:
    """The predictor of measured subnets, of a kind of KINDS, `ridge` or `auto`.

    With `auto` the scores hold `<kind>_rmse` and `<kind>_kendall_tau` of every kind.

    Args:
        space, rows, seed, supernet_sha256, prior: as for `fit_predictor`; the other kinds know no
            prior.
        kind: by name.

    Raises:
        ConfigError: no such kind, too few different subnets, or an accuracy not in [0, 1].
    """
    select(kind, ("ridge", "auto", *KINDS), "accuracy.predictor")
    rows = list(rows)
    ridge = fit_predictor(space, rows, seed, supernet_sha256, prior)
    if kind == "ridge":
        return ridge
    others = {
        name: fit_nonlinear(space, rows, seed, supernet_sha256, name)
        for name in (KINDS if kind == "auto" else (kind,))
    }
    given: dict[str, Predictor | NonlinearPredictor] = {"ridge": ridge, **others}
    compared = {
        f"{name}_{score}": model.scores[score]
        for name, model in given.items()
        for score in ("rmse", "kendall_tau")
    }
    chosen = given[kind] if kind != "auto" else _best(ridge, others)
    of_macs = {name: score for name, score in ridge.scores.items() if name.startswith("macs_")}
    return replace(chosen, scores={**of_macs, **chosen.scores, **compared})


def _best(
    ridge: Predictor, others: dict[str, NonlinearPredictor]
) -> Predictor | NonlinearPredictor:
    best = min(others.values(), key=lambda model: model.scores["rmse"])
    return best if best.scores["rmse"] <= WORTH * ridge.scores["rmse"] else ridge


def fit_nonlinear(
    space: SearchSpace, rows: Rows, seed: int, supernet_sha256: str, kind: str
) -> NonlinearPredictor:
    """The predictor of one of KINDS; arguments and errors as for `fit`."""
    archs, error = merged(rows)
    data = Subnets(space, encode(space, space.genome(archs)), error, seed)

    def predict(train: Subnets, features: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(KINDS[kind](train)(features), LEAST_ERROR, 1))

    left_out = left_out_predictions(data, predict)
    return NonlinearPredictor(
        space,
        supernet_sha256,
        feature_names(space),
        KINDS[kind](data),
        kind,
        float(np.std(error - left_out, ddof=1)),
        {"n": float(len(error)), **scores_of(left_out, error)},
    )


def doubts(scores: dict[str, float]) -> str:
    """What must be said of a predictor's scores; empty if it ranks well enough."""
    tau, by_macs = scores["kendall_tau"], scores.get("macs_kendall_tau", 0.0)
    if tau < MIN_TAU:
        return (
            f"the accuracy predictor can hardly rank subnets (Kendall's tau {tau:.2f} on "
            f"{scores['n']:.0f} subnets left out, MACs alone {by_macs:.2f}); measure more of them "
            "(accuracy.measure) on more images (accuracy.images)"
        )
    if tau < by_macs:
        return (
            f"the accuracy predictor ranks subnets worse than MACs alone (Kendall's tau {tau:.2f} "
            f"against {by_macs:.2f}); measure more of them (accuracy.measure)"
        )
    return ""


# ---- kinds --------------------------------------------------------------------------------------


def boosting(data: Subnets) -> Trees:
    """Gradient boosting (Friedman 2001): small trees, each fitted to what the others leave."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=300, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=data.seed
    ).fit(data.features, data.error)
    trees = [stage[0].tree_ for stage in model.estimators_]
    starts = np.concatenate(([0], np.cumsum([tree.node_count for tree in trees])))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(tree, name).reshape(-1) for tree in trees])

    shift = np.repeat(starts[:-1], [tree.node_count for tree in trees])
    leaf = joined("children_left") < 0
    return Trees(
        starts[:-1].astype(np.int32),
        np.where(leaf, -1, joined("feature")).astype(np.int32),
        np.where(leaf, 0.0, joined("threshold")),
        np.where(leaf, -1, joined("children_left") + shift).astype(np.int32),
        np.where(leaf, -1, joined("children_right") + shift).astype(np.int32),
        model.learning_rate * joined("value"),
        float(model.init_.constant_[0, 0]),
    )


def gaussian_process(data: Subnets) -> Expansion:
    """Mean of a Gaussian process with a squared exponential kernel and noise (Rasmussen and
    Williams 2006), its settings those of the largest likelihood.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    kernel = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * kernels.RBF(3.0, (0.3, 100.0))
    kernel += kernels.WhiteKernel(0.1, (1e-6, 10.0))
    centre, scale = _scale(data.error)
    model = GaussianProcessRegressor(kernel, random_state=data.seed)
    with warnings.catch_warnings():  # a setting at its bound is no reason to stop
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(data.features, (data.error - centre) / scale)
    bells = model.kernel_.k1
    return Expansion(
        data.features,
        scale * bells.k1.constant_value * model.alpha_,
        float(0.5 / bells.k2.length_scale**2),
        centre,
    )


def support_vectors(data: Subnets) -> Expansion:
    """Support vector regression with a Gaussian kernel, its strength chosen by 5 folds as in
    DyNAS-T (Cummings et al. 2022).
    """
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVR

    centre, scale = _scale(data.error)
    spread = float(data.features.var()) * data.features.shape[1]
    folds = min(5, len(data.error))
    search = GridSearchCV(
        SVR(epsilon=0.05),
        {"C": [0.3, 1, 3, 10, 30], "gamma": [0.1 / spread, 0.3 / spread, 1 / spread]},
        scoring="neg_mean_squared_error",
        cv=folds,
    )
    model = search.fit(data.features, (data.error - centre) / scale).best_estimator_
    return Expansion(
        np.asarray(model.support_vectors_),
        scale * model.dual_coef_[0],
        float(model.gamma),
        float(centre + scale * model.intercept_[0]),
    )


def _scale(error: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; 1 where there is none."""
    return float(error.mean()), float(error.std()) or 1.0


KINDS: dict[str, Callable[[Subnets], Body]] = {
    "boosting": boosting,
    "gaussian-process": gaussian_process,
    "svr": support_vectors,
}
