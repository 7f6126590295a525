"""Measurement records to numbers: one latency per item, op times inside networks, undisturbed only.

Nothing is fitted here. Records and statistics: docs/formats.md, "Measurements".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring.records import failures, is_record
from hwnas.networks.ops import parse_key
from hwnas.tables import regions
from hwnas.tables.conditions import conditions
from profilers import stats
from profilers.errors import UnstableMeasurementError
from profilers.schema import canonical_json, sha256_text

MIN_ROUNDS = 5  # undisturbed rounds below which a session says nothing
FITTED = ("covering", "calibration")
FINE_ENOUGH_MS = 0.005  # node time at which a whole-microsecond clock is within 10 %
MAX_UNATTRIBUTED = 0.05  # share of a profile that may belong to no op


@dataclass(frozen=True)
class Networks:
    """Whole networks and their latencies.

    Attributes:
        names, ids, roles: of each network; ids are the short ids of architectures.
        resolution: (N,) px.
        counts: (N, K) how often each op occurs.
        latency_ms: (N,) low quantile in session a.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    roles: tuple[str, ...]
    resolution: np.ndarray
    counts: np.ndarray
    latency_ms: np.ndarray


@dataclass(frozen=True)
class Observations:
    """All that a fit sees of one campaign.

    Attributes:
        keys: (K,) op keys of the kit.
        fitted: covering and calibration networks.
        heldout: networks that only validate; latency_ms is that of session a.
        again_ms: (H,) latency of the held-out networks in session b.
        alone_ms, alone_spread_ms: (K,) low quantile and robust spread of the micro-models.
        in_place_ms: (N, K) mean time of an op inside each fitted network: its share by the
            engine's own clock of the network's latency; NaN where it was not profiled.
        unattributed: share of the profiled time that belongs to no op; NaN without a profile.
        fine_share: share of the profiled ops whose nodes are long enough for the clock; NaN without
        a profile.
        protocol: rounds and what was left out, for the table.
    """

    keys: tuple[str, ...]
    fitted: Networks
    heldout: Networks
    again_ms: np.ndarray
    alone_ms: np.ndarray
    alone_spread_ms: np.ndarray
    in_place_ms: np.ndarray
    unattributed: float
    fine_share: float
    protocol: dict[str, Any]

    @property
    def in_place_reason(self) -> str:
        """Why the engine's own clock is not used; empty if it may be."""
        if np.isnan(self.unattributed):
            return "the engine gives no times of single ops"
        if self.unattributed > MAX_UNATTRIBUTED:
            return f"{self.unattributed:.1%} of the profiled time belongs to no op"
        if self.fine_share < 0.5:
            return "most nodes are short against the profile's clock of whole microseconds"
        return ""


def observe(
    kit: Mapping[str, Any], records: Iterable[Mapping[str, Any]], all_rounds: bool = False
) -> Observations:
    """The numbers of a campaign.

    Args:
        kit: content of `kit.json`.
        records: of one measurements file, any order; repeated and malformed ones are left out.
        all_rounds: use disturbed rounds too, however few there are; never good for more than a
            table that is marked unreliable.

    Raises:
        UnstableMeasurementError: a network or an op has too few undisturbed rounds.
    """
    good, left_out = _well_formed(records, sha256_text(canonical_json(kit)))
    disturbed = set() if all_rounds else stats.disturbed_rounds(good)
    samples = _Samples(_times(good, disturbed), 1 if all_rounds else MIN_ROUNDS)
    failed = {name: told["text"] for name, told in failures(good).items()}
    kit = without_failed(kit, failed)
    keys = tuple(sorted({op["key"] for item in kit["items"] for op in item["ops"]}))
    fitted = _networks(kit, keys, samples, FITTED)
    heldout = _networks(kit, keys, samples, ("heldout",))
    if not (fitted.names and heldout.names):
        raise UnstableMeasurementError(
            f"no network is left without what the engine cannot run ({len(failed)} models); "
            f"first: {next(iter(failed.items()), '')}; use another engine or search space"
        )
    again_ms = np.array([_latency(samples, "b", name) for name in heldout.names])
    alone_ms, alone_spread_ms = _alone(kit, keys, samples)
    alone = dict(zip(keys, alone_ms.tolist(), strict=True))
    in_place = _in_place(kit, fitted, alone, good)
    protocol = _protocol(good, disturbed, left_out) | {"conditions": conditions(good)}
    protocol |= {"failed": failed} if failed else {}
    spanning = regions.share(good)
    protocol |= {"spanning": spanning} if spanning else {}
    return Observations(
        keys, fitted, heldout, again_ms, alone_ms, alone_spread_ms, *in_place, protocol
    )


