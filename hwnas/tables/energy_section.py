"""What a table says of energies: checked when it is read, described for people.

Plain values of one field of a table; knows neither tables nor how energies are fitted. Format:
docs/formats.md, "Table".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

VERDICTS = ("usable", "unreliable")
MARKS = ("measured", "emulated")
RESTS_ON = ("meter", "rails", "windows", "window_s", "period_s", "idle_w", "power_w")
CHECKED = ("kendall_tau_latency", "n", "points")


def check(section: Any, resolutions: Iterable[int]) -> None:
    """Refuse what is no `energy` of a table of these resolutions (px).

    Raises:
        TypeError, KeyError, ValueError: something is missing, of another kind or no number.
    """
    if not isinstance(section, dict):
        raise TypeError("energy is no dict")
    if not section:
        return
    if not isinstance(section["reason"], str):
        raise TypeError("the reason of energy is no text")
    if "intercept_mj" not in section:
        return
    checked = section["validation"]
    known = [section["intercept_mj"][str(size)] for size in resolutions]
    known += [checked[name]["value"] for name in ("noise", "error") if checked[name] is not None]
    if not all(_is_number(value) for value in known):
        raise ValueError(f"of the energies {known}, one is no number")
    if checked["verdict"] not in VERDICTS or not set(section["marks"]) <= set(MARKS):
        raise ValueError(f"energy verdict {checked['verdict']!r} or its marks are unknown")
    missing = [name for name in RESTS_ON if name not in section]
    missing += [name for name in CHECKED if name not in checked]
    told = (section["estimator"], checked["reason"])
    if missing or checked["error"] is None or not all(isinstance(text, str) for text in told):
        raise KeyError(f"energy lacks {missing or 'its estimator, error or reason'}")


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
        "energy_error": checked["error"]["value"],
        "energy_error_interval": checked["error"].get("interval"),
        "energy_heldout": checked["n"],
        "energy_tau_latency": checked["kendall_tau_latency"],
        "energy_estimator": section["estimator"],
        **{name: section[name] for name in RESTS_ON},
    }
