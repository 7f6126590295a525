"""Losses of the networks of a training run over its steps, from its log.

Cross entropy with the labels as they are, whatever a network learns from: so they compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Data = dict[str, Any]

_ROLES = {"max": "max network", "random": "random subnet", "min": "min network"}  # as drawn


def training_curve(events: Iterable[Mapping[str, Any]]) -> Data | None:
    """Losses over the steps of training.

    Args:
        events: records of events.jsonl, in order. A run that was resumed or started again repeats
            steps: what was logged before for those steps and later ones no longer counts.

    Returns:
        `{"series": [{"label", "points": [[step, loss], ...]}], "subnets_from": step or None}`,
        None when nothing was logged.
    """
    kept: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("stage") != "train" or not isinstance(event.get("step"), int):
            continue
        while kept and kept[-1]["step"] >= event["step"]:
            kept.pop()
        kept.append(event)
    found = dict.fromkeys(name for event in kept for name in event if name.startswith("labels_"))
    roles = sorted((name.removeprefix("labels_") for name in found), key=_place)
    series = [
        {"label": _ROLES.get(role, f"{role} subnet"), "points": _points(kept, f"labels_{role}")}
        for role in roles
    ]
    starts = [one["points"][0][0] for one in series]
    later = [step for step in starts if step > starts[0]]
    return {"series": series, "subnets_from": min(later, default=None)} if series else None


def _place(role: str) -> int:
    return list(_ROLES).index(role) if role in _ROLES else len(_ROLES)


def _points(events: Iterable[Mapping[str, Any]], name: str) -> list[list[float]]:
    return [[event["step"], event[name]] for event in events if name in event]
