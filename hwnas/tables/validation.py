"""How far a table can be trusted: its prediction error beside the noise of repeated measurements.

Held-out networks are measured twice, in two sessions a and b; they never choose anything.
Definitions and limits: docs/formats.md, "Table".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000  # of the bootstrap
MAX_NOISE = 0.04  # repeat noise above which a table is unreliable
UNRELIABLE_RATIO, UNRELIABLE_ERROR = 2.0, 0.02  # error above both of these, likewise
GOOD_RATIO, GOOD_ERROR = 1.25, 0.006  # error within one of these is good
UNREPEATED_ERROR = 0.05  # error above which a table is unreliable where nobody measured twice
NEAR = 0.10  # two networks are of similar latency when they differ by at most this share
UNVALIDATED = "unvalidated"  # verdict of what was imported: there are no held-out networks
EXACT = "exact"  # likewise of counts: there is nothing to validate
WITHOUT_POINTS = (UNVALIDATED, EXACT)
OF_REPEATS = (  # statistics that need two measurements of a network
    "noise",
    "ratio",
    "drift",
    "kendall_tau_repeat",
    "kendall_tau_near_repeat",
)
TOLERANCE = 1e-6  # of numbers that were computed elsewhere
FAST_SHARE = 0.25  # of the networks: the fast end


@dataclass(frozen=True)
class Heldout:
    """Networks that chose nothing: what was predicted and what two sessions measured.

    Attributes:
        ids: (H,) of the architectures.
        predicted, a, b: (H,) ms; b is a where nobody measured twice.
        macs: (H,) multiply-accumulates.
        repeated: whether somebody did.
    """

    ids: tuple[str, ...]
    predicted: np.ndarray
    a: np.ndarray
    b: np.ndarray
    macs: np.ndarray
    repeated: bool = True

    @property
    def mean(self) -> np.ndarray:
        """(H,) ms, of the two sessions."""
        return np.asarray((self.a + self.b) / 2)

    def only(self, chosen: np.ndarray) -> Heldout:
        """Some of the networks, by index; one may come several times."""
        columns = (self.predicted, self.a, self.b, self.macs)
        return Heldout(tuple(self.ids[i] for i in chosen), *(column[chosen] for column in columns))


def relative_noise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H,) difference of two measurements as a share of their mean."""
    return np.asarray(np.abs(a - b) / ((a + b) / 2))


def relative_error(predicted: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H,) distance of predictions to the mean of two measurements, as a share of it."""
    mean = (a + b) / 2
    return np.asarray(np.abs(predicted - mean) / mean)


def relative_bias(heldout: Heldout) -> np.ndarray:
    """(H,) how much too slow a network was predicted, as a share with its sign."""
    return np.asarray(heldout.predicted / heldout.mean - 1)


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


def near_tau(x: np.ndarray, y: np.ndarray, latency_ms: np.ndarray) -> float | None:
    """Kendall's tau of x and y over the pairs of similar latency alone; None without such a pair.

    A search compares networks of one budget, which are harder to rank than all of a space.

    Args:
        x, y: (H,) to rank by.
        latency_ms: (H,) what says which networks are similar, to within NEAR.
    """
    gap = np.abs(latency_ms[:, None] - latency_ms[None, :])
    near = gap <= NEAR * np.minimum(latency_ms[:, None], latency_ms[None, :])
    signs = np.sign(x[:, None] - x[None, :]) * np.sign(y[:, None] - y[None, :])
    told = near & (signs != 0)
    return float(signs[told].mean()) if told.any() else None


def on_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(H,) whether no other network has both a lower cost and a higher gain."""
    better = (cost[None, :] <= cost[:, None]) & (gain[None, :] >= gain[:, None])
    strictly = (cost[None, :] < cost[:, None]) | (gain[None, :] > gain[:, None])
    return np.asarray(~(better & strictly).any(axis=1))


