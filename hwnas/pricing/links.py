"""Monotone links: from a sum to a metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Link(Protocol):
    """A function that never falls, applied to a sum."""

    def __call__(self, score: np.ndarray, /) -> np.ndarray:
        """(n,) values at (n,) sums."""


@dataclass(frozen=True, eq=False)
class MonotoneLink:
    """A continuous, never falling, piecewise linear function, constant beyond its ends.

    Attributes:
        score: (k,) ascending knots.
        value: (k,) never falling values at the knots.
    """

    score: np.ndarray
    value: np.ndarray

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """(n,) values at (n,) scores; of two scores the larger never gets the smaller value."""
        at = np.clip(score, self.score[0], self.score[-1])
        if len(self.score) == 1:
            return np.full(np.shape(at), self.value[0])
        left = np.clip(np.searchsorted(self.score, at, "right") - 1, 0, len(self.score) - 2)
        slope = np.diff(self.value) / np.diff(self.score)
        line = self.value[left] + slope[left] * (at - self.score[left])
        # Rounding must not pass the next knot.
        return np.asarray(np.minimum(line, self.value[left + 1]))
