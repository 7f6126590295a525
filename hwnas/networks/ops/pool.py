"""Mean over all pixels (or steps)."""

from typing import Any

from hwnas.networks.graph import Body

EXAMPLES: tuple[tuple[Any, ...], ...] = (((8, 7, 7), {}), ((8, 20), {}))


def build(body: Body) -> None:
    """Each channel's mean; the spatial axes keep size 1."""
    body.mean("pool", "in")