def _fast_bias(heldout: Heldout) -> float:
    """Bias of the fastest networks."""
    fastest = np.argsort(heldout.mean, kind="stable")[: max(1, round(FAST_SHARE * len(heldout.a)))]
    return float(relative_bias(heldout)[fastest].mean())


def _front_bias(heldout: Heldout) -> float:
    """Bias of the networks that a search would keep: most MACs for the latency *predicted*.

    MACs stand in for accuracy, which no table knows. A search keeps what looks cheap, so a front
    collects errors of one sign.
    """
    return float(relative_bias(heldout)[on_front(heldout.predicted, heldout.macs)].mean())


def _noise(heldout: Heldout) -> float:
    return float(relative_noise(heldout.a, heldout.b).mean())


def _errors(heldout: Heldout) -> np.ndarray:
    return relative_error(heldout.predicted, heldout.a, heldout.b)


def _ratio(heldout: Heldout) -> float | None:
    noise = _noise(heldout)
    return float(_errors(heldout).mean()) / noise if noise else None


STATISTICS: Mapping[str, Callable[[Heldout], float | None]] = {
    "noise": _noise,
    "error": lambda h: float(_errors(h).mean()),
    "ratio": _ratio,
    "worst": lambda h: float(_errors(h).max()),
    "bias": lambda h: float(relative_bias(h).mean()),
    "bias_fast": _fast_bias,
    "bias_front": _front_bias,
    "drift": lambda h: float(((h.b - h.a) / h.mean).mean()),
    "within_5": lambda h: float((_errors(h) <= 0.05).mean()),
    "within_10": lambda h: float((_errors(h) <= 0.10).mean()),
    "kendall_tau": lambda h: kendall_tau(h.predicted, h.mean),
    "kendall_tau_repeat": lambda h: kendall_tau(h.a, h.b),
    "kendall_tau_near": lambda h: near_tau(h.predicted, h.mean, h.mean),
    "kendall_tau_near_repeat": lambda h: near_tau(h.a, h.b, h.mean),
}


