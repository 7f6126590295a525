"""Predicted error of subnets: a sum over the choices that are live, then a monotone link.

Plain arrays evaluated by numpy, whatever fitted them (`predictor_fit`). A prediction is an error
of one supernet's subnets as measured on validation images, never an accuracy to print as such.
Other kinds of predictors are read here too: see `load`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.predictors import arrays, mlp, nonlinear
from hwnas.predictors.encoding import (
    ENCODING,
    check_errors,
    check_features,
    check_geometry,
    encode,
    feature_names,
)
from hwnas.predictors.trees_and_kernels import BODIES
from hwnas.pricing.links import MonotoneLink
from hwnas.pricing.terms import Terms, choice_terms
from profilers.errors import FileFormatError

__all__ = [
    "ENCODING",
    "ErrorMetric",
    "ErrorModel",
    "Predictor",
    "encode",
    "feature_names",
    "load",
    "save",
    "score_terms",
]

MODEL = "additive"
_KINDS = {
    "intercept": ("f", 0),
    **dict.fromkeys(("weights", "link_score", "link_value"), ("f", 1)),
    **arrays.SCORES,
}


class ErrorMetric(Protocol):
    """A prediction of error that can be searched."""

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) predicted error of (n, n_choices) genomes."""


class ErrorModel(Protocol):
    """What every kind of predictor file reads as."""

    @property
    def supernet_sha256(self) -> str:
        """File of the supernet that was measured; empty: not known."""

    def metric(self, space: SearchSpace) -> ErrorMetric:
        """The prediction for a space of the same geometry, as a metric of search."""

    def predict(self, genome: np.ndarray) -> np.ndarray:
        """(n,) predicted error, a fraction, of (n, n_choices) genomes of the model's space."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A fitted predictor of error for a space.

    Attributes:
        space: whose networks it predicts; it may offer less than was fitted.
        supernet_sha256: file of the supernet that was measured.
        features: names of the encoding's columns, `stage1.block1.kernel_size=5`.
        weights: (F,) error that each live feature adds to the score.
        intercept: score of no feature.
        link: score to predicted error, a fraction.
        residual_spread: standard deviation of measured minus predicted error of networks that were
            left out of the fit, a fraction.
        scores: cross-validation: n, kendall_tau, kendall_tau_near (within one point of accuracy),
            mae, rmse (fractions), alpha, and the same of MACs alone as macs_*.
    """

    space: SearchSpace
    supernet_sha256: str
    features: tuple[str, ...]
    weights: np.ndarray
    intercept: float
    link: MonotoneLink
    residual_spread: float
    scores: dict[str, float]

    @functools.cached_property
    def terms(self) -> Terms:
        """The prediction as terms of this predictor's space."""
        return self.metric(self.space)

    def predict(self, genome: np.ndarray) -> np.ndarray:
        """(n,) predicted error, a fraction, of (n, n_choices) genomes of `space`."""
        return self.terms.evaluate(genome)

    def metric(self, space: SearchSpace) -> Terms:
        """The prediction for a space of the same geometry, as a sum and a link.

        Raises:
            TableError: another geometry, or an option that was not fitted.
        """
        check_geometry(space, self.space.name, self.space.geometry)
        check_features(space, self.features)
        terms = score_terms(space, self.features, self.weights, self.intercept)
        return replace(terms, link=self.link)


def score_terms(
    space: SearchSpace, features: tuple[str, ...], weights: np.ndarray, intercept: float
) -> Terms:
    """The score of a linear predictor on the encoding, as a sum over live choices.

    Args:
        space: the search space.
        features: names of columns; other options weigh nothing.
        weights: (F,).
        intercept: score of no feature.
    """
    weights_of: dict[str, float] = dict(zip(features, weights.tolist(), strict=True))

    def weight(column: int, option: int) -> float:
        return weights_of.get(f"{space.choices[column].name}={option}", 0.0)

    return choice_terms(space, weight, intercept)


# ---- file ---------------------------------------------------------------------------------------


def save(predictor: Kind, path: Path) -> None:
    """Write predictor.npz atomically: plain arrays, equal predictors give equal bytes."""
    if isinstance(predictor, Predictor):
        arrays.write_arrays(path, _arrays_of(predictor))
    elif isinstance(predictor, nonlinear.NonlinearPredictor):
        arrays.write_arrays(path, nonlinear.arrays_of(predictor))
    else:
        arrays.write_arrays(path, mlp.arrays_of(predictor))


def load(path: Path, space: SearchSpace) -> ErrorModel:
    """The predictor of a file, for a space of the same geometry.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
        TableError: it was fitted for another geometry, or without an option of the space.
    """
    data, model = arrays.read_arrays(Path(path))
    if model not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise FileFormatError(f"{path} holds a predictor of kind {model!r}, known: {known}")
    wrong_in, from_arrays = _READERS[model]
    problem = wrong_in(data)
    if problem:
        raise FileFormatError(f"{path} is not a valid accuracy predictor: {problem}")
    found = from_arrays(data, space)
    predict = found.predict if isinstance(found, Predictor) else found.uncut
    problem = check_errors(predict, space, not isinstance(found, mlp.MlpPredictor))
    if problem:
        raise FileFormatError(f"{path} is not a valid accuracy predictor: {problem}")
    return found


def _arrays_of(predictor: Predictor) -> dict[str, np.ndarray]:
    """What a file of the predictor holds."""
    return {
        **arrays.heading(MODEL, predictor),
        "weights": predictor.weights.astype("<f8"),
        "intercept": np.array(predictor.intercept),
        "link_score": predictor.link.score.astype("<f8"),
        "link_value": predictor.link.value.astype("<f8"),
        **arrays.scores_arrays(predictor),
    }


def _from_arrays(data: dict[str, Any], space: SearchSpace) -> Predictor:
    check_geometry(space, str(data["space"]), str(data["geometry"]))
    check_features(space, data["features"].tolist())
    return Predictor(
        space,
        str(data["supernet_sha256"]),
        tuple(data["features"].tolist()),
        data["weights"],
        float(data["intercept"]),
        MonotoneLink(data["link_score"], data["link_value"]),
        float(data["residual_spread"]),
        arrays.scores_of(data),
    )


def _wrong_in(data: dict[str, Any]) -> str:
    """What is wrong with the arrays of a file; empty if nothing is."""
    wrong = arrays.wrong_in(data, _KINDS)
    if wrong:
        return wrong
    if len(data["features"]) != len(data["weights"]):
        return "features and weights differ in number"
    score, value = data["link_score"], data["link_value"]
    if len(score) != len(value) or not len(score):
        return "the link's knots differ in number"
    if (np.diff(score) <= 0).any() or (np.diff(value) < 0).any():
        return "the link is not monotone"
    if value[0] < 0 or value[-1] > 1:
        return f"the link gives errors of {value[0]:g} to {value[-1]:g}, no fractions"
    return ""


Kind = Predictor | mlp.MlpPredictor | nonlinear.NonlinearPredictor
Reader = tuple[Callable[[dict[str, Any]], str], Callable[[dict[str, Any], SearchSpace], Kind]]
_READERS: dict[str, Reader] = {  # what is wrong with a file's arrays, and what they make, by kind
    MODEL: (_wrong_in, _from_arrays),
    mlp.MODEL: (mlp.wrong_in, mlp.from_arrays),
    **dict.fromkeys(BODIES, (nonlinear.wrong_in, nonlinear.from_arrays)),
}
