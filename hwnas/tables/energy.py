"""Energy of ops from windows of whole networks, added to a table of their latencies.

The energy of a network is a sum over its ops, of terms for their time (the machine's power), MACs,
elements of tensors and bytes of weights, one for each op and one for the network; none of their
coefficients is negative. Leave-one-out errors choose which terms count; held-out networks choose
nothing. The few
windows of a sensor allow no more. Energies include the power at rest, which is in the table beside
them. Numpy only: search loads this. Format: docs/formats.md, "Table".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring.windows import summary, windows_of
from hwnas.tables import estimators
from hwnas.tables.energy_section import verdict
from hwnas.tables.table import CostTable
from hwnas.tables.validation import interval, kendall_tau
from profilers.errors import MissingOpError, TableError
from profilers.schema import canonical_json, sha256_text

FITTED = ("covering", "calibration")
FEWEST_FITTED, FEWEST_HELDOUT = 4, 2
EXTRA = ("macs", "ends", "weights", "per_op", "once")  # what may count beside time
MOST_EXTRA = 2

Weights = dict[str, float]


class Metered(NamedTuple):
    """Networks and their energies.

    Attributes:
        ids: of architectures.
        views: (N,) arrays by name: `time` and EXTRA, summed over the network.
        energy_mj: (N,) medians over windows.
        windows_mj: of each network.
    """

    ids: tuple[str, ...]
    views: Mapping[str, np.ndarray]
    energy_mj: np.ndarray
    windows_mj: tuple[tuple[float, ...], ...]

    def only(self, networks: np.ndarray) -> Metered:
        """Some of the networks, by index."""
        return Metered(
            tuple(self.ids[n] for n in networks),
            {name: values[networks] for name, values in self.views.items()},
            self.energy_mj[networks],
            tuple(self.windows_mj[n] for n in networks),
        )


def with_energy(
    table: CostTable,
    kit: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    seed: int,
    session: str = "",
) -> CostTable:
    """The table with the energies that its campaign measured; unchanged where it measured none.

    Args:
        table: of latencies.
        kit: content of `kit.json`.
        records: of the measurements.
        seed: of the bootstrap.
        session: of the windows that count; empty: that of the meter that was used last.
    """
    windows = windows_of(kit, records, session)
    if not windows:
        return table
    items = {item["name"]: item for item in kit["items"]}
    roles = {name: items[name]["role"] for name in windows}
    fitted = _metered(table, items, {n: w for n, w in windows.items() if roles[n] in FITTED})
    heldout = _metered(table, items, {n: w for n, w in windows.items() if roles[n] == "heldout"})
    if len(fitted.ids) < FEWEST_FITTED or len(heldout.ids) < FEWEST_HELDOUT:
        reason = (
            f"energy was measured of {len(fitted.ids)} networks and {len(heldout.ids)} held-out "
            f"ones, {FEWEST_FITTED} and {FEWEST_HELDOUT} are needed; raise profile.energy_budget_s"
        )
        return replace(table, energy={"reason": reason})
    choice = candidates()
    scores = [leave_one_out(names, fitted) for names in choice]
    chosen = choice[int(np.argmin(scores))]
    weights = solve(chosen, fitted)
    about = _about(table, [w for found in windows.values() for w in found])
    section = {
        **about,
        **fitted_fields(table, chosen, weights),
        "networks": len(fitted.ids),
        "validation": {
            **validate(fitted, heldout, weights, seed),
            "estimators": [
                {"name": " + ".join(names), "cross_validation": score}
                for names, score in zip(choice, scores, strict=True)
            ],
        },
        "reason": "",
    }
    target = {**table.target, "meter": about["meter"]}  # it may be new since the header was written
    return replace(table, target=target, rows=with_rows(table, weights), energy=section)


def fitted_fields(table: CostTable, chosen: Sequence[str], weights: Weights) -> dict[str, Any]:
    """The fields of a table that say what its energies are made of."""
    per_ms, once = weights.get("time", 0.0), weights.get("once", 0.0)
    intercepts = table.calibration["intercept_ms"]
    return {
        "estimator": " + ".join(chosen),
        "weights": weights,
        "intercept_mj": {size: per_ms * ms + once for size, ms in intercepts.items()},
    }


class Network(NamedTuple):
    """A network whose energy was measured: its id, resolution (px), ops by key, mJ each time."""

    id: str
    resolution: int
    keys: tuple[str, ...]
    mj: tuple[float, ...]


def _metered(
    table: CostTable,
    items: Mapping[str, Mapping[str, Any]],
    windows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Metered:
    return metered(
        table,
        [
            Network(
                sha256_text(canonical_json(items[name]["arch"]))[:12],
                items[name]["resolution"],
                tuple(op["key"] for op in items[name]["ops"]),
                tuple(float(window["energy_mj"]) for window in found),
            )
            for name, found in windows.items()
        ],
    )


def metered(table: CostTable, networks: Sequence[Network]) -> Metered:
    """Networks with the views that their energies may be made of, without those that the table
    cannot price.
    """
    known = [one for one in networks if all(key in table.rows for key in one.keys)]
    keys = sorted({key for one in known for key in one.keys})
    per_key = {**estimators.fixed_views(keys), "time": _latencies(table, keys)} if keys else {}
    column = {key: k for k, key in enumerate(keys)}
    views = {name: np.zeros(len(known)) for name in ("time", *EXTRA)}
    for row, one in enumerate(known):
        at = [column[key] for key in one.keys]
        for view in ("time", "macs", "ends", "weights", "per_op"):
            views[view][row] = per_key[view][at].sum()
        views["time"][row] += table.intercept(one.resolution)
        views["once"][row] = 1.0
    return Metered(
        tuple(one.id for one in known),
        views,
        np.array([float(np.median(one.mj)) for one in known]),
        tuple(one.mj for one in known),
    )


def _latencies(table: CostTable, keys: Sequence[str]) -> np.ndarray:
    return np.array([table.row(key) for key in keys])


def candidates() -> list[tuple[str, ...]]:
    """What energies may be made of, simplest first."""
    extra = [chosen for n in range(MOST_EXTRA + 1) for chosen in itertools.combinations(EXTRA, n)]
    return [("time", *chosen) for chosen in extra]


def solve(names: Sequence[str], known: Metered) -> Weights:
    """mJ for each unit of the views, none negative: least squares of relative errors.

    Every set of views that may be 0 is tried, which is exact for so few of them.
    """
    y = known.energy_mj
    best: tuple[float, Weights] = (np.inf, {})
    for n in range(1, len(names) + 1):
        for some in itertools.combinations(names, n):
            columns = np.stack([known.views[name] for name in some], axis=1) / y[:, None]
            scale = np.linalg.norm(columns, axis=0)
            scale[scale == 0] = 1.0
            found = np.linalg.lstsq(columns / scale, np.ones(len(y)), rcond=1e-10)[0] / scale
            gap = float(((columns @ found - 1) ** 2).sum())
            if (found >= 0).all() and gap < best[0]:
                best = (gap, dict(zip(some, found.tolist(), strict=True)))
    return best[1]


def predict(weights: Weights, known: Metered) -> np.ndarray:
    """(N,) mJ."""
    total = np.zeros(len(known.ids))
    for name, weight in weights.items():
        total = total + weight * known.views[name]
    return total


def leave_one_out(names: Sequence[str], known: Metered) -> float:
    """Mean relative error on networks that were left out of the fit, one after the other."""
    everything = np.arange(len(known.ids))
    errors = []
    for n in everything:
        left, one = known.only(everything[everything != n]), known.only(everything[n : n + 1])
        errors.append(float(abs(predict(solve(names, left), one)[0] / one.energy_mj[0] - 1)))
    return float(np.mean(errors))


def validate(fitted: Metered, heldout: Metered, weights: Weights, seed: int) -> dict[str, Any]:
    """Noise of windows, error on held-out networks, and the verdict."""
    rng = np.random.default_rng(seed)
    predicted = predict(weights, heldout)
    errors = np.abs(predicted / heldout.energy_mj - 1)
    noises = np.array(
        [
            _noise(windows)
            for windows in (*fitted.windows_mj, *heldout.windows_mj)
            if len(windows) > 1
        ]
    )
    noise = float(noises.mean()) if len(noises) else None
    error = float(errors.mean())
    latency = np.concatenate([fitted.views["time"], heldout.views["time"]])
    everything = np.concatenate([fitted.energy_mj, heldout.energy_mj])
    word, reason = verdict(noise, error)
    return {
        "n": len(heldout.ids),
        "noise": None if noise is None else {"value": noise, "interval": interval(noises, rng)},
        "error": {"value": error, "interval": interval(errors, rng)},
        "worst": float(errors.max()),
        "bias": float((predicted / heldout.energy_mj - 1).mean()),
        "kendall_tau": kendall_tau(predicted, heldout.energy_mj),
        "kendall_tau_latency": kendall_tau(latency, everything),
        "points": [
            [name, float(p), float(m), _noise(windows)]
            for name, p, m, windows in zip(
                heldout.ids, predicted, heldout.energy_mj, heldout.windows_mj, strict=True
            )
        ],
        "verdict": word,
        "reason": reason,
    }


def _noise(windows_mj: Sequence[float]) -> float:
    """Mean difference of two windows of a network, as a share of their median."""
    pairs = [abs(a - b) for a, b in itertools.combinations(windows_mj, 2)]
    return float(np.mean(pairs) / np.median(windows_mj)) if pairs else 0.0


def _about(table: CostTable, windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the energies rest on."""
    all_in_all = summary(windows)
    power = [window["power_w"] for window in windows]
    emulated = "emulated" in table.marks or all_in_all["meter"] == "replay"
    return {
        "meter": all_in_all["meter"],
        "rails": sorted(all_in_all["rails"]),
        "windows": len(windows),
        "window_s": all_in_all["window_s"],
        "period_s": all_in_all["period_s"],
        "idle_w": all_in_all["idle_w"],
        "power_w": [min(power), max(power)],
        "marks": ["emulated" if emulated else "measured"],
    }