def measure_all(
    heldout: Heldout, seed: int
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """All STATISTICS, and their 95 % percentile bootstrap intervals over the networks. An interval
    is None where the statistic is not defined, and for the worst network: no resample has a larger
    maximum than the sample, so the bootstrap of a maximum is inconsistent (Bickel and Freedman
    1981, sec. 6).
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for _ in range(RESAMPLES):
        again = heldout.only(rng.integers(0, len(heldout.a), len(heldout.a)))
        for name, statistic in STATISTICS.items():
            value = None if name == "worst" else statistic(again)
            if value is not None:
                drawn[name].append(value)
    values = {name: statistic(heldout) for name, statistic in STATISTICS.items()}
    return values, {name: _central(found) for name, found in drawn.items()}


def _central(values: Sequence[float]) -> list[float] | None:
    """Where the central 95 % of some values lie."""
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def verdict(noise: float | None, error: float, missing: Sequence[str]) -> tuple[str, str]:
    """`good`, `usable` or `unreliable`, and why in words.

    Args:
        noise, error: shares; noise is None where nobody measured twice.
        missing: op keys of the space that have no row.
    """
    if missing:
        return "unreliable", f"{len(missing)} ops of the space were not measured: {missing[0]}"
    if noise is None:
        told = f"predictions are off by {error:.2%}, and no network was measured twice"
        if error > UNREPEATED_ERROR:
            return "unreliable", f"{told}; at most {UNREPEATED_ERROR:.0%} is allowed then"
        return "usable", told
    high, low = max(UNRELIABLE_RATIO * noise, UNRELIABLE_ERROR), max(GOOD_RATIO * noise, GOOD_ERROR)
    if noise > MAX_NOISE:
        told = f"two measurements of a network differ by {noise:.2%}"
        reason = f"{told}, at most {MAX_NOISE:.0%} is allowed"
        return "unreliable", reason + "; stop other work on the device"
    if error > high:
        return "unreliable", f"predictions are off by {error:.2%}, at most {high:.2%} is allowed"
    against = f"repeating a measurement differs by {noise:.2%}"
    if error <= low:
        return "good", f"predictions are off by {error:.2%}, {against}"
    return "usable", f"predictions are off by {error:.2%}, more than {low:.2%}; {against}"


def validate(heldout: Heldout, missing: Sequence[str], seed: int) -> dict[str, Any]:
    """Noise, error, ranks and verdict of predictions for held-out networks.

    Args:
        heldout: two networks at least.
        missing: op keys of the space that have no row.
        seed: of the bootstrap.

    Returns:
        The `validation` of a table (docs/formats.md).
    """
    values, intervals = measure_all(heldout, seed)
    values |= {} if heldout.repeated else dict.fromkeys(OF_REPEATS)
    noise, error = values["noise"], values["error"] or 0.0
    word, reason = verdict(noise, error, missing)
    columns = (heldout.predicted.tolist(), heldout.a.tolist(), heldout.b.tolist())
    return {
        "n": len(heldout.ids),
        **values,
        "noise": None if noise is None else {"value": noise, "interval": intervals["noise"]},
        "error": {"value": error, "interval": intervals["error"]},
        "intervals": intervals,
        "missing": list(missing),
        "points": [[name, *row] for name, *row in zip(heldout.ids, *columns, strict=True)],
        "verdict": word,
        "reason": reason,
    }


def check(told: Mapping[str, Any]) -> None:
    """Refuse a `validation` whose numbers are not those that its own points give.

    Which networks have most MACs is not in the points, so `bias_front` stays unchecked.

    Raises:
        KeyError, TypeError, ValueError: something is missing, of another kind, or not so.
    """
    points, known = told["points"], (told["noise"], told["error"])
    if told["n"] != len(points):
        raise ValueError(f"n is {told['n']!r}, there are {len(points)} held-out networks")
    if not points or told["verdict"] in WITHOUT_POINTS:
        if points or known != (None, None) or told["verdict"] not in WITHOUT_POINTS:
            raise ValueError(f"{told['verdict']!r} with {len(points)} held-out networks, {known}")
        return
    heldout, repeated = _heldout(points), told["noise"] is not None
    if not repeated and (heldout.a != heldout.b).any():
        raise ValueError("noise is None, and held-out networks were measured twice")
    for name in set(STATISTICS) - {"bias_front"}:
        if name in told or name in ("noise", "error"):
            given = told[name] and told[name]["value"] if name in ("noise", "error") else told[name]
            known_one = None if name in OF_REPEATS and not repeated else STATISTICS[name](heldout)
            check_number(name, given, known_one)
    noise = _noise(heldout) if repeated else None
    word, _ = verdict(noise, float(_errors(heldout).mean()), told["missing"])
    if told["verdict"] not in (word, "unreliable"):  # worse than its numbers: it never settled
        raise ValueError(f"verdict is {told['verdict']!r}, its numbers give {word!r}")


def check_number(name: str, given: Any, ours: float | None) -> None:
    """Refuse a number that differs from the computed one.

    Raises:
        ValueError: it is not.
    """
    same = given is None and ours is None
    if given is not None and ours is not None and type(given) in (int, float):
        same = abs(given - ours) <= TOLERANCE * max(1, abs(ours))
    if not same:
        raise ValueError(f"{name} is {given!r}, the held-out networks give {ours!r}")


def _heldout(points: Sequence[Sequence[Any]]) -> Heldout:
    """The held-out networks of a table, but for their MACs."""
    ids = tuple(point[0] for point in points)
    times = [list(point[1:]) for point in points]
    plain = all(type(ms) in (int, float) and 0 < ms < math.inf for row in times for ms in row)
    if not plain or any(len(row) != 3 for row in times):
        raise ValueError("held-out networks are not ids with three times, all above 0")
    predicted, a, b = np.array(times, dtype=float).T
    return Heldout(ids, predicted, a, b, np.zeros(len(ids)))
