"""Exact costs: of an op by its primitives, of a network by folds over its ops."""

from __future__ import annotations

import operator
from collections.abc import Callable

from hwnas.networks.ops import Op
from hwnas.networks.placed import peaks
from hwnas.networks.space import Architecture

SUMS: dict[str, Callable[[Op], int]] = {
    name: operator.attrgetter(name) for name in ("macs", "params", "weight_bytes")
}
MAXIMA: dict[str, Callable[[Op], int]] = {
    "peak_activation_bytes": operator.attrgetter("peak_activation_bytes")
}


def exact_costs(arch: Architecture) -> dict[str, int]:
    """MACs, parameters, weight bytes and peak activation bytes of a network, fp32, batch 1."""
    sums = {name: sum(count(placed.op) for placed in arch.ops) for name, count in SUMS.items()}
    return {**sums, "peak_activation_bytes": max(peaks(arch.ops).values())}
