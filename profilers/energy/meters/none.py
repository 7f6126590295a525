"""No meter: energy is unknown."""

from __future__ import annotations

import contextlib
from typing import Iterator

from profilers.energy.meters import EnergyReading
from profilers.schema import Target


class Unmetered:
    """Windows without readings."""

    def window(self, t0_s: float, t1_s: float) -> EnergyReading:
        """Nothing is known of any window."""
        return EnergyReading(None, 0, None, (), False, "the target has no meter")


@contextlib.contextmanager
def open(target: Target) -> Iterator[Unmetered]:
    """A context that meters nothing."""
    yield Unmetered()
