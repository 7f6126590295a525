"""What a table says of itself: how good it is, its ops by cost, what other estimators would give.

Plain values, for people and for `--json`. Statistics: docs/formats.md, "Table".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.networks.ops import parse_key
from hwnas.tables import energy_section
from hwnas.tables.table import CostTable, costless
from hwnas.tables.validation import EXACT

TRUST = (  # of a table's validation beside noise and error; docs/formats.md
    "ratio",
    "worst",
    "within_5",
    "within_10",
    "kendall_tau",
    "kendall_tau_repeat",
    "kendall_tau_near",
    "kendall_tau_near_repeat",
    "bias",
    "bias_fast",
    "bias_front",
    "drift",
)
NO_INTERVAL = ("worst",)  # the largest of n grows with n: resampling says nothing of it


def describe(table: CostTable) -> dict[str, Any]:
    """What a table is and how good, in short: plain values, for people and for `--json`."""
    validation = table.validation
    noise, error = validation["noise"] or {}, validation["error"] or {}
    likes = [f"{one['target']} {one['sha256'][:12]}" for one in table.protocol.get("like", ())]
    return {
        "target": table.target["name"],
        "space": table.space,
        "resolutions": list(table.resolutions),
        "ops": len(table.rows),
        "costless_ops": len(costless(table)),
        "marks": list(table.marks),
        "verdict": table.verdict,
        "reason": validation["reason"],
        "noise": noise.get("value"),
        "error": error.get("value"),
        "error_interval": error.get("interval"),
        **{name: validation.get(name) for name in TRUST},
        "intervals": _intervals(validation),
        "heldout": validation["n"],
        "estimator": table.calibration["estimator"],
        "bend": table.bend.share,
        "uncertainty": table.calibration.get("uncertainty"),
        **({"fitted_from": likes} if likes else {}),
        "created": table.protocol["created"],
        **{f"{name}_of_groups": n for name, n in table.protocol.get("groups", {}).items()},
        **energy_section.describe(table.energy),
        "kit": table.kit,
        "sha256": table.sha256,
    }


def _intervals(validation: Mapping[str, Any]) -> dict[str, Any] | None:
    found = validation.get("intervals")
    return found and {name: ends for name, ends in found.items() if name not in NO_INTERVAL}


def contest(table: CostTable, n: int = 8) -> list[dict[str, Any]]:
    """Errors of other ways to predict: the baselines, and the n estimators of best
    cross-validation. The first of these was chosen, or the first without a bend if that hardly
    differs. name, error (on held-out networks),
    cross_validation (None for a baseline).
    """
    checked = table.validation
    rows = [
        {"name": name, "error": error, "cross_validation": None}
        for name, error in checked.get("baselines", {}).items()
    ]
    entries = sorted(checked.get("estimators", []), key=lambda e: float(e["cross_validation"]))
    return rows + [{**entry, "name": estimator_name(entry)} for entry in entries[:n]]


def estimator_name(entry: Mapping[str, Any]) -> str:
    """An estimator's `name` with its `freedom` and, where there is one, its `bend`."""
    told = f"{entry['name']}, freedom {entry['freedom']:g}"
    return f"{told}, bend {entry['bend']:g}" if entry.get("bend") else told


def op_rows(table: CostTable) -> list[dict[str, Any]]:
    """The rows with their keys, dearest op first: MACs, ms and mJ (None where unknown) in front."""
    if EXACT in table.marks:
        rows = [{"key": key, **row} for key, row in table.rows.items()]
        return sorted(rows, key=lambda row: (-row["macs"], row["key"]))
    rows = [
        {
            "key": key,
            "macs": parse_key(key).macs,
            "latency_ms": row["latency_ms"],
            "energy_mj": row.get("energy_mj"),
            **row,
        }
        for key, row in table.rows.items()
    ]
    return sorted(rows, key=lambda row: (-row["latency_ms"], row["key"]))