def with_rows(table: CostTable, weights: Weights) -> dict[str, dict[str, Any]]:
    """The rows of a table with the energies that weights of the views give."""
    keys = list(table.rows)
    per_key = {**estimators.fixed_views(keys), "time": _latencies(table, keys)}
    total = np.zeros(len(keys))
    for name, weight in weights.items():
        if name != "once":
            total = total + weight * per_key[name]
    return {
        key: {**table.rows[key], "energy_mj": float(mj)}
        for key, mj in zip(keys, total, strict=True)
    }


# ---- may these energies be used? ---------------------------------------------------------------


def refusal(table: CostTable, accept: Collection[str] = ()) -> str:
    """Why a table gives no energies; empty if it does.

    Args:
        table: maybe with energies.
        accept: refusals that are overridden by name.
    """
    name = table.target["name"]
    if "intercept_mj" not in table.energy:
        meter = table.target.get("meter", "none")
        told = table.energy.get("reason") or f"its meter is {meter}"
        return f"table {name} holds no energy: {told}; name a meter in targets/{name}.yaml"
    checked = table.energy["validation"]
    if checked["verdict"] == "unreliable" and "unreliable" not in accept:
        return (
            f"energies of table {name} are unreliable: {checked['reason']}; profile again with a "
            "larger profile.energy_budget_s, or --accept unreliable"
        )
    if "emulated" in table.energy["marks"] and "emulated" not in accept:
        return f"energies of table {name} are emulated; --accept emulated uses them anyway"
    return ""


def prices(table: CostTable) -> tuple[Callable[[str], float], Callable[[int], float]]:
    """Energy of an op by its key, and of a network of a resolution (px) beside its ops; mJ.

    Raises:
        TableError: the table holds no energies.
    """
    if "intercept_mj" not in table.energy:
        raise TableError(refusal(table))

    def row(key: str) -> float:
        table.row(key)
        found = table.rows[key].get("energy_mj")
        if found is None:
            raise MissingOpError(f"table {table.target['name']} has no energy of op {key}")
        return float(found)

    def intercept(resolution: int) -> float:
        table.intercept(resolution)
        return float(table.energy["intercept_mj"][str(resolution)])

    return row, intercept
