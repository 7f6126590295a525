"""Regions: nodes that an engine fused from several ops, whose time has to be divided among them.

A profile gives a region a slot of its own, the slots of its ops joined by "+". Its time is divided
in the proportion of what its ops take alone: nothing else is known of each op.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

REGION = "+"  # as profilers/open_models.py joins the slots


def divided(slots: Mapping[str, float], alone_ms: Mapping[str, float]) -> dict[str, float]:
    """Times of single slots, regions divided among theirs.

    Args:
        slots: ms of each slot or region of one network.
        alone_ms: what the op in each slot takes alone; a region with a slot that is not in it is
            divided evenly.
    """
    out: dict[str, float] = {}
    for name, ms in slots.items():
        parts = name.split(REGION)
        known = [alone_ms.get(part, 0.0) for part in parts]
        weights = known if all(known) else [1.0] * len(parts)
        for part, weight in zip(parts, weights, strict=True):
            out[part] = out.get(part, 0.0) + ms * weight / sum(weights)
    return out


def share(records: Iterable[Mapping[str, Any]]) -> float:
    """Share of all profiled time that was taken by regions."""
    times = [(slot, ms) for record in records for slot, ms in record.get("profile") or []]
    total = sum(ms for _, ms in times)
    return sum(ms for slot, ms in times if REGION in slot) / total if total else 0.0
