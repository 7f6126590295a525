"""Regression trees and kernel expansions as plain arrays, evaluated by numpy.

What scikit-learn fits (`predictor_choice`) is written as these, so that a search needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.predictors.arrays import wrong_kind

MOST_DEPTH = 64  # steps from a root to a leaf; trees of more are refused
PIECE = 512  # rows evaluated at once: their distances stay in the cache


@dataclass(frozen=True, eq=False)
class Trees:
    """A sum of regression trees whose nodes lie one after the other.

    Attributes:
        roots: (t,) node of each tree's root.
        feature: (nodes,) column that a node looks at; -1: a leaf.
        threshold: (nodes,) a row goes left where its value is at most this.
        left, right: (nodes,) nodes to go on with.
        value: (nodes,) what a leaf adds.
        base: what every row gets.
    """

    MODEL: ClassVar[str] = "trees"
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    base: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(n,) sums of (n, F) features."""
        rows = np.arange(len(features))[:, None]
        node = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        for _ in range(MOST_DEPTH):
            looks = self.feature[node]
            if (looks < 0).all():
                break
            goes_left = features[rows, np.maximum(looks, 0)] <= self.threshold[node]
            onward = np.where(goes_left, self.left[node], self.right[node])
            node = np.where(looks < 0, node, onward)
        return np.asarray(self.base + self.value[node].sum(axis=1))

    def arrays(self) -> dict[str, np.ndarray]:
        """As a file holds it."""
        whole = {n: getattr(self, n).astype("<i4") for n in ("roots", "feature", "left", "right")}
        real = {n: getattr(self, n).astype("<f8") for n in ("threshold", "value")}
        return {**whole, **real, "base": np.array(self.base)}

    @staticmethod
    def from_arrays(data: dict[str, Any]) -> Trees:
        """Of checked arrays."""
        names = ("roots", "feature", "threshold", "left", "right", "value")
        return Trees(**{name: data[name] for name in names}, base=float(data["base"]))

    @staticmethod
    def wrong_in(data: dict[str, Any], width: int) -> str:
        """What is wrong with the arrays of a file; empty if nothing is.

        Args:
            data: arrays by name.
            width: number of columns.
        """
        kinds = {
            **dict.fromkeys(("roots", "feature", "left", "right"), ("i", 1)),
            **dict.fromkeys(("threshold", "value"), ("f", 1)),
            "base": ("f", 0),
        }
        wrong = wrong_kind(data, kinds)
        if wrong:
            return wrong
        n = len(data["feature"])
        if any(len(data[name]) != n for name in ("left", "right", "threshold", "value")):
            return "the nodes' arrays differ in length"
        inner = data["feature"] >= 0
        onward = np.concatenate([data[name][inner] for name in ("left", "right")])
        own = np.tile(np.flatnonzero(inner), 2)
        if ((onward <= own) | (onward >= n)).any():  # children come later, so no walk is endless
            return "a node goes on with a node that does not follow it"
        if ((data["roots"] < 0) | (data["roots"] >= n)).any() or (data["feature"] >= width).any():
            return "a root or a column does not exist"
        return ""


@dataclass(frozen=True, eq=False)
class Expansion:
    """A sum of Gaussian bells: base + sum_j dual_j exp(-gamma |x - support_j|^2).

    Attributes:
        support: (k, F).
        dual: (k,).
        gamma: one over the square of the bells' width, halved.
        base: far from every support.
    """

    MODEL: ClassVar[str] = "kernel"
    support: np.ndarray
    dual: np.ndarray
    gamma: float
    base: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(n,) sums of (n, F) features."""
        squares = (self.support**2).sum(axis=1)
        out = np.empty(len(features))
        for start in range(0, len(features), PIECE):
            piece = features[start : start + PIECE]
            distance = (piece**2).sum(axis=1)[:, None] + squares - 2 * piece @ self.support.T
            bells = np.exp(-self.gamma * np.maximum(distance, 0))
            out[start : start + PIECE] = self.base + bells @ self.dual
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """As a file holds it."""
        real = {name: getattr(self, name).astype("<f8") for name in ("support", "dual")}
        return {**real, "gamma": np.array(self.gamma), "base": np.array(self.base)}

    @staticmethod
    def from_arrays(data: dict[str, Any]) -> Expansion:
        """Of checked arrays."""
        return Expansion(data["support"], data["dual"], float(data["gamma"]), float(data["base"]))

    @staticmethod
    def wrong_in(data: dict[str, Any], width: int) -> str:
        """What is wrong with the arrays of a file; empty if nothing is.

        Args:
            data: arrays by name.
            width: number of columns.
        """
        kinds = {"support": ("f", 2), "dual": ("f", 1), "gamma": ("f", 0), "base": ("f", 0)}
        wrong = wrong_kind(data, kinds)
        if wrong:
            return wrong
        if data["support"].shape != (len(data["dual"]), width):
            return f"support has shape {data['support'].shape}, not ({len(data['dual'])}, {width})"
        return "" if data["gamma"] >= 0 else "gamma is negative"


Body = Trees | Expansion
BODIES: dict[str, type[Trees] | type[Expansion]] = {body.MODEL: body for body in (Trees, Expansion)}
