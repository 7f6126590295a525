"""What the device went through while it was measured: the probes before and after each round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from profilers import stats

TEXT_CHARS = 60
HOT_C = 80.0  # from here on boards lower their clocks


def conditions(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of a device during a campaign.

    Args:
        records: of one measurements file, in the order they were written; broken ones are left out.

    Returns:
        `governor`, `power_mode`: every value seen; `temperature_c`: before, highest, after;
        `clock_mhz`: lowest, highest; `throttled`: rounds it was held back in, of so many that were
        probed, and the words for it. What no probe knew is left out; empty without probes.
    """
    lines = [record for record in records if _is_probed(record)]
    probes = [record["probe"] for record in lines]
    found: dict[str, Any] = {}
    for name in ("governor", "power_mode"):
        seen = _words(_known(probes, name))
        if seen:
            found[name] = seen
    heat = _numbers(probes, "temperature_c")
    if heat:
        found["temperature_c"] = {"before": heat[0], "highest": max(heat), "after": heat[-1]}
    clocks = _numbers(probes, "clock_mhz")
    if clocks:
        found["clock_mhz"] = {"lowest": min(clocks), "highest": max(clocks)}
    flags = [value for value in _known(probes, "throttled") if isinstance(value, dict)]
    if flags:
        held = stats.throttled_rounds(lines)
        found["throttled"] = {
            "rounds": len(held),
            "of": len({(record["id"][1], record["id"][2]) for record in lines}),
            "words": _words(word for words in held.values() for word in words),
        }
    return found


def _is_probed(record: Mapping[str, Any]) -> bool:
    name = record.get("id")
    return isinstance(record.get("probe"), dict) and isinstance(name, list) and len(name) == 4


def held_back(found: Mapping[str, Any]) -> str:
    """Why the conditions of a campaign cast doubt on its numbers, in one line; empty if they do
    not.
    """
    parts = []
    held, heat = found.get("throttled"), found.get("temperature_c")
    if held and held["rounds"]:
        words = f" ({', '.join(held['words'])})" if held["words"] else ""
        parts.append(f"its clocks were throttled in {held['rounds']} of {held['of']} rounds{words}")
    if heat and heat["highest"] >= HOT_C:
        parts.append(f"it was at {heat['highest']:.0f} °C")
    return ", ".join(parts)


def _known(probes: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [probe[name] for probe in probes if probe.get(name) is not None]


def _words(values: Iterable[Any]) -> list[str]:
    """Every short printable text among what a device sent, once."""
    texts = {value for value in values if isinstance(value, str)}
    return sorted(text for text in texts if len(text) <= TEXT_CHARS and text.isprintable())


def _numbers(probes: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    values = _known(probes, name)
    real = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return [float(v) for v in real if abs(v) < 1e15]  # neither NaN nor infinity is
