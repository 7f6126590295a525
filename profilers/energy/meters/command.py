"""An external command that prints one number each time it is run: watts, or energy so far.

The last word of its output that is a number counts. It is run again and again, without a shell,
within a time and an amount of output.

Options: command, unit (W, mW for power; J, mJ, Wh for a counter that only rises), rail (a name for
it), period_s (0.1), timeout_s (5).
"""

from __future__ import annotations

import contextlib
import math
from typing import Iterator, List

from profilers import bounded
from profilers.energy.meters import REQUIRED, number, options
from profilers.energy.recordings import UNITS
from profilers.energy.sampling import Polled, Sensor
from profilers.errors import MeterError
from profilers.plugins import select
from profilers.schema import Target

DEFAULTS = {
    "command": REQUIRED,
    "unit": "W",
    "rail": "command",
    "period_s": "0.1",
    "timeout_s": "5",
}


@contextlib.contextmanager
def open(target: Target) -> Iterator[Polled]:
    """What the command prints, as a sensor.

    Raises:
        ConfigError: the command or unit cannot be used.
        MeterError: the command fails, or prints no number.
    """
    given = options(target, DEFAULTS)
    words, timeout_s = bounded.split(given["command"]), number(given, "timeout_s", 0.01)
    kind, scale = UNITS[select(given["unit"], UNITS, "unit")]

    def read() -> List[float]:
        return [scale * last_number(bounded.output(words, timeout_s), words[0])]

    period_s = number(given, "period_s", 0.001)
    meter = Polled(Sensor("command", (given["rail"],), kind, period_s, read))
    try:
        yield meter
    finally:
        meter.close()


def last_number(text: str, name: str) -> float:
    """The last finite number of a text.

    Raises:
        MeterError: there is none.
    """
    for word in reversed(text.split()):
        try:
            value = float(word)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    raise MeterError(f"{name} printed no number: {text[:40]!r}")
