"""Largest of kernel x kernel pixels, padded by half of the kernel."""

from typing import Any

from hwnas.networks.graph import Body, window

EXAMPLES: tuple[tuple[Any, ...], ...] = (((8, 9, 9), {}), ((8, 20), {"kernel": 3, "stride": 1}))


def build(body: Body, kernel: int = 3, stride: int = 2) -> None:
    """Every stride-th pixel."""
    axes = len(body.shapes["in"]) - 1
    body.add("max_pool", "pool", "in", **window(axes, {"kernel": kernel, "stride": stride}))
