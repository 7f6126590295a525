"""The packages of a target as the report shows them: numbers, doubts, and which one to ship."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from hwnas.measuring import verdict
from hwnas.report.pieces import shown
from hwnas.run import accuracy, gates, results
from hwnas.run.card import between, input_words, tested_on
from hwnas.run.folder import RunFolder
from hwnas.run.package import model_of, read_manifest
from hwnas.settings.amounts import amount
from hwnas.settings.config import CheckConfig
from profilers.errors import FileFormatError, HwnasError
from profilers.schema import read_json

Data = dict[str, Any]
EXACT = 1e-9  # share by which a number that is not measured may miss its budget


class Allowed(NamedTuple):
    """What decides whether a package may be shipped, beside its own budgets.

    Attributes:
        margins: shares by which measured metrics may miss their limits, `results.margins_of`.
        check: these settings of the run; empty: those that the package was exported with.
    """

    margins: Mapping[str, float]
    check: Mapping[str, Any]


def packages_of(
    run: RunFolder, target: str, base: str, allowed: Allowed, warnings: list[str]
) -> list[Data]:
    """The packages of a target, cheapest first; a damaged one is a warning.

    Args:
        run: its folder.
        target: its name.
        base: of links, where the run folder lies from the report.
        allowed: limits that they must keep.
        warnings: gets a line for each damaged one.
    """
    found, right = [], _right(run.results(target))
    for folder in sorted(run.packages(target).glob("*/")):
        try:
            manifest = read_manifest(folder)
        except HwnasError as error:
            warnings.append(str(error))
            continue
        bits = right.get(model_of(manifest), "")
        found.append({**_package(run.root, folder, manifest, base, allowed), "right": bits})
    alike = [[b["name"] for b in found if accuracy.alike(a["right"], b["right"])] for a in found]
    told = [
        {key: value for key, value in {**each, "alike": names}.items() if key != "right"}
        for each, names in zip(found, alike, strict=True)
    ]
    return sorted(told, key=lambda package: (latency_ms(package), package["name"]))


def _right(path: Path) -> dict[str, str]:
    """Hex of bits, whether a model is right on each test image, by the sha256 of its file."""
    try:
        return {each["model"]: each["right"] for each in read_json(path)["results"]}
    except (FileFormatError, KeyError, TypeError):
        return {}


def _package(
    root: Path, folder: Path, manifest: Mapping[str, Any], base: str, allowed: Allowed
) -> Data:
    """The package of a folder."""
    model = folder / manifest["model"]
    predicted, measured = manifest["predicted"], manifest["measured"] or {}
    file, top1 = model.relative_to(root).as_posix(), measured.get("test_accuracy")
    timed = measured if measured.get("latency_ms") else {}  # null: the machine was too disturbed
    gap = timed["latency_ms"] / predicted["latency_ms"] - 1 if timed else None
    return {
        "id": manifest["id"],
        "name": manifest["name"],
        "file": file,
        "href": f"{base}/{quote(file)}",
        "input": input_words(manifest),
        "batch": manifest["target"]["batch"],
        "predicted": predicted,
        "measured": timed,
        "gap": gap,
        "test_error": None if top1 is None else 1 - top1,
        "interval": measured.get("test_interval"),
        "tested_on": f"{manifest['task']['metric']}, {tested_on(manifest)}{between(manifest)}",
        "size_bytes": model.stat().st_size,
        "parity": manifest["parity"]["max_relative_difference"],
        "budgets": manifest["budgets"],
        "against": (against := _against(model, manifest, gap, allowed)),
        "warnings": [*against, *(_doubts(manifest, against) if timed else ())],
    }


def _against(
    model: Path, manifest: Mapping[str, Any], gap: float | None, allowed: Allowed
) -> list[str]:
    """Why a package should not be shipped as it is."""
    if gap is None:
        return [(manifest["measured"] or {}).get("unstable") or "not measured yet: `hwnas verify`"]
    check = CheckConfig.model_validate(allowed.check or manifest["settings"]["check"])
    measured, margins = manifest["measured"], allowed.margins
    budgets, predicted = manifest["budgets"], manifest["predicted"]
    said = ["its latency was disturbed"] if verdict.is_disturbed(measured) else []
    if abs(gap) > amount(check.max_gap, 1.0):
        said.append(f"gap above {check.max_gap}")
    alone = {**manifest, "size_bytes": model.stat().st_size, "budgets": {}, "accepted": []}
    said += [
        f"over check.limits of {shown(gate.metric, gate.limit)}"
        for gate in gates.gates(alone, check, margins, best=False)
        if gate.gate in gates.LIMITED and gate.verdict == gates.FAILED
    ]
    if "energy_mj" in results.past(measured, budgets, margins, disturbed=True):
        said.append("its energy was disturbed")
    over = results.past(measured, budgets, margins)
    over += [
        name
        for name, budget in budgets.items()
        if measured.get(name) is None and results.misses(predicted.get(name), budget, EXACT)
    ]
    return said + [f"over its budget of {shown(name, budgets[name])}" for name in over]


def _doubts(manifest: Mapping[str, Any], against: Sequence[str]) -> list[str]:
    """What to know of a package that may be shipped."""
    measured, budget = manifest["measured"], manifest["budgets"].get("latency_ms")
    said = verdict.doubts(measured)
    over = "" if budget is None else f"over its budget of {shown('latency_ms', budget)}"
    if over and measured["median_ms"] > budget and over not in against:
        said.append(f"median {over}")
    return said


# ---- which one to ship --------------------------------------------------------------------------


def latency_ms(package: Mapping[str, Any]) -> float:
    """Measured latency or, before that, predicted."""
    return float((package["measured"] or package["predicted"]).get("latency_ms", math.inf))


def error(package: Mapping[str, Any]) -> float:
    """Error on test images or, before that, predicted."""
    tested = package["test_error"]
    return float(package["predicted"].get("error", 1.0) if tested is None else tested)


def told_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the test images tell two packages apart; those of two targets were not compared."""
    return one.get("target") != other.get("target") or one["name"] not in other["alike"]


def ship(packages: Sequence[Data]) -> tuple[Data, Data | None]:
    """The package to ship, and the next best.

    Of those that were picked for a budget, where there are any, and that nothing is said against:
    the fastest that the test images do not tell apart from the most accurate one. Next is the most
    accurate of the others, of another network.

    Args:
        packages: at least one.
    """
    sound = [each for each in packages if not each["against"]] or list(packages)
    meant = [each for each in sound if each["budgets"]] or sound
    best = min(meant, key=error)
    alike = [p for p in meant if p is best or not told_apart(p, best)]
    chosen = min(alike, key=latency_ms)
    others = [p for p in sound if p["id"] != chosen["id"]]
    return chosen, min(others, key=error, default=None)
