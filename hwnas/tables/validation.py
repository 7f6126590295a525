"""How far a table can be trusted: prediction error against what repeating a measurement differs by.

Held-out networks are measured twice, in two sessions a and b; they never choose anything.
Definitions and limits: docs/formats.md, "Table".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000  # of the bootstrap
MAX_NOISE = 0.04  # repeat noise above which a table is unreliable
UNRELIABLE_RATIO, UNRELIABLE_ERROR = 2.0, 0.02  # error above both of these, likewise
GOOD_RATIO, GOOD_ERROR = 1.25, 0.006  # error within one of these is good


def relative_noise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H,) difference of two measurements as a share of their mean."""
    return np.asarray(np.abs(a - b) / ((a + b) / 2))


def relative_error(predicted: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H,) distance of predictions to the mean of two measurements, as a share of it."""
    mean = (a + b) / 2
    return np.asarray(np.abs(predicted - mean) / mean)


def interval(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    """95 % percentile bootstrap interval of the mean of (H,) values."""
    drawn = rng.integers(0, len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return [float(low), float(high)]


def kendall_tau(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b of two (H,) arrays, which allows for ties; 0 if one is constant."""
    first = np.sign(x[:, None] - x[None, :])
    second = np.sign(y[:, None] - y[None, :])
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / scale) if scale else 0.0


def verdict(noise: float, error: float, missing: Sequence[str]) -> tuple[str, str]:
    """`good`, `usable` or `unreliable`, and why in words.

    Args:
        noise, error: shares.
        missing: op keys of the space that have no row.
    """
    high, low = max(UNRELIABLE_RATIO * noise, UNRELIABLE_ERROR), max(GOOD_RATIO * noise, GOOD_ERROR)
    if missing:
        return "unreliable", f"{len(missing)} ops of the space were not measured"
    if noise > MAX_NOISE:
        reason = f"two measurements of a network differ by {noise:.2%}, at most {MAX_NOISE:.0%} may"
        return "unreliable", reason + "; stop other work on the device"
    if error > high:
        return "unreliable", f"predictions are off by {error:.2%}, at most {high:.2%} may be"
    against = f"repeating a measurement differs by {noise:.2%}"
    if error <= low:
        return "good", f"predictions are off by {error:.2%}, {against}"
    return "usable", f"predictions are off by {error:.2%}, more than {low:.2%}; {against}"


def validate(
    ids: Sequence[str],
    predicted: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    missing: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Noise, error, ranks and verdict of predictions for held-out networks.

    Args:
        ids: (H,) of the architectures.
        predicted, a, b: (H,) ms.
        missing: op keys of the space that have no row.
        seed: of the bootstrap.

    Returns:
        The `validation` of a table (docs/formats.md).
    """
    rng = np.random.default_rng(seed)
    noises, errors = relative_noise(a, b), relative_error(predicted, a, b)
    noise, error = float(noises.mean()), float(errors.mean())
    mean = (a + b) / 2
    word, reason = verdict(noise, error, missing)
    return {
        "n": len(ids),
        "noise": {"value": noise, "interval": interval(noises, rng)},
        "error": {"value": error, "interval": interval(errors, rng)},
        "ratio": error / noise if noise else None,
        "worst": float(errors.max()),
        "bias": float(((predicted - mean) / mean).mean()),
        "drift": float(((b - a) / mean).mean()),
        "within_5": float((errors <= 0.05).mean()),
        "within_10": float((errors <= 0.10).mean()),
        "kendall_tau": kendall_tau(predicted, mean),
        "missing": list(missing),
        "points": [
            [name, *values]
            for name, *values in zip(ids, predicted.tolist(), a.tolist(), b.tolist(), strict=True)
        ],
        "verdict": word,
        "reason": reason,
    }
