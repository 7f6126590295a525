"""Classifier: all numbers of the input in a row, times a matrix, plus a bias."""

import math

from hwnas.networks.graph import Body

EXAMPLES = (((8, 1, 1), {"out": 10}), ((8, 3), {"out": 10}))


def build(body: Body, out: int) -> None:
    """Out features."""
    flat = body.add("reshape", "flat", "in", shape=(math.prod(body.shapes["in"]),))
    body.add("linear", "linear", flat, out=out, bias=True)
