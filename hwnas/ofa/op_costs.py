"""Look-up tables that anyone can write: what ops cost, as JSON or CSV (docs/formats.md).

JSON is a map from the key of an op to `{"ms": ..., "mj": ..., "repeats": ...}`; CSV has the columns
`key`, `ms` and, where they are known, `mj` and `repeats`. The key `network` stands for what every
network costs beside its ops. Nothing is fitted, and nothing says how good it is.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hwnas.networks.ops import parse_key
from hwnas.networks.slots import distinct_ops
from hwnas.networks.space import SearchSpace
from hwnas.ofa.measured import check_end
from hwnas.tables.imported import (
    REASON,
    Costs,
    check_plausible,
    check_power,
    hashes,
    imported_energy,
    imported_table,
)
from hwnas.tables.table import CostTable
from profilers.errors import FileFormatError, HwnasError, MissingOpError
from profilers.json_text import parse_json
from profilers.schema import Target

COLUMNS = ("key", "ms", "mj", "repeats")
NETWORK = "network"  # key of what every network costs
SHOWN = 3  # missing keys that a message names


class Cost(NamedTuple):
    """What an op costs: ms, mJ if that is known, and how often it was measured, if that is."""

    ms: float
    mj: float | None = None
    repeats: float | None = None


def import_op_costs(path: Path, space: SearchSpace, target: Target) -> CostTable:
    """The table, marked `imported`, of a file of op costs.

    Args:
        path: JSON or CSV.
        space: whose ops they are; the table has the resolutions whose every op is in the file.
        target: what they were measured on.

    Raises:
        FileFormatError: missing, or a line cannot be used or right.
        MissingOpError: ops of the space are missing at every resolution.
    """
    return table_of_costs(space, target, _read(path), str(path), hashes(path))


def table_of_costs(
    space: SearchSpace,
    target: Target,
    given: Mapping[str, Cost],
    where: str,
    files: Mapping[str, str],
) -> CostTable:
    """The table, marked `imported`, of op costs by key.

    Args:
        space, target: as of `import_op_costs`.
        given: cost of each op, and of NETWORK.
        where: they come from, in words.
        files: sha256 of each file that was read, by name.

    Raises:
        FileFormatError, MissingOpError: as `import_op_costs`.
    """
    once = given.get(NETWORK, Cost(0.0, 0.0, None))
    costs = {key: cost for key, cost in given.items() if key != NETWORK}
    space = _covered(where, space, costs)
    rows = {key: _row(costs[key]) for key in distinct_ops(space)}
    intercepts = {str(size): once.ms for size in space.resolutions}
    repeats = [cost.repeats for cost in costs.values() if cost.repeats is not None]
    protocol: dict[str, Any] = {"statistic": "as the imported file gives it"}
    protocol |= {"repeats": [min(repeats), max(repeats)]} if repeats else {}
    calibration = {"estimator": "look-up table of ops", "intercept_ms": intercepts}
    made = imported_table(space, target, Costs(rows, calibration, protocol), files)
    for size in space.resolutions:
        check_plausible(where, made, space.largest_at(size))
    if not any("energy_mj" in row for row in rows.values()):
        return made
    _check_energies(where, rows)
    section = imported_energy(dict.fromkeys(intercepts, once.mj or 0.0), "look-up table", REASON)
    return replace(made, energy=section)


def _row(cost: Cost) -> dict[str, Any]:
    row = {"latency_ms": cost.ms, "spread_ms": None, "seen": 0}
    return row if cost.mj is None else {**row, "energy_mj": cost.mj}


def _check_energies(where: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a file that has energies of some ops only, or of a power that nothing draws."""
    for key, row in rows.items():
        if "energy_mj" not in row:
            raise FileFormatError(
                f"{where}: {key} has no mj, others have; give all of them or none"
            )
    total_mj, total_ms = (
        math.fsum(row[name] for row in rows.values()) for name in ("energy_mj", "latency_ms")
    )
    check_power(f"{where}: all ops", total_mj, total_ms)


def _covered(where: str, space: SearchSpace, costs: Mapping[str, Cost]) -> SearchSpace:
    """The space at the resolutions whose every op has a cost."""
    seen = {n for key in costs for n in parse_key(key).inputs[0][1:]}
    lacking = {}
    for size in sorted(seen & set(space.every_resolution)):
        wanted = distinct_ops(space.restricted([size]))
        lacking[size] = [key for key in wanted if key not in costs]
    whole = [size for size, missing in lacking.items() if not missing]
    if whole:
        return space.restricted(whole)
    size, missing = min(
        lacking.items(), key=lambda item: len(item[1]), default=(space.resolutions[-1], [])
    )
    few = ", ".join(missing[:SHOWN] or list(distinct_ops(space.restricted([size])))[:SHOWN])
    raise MissingOpError(
        f"{where} lacks ops of {space.name} at every resolution, at {size} {space.unit} "
        f"{len(missing) or 'all'} of them: {few}; `hwnas table counts {space.name} --out "
        "keys.json` writes all keys"
    )


# ---- files --------------------------------------------------------------------------------------

Entries = Iterator[tuple[str, str, Mapping[str, Any]]]  # where, key, ms and so on


def _read(path: Path) -> dict[str, Cost]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} cannot be read: {error}") from None
    found: dict[str, Cost] = {}
    for where, key, given in (_of_json if text.lstrip()[:1] == "{" else _of_csv)(path, text):
        if key in found:
            raise FileFormatError(f"{where}: {key} appears twice; keep one")
        try:
            op = None if key == NETWORK else parse_key(key)
        except HwnasError as error:
            raise FileFormatError(f"{where}: {error}") from None
        numbers = {name: _number(where, name, given.get(name)) for name in COLUMNS[1:]}
        ms = numbers["ms"]
        if ms is None or (op and not ms):
            raise FileFormatError(f"{where}: ms is {given.get('ms')!r}, expected more than 0")
        found[key] = Cost(ms, numbers["mj"], numbers["repeats"])
    return found


def _of_json(path: Path, text: str) -> Entries:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON ({error}); it is cut short or damaged") from None
    for key, given in found.items():
        where = f"{path}: {key}"
        if not isinstance(given, dict) or not set(given) <= set(COLUMNS[1:]):
            raise FileFormatError(f"{where} holds {str(given)[:40]!r}, expected ms, mj and repeats")
        yield where, key, given


def _of_csv(path: Path, text: str) -> Entries:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or ())
        if not {"key", "ms"} <= set(columns) or len(set(columns)) < len(columns):
            raise FileFormatError(
                f"{path} has the columns {', '.join(columns)[:200]}; expected key, ms and maybe mj "
                "and repeats, each once"
            )
        check_end(path, text)
        for row in reader:
            if None in row or None in row.values():
                raise FileFormatError(f"{path}: line {reader.line_num} has other columns")
            yield f"{path}: line {reader.line_num}", row["key"], row
    except csv.Error as error:
        raise FileFormatError(f"{path}: line {reader.line_num}: {error}; expected CSV") from None


def _number(where: str, name: str, value: Any) -> float | None:
    """A number of 0 or more; None where there is none."""
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise FileFormatError(f"{where}: {name} is {str(value)[:40]!r}, expected 0 or more")
    return number
