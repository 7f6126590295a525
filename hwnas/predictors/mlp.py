"""Predicted accuracy by a small network of linear layers and ReLU, evaluated by numpy.

No sum over blocks: `dp` is refused with it. The first layer is a product with the one-hot encoding:
gathering and adding its rows by option is slower, because it moves more memory.
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

MODEL = "mlp"
PIECE = 1024  # genomes evaluated at once: their hidden layers stay in the cache
LEAST_ERROR = 1e-6  # predicted errors stay within [LEAST_ERROR, 1]
_KINDS = {"source": ("U", 0), "n_layers": ("f", 0)}

Layer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class MlpPredictor:
    """A predictor of error for a space: error = 1 - (last layer of the network).

    Attributes:
        space: whose networks it predicts; it may offer less than was fitted.
        supernet_sha256: file of the supernet whose subnets were measured; empty: not known.
        features: (F,) names of the first layer's inputs, `stage1.block1.kernel_size=5`.
        layers: weight (in, out) and bias (out,) float32 of each layer; ReLU between them.
        source: where the weights come from, in words.
    """

    space: SearchSpace
    supernet_sha256: str
    features: tuple[str, ...]
    layers: tuple[Layer, ...]
    source: str

    def metric(self, space: SearchSpace) -> MlpPredictor:
        """This predictor for a space of the same geometry, to be searched.

        Raises:
            TableError: another geometry, or an option that was not fitted.
        """
        check_geometry(space, self.space.name, self.space.geometry)
        check_features(space, self.features)
        return replace(self, space=space)

    @functools.cached_property
    def _first(self) -> np.ndarray:
        """(columns of the encoding of `space`, hidden) rows of the first weight."""
        row = {name: i for i, name in enumerate(self.features)}
        return np.ascontiguousarray(self.layers[0][0][[row[n] for n in feature_names(self.space)]])

    @functools.cached_property
    def _halved(self) -> tuple[Layer, ...]:
        """The layers behind the first with half of their weights, which is exact."""
        return tuple((weight * np.float32(0.5), bias) for weight, bias in self.layers[1:])

    def evaluate(self, genome: np.ndarray) -> np.ndarray:
        """(n,) predicted error, a fraction, of (n, n_choices) genomes of `space`."""
        return np.asarray(np.clip(self.uncut(genome), LEAST_ERROR, 1))

    def uncut(self, genome: np.ndarray) -> np.ndarray:
        """`evaluate` before errors outside [0, 1] are cut."""
        pieces = range(0, len(genome), PIECE)
        out = [self._accuracy(genome[start : start + PIECE]) for start in pieces]
        return 1 - np.concatenate(out) if out else np.zeros(0)

    def predict(self, genome: np.ndarray) -> np.ndarray:
        """`evaluate`, under the name that every kind of predictor has."""
        return self.evaluate(genome)

    def _accuracy(self, genome: np.ndarray) -> np.ndarray:
        x = encode(self.space, genome, np.float32) @ self._first
        x += self.layers[0][1]
        for half, bias in self._halved:
            twice = np.abs(x)
            twice += x  # 2 max(x, 0), in half of the time that np.maximum takes
            x = twice @ half
            x += bias
        return np.asarray(x[:, 0], dtype=np.float64)


def arrays_of(predictor: MlpPredictor) -> dict[str, np.ndarray]:
    """What a file of the predictor holds."""
    found = arrays.heading(MODEL, predictor)
    found["source"] = np.array(predictor.source)
    found["n_layers"] = np.array(float(len(predictor.layers)))
    for n, (weight, bias) in enumerate(predictor.layers):
        found |= {f"weight_{n}": weight.astype("<f4"), f"bias_{n}": bias.astype("<f4")}
    return found


def wrong_in(data: dict[str, Any]) -> str:
    """What is wrong with the arrays of a file; empty if nothing is."""
    wrong = arrays.wrong_in(data, _KINDS)
    if wrong:
        return wrong
    n = int(data["n_layers"])
    if not 1 <= n <= 16:
        return f"it has {n} layers, expected 1 to 16"
    layers = {f"weight_{i}": ("f", 2) for i in range(n)} | {f"bias_{i}": ("f", 1) for i in range(n)}
    wrong = arrays.wrong_kind(data, layers)
    if wrong:
        return wrong
    width = len(data["features"])
    for i in range(n):
        weight, bias = data[f"weight_{i}"], data[f"bias_{i}"]
        if weight.shape[0] != width or weight.shape[1] != len(bias):
            return f"layer {i} has shape {weight.shape} and bias {bias.shape} behind {width} inputs"
        width = len(bias)
    return "" if width == 1 else f"its last layer gives {width} numbers, expected 1"


def from_arrays(data: dict[str, Any], space: SearchSpace) -> MlpPredictor:
    """The predictor of checked arrays, for a space of the same geometry.

    Raises:
        TableError: it was fitted for another geometry, or without an option of the space.
    """
    check_geometry(space, str(data["space"]), str(data["geometry"]))
    layers = tuple((data[f"weight_{i}"], data[f"bias_{i}"]) for i in range(int(data["n_layers"])))
    features = tuple(data["features"].tolist())
    check_features(space, features)
    return MlpPredictor(space, str(data["supernet_sha256"]), features, layers, str(data["source"]))
