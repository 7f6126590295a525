"""Devices in the report: the union of the fronts of their targets, and which target wins where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.report.pieces import code, html_table, label, prose, shown
from hwnas.run.devices import check_hardware, devices
from hwnas.search.front import Front
from hwnas.search.union import union
from hwnas.tables.table import CostTable
from profilers.errors import ConfigError, TableError

Data = dict[str, Any]


def devices_of(
    targets: Sequence[Data], fronts: Mapping[str, Front], tables: Mapping[str, CostTable]
) -> list[Data]:
    """Each device that several targets have fronts of, as the report draws it.

    Args:
        targets: as `collect` makes them.
        fronts: of targets by name.
        tables: likewise.
    """
    found = []
    for name, mine in devices(target["name"] for target in targets).items():
        members = [target for target in targets if target["name"] in mine]
        if len(mine) > 1:
            found += _device(name, members, fronts, tables)
    return found


def _device(
    name: str,
    members: Sequence[Data],
    fronts: Mapping[str, Front],
    tables: Mapping[str, CostTable],
) -> list[Data]:
    """A device as a list of one; empty where less than two of its targets can be compared."""
    kept: dict[str, Front] = {}
    checked: dict[str, CostTable] = {}
    missing = []
    for target in (member["name"] for member in members):
        try:
            if target not in fronts:
                raise ConfigError("it has no front that can be read")
            if target in tables:
                check_hardware(name, checked, tables[target])
                checked[target] = tables[target]
            made = union(name, [*kept.values(), fronts[target]])
            kept[target] = fronts[target]
        except (ConfigError, TableError) as error:
            missing.append(f"{target} is left out: {error}")
    if len(kept) < 2:
        return []
    return [{**_drawn(made, members), "name": name, "targets": list(kept), "missing": missing}]


def _drawn(made: Front, members: Sequence[Data]) -> Data:
    """The front of a device, each point with its target, and which target is best where."""
    known = {(m["name"], p["id"]): p for m in members if m["front"] for p in m["front"]["points"]}
    costs = [cost for cost in made.objectives if cost != "error"]
    points = [{**known[p.target, p.id], "target": p.target} for p in made.points]
    return {"front": {"costs": costs, "points": points}, "wins": wins(points, costs[0])}


def wins(points: Sequence[Data], cost: str) -> list[Data]:
    """Which target is best up to which cost: stretches of the stairs of a cost and error.

    Args:
        points: of a device, predicted.
        cost: name of a metric.

    Returns:
        `target`, `networks`, `least` and `most` cost, `worst` and `best` error, cheapest first.
    """
    stretches: list[Data] = []
    lowest = float("inf")
    order = sorted(points, key=lambda p: (p["predicted"][cost], p["predicted"]["error"]))
    for point in order:
        value, error = point["predicted"][cost], point["predicted"]["error"]
        if error >= lowest:
            continue
        lowest = error
        if not stretches or stretches[-1]["target"] != point["target"]:
            told = {"target": point["target"], "networks": 0, "least": value, "worst": error}
            stretches.append(told)
        stretches[-1].update(networks=stretches[-1]["networks"] + 1, most=value, best=error)
    return stretches


def wins_table(device: Mapping[str, Any]) -> str:
    """Which of a device's targets is best up to which cost."""
    cost = device["front"]["costs"][0]
    heads = ("best target", "networks", f"{label(cost)} from", "to", "predicted error from", "to")
    rows = [
        [
            code(told["target"]),
            str(told["networks"]),
            *(shown(cost, told[name]) for name in ("least", "most")),
            *(shown("error", told[name]) for name in ("worst", "best")),
        ]
        for told in device["wins"]
    ]
    left_out = "".join(f'<p class="note">{prose(line)}</p>' for line in device["missing"])
    return html_table(heads, rows, first_number=1) + left_out
