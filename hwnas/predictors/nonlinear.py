"""Predicted error of subnets by trees or kernels on the masked one-hot: no sum over choices.

`dp` is refused with it; `nsga2` and the others search it. Evaluated by numpy, whatever fitted it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwnas.networks.space import SearchSpace
from hwnas.predictors import arrays
from hwnas.predictors.encoding import (
    check_features,
    check_geometry,
    encode,
    feature_names,
)
from hwnas.predictors.trees_and_kernels import BODIES, Body

LEAST_ERROR = 1e-6  # predicted errors stay within [LEAST_ERROR, 1]
_KINDS = {"source": ("U", 0), **arrays.SCORES}


@dataclass(frozen=True, eq=False)
class NonlinearPredictor:
    """A predictor of error for a space.

    Attributes:
        space: whose networks it predicts; it may offer less than was fitted.
        supernet_sha256: file of the supernet that was measured.
        features: (F,) names of the body's columns.
        body: predicts the error from the encoding.
        source: kind of the fit: `boosting`, `gaussian-process`, `svr`.
        residual_spread: standard deviation of measured minus predicted error of networks that were
            left out of the fit, a fraction.
        scores: of the cross-validation, as those of the additive predictor.
    """

    space: SearchSpace
    supernet_sha256: str
    features: tuple[str, ...]
    body: Body
    source: str
    residual_spread: float
    scores: dict[str, float]

    def metric(self, space: SearchSpace) -> NonlinearPredictor:
        """This predictor for a space of the same geometry, to be searched.

        Raises:
            TableError: another geometry, or an option that was not fitted.
        """
        check_geometry(space, self.space.name, self.space.geometry)
        check_features(space, self.features)
        return replace(self, space=space)

    @functools.cached_property
    def _columns(self) -> np.ndarray:
        """Column of the body for each column of the encoding of `space`."""
        place = {name: i for i, name in enumerate(self.features)}
        return np.array([place[name] for name in feature_names(self.space)])

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) predicted error, a fraction, of (n, n_choices) genomes of `space`."""
        return np.asarray(np.clip(self.uncut(genome), LEAST_ERROR, 1))

    def uncut(self, genome: np.ndarray) -> np.ndarray:
        """`evaluate` before errors outside [0, 1] are cut."""
        features = np.zeros((len(genome), len(self.features)))
        features[:, self._columns] = encode(self.space, genome)
        return self.body(features)

    def predict(self, genome: np.ndarray) -> np.ndarray:
        """`evaluate`, under the name that every kind of predictor has."""
        return self.evaluate(genome)


def arrays_of(predictor: NonlinearPredictor) -> dict[str, np.ndarray]:
    """What a file of the predictor holds."""
    return {
        **arrays.heading(predictor.body.MODEL, predictor),
        "source": np.array(predictor.source),
        **arrays.scores_arrays(predictor),
        **predictor.body.arrays(),
    }


def wrong_in(data: dict[str, Any]) -> str:
    """What is wrong with the arrays of a file; empty if nothing is."""
    wrong = arrays.wrong_in(data, _KINDS)
    return wrong or BODIES[str(data["model"])].wrong_in(data, len(data["features"]))


def from_arrays(data: dict[str, Any], space: SearchSpace) -> NonlinearPredictor:
    """The predictor of checked arrays, for a space of the same geometry.

    Raises:
        TableError: it was fitted for another geometry, or without an option of the space.
    """
    check_geometry(space, str(data["space"]), str(data["geometry"]))
    features = tuple(data["features"].tolist())
    check_features(space, features)
    return NonlinearPredictor(
        space,
        str(data["supernet_sha256"]),
        features,
        BODIES[str(data["model"])].from_arrays(data),
        str(data["source"]),
        float(data["residual_spread"]),
        arrays.scores_of(data),
    )
