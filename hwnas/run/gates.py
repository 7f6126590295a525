"""Gates: limits that a package must keep, with the value, the limit and the margin.

Pure functions of a manifest, the settings and the noise of the target; results hold their verdicts,
which decide exit codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from hwnas.measuring import verdict
from hwnas.settings.amounts import amount
from hwnas.settings.config import CheckConfig

PASSED, FAILED, MUTED, UNKNOWN = "passed", "failed", "muted", "unknown"
LIMITED = {  # gate: what is measured
    "latency": "latency_ms",
    "energy": "energy_mj",
    "memory": "memory_bytes",
    "size": "size_bytes",
    "sustained": "sustained_ms",
}


@dataclass(frozen=True)
class Gate:
    """One thing a package must keep.

    Attributes:
        gate: its name.
        metric: what was measured; its unit is in the name.
        value: measured; None if it is unknown.
        limit: that it must keep.
        margin: how far past the limit it may be, a share: the noise.
        verdict: passed, failed, muted (failed, and accepted by name) or unknown.
        reason: why it is unknown.
    """

    gate: str
    metric: str
    value: float | None
    limit: float
    margin: float
    verdict: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)

    def __str__(self) -> str:
        """What was measured and what is allowed, in words."""
        value = "unknown" if self.value is None else f"{self.value:.6g}"
        return f"{self.gate}: {self.metric} {value}, limit {self.limit:.6g}"


def gates(
    manifest: Mapping[str, Any], check: CheckConfig, noise: Mapping[str, float], best: bool
) -> list[Gate]:
    """The gates of one package.

    Args:
        manifest: of the package.
        check: what the settings demand.
        noise: of metrics on this target, shares.
        best: whether it is the most accurate package of its target, which `min_accuracy` is for.
    """
    values, accepted = measured_values(manifest), set(manifest["accepted"])
    budgets, limits = manifest["budgets"], {str(k): v for k, v in check.limits.items()}
    found = []
    for name, metric in LIMITED.items():
        if metric in budgets or metric in limits:
            limit = min(each[metric] for each in (budgets, limits) if metric in each)
            gate = limited(name, metric, values.get(metric), limit, noise.get(metric, 0))
            words = {"limit", "budget"} if metric in budgets else {"limit"}
            found.append(_judged(gate, doubt(manifest, metric), bool(words & accepted)))
    latency, predicted = values.get("latency_ms"), manifest["predicted"]["latency_ms"]
    gap = None if latency is None else abs(latency / predicted - 1)
    gate = limited("gap", "gap", gap, amount(check.max_gap, 1.0), 0)
    found.append(_judged(gate, doubt(manifest, "latency_ms"), "gap" in accepted))
    if best and check.min_accuracy:
        error, limit = values.get("error"), 1 - check.min_accuracy
        found.append(limited("accuracy", "error", error, limit, 1e-12))
    return found


def limited(gate: str, metric: str, value: float | None, limit: float, margin: float) -> Gate:
    """A gate that a value passes while it is at most its limit, and the margin over it."""
    if value is None:
        return Gate(gate, metric, None, limit, margin, UNKNOWN, "it was not measured")
    state = PASSED if value <= limit * (1 + margin) else FAILED
    return Gate(gate, metric, value, limit, margin, state)


def doubt(manifest: Mapping[str, Any], metric: str) -> str:
    """Why a measured metric cannot decide: its measurement was disturbed; empty if it can."""
    measured = manifest["measured"] or {}
    part = {"energy_mj": "energy", "sustained_ms": "sustained"}.get(metric)
    about = (measured.get(part) or {}) if part else measured if metric == "latency_ms" else {}
    return str(about["reason"]) if verdict.is_disturbed(about) else ""


def _judged(gate: Gate, doubt: str, accepted: bool) -> Gate:
    """The gate; one that failed becomes unknown if its measurement was disturbed, muted if
    accepted.
    """
    if gate.verdict != FAILED:
        return gate
    if doubt:
        return replace(gate, verdict=UNKNOWN, reason=doubt)
    return replace(gate, verdict=MUTED) if accepted else gate


def measured_values(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Measured values of a package by metric, without unknown ones."""
    measured = manifest["measured"] or {}
    accuracy = measured.get("test_accuracy")
    found = {
        "latency_ms": measured.get("latency_ms"),
        "energy_mj": measured.get("energy_mj"),
        "error": None if accuracy is None else 1 - accuracy,
        "size_bytes": manifest.get("size_bytes"),
        "memory_bytes": (measured.get("memory") or {}).get("resident_bytes"),
        "sustained_ms": (measured.get("sustained") or {}).get("last_ms"),
    }
    return {name: float(value) for name, value in found.items() if value is not None}
