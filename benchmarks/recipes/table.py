"""The table and the bars of training.py, from whatever results are there."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture
from profilers.schema import read_json

QUARTER = 0.25  # of the largest network's MACs
# Student's t of 95 %, two-sided, by the number of seeds; below two there is no interval.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
# Files of a seed: accuracies of the front and of those compared on validation images; of the latter
# on test images; of networks along the front on test images.
POINTS, TEST, FRONT_TEST = "front.json", "test.json", "front-test.json"
SIDES = ("supernet", "alone", "mile", "again")  # again: alone and an epoch like the last mile
BARS = {  # the least (>=) or the most (<=) of a mean over seeds
    "gap_points": (">=", -0.3),
    "gap_after_last_mile_points": (">=", 0.0),
    "front_gap_points": (">=", -0.3),
    "front_gap_after_last_mile_points": (">=", 0.0),
    "best_test_accuracy": (">=", 0.933),
    "lost_at_quarter_points": ("<=", 1.2),
    "supernet_cost": ("<=", 1.6),
}

Accuracy = dict[int, dict[str, dict[str, float]]]  # by seed, side and network


class Mean(NamedTuple):
    """A mean over seeds with half the width of its 95 % interval; None of fewer than two."""

    value: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.value:+.2f}" + (f" ±{self.half:.2f}" if self.half is not None else "")


def mean_of(values: Sequence[float]) -> Mean:
    n = len(values)
    half = STUDENT[n] * statistics.stdev(values) / n**0.5 if n in STUDENT else None
    return Mean(statistics.mean(values), half)


def chosen(points: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network of most validation images right, and that of at most QUARTER of the MACs."""
    limit = QUARTER * max(point["macs"] for point in points)
    small = [point for point in points if point["macs"] <= limit]
    best, best_small = (max(some, key=lambda p: p["validation"]) for some in (points, small))
    return best, best_small


def show(outs: Sequence[Path], compared: Sequence[Architecture], about: dict[str, Any]) -> None:
    """A table for people, then one JSON document.

    Args:
        outs: folders of results, the first of which counts where two have the same seed.
        compared: networks.
        about: the setting.
    """
    out = outs[0]
    folders = {
        int(path.name[1:]): path
        for each in reversed(outs)
        for path in each.glob("s*")
        if path.name[1:].isdigit()
    }
    seeds = sorted(folders)
    rate = read_json(out / "rates.json") if (out / "rates.json").exists() else None
    validation, test = {}, {}
    tested, fronts = (
        {seed: read_json(path) for seed in seeds if (path := folders[seed] / name).exists()}
        for name in (TEST, FRONT_TEST)
    )
    for seed in seeds:
        validation[seed] = validated(folders[seed], compared, rate and rate["rate"])
        test[seed] = {side: tested.get(seed, {}).get(side, {}) for side in SIDES}
    told = f"networks alone at rate {rate['rate']:g}" if rate else "no rate for networks alone yet"
    print(f"mean over seeds {seeds}, accuracy in %, gaps in points (95 % interval); {told}")
    rows = [row(arch, validation, test) for arch in compared]
    print("of each network: supernet, alone, supernet + last mile, alone + epoch")
    print(f"{'network':14}{'px':>4}{'MACs':>12}{'n':>3}{'validation':>34}{'test':>34}{'gap':>14}"
          f"{'after mile':>14}{'epoch each':>14}")  # fmt: skip
    for line in rows:
        print(line.pop("line"))
    for seed, front in fronts.items():
        show_front(seed, front)
    found = measured(test, tested) | measured_front(fronts)
    cost = read_json(out / "cost.json") if (out / "cost.json").exists() else None
    if cost:
        found["supernet_cost"] = [cost["bars"][0]["value"]]
    bars = [bar(name, found.get(name, [])) for name in BARS]
    if each := found.get("gap_epoch_each_points"):
        print(f"after an epoch like the last mile on both sides: {mean_of(each)} points")
    if each := found.get("lost_at_quarter_after_mile_points"):
        print(f"lost at a quarter of the MACs after the last mile: {mean_of(each)} points")
    setting = {"about": json.loads(json.dumps(about, default=lambda c: c.model_dump(mode="json")))}
    setting |= {"rates": rate, "cores": os.cpu_count(), "seeds": seeds}
    setting |= {"costs": {seed: costs(folders[seed]) for seed in seeds}, "cost": cost}
    spread = {**found, "networks": rows, "validation": validation, "test": tested}
    spread["fronts"] = fronts
    print(json.dumps({"setting": setting, "n": len(tested), "spread": spread, "bars": bars}))


def validated(
    folder: Path, compared: Sequence[Architecture], rate: float | None
) -> dict[str, dict[str, float]]:
    """Validation accuracies of a seed that are there, by side and network."""
    front = folder / POINTS
    points = read_json(front)["points"] if front.exists() else []
    found = {side: {} for side in SIDES} | {"supernet": {p["id"]: p["validation"] for p in points}}
    for arch in compared:
        for side in ("alone", "mile", "again"):
            path = file_of(folder, side, arch, rate or 0)
            if path.exists():
                found[side][arch.id] = read_json(path)["validation"]
    return found


