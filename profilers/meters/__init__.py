"""Meters by name: one file each, which defines `open(target)`.

That is a context with `window(t0_s, t1_s) -> EnergyReading` on the monotonic clock.
"""

from __future__ import annotations

import pkgutil
from typing import List, NamedTuple, Optional, Tuple


class EnergyReading(NamedTuple):
    """Energy of one window. Unknown is None, never 0.

    Attributes:
        energy_mj: mJ.
        samples: how many readings it rests on.
        period_s: seconds between readings.
        rails: what was metered.
        complete: the readings cover the whole window.
    """

    energy_mj: Optional[float]
    samples: int
    period_s: Optional[float]
    rails: Tuple[str, ...]
    complete: bool


def names() -> List[str]:
    """The meters that come with hwnas."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
