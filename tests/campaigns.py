"""Simulated campaigns: true additive costs, noise of a known size, micro-models that are biased."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwnas.measuring import kit as kits
from hwnas.networks.ops import parse_key
from profilers.schema import MEASUREMENTS_FORMAT, target_from_name

TARGET = target_from_name("host.ort-cpu.fp32.b1.t1")


@dataclass(frozen=True)
class World:
    """How a simulated device behaves.

    Attributes:
        noise: spread of an item's latency from session to session, a share.
        burst: mean of what single rounds add, a share.
        own: spread of an op's cost over the smooth rule of its size.
        alone: spread of a micro-model over its rule; in_place: likewise of the engine's clock.
        unattributed: share of the profile that has no slot; no profile at all if None.
        slow_rounds: rounds of session a in which everything takes half as long again.
        drift: of session b, a share.
        interplay: spread of a network's true time over the sum of its ops, a share.
        costs: true ms of single ops, by key, in place of the rule's.
        whole: what a model takes, ms, of the ms that its ops give it and its item of the kit.
    """

    noise: float = 0.004
    burst: float = 0.01
    own: float = 0.1
    alone: float = 0.04
    in_place: float = 0.03
    unattributed: float | None = 0.01
    slow_rounds: tuple[int, ...] = ()
    drift: float = 0.0
    interplay: float = 0.0
    rounds: int = 12
    scale_ms: float = 2e-6
    costs: dict[str, float] = field(default_factory=dict)
    whole: Callable[[float, Mapping[str, Any]], float] = lambda ms, item: ms


def true_costs(keys, world, rng):
    """What each op costs inside a network, ms."""
    out = {}
    for key in keys:
        op = parse_key(key)
        work = op.macs + 20 * math.prod(op.inputs[0]) + 8000
        out[key] = world.scale_ms * work * float(np.exp(world.own * rng.normal()))
    return out


def simulate(kit, world, seed=0):
    """Header and records of one campaign of a kit."""
    rng = np.random.default_rng(seed)
    kit_hash = kits.kit_hash(kit)
    keys = sorted({op["key"] for item in kit["items"] for op in item["ops"]})
    costs = true_costs(keys, world, rng) | world.costs
    typical = float(np.median(list(costs.values())))
    truth = {
        item["name"]: world.whole(_true_time(item, costs, typical, world, rng), item)
        for item in kit["items"]
    }
    records = []
    for session, roles in (("a", None), ("b", ("heldout", "anchor"))):
        items = [i for i in kit["items"] if roles is None or i["role"] in roles]
        level = {i["name"]: 1 + world.noise * rng.normal() for i in items}
        for number in range(world.rounds):
            slow = 1.5 if session == "a" and number in world.slow_rounds else 1.0
            slow *= 1 + world.drift * (session == "b")
            for order, place in enumerate(rng.permutation(len(items))):
                item = items[place]
                burst = 1 + world.burst * rng.exponential()
                ms = truth[item["name"]] * level[item["name"]] * burst * slow
                records.append(_record(kit_hash, session, number, item, order, ms))
    if world.unattributed is not None:
        records += _profiles(kit, kit_hash, costs, world, rng)
    header = {
        "format": MEASUREMENTS_FORMAT,
        "target": TARGET.to_json(),
        "environment": {"cpu": "simulated", "fingerprint": "0" * 64},
        "kit": kit_hash,
        "created": "2026-01-01T00:00:00Z",
    }
    return header, records


def _true_time(item, costs, typical, world, rng):
    total = sum(costs[op["key"]] for op in item["ops"])
    if item["role"] != "micro":
        whole = total + 3 * typical + 0.001 * item["resolution"] * typical
        return whole * (1 + world.interplay * rng.normal()) if world.interplay else whole
    reorder = 10 * world.scale_ms * parse_key(item["ops"][0]["key"]).elements
    bias = 0.9 * float(np.exp(world.alone * rng.normal()))
    return total * bias + reorder + 0.5 * typical


def _record(kit_hash, session, number, item, order, ms):
    return {
        "id": [kit_hash, session, number, item["name"]],
        "role": item["role"],
        "order": order,
        "t_s": float(order),
        "warm": 2,
        "loops": 3,
        "ms": ms,
    }


def _profiles(kit, kit_hash, costs, world, rng):
    clock = {key: float(np.exp(world.in_place * rng.normal())) for key in costs}
    out = []
    for item in kit["items"]:
        if item["role"] != "covering":
            continue
        for number in range(3):
            profile = [
                [op["slot"], 0.8 * costs[op["key"]] * clock[op["key"]] * (1 + 0.01 * rng.random())]
                for op in item["ops"]
            ]
            total = sum(ms for _, ms in profile)
            profile.append(["", total * world.unattributed / (1 - world.unattributed)])
            record = _record(kit_hash, "a", number, item, len(kit["items"]), 0.0)
            del record["ms"], record["warm"]
            out.append({**record, "profile": profile})
    return out
