"""Files of latencies, and maybe energies, of whole networks (`hwnas.ofa.measured`).

A network in several lines was measured several times. The unit stands in the header, `latency (us)`
or `energy_j`; without one it is ms and mJ. Columns `batch` and `precision` are compared with the
target.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hwnas.networks.space import Architecture, SearchSpace
from hwnas.ofa.measured import Row, Sheet, plain, read_sheet
from hwnas.predictors.results import listed
from hwnas.tables.imported import check_power, check_rate
from hwnas.tables.whole_networks import Timed
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import Target

MS = {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3}  # by what a header ends with
MJ = {"": 1.0, "mj": 1.0, "j": 1e3, "uj": 1e-3}
LATENCY = ("latency", "lat", "time", "mean latency", "latency mean", "inference time", "runtime")


def _with_units(names: Sequence[str], units: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name} {unit}".strip() for name in names for unit in units)


COLUMNS = {
    "ms": (*_with_units(LATENCY, tuple(MS)), "ms"),
    "mj": (*_with_units(("energy",), tuple(MJ)), "mj"),
    "batch": ("batch", "batch size"),
    "precision": ("precision", "dtype"),
}
SAME = {"float32": "fp32", "float": "fp32", "float16": "fp16", "half": "fp16"}
APART, TIMES_USUAL = 0.10, 5  # how far measurements of one network may be apart: a share, or ...
# ... so many times what is usual in the file: else they are not of one device in one state


class Read(NamedTuple):
    """The networks of a file, each once, and what was measured more than once, in words."""

    networks: list[Timed]
    repeats: str


def read_latencies(path: Path, space: SearchSpace, target: Target, resolution: int = 0) -> Read:
    """The networks of a file with their latencies.

    Args:
        path, space, resolution: as of `read_sheet`.
        target: what they were measured on.

    Raises:
        FileFormatError: as `read_sheet`; times or energies that no device has, of another batch or
            precision, or of one network far apart.
        ConfigError: as `read_sheet`.
    """
    sheet = read_sheet(path, space, COLUMNS, "ms", resolution)
    _check_driven(sheet, "batch", str(target.batch))
    _check_driven(sheet, "precision", target.precision)
    found: dict[Architecture, list[tuple[Row, float]]] = {}
    for row in sheet.rows:
        ms = sheet.number(row, "ms") * _unit(sheet, "ms", MS)
        check_rate(sheet.where(row), row.arch, ms, target.batch)
        found.setdefault(row.arch, []).append((row, ms))
    told = _repeats(sheet, found)
    networks = [
        Timed(arch, tuple(ms for _, ms in measured), _energies(sheet, measured))
        for arch, measured in found.items()
    ]
    return Read(networks, told)


def _unit(sheet: Sheet, name: str, units: dict[str, float]) -> float:
    """What a number of a column is multiplied by."""
    return units.get(plain(sheet.headers[name]).split()[-1], 1.0)


def _energies(sheet: Sheet, measured: Sequence[tuple[Row, float]]) -> tuple[float, ...]:
    """mJ of the measurements of a network that have an energy."""
    if "mj" not in sheet.headers:
        return ()
    unit, out = _unit(sheet, "mj", MJ), []
    for row, ms in measured:
        if row.cells["mj"]:
            out.append(sheet.number(row, "mj") * unit)
            check_power(sheet.where(row), out[-1], ms)
    return tuple(out)


def _check_driven(sheet: Sheet, name: str, wanted: str) -> None:
    """Refuse rows of another batch or precision than the target's: they cost something else."""
    for row in sheet.rows if name in sheet.headers else ():
        given = row.cells[name].lower()
        if SAME.get(given, given) != wanted:
            raise FileFormatError(
                f"{sheet.where(row)}: {sheet.headers[name]} is {row.cells[name][:20]!r}, the "
                f"target's is {wanted}; keep the rows of one target, and name that with --target"
            )


def _repeats(sheet: Sheet, found: dict[Architecture, list[tuple[Row, float]]]) -> str:
    """Which networks were measured more than once; empty if none was."""
    gaps = []
    for measured in found.values():
        times = [ms for _, ms in measured]
        if len(times) > 1:
            lines = tuple(row.line for row, _ in measured)
            gaps.append((lines, (max(times) - min(times)) / statistics.fmean(times)))
    if not gaps:
        return ""
    usual = statistics.median(gap for _, gap in gaps)
    limit = max(APART, TIMES_USUAL * usual)
    if strange := [(lines, gap) for lines, gap in gaps if gap > limit]:
        raise ConfigError(
            f"{sheet.path}: the same network with latencies more than {limit:.0%} apart: "
            f"{listed(strange)}; keep those of one device in one state"
        )
    return (
        f"{len(gaps)} networks were measured more than once ({usual:.1%} apart, the median) and "
        "averaged"
    )
