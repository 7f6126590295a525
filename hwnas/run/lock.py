"""`hwnas.lock`: the numbers that were accepted, and what they were made with.

It lies beside hwnas.yaml, under version control. A run compares its packages with it; `hwnas
accept` writes it anew. Format: docs/formats.md, "Lock".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.run import compare
from hwnas.run.devices import device_name
from hwnas.run.gates import FAILED, MUTED, PASSED, UNKNOWN, Gate
from hwnas.run.result_shape import LOCK_FORMAT, wrong
from profilers.errors import FileFormatError
from profilers.schema import read_json, write_json

FORMAT, NAME = LOCK_FORMAT, "hwnas.lock"
REMEDY = "restore it, or make it again: a result by `hwnas run --ci DIR`, a lock by `hwnas accept` "
REMEDY += "after deleting it"

Document = Mapping[str, Any]


def read(path: Path, formats: tuple[str, ...] = (FORMAT,)) -> dict[str, Any]:
    """A lock or, of other formats, a result.

    Raises:
        FileFormatError: missing, damaged, or of another format.
    """
    found = read_json(path)
    told = found.get("format") if isinstance(found, dict) else None
    if told not in formats:
        raise FileFormatError(
            f"{path} has format {told!r}, this version of hwnas reads {' and '.join(formats)}; "
            f"{REMEDY}"
        )
    if words := wrong(found):
        raise FileFormatError(f"{path} was edited or is not whole: {words}; {REMEDY}")
    return dict(found)


def locked(result: Document) -> dict[str, Any]:
    """The lock that accepts a result."""
    kept = ("target", "package", "id", "metrics")
    return {
        "format": FORMAT,
        "hashes": result["hashes"],
        "versions": result["versions"],
        "targets": result["targets"],
        "packages": [{key: package[key] for key in kept} for package in result["packages"]],
    }


def write(lock: Document, path: Path) -> None:
    """Write a lock."""
    write_json(path, lock)


def merged(before: Document, result: Document) -> dict[str, Any]:
    """A lock with new numbers for the targets, or the devices, of a result alone."""
    place, now = _place(result), locked(result)
    mine = set(map(place, result["targets"]))
    others = [p for p in before["packages"] if place(p["target"]) not in mine]
    targets = {**before["targets"], **now["targets"]}
    return {**now, "targets": targets, "packages": [*others, *now["packages"]]}


def _place(result: Document) -> Callable[[str], str]:
    """What the packages of a target are made for: itself, or its device."""
    return device_name if "devices" in result else str


def moved(lock: Document, result: Document) -> list[str]:
    """What differs from the lock in how a result was made: settings, supernet, tables, engines; and
    packages that are gone.
    """
    found = [
        name
        for name in ("settings", "data", "supernet")
        if lock["hashes"].get(name) != result["hashes"].get(name)
    ]
    for name, now in result["targets"].items():
        then = lock["targets"].get(name, {})
        words = {"table": "table", "engine_version": "engine", "clocks": "clocks"}
        found += [f"{told} of {name}" for key, told in words.items() if then.get(key) != now[key]]
    place = _place(result)
    there = {(place(package["target"]), package["package"]) for package in result["packages"]}
    known = dict.fromkeys((place(p["target"]), p["package"]) for p in lock["packages"])
    mine = set(map(place, result["targets"]))
    gone = [key for key in known if key not in there and key[0] in mine]
    return found + [f"{name} of {target} is gone" for target, name in gone]


def hold_against(lock: Document, result: dict[str, Any], is_accepted: bool) -> None:
    """Add changes since the lock to a result, and the gate `regression` to its packages."""
    found = _regressions(lock, result)
    for package in result["packages"]:
        gate = found.get((package["target"], package["package"]))
        if gate is not None and is_accepted and gate.verdict == FAILED:
            gate = replace(gate, verdict=MUTED)
        package["gates"] += [] if gate is None else [gate.to_json()]
    result["moved"] = moved(lock, result)


def _regressions(lock: Document, result: Document) -> dict[tuple[str, str], Gate]:
    """The gate of each package that is in the lock too, by target and name; of a device, also if
    the package was of another of its targets then.
    """
    found = {}
    place, packages = _place(result), lock["packages"]
    olds = {(place(p["target"]), p["package"]): p for p in packages}
    olds |= {(p["target"], p["package"]): p for p in packages}
    for new in result["packages"]:
        key = (new["target"], new["package"])
        old = olds.get(key) or olds.get((place(key[0]), key[1]))
        if old is None:
            continue
        is_same = old["target"] == new["target"]
        conditions = compare.CONDITIONS if is_same else compare.OF_DEVICES
        then, now = lock["targets"][old["target"]], result["targets"][key[0]]
        if told := compare.others(then, now, conditions):
            found[key] = Gate("regression", "latency_ms", None, 0.0, 0.0, UNKNOWN, told)
            continue
        rows = [
            compare.difference(name, was, new["metrics"].get(name, {"value": None, "noise": 0.0}))
            for name, was in old["metrics"].items()
        ]
        found[key] = _worst(rows)
    return found


def _worst(rows: list[dict[str, Any]]) -> Gate:
    """The gate of one package: the metric that got worst decides."""
    order = {compare.WORSE: 2, compare.UNKNOWN: 1}
    row = max(rows, key=lambda row: (order.get(row["verdict"], 0), row["change"] or 0.0))
    margin = compare.FACTOR * (row["noise"] or 0.0)
    verdict = {compare.WORSE: FAILED, compare.UNKNOWN: UNKNOWN}.get(row["verdict"], PASSED)
    shown = (row["metric"], row["new"], row["base"] or 0.0, margin)
    return Gate("regression", *shown, verdict, row["reason"])
