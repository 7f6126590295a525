"""Does a table still hold? Its anchor and a few of its held-out networks are timed again.

A held-out network is compared with its own time when the table was made, the mean of its two
sessions: so the check judges the device, not the fit. The limit is the error beyond which the table
would have been unreliable (docs/formats.md, "Table").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import here, remote, verdict
from hwnas.measuring.kit import KitInfo, load_kit, remake_kit
from hwnas.measuring.rounds import Say
from hwnas.settings.config import ProfileConfig
from hwnas.tables import validation
from hwnas.tables.difference import another_device, changed
from hwnas.tables.table import CostTable
from profilers.errors import ConfigError, TableError
from profilers.schema import Target, canonical_json, sha256_text

PROBES = 8  # held-out networks that are timed again


class Probe(NamedTuple):
    """A network to time again: its item in the kit and what it took, ms."""

    item: str
    then_ms: float


def kits_of(table: CostTable, folder: Path | None, scratch: Path, space: str = "") -> list[KitInfo]:
    """The kits that a table was made with: a folder that is named, or all made again.

    Args:
        table: that names them.
        folder: of one kit; None to make them again.
        scratch: folder to make them in.
        space: as in `kit.space_of`.

    Raises:
        ConfigError: the table names none, or this version of hwnas makes others.
        FileFormatError: the folder holds no kit.
    """
    if folder is not None:
        return [load_kit(folder)]
    _check_points(table)
    recipes = table.protocol.get("kits")
    if not recipes:
        raise ConfigError(
            f"table {table.target['name']} does not say how its kit was made; name the folder of "
            "its kit with --kit"
        )
    return [remake_kit(recipe, scratch / f"{n}", space) for n, recipe in enumerate(recipes)]


def check_table(
    table: CostTable,
    infos: Sequence[KitInfo],
    target: Target,
    settings: ProfileConfig,
    say: Say,
) -> dict[str, Any]:
    """Times of a table's probes now and when the table was made.

    Args:
        table: measured with the kits.
        infos: kits on disk; the probes and the budget are dealt to them.
        target: what to measure on now.
        settings: budget, rounds, seed.
        say: as of `run_campaign`.

    Returns:
        table: `verdict` and `reason` of its own; environment: [name, then, now] of facts that
        changed, empty while the fingerprint is the same; anchors: predicted_ms, now_ms of each
        kit's; probes: item, then_ms, now_ms; measured: the worst verdict of all with its reason;
        and of `compare`, where an unreliable table never holds.

    Raises:
        ConfigError: the kit or the target is another one, or the table has no networks to time.
        TableError: it was made on another device.
        UnstableMeasurementError, DeviceError: as `here.measure_items`.
    """
    if target.name != table.target["name"]:
        raise ConfigError(f"table is of {table.target['name']}, not of {target.name}")
    share = max(2, -(-PROBES // len(infos)))
    chosen = [probes(table, info, share) for info in infos]
    now = remote.probe(target)
    other = another_device(table.environment, now)
    if other:
        name, then, found = other[0]
        raise TableError(
            f"table {table.target['name']} was made on another device ({name}: {then} then, "
            f"{found} here); check it where it was made, with --target and a file in targets/, "
            "or profile this device"
        )
    same = table.environment.get("fingerprint") == now["fingerprint"]
    each = settings.model_copy(update={"budget_s": max(settings.budget_s / len(infos), 2.0)})
    told: list[dict[str, Any]] = []
    anchors: list[dict[str, Any]] = []
    for info, mine in zip(infos, chosen, strict=True):
        found, anchor = _time_again(table, info, mine, target, each, say)
        told += found
        anchors.append(anchor)
    compared = compare([p["then_ms"] for p in told], [p["now_ms"] for p in told], table.noise)
    return {
        "table": {name: table.validation.get(name) for name in ("verdict", "reason")},
        "environment": [] if same else changed(table.environment, now),
        "anchors": anchors,
        "probes": told,
        "measured": verdict.worst(anchors),
        **compared,
        "holds": compared["holds"] and table.verdict != "unreliable",
    }


def _time_again(
    table: CostTable,
    info: KitInfo,
    chosen: Sequence[Probe],
    target: Target,
    settings: ProfileConfig,
    say: Say,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Probes of one kit with what they take now, and its anchor with the worst verdict of all."""
    anchor = next(item for item in info.kit["items"] if item["role"] == "anchor")
    names = [anchor["name"], *(probe.item for probe in chosen)]
    files = {item["sha256"]: info.folder / item["file"] for item in info.kit["items"]}
    found = here.measure_items(target, info.kit, files, names, settings, say)
    doubt = verdict.worst([found[name] for name in names])
    predicted_ms = table.latency(anchor["resolution"], [op["key"] for op in anchor["ops"]])
    now_ms = {name: float(found[name]["latency_ms"]) for name in names}
    told = [{**probe._asdict(), "now_ms": now_ms[probe.item]} for probe in chosen]
    return told, {"predicted_ms": predicted_ms, "now_ms": now_ms[anchor["name"]], **doubt}


def probes(table: CostTable, info: KitInfo, n: int = PROBES) -> list[Probe]:
    """Held-out networks of a table, evenly from the fastest to the slowest.

    Raises:
        ConfigError: the kit is another one, or the table has no held-out networks.
    """
    _check_points(table)
    of_table = {table.kit, *(recipe["hash"] for recipe in table.protocol.get("kits", []))}
    if info.hash not in of_table:
        raise ConfigError(
            f"kit {info.folder} is {info.hash[:12]}, the table was made with {table.kit[:12]}; "
            "name its kit with --kit"
        )
    known = {name: (a + b) / 2 for name, _, a, b in table.validation["points"]}
    heldout = [item for item in info.kit["items"] if item["role"] == "heldout"]
    measured = [item for item in heldout if _id(item) in known]  # an engine may have refused some
    found = sorted((Probe(item["name"], known[_id(item)]) for item in measured), key=lambda p: p[1])
    places = np.linspace(0, len(found) - 1, min(n, len(found))).round().astype(int)
    return [found[place] for place in places]


def _check_points(table: CostTable) -> None:
    if not table.validation["points"]:
        raise ConfigError(
            f"table {table.target['name']} has no measured networks to time again "
            f"(it is {', '.join(table.marks)}); profile the target"
        )


def _id(item: Mapping[str, Any]) -> str:
    """Short id of an item's architecture."""
    return sha256_text(canonical_json(item["arch"]))[:12]


def compare(then_ms: Sequence[float], now_ms: Sequence[float], noise: float) -> dict[str, Any]:
    """Whether networks take as long as they took then.

    Args:
        then_ms, now_ms: (P,) latencies.
        noise: share by which two measurements differed when the table was made.

    Returns:
        holds; gap: mean distance, a share; shift: median change, a share with its sign; worst:
        largest distance; limit: of gap.
    """
    change = np.asarray(now_ms) / np.asarray(then_ms) - 1
    gap = float(np.abs(change).mean())
    limit = max(validation.UNRELIABLE_RATIO * noise, validation.UNRELIABLE_ERROR)
    return {
        "holds": gap <= limit,
        "gap": gap,
        "shift": float(np.median(change)),
        "worst": float(np.abs(change).max()),
        "limit": limit,
    }
