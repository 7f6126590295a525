"""Few models for many devices: at most K networks, and each device runs the best that it can.

Every network of a pool has an error on each device, infinite where it does not fit the device's
budgets. First the pool loses every network that another one beats on all devices. Then every choice
of K of the others is tried; if there are too many choices, models are added one by one, and
exchanged while that helps.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from hwnas.pricing import pareto
from profilers.errors import ConfigError, InfeasibleError

MOST_CHOICES = 100_000  # choices of K networks that are all tried


@dataclass(frozen=True, eq=False)
class Fleet:
    """Which network serves which device.

    Attributes:
        rows: (N,) row in the pool of the network that serves each device.
        errors: (N,) its predicted error, a fraction.
        alone: (N,) error of the best network in the pool for each device by itself.
        exact: whether every choice was tried.
    """

    rows: np.ndarray
    errors: np.ndarray
    alone: np.ndarray
    exact: bool

    @property
    def loss(self) -> np.ndarray:
        """(N,) error that each device gives up by sharing, a fraction."""
        return np.asarray(self.errors - self.alone)


def choose(errors: np.ndarray, most: int, weights: np.ndarray) -> Fleet:
    """At most `most` networks of a pool with the least weighted mean error over the devices.

    Args:
        errors: (n, N) predicted error of the networks on each device, infinite where one does not
            meet all budgets of a device.
        most: number of different networks allowed.
        weights: (N,) of the devices.

    Raises:
        ConfigError: `most` is below 1.
        InfeasibleError: a device fits no network, or so few networks cannot serve all.
    """
    if most < 1:
        raise ConfigError(f"{most} models were asked for; a fleet needs at least 1")
    fits = np.isfinite(errors)
    if not fits.any(axis=0).all():
        raise InfeasibleError(
            f"{int((~fits.any(axis=0)).sum())} of {fits.shape[1]} devices fit no network of the "
            "pool; raise their budgets"
        )
    rows = np.flatnonzero(fits.any(axis=1))
    rows = rows[pareto.non_dominated(errors[rows])]
    costs = errors[rows]
    most = min(most, len(rows))
    exact = math.comb(len(rows), most) <= MOST_CHOICES
    chosen = _best_choice(costs, most, weights) if exact else _exchanged(costs, most, weights)
    if not np.isfinite(_value(costs, chosen, weights)):
        raise InfeasibleError(
            f"{most} model(s) cannot serve all {fits.shape[1]} devices within their budgets; allow "
            "more models or raise the budgets"
        )
    at = np.array(chosen)[costs[list(chosen)].argmin(axis=0)]
    columns = np.arange(fits.shape[1])
    return Fleet(rows[at], costs[at, columns], costs.min(axis=0), exact)


def _value(costs: np.ndarray, chosen: tuple[int, ...], weights: np.ndarray) -> float:
    """Weighted sum of the devices' errors; infinite if a device is not served."""
    return float((costs[list(chosen)].min(axis=0) * weights).sum())


def _best_choice(costs: np.ndarray, most: int, weights: np.ndarray) -> tuple[int, ...]:
    every = itertools.combinations(range(len(costs)), most)
    return min(every, key=lambda chosen: _value(costs, chosen, weights))


def _exchanged(costs: np.ndarray, most: int, weights: np.ndarray) -> tuple[int, ...]:
    """A choice that no exchange of one model improves, from the one that serves most devices."""
    capped = np.where(np.isinf(costs), 1e6, costs)  # a device not served outweighs any error
    chosen: tuple[int, ...] = ()
    while len(chosen) < most:
        candidates = [(*chosen, row) for row in range(len(costs)) if row not in chosen]
        chosen = min(candidates, key=lambda rows: _value(capped, rows, weights))
    while True:
        swaps = [
            (*chosen[:i], row, *chosen[i + 1 :])
            for i in range(most)
            for row in range(len(costs))
            if row not in chosen
        ]
        better = min([chosen, *swaps], key=lambda rows: _value(capped, rows, weights))
        if better == chosen:
            return chosen
        chosen = better
