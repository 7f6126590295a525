"""Does a table still hold? Its anchor and a few of its held-out networks are timed again.

A held-out network's reference is what it took when the table was made, the mean of its two
sessions, so that the check is of the device and not of the fit. The limit is the one beyond which
predictions would have made the table unreliable (docs/formats.md, "Table").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hwnas.config import ProfileConfig
from hwnas.measuring import remote
from hwnas.measuring.kit import KitInfo
from hwnas.measuring.rounds import Say
from hwnas.tables import validation
from hwnas.tables.difference import changed
from hwnas.tables.table import CostTable
from profilers.errors import ConfigError
from profilers.schema import Target, canonical_json, sha256_text

PROBES = 8  # held-out networks that are timed again


class Probe(NamedTuple):
    """A network to time again: its item in the kit and what it took, ms."""

    item: str
    then_ms: float


def check_table(
    table: CostTable, info: KitInfo, target: Target, settings: ProfileConfig, say: Say
) -> dict[str, Any]:
    """How a table's probes compare with what they took when it was made.

    Args:
        table: measured with the kit.
        info: the kit, on disk.
        target: what to measure on now.
        settings: budget, rounds, seed.
        say: as of `run_campaign`.

    Returns:
        environment: [name, then, now] of facts that changed, empty while the fingerprint is the
        same; anchor: predicted_ms, now_ms; probes: item, then_ms, now_ms; and of `compare`.

    Raises:
        ConfigError: the kit or the target is another one, or the table has no networks to time.
        UnstableMeasurementError, DeviceError: as `remote.measure_items`.
    """
    if target.name != table.target["name"]:
        raise ConfigError(f"table is of {table.target['name']}, not of {target.name}")
    chosen = probes(table, info)
    anchor = next(item for item in info.kit["items"] if item["role"] == "anchor")
    now = remote.probe(target)
    same = table.environment.get("fingerprint") == now["fingerprint"]
    names = [anchor["name"], *(probe.item for probe in chosen)]
    files = {item["sha256"]: info.folder / item["file"] for item in info.kit["items"]}
    found = remote.measure_items(target, info.kit, files, names, settings, say)
    now_ms = [found[probe.item]["latency_ms"] for probe in chosen]
    predicted_ms = table.intercept(anchor["resolution"]) + sum(
        table.row(op["key"]) for op in anchor["ops"]
    )
    anchor_ms = found[anchor["name"]]["latency_ms"]
    return {
        "environment": [] if same else changed(table.environment, now),
        "anchor": {"predicted_ms": predicted_ms, "now_ms": anchor_ms},
        "probes": [
            {**probe._asdict(), "now_ms": ms} for probe, ms in zip(chosen, now_ms, strict=True)
        ],
        **compare([probe.then_ms for probe in chosen], now_ms, table.noise),
    }


def probes(table: CostTable, info: KitInfo, n: int = PROBES) -> list[Probe]:
    """Held-out networks of a table, evenly from the fastest to the slowest.

    Raises:
        ConfigError: the kit is another one, or the table has no held-out networks.
    """
    if not table.validation["points"]:
        raise ConfigError(
            f"table {table.target['name']} has no measured networks to time again "
            f"(it is {', '.join(table.marks)}); profile the target"
        )
    if info.hash != table.kit:
        raise ConfigError(
            f"kit {info.folder} is {info.hash[:12]}, the table was made with {table.kit[:12]}; "
            "name its kit with --kit"
        )
    known = {name: (a + b) / 2 for name, _, a, b in table.validation["points"]}
    heldout = [item for item in info.kit["items"] if item["role"] == "heldout"]
    found = sorted((Probe(item["name"], known[_id(item)]) for item in heldout), key=lambda p: p[1])
    places = np.linspace(0, len(found) - 1, min(n, len(found))).round().astype(int)
    return [found[place] for place in places]


def _id(item: Mapping[str, Any]) -> str:
    """Short id of an item's architecture."""
    return sha256_text(canonical_json(item["arch"]))[:12]


def compare(then_ms: Sequence[float], now_ms: Sequence[float], noise: float) -> dict[str, Any]:
    """Whether networks take what they took.

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
