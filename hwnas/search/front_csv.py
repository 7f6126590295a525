"""Fronts as CSV, a line for each network: for spreadsheets and other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hwnas.search.front import Front
from profilers.errors import ConfigError


def to_csv(found: Sequence[Front]) -> str:
    """Fronts of one space as CSV: a line for each network with its target, id, every choice,
    predicted and measured metrics; of fronts of devices the device as well.

    Raises:
        ConfigError: no front.
    """
    if not found:
        raise ConfigError("to_csv was given no front; give it what front() returns, in a list")
    points = [(front, point) for front in found for point in front.points]
    predicted = list(dict.fromkeys(name for _, p in points for name in p.predicted))
    measured = list(dict.fromkeys(name for _, p in points for name in p.measured or {}))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    choices = [choice.name for choice in found[0].space.choices]
    heads = [f"predicted_{name}" for name in predicted] + [f"measured_{name}" for name in measured]
    of_devices = any(point.target for _, point in points)
    device = ["device"] if of_devices else []
    writer.writerow([*device, "target", "id", *choices, *heads])
    for front, point in points:
        values = [point.predicted.get(name, "") for name in predicted]
        values += [(point.measured or {}).get(name, "") for name in measured]
        names = [front.target, point.target] if of_devices else [front.target]
        writer.writerow([*names, point.id, *point.arch.values, *values])
    return out.getvalue()
