"""How sure a measured accuracy is: its 95 % interval, and which networks it cannot tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwnas.tasks.classification import Z as Z

USUAL = 0.9  # accuracy that a warning before training assumes


def in_words(accuracy: float | None, interval: Sequence[float] | None) -> str:
    """An accuracy with its interval, in percent; empty where it is unknown."""
    if accuracy is None:
        return ""
    if not interval:
        return f"{accuracy:.2%}"
    low, high = interval
    return f"{accuracy:.2%} ({100 * low:.1f} to {100 * high:.1f})"


def least_difference(n: int) -> float:
    """Smallest difference (a share, 95 %) of two accuracies near USUAL that n images tell apart, if
    the networks fail on different images. Networks of one family mostly fail on the same ones: then
    a smaller difference shows.
    """
    return Z * math.sqrt(2 * USUAL * (1 - USUAL) / n)


def alike(a: str, b: str) -> bool:
    """Whether the test images do not tell two networks apart; False where they are not known.

    Args:
        a, b: hex of bits, whether each is right on each of the same images; empty if unknown.
    """
    if not (a and b):
        return False
    ours, theirs = int(a, 16), int(b, 16)
    return not differ(((ours & ~theirs).bit_count(), (theirs & ~ours).bit_count()))


def differ(right: tuple[int, int]) -> bool:
    """Whether two networks differ on the same images, by an exact two-sided test at 5 %.

    Args:
        right: images that only the first is right on, and only the second.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
        proportions"; the exact form, a sign test.
    """
    few, n = min(right), sum(right)
    tail = sum(math.comb(n, k) for k in range(few + 1))
    return 40 * tail < 1 << n  # twice the tail is below 1 in 20