def file_of(folder: Path, side: str, arch: Architecture, rate: float) -> Path:
    """The result of a training, in the folder of its seed."""
    at_rate = f"-{rate:g}" if side == "alone" else ""
    return folder / f"{side}-{arch.id}{at_rate}.json"


def costs(folder: Path) -> dict[str, Any]:
    """CPU seconds of each training of a seed; null of one that was cut."""
    read = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    return {name: result["cpu_s"] for name, result in read.items() if "cpu_s" in result}


def gaps(found: Accuracy, side: str, archs: Sequence[str], other: str = "alone") -> list[float]:
    """Of each seed that has both, the mean gap of a side to another, points."""
    pairs = {
        seed: [(sides[side].get(a), sides[other].get(a)) for a in archs]
        for seed, sides in found.items()
    }
    whole = [p for p in pairs.values() if all(None not in pair for pair in p)]
    return [100 * statistics.mean(mine - theirs for mine, theirs in p) for p in whole]


def row(arch: Architecture, validation: Accuracy, test: Accuracy) -> dict[str, Any]:
    """A network's line, and what it says."""
    macs, line = exact_costs(arch)["macs"], ""
    for found in (validation, test):
        for side in SIDES:
            values = [sides[side][arch.id] for sides in found.values() if arch.id in sides[side]]
            width = 10 if side == "supernet" else 8
            line += f"{100 * statistics.mean(values):{width}.2f}" if values else f"{'-':>{width}}"
    apart = {name: gaps(test, *sides) for name, sides in compared_sides([arch.id]).items()}
    line += "".join(f"{mean_of(some) if some else '-'!s:>14}" for some in apart.values())
    n = len(apart["gap_points"])
    head = f"{arch.id:14}{arch.resolution:4}{macs:12,}{n:3}"
    named = {"id": arch.id, "px": arch.resolution, "macs": macs, "n": n}
    return {"line": head + line, **named, **apart}


def compared_sides(archs: list[str]) -> dict[str, tuple[str, list[str], str]]:
    """Which sides a gap is between: arguments of `gaps`, by its name."""
    return {
        "gap_points": ("supernet", archs, "alone"),
        "gap_after_last_mile_points": ("mile", archs, "alone"),
        "gap_epoch_each_points": ("mile", archs, "again"),
    }


def measured(test: Accuracy, tested: dict[int, dict[str, Any]]) -> dict[str, list[float]]:
    """What the bars are about, of each seed whose test images were read."""
    archs = next((list(result["alone"]) for result in tested.values()), [])
    known = {seed: test[seed] for seed in tested}
    best = [result["supernet"][result["best"]] for result in tested.values()]
    small = [result["supernet"][result["quarter"]] for result in tested.values()]
    ends = [(r["mile"], r["best"], r["quarter"]) for r in tested.values()]
    tuned = [(mile[best], mile[quarter]) for mile, best, quarter in ends if quarter in mile]
    return {
        **{name: gaps(known, *sides) for name, sides in compared_sides(archs).items()},
        "best_test_accuracy": best,
        "lost_at_quarter_points": [100 * (b - s) for b, s in zip(best, small, strict=True)],
        "lost_at_quarter_after_mile_points": [100 * (b - s) for b, s in tuned],
    }


def show_front(seed: int, front: dict[str, Any]) -> None:
    """Test accuracies of the networks along a seed's front, before and after the last mile."""
    print(f"along the front of seed {seed}: MACs, then supernet, alone, supernet + last mile")
    for network, macs in sorted(front["macs"].items(), key=lambda item: item[1]):
        values = (front[side][network] for side in SIDES[:3])
        print(f"{network:14}{macs:16,}" + "".join(f"{100 * value:8.2f}" for value in values))


def measured_front(fronts: dict[int, dict[str, Any]]) -> dict[str, list[float]]:
    """Mean gaps of networks along the front, of each seed."""
    named = {"front_gap_points": "supernet", "front_gap_after_last_mile_points": "mile"}
    return {
        name: [gap for seed, front in fronts.items()
               for gap in gaps({seed: front}, side, list(front["macs"]))]
        for name, side in named.items()
    }  # fmt: skip


def bar(name: str, values: Sequence[float]) -> dict[str, Any]:
    """A bar by the mean over seeds; without data its value is null."""
    sign, limit = BARS[name]
    told = {"name": name, "limit": f"{sign} {limit:g}"}
    if not values:
        print(f"{name:33}{told['limit']:>8}: no data yet")
        return {**told, "value": None, "half_width": None, "holds": None}
    mean = mean_of(values)
    holds = mean.value >= limit if sign == ">=" else mean.value <= limit
    width = f" ±{mean.half:.4g}" if mean.half is not None else ""
    print(f"{name:33}{told['limit']:>8}: {mean.value:.4g}{width}, n = {len(values)}, "
          f"{'holds' if holds else 'missed'}")  # fmt: skip
    return {**told, "value": mean.value, "half_width": mean.half, "holds": holds}
