"""From the sum of a network's rows to its latency: a line, or one that bends upwards.

Where a network outgrows a cache, its ops take longer the more of them there are: on a core with
2 MB of second-level cache the networks of `mbv3-28` (0.3 to 1.8 MB of weights) deviate from any
sum by 3 %, and from a bent one by 1.4 % (docs/benchmarks.md). A bend is monotone, so within a
resolution the network of the smaller sum is the faster one, and exact fronts stay exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MOST = 0.5  # share; beyond it small networks would cost less than half of their sum


class Bend(NamedTuple):
    """latency = s (1 + share (s / reference_ms - 1)) of a sum s; at the reference it is the sum.

    Attributes:
        share: 0 to MOST; 0: the latency is the sum.
        reference_ms: latency at which rows are what ops take; positive.
    """

    share: float = 0.0
    reference_ms: float = 1.0

    def __call__(self, sum_ms: np.ndarray) -> np.ndarray:
        """(n,) latencies, ms, of (n,) sums, ms; of two sums the larger gets the larger latency."""
        if not self.share:
            return np.asarray(sum_ms)
        total = np.maximum(sum_ms, 0.0)
        return np.asarray(total * (1 - self.share + self.share / self.reference_ms * total))

    def sums(self, latency_ms: np.ndarray) -> np.ndarray:
        """(n,) sums, ms, of (n,) latencies, ms, not negative: the inverse."""
        if not self.share:
            return np.asarray(latency_ms)
        rise, latency = 1 - self.share, np.asarray(latency_ms)
        root = np.sqrt(rise**2 + 4 * self.share / self.reference_ms * latency)
        return np.asarray(2 * latency / (rise + root))  # of both forms the one that cancels nothing


STRAIGHT = Bend()