def joined(parts: Sequence[Observations]) -> Observations:
    """Several campaigns on one target as one: the networks of all, and for each op the mean of what
    they know of it.

    Args:
        parts: at least one; maybe of other ops, as other resolutions have.
    """
    if len(parts) == 1:
        return parts[0]
    keys = tuple(sorted({key for part in parts for key in part.keys}))

    def spread_out(values: np.ndarray, part: Observations, fill: float) -> np.ndarray:
        """The columns of a part at their places among all keys."""
        out = np.full((*values.shape[:-1], len(keys)), fill)
        out[..., [keys.index(key) for key in part.keys]] = values
        return out

    def networks(found: Sequence[Networks]) -> Networks:
        counts = [spread_out(n.counts, part, 0.0) for n, part in zip(found, parts, strict=True)]
        return Networks(
            tuple(name for n in found for name in n.names),
            tuple(name for n in found for name in n.ids),
            tuple(role for n in found for role in n.roles),
            np.concatenate([n.resolution for n in found]),
            np.concatenate(counts),
            np.concatenate([n.latency_ms for n in found]),
        )

    def mean(name: str) -> np.ndarray:
        told = [spread_out(getattr(part, name), part, np.nan) for part in parts]
        return np.asarray(np.nanmean(told, axis=0))

    return Observations(
        keys,
        networks([part.fitted for part in parts]),
        networks([part.heldout for part in parts]),
        np.concatenate([part.again_ms for part in parts]),
        mean("alone_ms"),
        mean("alone_spread_ms"),
        np.concatenate([spread_out(part.in_place_ms, part, np.nan) for part in parts]),
        max_or_nan([part.unattributed for part in parts]),
        -max_or_nan([-part.fine_share for part in parts]),
        _joined_protocol([part.protocol for part in parts]),
    )


def max_or_nan(values: Sequence[float]) -> float:
    """The largest value; NaN if one of them is."""
    return float(np.max(values))


