"""Power sensors that Linux shows under hwmon: the INA3221 of Jetson boards, and other INA2xx.

Three layouts are read, in this order: hwmon chips with `powerN_input` (uW) or with pairs of
`inN_input` (mV) and `currN_input` (mA) named by `inN_label` (JetPack 5 and newer, Linux
Documentation/hwmon/ina3221.rst); the `iio` devices of JetPack 4 (`rail_name_N`, `in_powerN_input`
in mW). Rails go by their labels, never by their numbers. Where a rail carries the whole module
(`VDD_IN`), it alone is the energy; else all rails are summed.

Options: root (/sys), chip (begin of its name: ina), rails (comma-separated), period_s (0.02).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from profilers.energy.meters import chosen_rails, number, options
from profilers.energy.sampling import Polled, Sensor, file_text, numbers
from profilers.errors import MeterError
from profilers.schema import Target

DEFAULTS = {"root": "/sys", "chip": "ina", "rails": "", "period_s": "0.02"}
WHOLE = ("VDD_IN", "POM_5V_IN", "VIN")  # rails that the others are parts of
NO_RAIL = ("", "NC", "sum of shunt voltages")
W_PER_UW, W_PER_MW, W_PER_MV_MA = 1e-6, 1e-3, 1e-6

Parts = Tuple[
    Tuple[str, ...], float
]  # files whose numbers are multiplied, and W for a product of 1


@contextlib.contextmanager
def open(target: Target) -> Iterator[Polled]:
    """Power of the board's rails.

    Raises:
        MeterError: no sensor was found, or it cannot be read.
    """
    given = options(target, DEFAULTS)
    root = Path(given["root"])
    known = rails_of(root, given["chip"])
    if not known:
        raise MeterError(
            f"meter hwmon: no chip {given['chip']!r}… with rails under {root}/class/hwmon or "
            f"{root}/bus/i2c/drivers; see `cat {root}/class/hwmon/hwmon*/name`"
        )
    usual = [name for name in WHOLE if name in known][:1] or list(known)
    rails = chosen_rails(given["rails"], list(known), usual)
    sources = [known[name] for name in rails]
    sensor = Sensor(
        "hwmon",
        tuple(rails),
        "power",
        number(given, "period_s", 0.001),
        lambda: [_watts(parts) for parts in sources],
    )
    meter = Polled(sensor)
    try:
        yield meter
    finally:
        meter.close()


def _watts(parts: Parts) -> float:
    value = parts[1]
    for factor in numbers(parts[0]):
        value *= factor
    return value


def rails_of(root: Path, chip: str) -> Dict[str, Parts]:
    """Where the power of each rail is read, by its label."""
    found: Dict[str, Parts] = {}
    for folder in _chips(root, chip):
        for label, parts in _powers(folder) or _pairs(folder):
            found[_free(label, found)] = parts
    if found:
        return found
    for folder in sorted(root.glob("bus/i2c/drivers/ina3221x/*/iio:device*")):
        for label, parts in _iio(folder):
            found[_free(label, found)] = parts
    return found


def _chips(root: Path, chip: str) -> List[Path]:
    """hwmon folders of chips of a name, each once."""
    every = sorted(root.glob("class/hwmon/hwmon*"))
    every += sorted(root.glob("bus/i2c/drivers/ina*/*/hwmon/hwmon*"))
    chips: Dict[str, Path] = {}
    for folder in every:
        if file_text(str(folder / "name")).startswith(chip):
            chips.setdefault(folder.name, folder)
    return list(chips.values())


def _free(label: str, found: Dict[str, Parts]) -> str:
    """The label, numbered where another chip has it too."""
    name, number_ = label, 2
    while name in found:
        name, number_ = f"{label}-{number_}", number_ + 1
    return name


def _powers(folder: Path) -> List[Tuple[str, Parts]]:
    """Rails that the chip computes itself."""
    out: List[Tuple[str, Parts]] = []
    for path in sorted(folder.glob("power*_input")):
        channel = path.name[len("power") : -len("_input")]
        label = file_text(str(folder / f"power{channel}_label"))
        label = label or file_text(str(folder / f"in{channel}_label"))
        label = label or file_text(str(folder / "label"))
        label = label or f"{file_text(str(folder / 'name'))}-{channel}"
        out.append((label, ((str(path),), W_PER_UW)))
    return out


def _pairs(folder: Path) -> List[Tuple[str, Parts]]:
    """Rails of a voltage and a current of the same number."""
    out: List[Tuple[str, Parts]] = []
    for path in sorted(folder.glob("curr*_input")):
        channel = path.name[len("curr") : -len("_input")]
        volt, label = folder / f"in{channel}_input", file_text(str(folder / f"in{channel}_label"))
        enabled = file_text(str(folder / f"in{channel}_enable")) != "0"
        if volt.exists() and enabled and label not in NO_RAIL:
            out.append((label, ((str(volt), str(path)), W_PER_MV_MA)))
    return out


def _iio(folder: Path) -> List[Tuple[str, Parts]]:
    """Rails of JetPack 4."""
    out: List[Tuple[str, Parts]] = []
    for path in sorted(folder.glob("rail_name_*")):
        channel, label = path.name[len("rail_name_") :], file_text(str(path))
        power = folder / f"in_power{channel}_input"
        pair = (folder / f"in_voltage{channel}_input", folder / f"in_current{channel}_input")
        if label in NO_RAIL:
            continue
        if power.exists():
            out.append((label, ((str(power),), W_PER_MW)))
        elif all(part.exists() for part in pair):
            out.append((label, ((str(pair[0]), str(pair[1])), W_PER_MV_MA)))
    return out
