"""Accuracy predictors by the name of their kind, compared by the same cross-validation.

Ridge is the default: a sum, so that exact fronts can be computed, and with 100 to 200 measured
subnets it is about as good as any (docs/accuracy.md). The others (`kinds/`) are fitted by
scikit-learn, loaded when one of them is fitted, and written as plain arrays: a search needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors import kinds
from hwnas.predictors.fit import (
    Prior,
    Subnets,
    fit_predictor,
    left_out_predictions,
    merged,
    scores_of,
)
from hwnas.predictors.nonlinear import LEAST_ERROR, NonlinearPredictor
from hwnas.predictors.predictor import Predictor, encode, feature_names
from hwnas.predictors.trees_and_kernels import Body
from profilers.plugins import load_part, names_in, select

WORTH = 0.95  # auto leaves the ridge for a kind whose error is at most this share of the ridge's
MIN_TAU = 0.2  # below this Kendall's tau a predictor is as good as none: said, not hidden

Rows = Iterable[tuple[Architecture, float]]


def names() -> list[str]:
    """The kinds beside the ridge."""
    return names_in(kinds.__path__)


def fit(
    space: SearchSpace,
    rows: Rows,
    seed: int,
    supernet_sha256: str,
    kind: str,
    prior: Prior | None = None,
) -> Predictor | NonlinearPredictor:
    """The predictor of measured subnets, of a kind of `names()`, `ridge` or `auto`.

    With `auto` the scores hold `<kind>_rmse` and `<kind>_kendall_tau` of every kind.

    Args:
        space, rows, seed, supernet_sha256, prior: as for `fit_predictor`; the other kinds know no
            prior.
        kind: by name.

    Raises:
        ConfigError: no such kind, too few different subnets, or an accuracy not in [0, 1].
    """
    select(kind, ("ridge", "auto", *names()), "accuracy.predictor")
    rows = list(rows)
    ridge = fit_predictor(space, rows, seed, supernet_sha256, prior)
    if kind == "ridge":
        return ridge
    others = {
        name: fit_nonlinear(space, rows, seed, supernet_sha256, name)
        for name in (names() if kind == "auto" else [kind])
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
    """The predictor of one of `names()`; arguments and errors as for `fit`."""
    archs, error = merged(rows)
    module = load_part(kind, kinds.__name__, kinds.__path__, "accuracy.predictor")
    fit_body: Callable[[Subnets], Body] = module.fit
    data = Subnets(space, encode(space, space.genome(archs)), error, seed)

    def predict(train: Subnets, features: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(fit_body(train)(features), LEAST_ERROR, 1))

    left_out = left_out_predictions(data, predict)
    return NonlinearPredictor(
        space,
        supernet_sha256,
        feature_names(space),
        fit_body(data),
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
