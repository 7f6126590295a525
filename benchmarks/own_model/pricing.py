"""How fast networks of a traced model are priced, and its front is found."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hwnas.networks.ops import Op
from hwnas.pricing import elimination
from hwnas.pricing.terms import op_terms
from own_model.analysis import bar
from own_model.spaces import own

MODEL, PX, NETWORKS, REPEATS = "resnet18", 224, 100_000, 11
PRICED_S, FRONT_S = 0.1, 10.0


def measure(models: list[str], quick: bool) -> dict[str, Any]:
    """The document of this part. Costs of ops are made up, which prices as measured ones do."""
    space = own((models or [MODEL])[0], 64 if quick else PX).space
    rng = np.random.default_rng(0)
    genome = space.sample(1000 if quick else NETWORKS, rng)
    extra: dict[str, float] = {}

    def latency(op: Op) -> float:
        return op.macs * 1e-6 + op.elements * 1e-5 + extra.setdefault(op.key, rng.random())

    def lost(op: Op) -> float:  # stands for error: less where a network holds more
        return -float(np.log1p(op.params)) * (1 + 0.1 * extra.setdefault(op.key, rng.random()))

    terms = op_terms(space, latency), op_terms(space, lost)
    terms[0].evaluate(genome[:10])
    took = sorted(_seconds(lambda: terms[0].evaluate(genome)) for _ in range(REPEATS))
    front: list[Any] = []
    front_s = _seconds(lambda: front.append(elimination.front(terms)))
    print(f"{len(genome)} networks priced in {took[REPEATS // 2]:.3f} s ({took[0]:.3f} to "
          f"{took[-1]:.3f}); front of {len(front[0])} networks in {front_s:.2f} s")  # fmt: skip
    return {
        "setting": {"model": MODEL, "px": space.resolutions[0], "space": space.size},
        "n": REPEATS,
        "spread": [took[0], took[-1]],
        "front": len(front[0]),
        "bars": [
            bar("100000_networks_priced_s", took[REPEATS // 2], "<=", PRICED_S),
            bar("exact_front_s", front_s, "<=", FRONT_S),
        ],
    }


def _seconds(action: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
