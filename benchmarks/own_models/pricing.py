"""How fast networks of a traced model are priced, and its front is found."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from own_models.spaces import own

from hwnas.pricing import elimination
from hwnas.pricing.terms import op_terms
from hwnas.search.problem import metrics_of

MODEL, PX, NETWORKS, REPEATS = "resnet18", 224, 100_000, 11
PRICED_S, FRONT_S = 0.1, 10.0


def rows(quick: bool) -> list[dict[str, Any]]:
    """Seconds of a model's space: the latency is a made-up one of every op, which prices alike."""
    space = own(MODEL, 64 if quick else PX).space
    rng = np.random.default_rng(0)
    genome = space.sample(1000 if quick else NETWORKS, rng)
    seconds: dict[str, float] = {}
    noise: dict[str, float] = {}

    def latency(op: Any) -> float:
        return float(op.macs * 1e-6 + op.elements * 1e-5 + noise.setdefault(op.key, rng.random()))

    def capacity(op: Any) -> float:  # stands for error: falls with what a network holds
        return -float(np.log1p(op.params)) * (1 + 0.1 * noise.setdefault(op.key, rng.random()))

    terms = op_terms(space, latency), op_terms(space, capacity)
    terms[0].evaluate(genome[:10])
    took = []
    for _ in range(REPEATS):
        begun = time.monotonic()
        terms[0].evaluate(genome)
        took.append(time.monotonic() - begun)
    seconds["priced"] = statistics.median(took)
    begun = time.monotonic()
    front = elimination.front(terms)
    seconds["front"] = time.monotonic() - begun
    return [
        {
            "model": MODEL,
            "networks": len(genome),
            "space": space.size,
            "priced_s": seconds["priced"],
            "priced_spread_s": [min(took), max(took)],
            "front_s": seconds["front"],
            "front": len(front),
            "metrics": sorted(metrics_of(space)),
        }
    ]


def bars(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is judged."""
    named = (("100,000 networks priced, s", found[0]["priced_s"], PRICED_S),
             ("exact front, s", found[0]["front_s"], FRONT_S))  # fmt: skip
    return [{"name": n, "value": v, "limit": most, "holds": v <= most} for n, v, most in named]
