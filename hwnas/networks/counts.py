"""Exact costs: of an op by the rules of `profilers.counts`, of a network by folds over its ops."""

from __future__ import annotations

from collections.abc import Callable

from hwnas.networks.space import Architecture
from profilers import counts
from profilers.schema import OpSpec

SUMS: dict[str, Callable[[OpSpec], int]] = {
    "macs": counts.macs,
    "params": counts.params,
    "weight_bytes": counts.weight_bytes,
}
MAXIMA: dict[str, Callable[[OpSpec], int]] = {"peak_activation_bytes": counts.peak_activation_bytes}


def exact_costs(arch: Architecture) -> dict[str, int]:
    """MACs, parameters, weight bytes and peak activation bytes of a network, fp32, batch 1."""
    specs = [op.spec for op in arch.ops]
    sums = {name: sum(map(count, specs)) for name, count in SUMS.items()}
    return {**sums, **{name: max(map(count, specs)) for name, count in MAXIMA.items()}}