def _joined_protocol(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many rounds counted in all, by session, and what did not."""
    out: dict[str, Any] = {"statistic": told[0]["statistic"]}
    for name in ("rounds", "disturbed_rounds"):
        sessions = sorted({session for one in told for session in one[name]})
        out[name] = {s: sum(one[name].get(s, 0) for one in told) for s in sessions}
    out["records_left_out"] = sum(one["records_left_out"] for one in told)
    groups = [one["groups"] for one in told if "groups" in one]
    if groups:
        spread = max(one["anchor_spread"] for one in groups)
        out["groups"] = {"n": sum(one["n"] for one in groups), "anchor_spread": spread}
    failed = {name: text for one in told for name, text in one.get("failed", {}).items()}
    return out | ({"failed": failed} if failed else {})


def without_failed(kit: Mapping[str, Any], failed: Collection[str]) -> Mapping[str, Any]:
    """The kit without the items that the engine cannot run, and without the networks that hold an
    op of which no micro-model is left: an op without a time of its own gets no row.

    Args:
        kit: content of `kit.json`.
        failed: names of items.
    """
    left = [item for item in kit["items"] if item["name"] not in failed]
    alone = {item["ops"][0]["key"] for item in left if item["role"] == "micro"}
    items = [
        item
        for item in left
        if item["role"] == "micro" or all(op["key"] in alone for op in item["ops"])
    ]
    return {**kit, "items": items} if failed else kit


class _Samples(NamedTuple):
    """Times of each (session, item), ms, and how many of them one needs at least."""

    ms: dict[tuple[str, str], list[float]]
    least: int


def _well_formed(
    records: Iterable[Mapping[str, Any]], kit_hash: str
) -> tuple[list[Mapping[str, Any]], int]:
    """The records of this kit, each once, and how many were left out."""
    seen: set[tuple[Any, ...]] = set()
    good = []
    left_out = 0
    for record in records:
        mark = _identity(record, kit_hash)
        if mark is None or mark in seen:
            left_out += 1
            continue
        seen.add(mark)
        good.append(record)
    return good, left_out


def _identity(record: Mapping[str, Any], kit_hash: str) -> tuple[Any, ...] | None:
    """What makes a record one of its kind; None if it is no whole one of this kit."""
    if not is_record(record, kit_hash):
        return None
    return *record["id"], record["order"], "profile" in record


def _times(
    records: Iterable[Mapping[str, Any]], disturbed: Collection[tuple[str, int]]
) -> dict[tuple[str, str], list[float]]:
    """Times of undisturbed rounds, without profiled runs, which are slower."""
    out: dict[tuple[str, str], list[float]] = {}
    for record in records:
        _, session, number, item = record["id"]
        timed = record.get("ms") is not None and "profile" not in record
        if timed and (session, number) not in disturbed:
            out.setdefault((session, item), []).append(float(record["ms"]))
    return out


def _latency(samples: _Samples, session: str, name: str) -> float:
    found = samples.ms.get((session, name), [])
    if len(found) < samples.least:
        raise UnstableMeasurementError(
            f"{name} has {len(found)} undisturbed rounds in session {session}, {samples.least} are "
            "needed; stop other work on the device or raise profile.budget_s"
        )
    return stats.low_quantile(found)


def _networks(
    kit: Mapping[str, Any], keys: Sequence[str], samples: _Samples, roles: Sequence[str]
) -> Networks:
    items = [item for item in kit["items"] if item["role"] in roles]
    column = {key: k for k, key in enumerate(keys)}
    n_ops = np.zeros((len(items), len(keys)))
    for row, item in enumerate(items):
        for op in item["ops"]:
            n_ops[row, column[op["key"]]] += 1
    return Networks(
        tuple(item["name"] for item in items),
        tuple(sha256_text(canonical_json(item["arch"]))[:12] for item in items),
        tuple(item["role"] for item in items),
        np.array([item["resolution"] for item in items], dtype=int),
        n_ops,
        np.array([_latency(samples, "a", item["name"]) for item in items]),
    )


def _alone(
    kit: Mapping[str, Any], keys: Sequence[str], samples: _Samples
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) latency and robust spread of the micro-models, ms."""
    names = {i["ops"][0]["key"]: i["name"] for i in kit["items"] if i["role"] == "micro"}
    latency = [_latency(samples, "a", names[key]) for key in keys]
    spread = [stats.robust_spread(samples.ms["a", names[key]]) for key in keys]
    return np.array(latency), np.array(spread)


def _in_place(
    kit: Mapping[str, Any],
    fitted: Networks,
    alone_ms: Mapping[str, float],
    records: Iterable[Mapping[str, Any]],
) -> tuple[np.ndarray, float, float]:
    """(N, K) time of an op in each network, share without an op, share of ops timed finely."""
    times = np.full(fitted.counts.shape, np.nan)
    profiles = _profiles(records)
    items = {item["name"]: item for item in kit["items"]}
    column = {key: k for k, key in enumerate(alone_ms)}
    total = nowhere = 0.0
    fine: list[bool] = []
    for row, name in enumerate(fitted.names):
        if name not in profiles:
            continue
        known = {op["slot"]: alone_ms[op["key"]] for op in items[name]["ops"]}
        slots = {slot: stats.low_quantile(found) for slot, found in profiles[name].items()}
        slots = regions.divided(slots, known)
        whole = sum(slots.values())
        total += whole
        by_key: dict[str, list[float]] = {}
        for op in items[name]["ops"]:
            by_key.setdefault(op["key"], []).append(slots.pop(op["slot"], 0.0))
        nowhere += sum(slots.values())
        for key, found in by_key.items():
            # shares of the network's own latency: a machine that was slow while this network was
            # profiled would else make its ops look dear
            times[row, column[key]] = np.mean(found) * fitted.latency_ms[row] / whole
            n_nodes = sum(p.macs > 0 for p in parse_key(key).graph.primitives) or 1
            fine += [ms / n_nodes >= FINE_ENOUGH_MS for ms in found]
    if not total:
        return times, float("nan"), float("nan")
    return times, nowhere / total, sum(fine) / len(fine)


def _profiles(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Times of each slot of each profiled item, one a profile, ms."""
    out: dict[str, dict[str, list[float]]] = {}
    for record in records:
        per_slot: dict[str, float] = {}
        for slot, ms in record.get("profile") or []:
            per_slot[slot] = per_slot.get(slot, 0.0) + ms
        slots = out.setdefault(record["id"][3], {}) if per_slot else {}
        for slot, ms in per_slot.items():
            slots.setdefault(slot, []).append(ms)
    return out


def _protocol(
    records: Sequence[Mapping[str, Any]], disturbed: Collection[tuple[str, int]], left_out: int
) -> dict[str, Any]:
    """How many rounds counted and what did not."""
    rounds = {(r["id"][1], r["id"][2]) for r in records if r["role"] == "anchor"}
    sessions = sorted({session for session, _ in rounds})
    spoiled = rounds & set(disturbed)
    levels = [found for found in stats.window_levels(records, disturbed).values() if found]
    grouped = max(map(len, levels), default=0) > 1
    spread = max((max(found) / min(found) - 1 for found in levels), default=0.0)
    groups = {"n": sum(map(len, levels)), "anchor_spread": spread}
    return ({"groups": groups} if grouped else {}) | {
        "statistic": f"{stats.LOW_QUANTILE}th percentile over undisturbed rounds",
        "rounds": {s: sum(at == s for at, _ in rounds - spoiled) for s in sessions},
        "disturbed_rounds": {s: sum(at == s for at, _ in spoiled) for s in sessions},
        "records_left_out": left_out,
    }
