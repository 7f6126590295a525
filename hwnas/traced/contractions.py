"""Labels of products of two activations."""

from __future__ import annotations

import numpy as np

from hwnas.traced.labels import Labels, blank
from hwnas.traced.units import Ids


def matmul(labels: Labels, a: Ids, b: Ids, shape: tuple[int, ...]) -> Ids:
    """Labels of (..., m, k) @ (..., k, n), of axes that are matrices: k may lose units that both
    have, m or n those of one of them; where heads come and go, all of a head goes together.
    """
    if a.ndim < 2 or b.ndim < 2:
        for ids in (a, b):
            labels.units.freeze(ids, "a product of a matrix and a vector needs all of it")
        return blank(len(shape))
    ndim = max(a.ndim, b.ndim)
    a, b = (ids.reshape((1,) * (ndim - ids.ndim) + ids.shape) for ids in (a, b))
    if any(labels.varies(ids, axis) for ids in (a, b) for axis in range(ndim - 2)):
        return _heads(labels, a, b)
    rows, columns = labels.varies(a, -2), labels.varies(b, -1)
    inner_a, inner_b = labels.varies(a, -1), labels.varies(b, -2)
    if (inner_a or inner_b) and not rows and not columns:
        labels.units.union(np.ravel(a), np.ravel(b))
        return blank(ndim)
    if not (inner_a or inner_b) and rows != columns and labels.all_whole(b if rows else a):
        return a if rows else b
    if not (inner_a or inner_b or rows or columns):
        labels.units.union(a, b)
        return a
    return labels.same(a, b).reshape((1,) * ndim)


def _heads(labels: Labels, a: Ids, b: Ids) -> Ids:
    """All of a head goes together."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    flat = [np.broadcast_to(ids, (*lead, *ids.shape[-2:])).reshape(*lead, -1) for ids in (a, b)]
    both = np.concatenate(flat, axis=-1)
    labels.units.union(both, both[..., :1])
    return labels.compact(both[..., :1, None])
