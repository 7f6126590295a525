"""Energy windows as numbers: which there are of each network, and their medians.

Nothing is fitted here. Records: docs/formats.md, "Measurements".
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwnas.measuring.records import is_record
from profilers import stats
from profilers.schema import Target, canonical_json, sha256_text

SESSION = "e-"  # begins the session of the records of windows; the meter and its options follow


def session_of(target: Target) -> str:
    """Session of the windows of a target: those of another meter, or of the same one with other
    options, never count together.
    """
    told = {str(name): str(value) for name, value in target.meter_options.items()}
    return SESSION + sha256_text(canonical_json([target.meter, told]))[:8]


def windows_of(
    kit: Mapping[str, Any], records: Sequence[Mapping[str, Any]], session: str = ""
) -> dict[str, list[Mapping[str, Any]]]:
    """The windows of each network of a kit, of a session (none named: of the one that was added to
    last). Each counts once.
    """
    kit_hash = sha256_text(canonical_json(kit))
    names = {item["name"] for item in kit["items"] if item["arch"] is not None}
    seen: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
    last = ""
    for record in records:
        if "energy_mj" in record and is_record(record, kit_hash):
            _, own, number, name = record["id"]
            if own.startswith(SESSION) and name in names:
                last = own
                seen.setdefault(last, {}).setdefault(name, {}).setdefault(number, record)
    chosen = seen.get(session or last, {})
    return {name: list(found.values()) for name, found in chosen.items()}


def summary(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Energy of one network over its windows.

    Returns:
        energy_mj (median, gross), net_energy_mj (None where idle power is unknown), energy_spread
        (robust, a share), power_w, idle_w, windows, window_s, samples, period_s, rails (mJ of
        each), meter.
    """
    gross = [window["energy_mj"] for window in windows]
    middle = statistics.median(gross)
    rails = {name: [w["rails"].get(name) for w in windows] for name in windows[0]["rails"]}
    return {
        "energy_mj": middle,
        "net_energy_mj": _median(window["net_energy_mj"] for window in windows),
        "energy_spread": stats.robust_spread(gross) / middle,
        "power_w": _median(window["power_w"] for window in windows),
        "idle_w": _median(window["idle_w"] for window in windows),
        "windows": len(windows),
        "window_s": _median(window["window_s"] for window in windows),
        "samples": sum(window["samples"] for window in windows),
        "period_s": _median(window["period_s"] for window in windows),
        "rails": {name: _median(values) for name, values in rails.items()},
        "meter": windows[-1].get("meter"),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
