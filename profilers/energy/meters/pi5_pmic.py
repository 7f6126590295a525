"""The power management chip of the Raspberry Pi 5, read by `vcgencmd pmic_read_adc`.

Rails are paired by name (`VDD_CORE_A`, `VDD_CORE_V`) and summed: an estimate of what the board
draws, without what hangs on its 5 V (USB, HATs); never comparable with an external meter. Each
reading starts a process; about 20 a second is what there is.

Options: command (vcgencmd), rails (comma-separated), period_s (0.05), timeout_s (2).
"""

from __future__ import annotations

import contextlib
import re
from typing import Dict, Iterator, List

from profilers import bounded
from profilers.energy.meters import chosen_rails, number, options
from profilers.energy.sampling import Polled, Sensor
from profilers.errors import MeterError
from profilers.schema import Target

DEFAULTS = {"command": "vcgencmd", "rails": "", "period_s": "0.05", "timeout_s": "2"}
_LINE = re.compile(r"(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(-?\d+(?:\.\d+)?)[AV]")


@contextlib.contextmanager
def open(target: Target) -> Iterator[Polled]:
    """Power of the rails that have both a current and a voltage.

    Raises:
        MeterError: `vcgencmd` is missing or gives no rails.
    """
    given = options(target, DEFAULTS)
    words = [*bounded.split(given["command"]), "pmic_read_adc"]
    timeout_s = number(given, "timeout_s", 0.01)
    try:
        first = rails_in(bounded.output(words, timeout_s))
    except MeterError as error:
        raise MeterError(f"meter pi5-pmic: {error}; it needs a Raspberry Pi 5") from None
    if not first:
        raise MeterError(
            f"meter pi5-pmic: `{' '.join(words)}` names no rail; it needs a Raspberry Pi 5"
        )
    rails = chosen_rails(given["rails"], list(first), list(first))

    def read() -> List[float]:
        found = rails_in(bounded.output(words, timeout_s))
        missing = [name for name in rails if name not in found]
        if missing:
            raise MeterError(f"rail {missing[0]} is gone")
        return [found[name] for name in rails]

    meter = Polled(
        Sensor("pi5-pmic", tuple(rails), "power", number(given, "period_s", 0.001), read)
    )
    try:
        yield meter
    finally:
        meter.close()


def rails_in(text: str) -> Dict[str, float]:
    """W of each rail in the command's output, in its order."""
    values = {(name, kind): float(value) for name, kind, value in _LINE.findall(text)}
    return {
        name: amps * values[name, "V"]
        for (name, kind), amps in values.items()
        if kind == "A" and (name, "V") in values
    }
