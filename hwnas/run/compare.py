"""Two results of the same targets compared: what changed beyond the noise of both.

Pure functions of two documents, `hwnas-result-1` or `hwnas-lock-1`. A difference counts if it is
more than FACTOR times the noise of both values together (docs/benchmarks.md says what that finds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from hwnas.run.devices import device_name
from profilers.errors import ConfigError

FORMAT = "hwnas-comparison-1"
FACTOR = 2.0  # noises of a difference beyond which it counts
SAME, BETTER, WORSE, UNKNOWN = "same", "better", "worse", "unknown"
CONDITIONS = ("device", "engine", "engine_version", "precision", "batch", "threads", "clocks")
OF_DEVICES = ("device", "batch", "clocks")  # where a run may choose another way to drive it

Document = Mapping[str, Any]


def compared(base: Document, new: Document) -> dict[str, Any]:
    """What differs between two results; every metric is better when it is smaller.

    Returns:
        rows: of each package and metric of both: target, package, metric, base, new, change (a
        share), noise (of the difference, a share), verdict and reason; missing, added: packages as
        [target, package] that one of them lacks; left_out: targets that one of them lacks, which
        are not compared; regression: whether something is worse or missing.

    Packages of a target that failed in the new result are missing; of one that it says nothing of,
    as a run of some targets, they are left out.

    Raises:
        ConfigError: they are of other devices, engines, precisions or clocks, or of no common
            target.
    """
    common = [name for name in base["targets"] if name in new["targets"]]
    failed = {failure["work"].partition(".")[2] for failure in new.get("failures", ())}
    gone = {n for n in base["targets"] if n not in common and {n, device_name(n)} & failed}
    if not common and not gone:
        raise ConfigError(
            f"no target is in both results: {', '.join(base['targets']) or 'none'} and "
            f"{', '.join(new['targets']) or 'none'}"
        )
    for name in common:
        if told := others(base["targets"][name], new["targets"][name]):
            raise ConfigError(f"{name} cannot be compared: {told}; measure both on the same")
    olds, news = (
        {_key(p): p for p in doc["packages"] if p["target"] in {*common, *gone}}
        for doc in (base, new)
    )
    every = dict.fromkeys((*base["targets"], *new["targets"]))
    rows = [row for key in olds if key in news for row in _rows(olds[key], news[key])]
    missing = [list(key) for key in olds if key not in news]
    return {
        "format": FORMAT,
        "rows": rows,
        "missing": missing,
        "added": [list(key) for key in news if key not in olds],
        "left_out": [name for name in every if name not in {*common, *gone}],
        "regression": bool(missing) or any(row["verdict"] == WORSE for row in rows),
    }


def others(base: Document, new: Document, conditions: tuple[str, ...] = CONDITIONS) -> str:
    """What differs of the conditions of two targets, in words; empty if their numbers compare."""
    words = [
        f"{name} was {base.get(name)}, is {new.get(name)}"
        for name in conditions
        if base.get(name) != new.get(name)
    ]
    if not words and conditions == CONDITIONS and base.get("environment") != new.get("environment"):
        words = ["its environment differs (system, memory or processor features)"]
    return ", ".join(words)


def _key(package: Document) -> tuple[str, str]:
    return package["target"], package["package"]


def _rows(old: Document, new: Document) -> list[dict[str, Any]]:
    return [
        {"target": new["target"], "package": new["package"], **difference(name, was, is_)}
        for name, was in old["metrics"].items()
        for is_ in [new["metrics"].get(name, {"value": None, "noise": 0.0})]
    ]


def difference(metric: str, old: Document, new: Document) -> dict[str, Any]:
    """One metric then and now: value and noise in its unit; `doubt` if it cannot decide
    anything."""
    was, is_ = old["value"], new["value"]
    told = {"metric": metric, "base": was, "new": is_, "change": None, "noise": None, "reason": ""}
    doubt = old.get("doubt") or new.get("doubt") or ("" if is_ is not None else "not measured")
    if is_ is None:
        return {**told, "verdict": UNKNOWN, "reason": doubt}
    noise = math.hypot(old["noise"], new["noise"])
    verdict = SAME if abs(is_ - was) <= FACTOR * noise else WORSE if is_ > was else BETTER
    if was:
        told |= {"change": is_ / was - 1, "noise": noise / was}
    if doubt and verdict != SAME:
        return {**told, "verdict": UNKNOWN, "reason": doubt}
    return {**told, "verdict": verdict}


def worse(found: Document) -> list[str]:
    """What is worse or missing, in words."""
    rows: Iterable[Document] = (row for row in found["rows"] if row["verdict"] == WORSE)
    words = [
        f"{row['package']} on {row['target']}: {row['metric']} {row['base']:.6g} -> "
        f"{row['new']:.6g}" + ("" if row["change"] is None else f" ({row['change']:+.2%})")
        for row in rows
    ]
    return words + [f"{package} on {target} is missing" for target, package in found["missing"]]


def to_markdown(found: Document) -> str:
    """A comparison as a table, what changed first."""
    order = [WORSE, UNKNOWN, BETTER, SAME]
    lines = [
        "| target | package | metric | base | new | change | noise | |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for row in sorted(found["rows"], key=lambda row: order.index(row["verdict"])):
        numbers = ["" if row[n] is None else f"{row[n]:.6g}" for n in ("base", "new")]
        shares = [row["change"], row["noise"]]
        told = [
            "" if share is None else f"{share:{sign}.2%}"
            for share, sign in zip(shares, "+-", strict=True)
        ]
        cells = (row["target"], row["package"], row["metric"], *numbers, *told)
        said = f"{row['verdict']} {row['reason']}".strip()
        lines.append(f"| {' | '.join(cells)} | {said} |")
    lines += [f"- {package} on {target} is missing" for target, package in found["missing"]]
    lines += [f"- {package} on {target} is new" for target, package in found["added"]]
    lines += [f"- {target} is in one result only: not compared" for target in found["left_out"]]
    words = "**Something is worse.**" if found["regression"] else "Nothing is worse."
    return "\n".join([*lines, "", words, ""])
