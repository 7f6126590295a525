"""Exact costs: of an op by its primitives, of a network by folds over its ops."""

from __future__ import annotations

import operator
from collections.abc import Callable

from hwnas.networks.ops import BYTES, Op
from hwnas.networks.placed import peaks
from hwnas.networks.space import Architecture
from profilers import precisions

SUMS: dict[str, Callable[[Op], int]] = {
    name: operator.attrgetter(name) for name in ("macs", "params", "weight_bytes")
}
MAXIMA: dict[str, Callable[[Op], int]] = {
    "peak_activation_bytes": operator.attrgetter("peak_activation_bytes")
}


def exact_costs(arch: Architecture, precision: str = "fp32") -> dict[str, int]:
    """MACs, parameters, weight bytes and peak activation bytes of a network, batch 1."""
    sums = {name: sum(count(placed.op) for placed in arch.ops) for name, count in SUMS.items()}
    found = {**sums, "peak_activation_bytes": max(peaks(arch.ops).values())}
    return {name: round(n * share_of_fp32(name, precision)) for name, n in found.items()}


def share_of_fp32(name: str, precision: str) -> float:
    """A count in a precision as a share of the count in fp32: bytes change."""
    about = precisions.load(precision).PRECISION
    sizes = {"weight_bytes": about.weight_bytes, "peak_activation_bytes": about.activation_bytes}
    return sizes.get(name, BYTES) / BYTES
