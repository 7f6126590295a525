"""Campaigns of one setting taken together, tables to ship, and how fast tables are."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accuracy.campaigns import OTHERS, Place, content
from hwnas.networks import spaces
from hwnas.search.problem import metrics_of
from hwnas.settings.errors import HwnasError
from hwnas.tables import about, fit, table, validation
from hwnas.tables.validation import Heldout

N_PRICED = 100_000


def ratio_floors() -> dict[str, float]:
    """Ratio of error to noise of a perfect predictor, and of measuring once more in place of a
    table, where noise is all there is: 0.5 and 0.866, by simulation.
    """
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 10, N_PRICED)
    a, b, again = truth * (1 + 0.02 * rng.normal(size=(3, N_PRICED)))
    noise = validation.relative_noise(a, b).mean()
    named = {"a perfect predictor": truth, "measuring once more": again}
    return {
        name: float(validation.relative_error(predicted, a, b).mean() / noise)
        for name, predicted in named.items()
    }


def pool(name: str, results: Mapping[Place, dict[str, Any]]) -> dict[str, Any]:
    """The figures of a setting over the held-out networks of all its campaigns."""
    mine = {place.seed: result for place, result in results.items() if place.name == name}
    good = [result for result in mine.values() if "unstable" not in result]
    setting = next(place.setting for place in results if place.name == name)
    row = {
        "name": name,
        "setting": setting._asdict(),
        "campaigns": len(mine),
        "unstable": [result["unstable"] for result in mine.values() if "unstable" in result],
        "device_s": [result["device_s"] for result in mine.values()],
        "wall_s": [result["wall_s"] for result in mine.values()],
        "memory_bytes": max(result["memory_bytes"] for result in mine.values()),
    }
    if not good:
        return {**row, "n": 0}
    ours = pooled(good, "table")
    values, intervals = validation.measure_all(ours, seed=0)
    others = {
        other: float(
            validation.relative_error(pooled(good, other).predicted, ours.a, ours.b).mean()
        )
        for other in OTHERS
    }
    return {
        **row,
        "n": len(ours.ids),
        "values": values,
        "intervals": intervals,
        "others": others,
        "estimators": mean_estimators(good),
        "used": [result["estimator"] for result in good],
        "verdicts": [result["verdict"] for result in good],
        "rounds": [result["protocol"]["rounds"] for result in good],
        "disturbed_rounds": [result["protocol"]["disturbed_rounds"] for result in good],
        "fit_s": [result["fit_s"] for result in good],
        "environment": good[0]["environment"],
    }


def pooled(results: Iterable[Mapping[str, Any]], predicted: str) -> Heldout:
    """The held-out networks of several campaigns with one way's predictions."""
    found = list(results)

    def column(name: str) -> np.ndarray:
        return np.concatenate([result["columns"][name] for result in found])

    ids = tuple(name for result in found for name in result["ids"])
    return Heldout(ids, *(column(name) for name in (predicted, "a", "b", "macs")))


def mean_estimators(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean held-out error and cross-validation score of each estimator, the least error first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        for entry in result["estimators"]:
            found.setdefault(about.estimator_name(entry), []).append(entry)
    rows = [
        {
            "name": name,
            **{k: statistics.fmean(e[k] for e in entries) for k in ("error", "cross_validation")},
        }
        for name, entries in found.items()
    ]
    return sorted(rows, key=lambda row: float(row["error"]))


# ---- tables to ship, and their speed -----------------------------------------------------------


def quietest(results: Mapping[Place, dict[str, Any]]) -> dict[str, Place]:
    """Of each setting the campaign with the least noise, where one is not unreliable."""
    usable = {p: r for p, r in results.items() if r.get("verdict") in ("good", "usable")}
    by_noise = sorted(usable, key=lambda place: -usable[place]["noise"])
    return {place.name: place for place in by_noise}


def ship(results: Mapping[Place, dict[str, Any]], folder: Path) -> None:
    """Write one table for each space and target, all its resolutions together."""
    parts: dict[tuple[str, str], list[Place]] = {}
    for place in quietest(results).values():
        parts.setdefault((place.setting.space, place.setting.target), []).append(place)
    for (space, target), places in parts.items():
        sizes = {size for place in places for size in place.setting.resolutions}
        try:
            campaigns = [content(place) for place in places]
            found = fit.fit_campaigns(
                spaces.load(space).restricted(sizes), campaigns, places[0].seed
            )
        except HwnasError as error:
            print(f"no table of {space} for {target}: {error}", file=sys.stderr)
            continue
        if found.verdict in ("good", "usable"):
            table.save(found, folder / space / f"{target}.json")
        print(f"{folder / space / target}.json: {found.verdict}, {found.validation['reason']}")


def priced(results: Mapping[Place, dict[str, Any]]) -> dict[str, float]:
    """Seconds to load the largest table, and to price 100,000 architectures by it (best of 5)."""
    paths = [place.folder / "table.json" for place in results]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        return {}
    path = max(paths, key=lambda path: path.stat().st_size)
    load_s = min(timed(lambda: table.load_table(path)) for _ in range(5))
    found = table.load_table(path)
    space = spaces.load(found.space).restricted(found.resolutions)
    terms = metrics_of(space, lambda op: found.row(op.key), found.intercept, link=found.link)[
        "latency_ms"
    ]
    archs = [space.random(np.random.default_rng(seed)) for seed in range(100)]
    genome = np.tile(space.genome(archs), (N_PRICED // len(archs), 1))
    return {
        "load_s": load_s,
        "price_s": min(timed(lambda: terms.evaluate(genome)) for _ in range(5)),
    }


def timed(action: Callable[[], object]) -> float:
    """Seconds that it took."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
