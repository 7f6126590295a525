"""Exact costs of a whole network: sums and maxima over its placed ops."""

from __future__ import annotations

from hwnas.networks.space import Architecture
from profilers import counts


def exact_costs(arch: Architecture) -> dict[str, int]:
    """MACs, parameters, weight bytes and peak activation bytes of a network, fp32, batch 1."""
    specs = [op.spec for op in arch.ops]
    return {
        "macs": sum(map(counts.macs, specs)),
        "params": sum(map(counts.params, specs)),
        "weight_bytes": sum(map(counts.weight_bytes, specs)),
        "peak_activation_bytes": max(map(counts.peak_activation_bytes, specs)),
    }
