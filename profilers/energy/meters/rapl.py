"""RAPL: the energy counters of x86 processors, as Linux shows them under powercap.

Source: Linux Documentation/power/powercap/powercap.rst; readable by root only since 5.10
(CVE-2020-8694). Packages and their DRAM are summed; `psys` holds the packages already. Virtual
machines and containers mostly lack the counters or hide them.

Options: root (/sys), rails (names, comma-separated; packages and DRAM), period_s (0.05).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Dict, Iterator, List

from profilers import sysfs
from profilers.energy.meters import chosen_rails, number, options
from profilers.energy.sampling import Polled, Sensor, file_text, numbers
from profilers.errors import MeterError
from profilers.schema import Target

FOLDER = "class/powercap"
MJ_PER_UJ, W_PER_UW = 1e-3, 1e-6
MOST_W = 1000.0  # of a zone that names no limit
PEAK = 2.0  # power over the limits of a zone, which are means over a while
DEFAULTS = {"root": "/sys", "rails": "", "period_s": "0.05"}


@contextlib.contextmanager
def open(target: Target) -> Iterator[Polled]:
    """Counters of the processor's packages.

    Raises:
        MeterError: there are none, or they may not be read; the message holds the command.
    """
    given = options(target, DEFAULTS)
    zones = _zones(Path(given["root"]))
    usual = [name for name in zones if name.startswith(("package", "dram"))]
    rails = chosen_rails(given["rails"], list(zones), usual)
    if not rails:
        raise MeterError(
            f"meter rapl: {Path(given['root']) / FOLDER} holds no intel-rapl zones: no such "
            "counters here (virtual machine, container, or `sudo modprobe intel_rapl_msr`)"
        )
    paths = [str(zones[name] / "energy_uj") for name in rails]
    _check_readable(paths)
    wraps = _ranges([str(zones[name] / "max_energy_range_uj") for name in rails])
    meter = Polled(
        Sensor(
            "rapl",
            tuple(rails),
            "energy",
            number(given, "period_s", 0.001),
            lambda: [MJ_PER_UJ * value for value in numbers(paths)],
            tuple(MJ_PER_UJ * value for value in wraps),
            tuple(_most_w(zones[name]) for name in rails),
        )
    )
    try:
        yield meter
    finally:
        meter.close()


def _zones(root: Path) -> Dict[str, Path]:
    """Folder of each zone by name; sub-zones carry their package's number: `dram-0`."""
    found = {}
    for folder in sorted((root / FOLDER).glob("intel-rapl:*")):
        name, place = file_text(str(folder / "name")), folder.name.split(":")[1:]
        if name:
            found[name if len(place) == 1 else f"{name}-{place[0]}"] = folder
    return found


def _ranges(paths: List[str]) -> List[float]:
    """Where each counter starts again."""
    try:
        return numbers(paths)
    except (OSError, ValueError) as error:
        raise MeterError(f"meter rapl: where counters wrap cannot be read: {error}") from None


def _most_w(zone: Path) -> float:
    """W that a zone can take at most: above the largest of its limits; MOST_W where it has none."""
    watts = [W_PER_UW * limit for limit in sysfs.numbers(zone.glob("constraint_*_uw"))]
    return PEAK * max((w for w in watts if 0 < w <= MOST_W), default=MOST_W / PEAK)


def _check_readable(paths: List[str]) -> None:
    for path in paths:
        if not os.access(path, os.R_OK):
            folder = os.path.dirname(os.path.dirname(path))
            raise MeterError(
                f"meter rapl: {path} may not be read; until the next start of the machine: "
                f"sudo chmod a+r {folder}/intel-rapl:*/energy_uj"
            )
