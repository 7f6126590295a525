"""Disjoint sets of removable units, over arrays of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
WHOLE = 0  # the set of what always stays


class Units:
    """Units that come and go together, in sets; one of the set WHOLE never goes, and says why."""

    def __init__(self) -> None:
        self._parent: Ids = np.zeros(1, np.int64)
        self._why: Ids = np.zeros(1, np.int64)
        self._reasons = ["it is combined with channels that stay whole"]

    def fresh(self, count: int) -> Ids:
        """New units, each in a set of its own."""
        ids = np.arange(len(self._parent), len(self._parent) + count, dtype=np.int64)
        self._parent = np.concatenate([self._parent, ids])
        self._why = np.concatenate([self._why, np.zeros(count, np.int64)])
        return ids

    def whole(self, reason: str) -> Ids:
        """(1,), one new unit that always stays."""
        unit = self.fresh(1)
        if reason not in self._reasons:
            self._reasons.append(reason)
        self._parent[unit], self._why[unit] = WHOLE, self._reasons.index(reason)
        return unit

    def find(self, ids: Any) -> Ids:
        """The set of each unit: its least unit."""
        roots: Ids = self._parent[ids]
        while not np.array_equal(up := self._parent[roots], roots):
            roots = up
        self._parent[ids] = roots
        return roots

    def union(self, a: Any, b: Any) -> None:
        """Unite the set of each unit of one array with that of the other (they broadcast)."""
        a, b = (np.ravel(ids) for ids in np.broadcast_arrays(a, b))
        while True:
            x, y = self.find(a), self.find(b)
            apart = (x != y) & (x != WHOLE) & (y != WHOLE)
            if not apart.any():
                break
            low, high = np.minimum(x, y)[apart], np.maximum(x, y)[apart]
            np.minimum.at(self._parent, high, low)
        self._settle(x, b, (x != WHOLE) & (y == WHOLE))
        self._settle(y, a, (y != WHOLE) & (x == WHOLE))

    def _settle(self, roots: Ids, partners: Ids, where: NDArray[np.bool_]) -> None:
        """Sets that stay whole from now on, for the reasons that their partners have."""
        if not where.any():
            return
        settled, first = np.unique(roots[where], return_index=True)
        everyone = self.find(np.arange(len(self._parent)))
        at = np.minimum(np.searchsorted(settled, everyone), len(settled) - 1)
        hit = settled[at] == everyone
        self._why[hit] = self._why[partners[where][first]][at[hit]]
        self._parent[settled] = WHOLE

    def freeze(self, ids: Any, reason: str) -> None:
        """Let units always stay, and all that is in their sets."""
        if np.any(self.find(ids) != WHOLE):
            self.union(ids, self.whole(reason))

    def reason(self, unit: int) -> str:
        """Why a unit of the set WHOLE always stays."""
        return self._reasons[int(self._why[unit])]
