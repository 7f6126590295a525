"""What a table says of energies: checked when it is read, described for people.

Plain values of one field of a table; knows neither tables nor how energies are fitted. Format:
docs/formats.md, "Table".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from hwnas.tables.validation import UNVALIDATED, check_number

IMPORTED = "imported"
MARKS = ("measured", "emulated", IMPORTED)
MAX_NOISE = 0.10  # of a window over another, above which energies are unreliable
UNRELIABLE_RATIO, UNRELIABLE_ERROR = 2.0, 0.05  # error above both of these, likewise
RESTS_ON = ("meter", "rails", "windows", "window_s", "period_s", "idle_w", "power_w")
CHECKED = ("kendall_tau_latency", "n", "points")


def verdict(noise: float | None, error: float) -> tuple[str, str]:
    """`usable` or `unreliable`, and why in words; arguments are shares."""
    if noise is None:
        return "unreliable", "no network has two windows; raise profile.energy_budget_s"
    against = f"two windows of a network differ by {noise:.1%}"
    if noise > MAX_NOISE:
        return "unreliable", f"{against}, at most {MAX_NOISE:.0%} is allowed"
    allowed = max(UNRELIABLE_RATIO * noise, UNRELIABLE_ERROR)
    if error > allowed:
        return "unreliable", f"energies are off by {error:.1%}, at most {allowed:.1%} is allowed"
    return "usable", f"energies are off by {error:.1%}, {against}"


def check(section: Any, resolutions: Iterable[int]) -> None:
    """Refuse a section that cannot be the `energy` of a table of these resolutions (px).

    Raises:
        TypeError, KeyError, ValueError: something is missing, of another kind or no number.
    """
    if not isinstance(section, dict):
        raise TypeError("energy is not an object")
    if not section:
        return
    if not isinstance(section["reason"], str):
        raise TypeError("the reason of energy is not text")
    if "intercept_mj" not in section:
        return
    known = [section["intercept_mj"][str(size)] for size in resolutions]
    if not all(_is_number(value) for value in known):
        raise ValueError(f"of the energies {known}, one is not a number")
    if not section["marks"] or not set(section["marks"]) <= set(MARKS):
        raise ValueError(f"energy marks {section['marks']!r} are unknown")
    checked = section["validation"]
    missing = [name for name in RESTS_ON if name not in section]
    missing += [name for name in CHECKED if name not in checked]
    if missing or not all(isinstance(t, str) for t in (section["estimator"], checked["reason"])):
        raise KeyError(f"energy lacks {missing or 'its estimator or reason'}")
    _check_validation(checked, IMPORTED in section["marks"])


def _check_validation(checked: Mapping[str, Any], imported: bool) -> None:
    """Refuse numbers that its held-out networks do not give; imported energies have no such
    networks.

    Raises:
        TypeError, KeyError, ValueError: it does.
    """
    points, noise, error = checked["points"], checked["noise"], checked["error"]
    if checked["n"] != len(points):
        raise ValueError(f"energy has n {checked['n']!r} and {len(points)} held-out networks")
    if imported:
        if points or noise or error or checked["verdict"] != UNVALIDATED:
            raise ValueError("imported energies have no held-out networks to be validated by")
        return
    if not all(_is_number(p) and _is_number(m) and m > 0 for _, p, m, _ in points):
        raise ValueError("of the energies of held-out networks, one is not a number above 0")
    off = [abs(predicted / measured - 1) for _, predicted, measured, _ in points]
    check_number("error of energy", error["value"], statistics.fmean(off))
    if noise is not None and not (_is_number(noise["value"]) and noise["value"] >= 0):
        raise ValueError(f"noise of energy is {noise['value']!r}")
    word, _ = verdict(noise and noise["value"], error["value"])
    if checked["verdict"] != word:
        raise ValueError(f"energy verdict is {checked['verdict']!r}, its numbers give {word!r}")


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def describe(section: Mapping[str, Any]) -> dict[str, Any]:
    """What energies there are and how good they are, in short; empty where nothing is known."""
    if not section:
        return {}
    if "intercept_mj" not in section:
        return {"energy": f"unknown: {section['reason']}"}
    checked = section["validation"]
    return {
        "energy": f"{checked['verdict']}: {checked['reason']}",
        "energy_noise": (checked["noise"] or {}).get("value"),
        "energy_error": (checked["error"] or {}).get("value"),
        "energy_error_interval": (checked["error"] or {}).get("interval"),
        "energy_heldout": checked["n"],
        "energy_tau_latency": checked["kendall_tau_latency"],
        "energy_estimator": section["estimator"],
        **{name: section[name] for name in RESTS_ON},
    }
