"""Meters by name: one file each, which defines `open(target)`.

That is a context with `window(t0_s, t1_s) -> EnergyReading` on the worker's monotonic clock. Its
options are the target's `meter_options`. A name with a colon, `module:NAME`, is an object of the
user's own with the same function.
"""

from __future__ import annotations

from typing import ContextManager, Dict, List, Mapping, NamedTuple, Optional, Protocol, Tuple

from profilers.errors import ConfigError
from profilers.plugins import load_part, names_in, select
from profilers.schema import Target


class EnergyReading(NamedTuple):
    """Energy of one window. Unknown is None, never 0.

    Attributes:
        energy_mj: mJ, of all rails together; None where it is not complete.
        samples: how many readings it rests on.
        period_s: seconds between readings that differ.
        rails: what was metered.
        complete: the readings cover the whole window and make sense.
        reason: why energy is unknown, in one line.
        rail_mj: mJ of each rail.
    """

    energy_mj: Optional[float]
    samples: int
    period_s: Optional[float]
    rails: Tuple[str, ...]
    complete: bool
    reason: str = ""
    rail_mj: Tuple[float, ...] = ()


class Meter(Protocol):
    """An open meter. Beside it may stand `mark()`, which takes a reading now, and `period_s`,
    seconds between readings as far as known: a meter that polls has both.
    """

    def window(self, t0_s: float, t1_s: float) -> EnergyReading:
        """Energy between two times that have passed, seconds of the worker's clock."""


class MeterModule(Protocol):
    """What a meter's file defines."""

    def open(self, target: Target) -> ContextManager[Meter]:
        """A context that meters.

        Raises:
            ConfigError: an option of the target is unknown or has no meaning.
            MeterError: the sensor is missing or may not be read; says what to do.
        """


def names() -> List[str]:
    """The meters that come with hwnas."""
    return names_in(__path__)


def load(name: str) -> MeterModule:
    """The meter of a name.

    Raises:
        ConfigError: no such meter; the message holds the nearest name.
    """
    meter: MeterModule = load_part(name, __name__, __path__, "meter")
    return meter


def options(target: Target, defaults: Mapping[str, str]) -> Dict[str, str]:
    """The meter's options of a target as text, the others as by default.

    Raises:
        ConfigError: an option is unknown, or one that has no default is missing.
    """
    for name in target.meter_options:
        select(name, defaults, f"option of meter {target.meter}")
    found = {**defaults, **{name: str(value) for name, value in target.meter_options.items()}}
    for name, value in found.items():
        if value == REQUIRED:
            raise ConfigError(
                f"meter {target.meter} needs its option {name!r}; add it to meter_options of the "
                f"file targets/{target.name}.yaml"
            )
    return found


REQUIRED = "<required>"  # in place of a default


def number(given: Mapping[str, str], name: str, least: float = 0.0) -> float:
    """An option as a number of at least `least`.

    Raises:
        ConfigError: it is none, or too small.
    """
    try:
        value = float(given[name])
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise ConfigError(f"meter option {name} = {given[name]!r} is not a number from {least:g}")
    return value


def chosen_rails(given: str, known: List[str], usual: List[str]) -> List[str]:
    """Rails to meter: those an option names (comma-separated), else the usual ones.

    Raises:
        ConfigError: a rail is not there.
    """
    wanted = [name.strip() for name in given.split(",") if name.strip()]
    return [select(name, known, "rail") for name in wanted] if wanted else usual
