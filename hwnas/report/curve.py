"""Losses of the networks of a training run over its steps, from its log.

Cross entropy with the labels as they are, whatever a network learns from: so they compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Data = dict[str, Any]

_LOSSES = {  # events.jsonl: what each loss is called, in the order drawn
    "labels_max": "max network",
    "labels_random": "random subnet",
    "labels_min": "min network",
}


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
    series = [
        {"label": label, "points": [[e["step"], e[name]] for e in kept if name in e]}
        for name, label in _LOSSES.items()
    ]
    series = [one for one in series if one["points"]]
    starts = [one["points"][0][0] for one in series]
    later = [step for step in starts if step > starts[0]]
    return {"series": series, "subnets_from": min(later, default=None)} if series else None
