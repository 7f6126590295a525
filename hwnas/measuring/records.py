"""The measurements file of a campaign: the only master copy of what a device said.

JSON Lines, header first, appended round by round. What is not a whole record of this kit is
reported by line number and skipped, so a cut line costs one sample. Format: docs/formats.md,
"Measurements".
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from profilers.errors import DeviceError, EngineCrashError, FileFormatError
from profilers.schema import (
    MEASUREMENTS_FORMAT,
    Target,
    append_lines,
    read_lines,
    write_error,
)

Record = dict[str, Any]
FAILED = "failed"  # role of a record that says that an item cannot be measured
CRASHES_OF_ITEM = 2  # the first may be chance: memory that ran out, another process
MOST_MS = 1e9  # eleven days; no sample takes as long
ERROR_FIELDS = ("code", "text")
MOST_OF_WINDOW = 1e15  # of any number of an energy window; no infinity, no NaN
MOST_CRASHING = 20  # items on which the engine crashed, above which it is the engine, not they


class Log:
    """Records in the order they came, each written to the file before it counts."""

    def __init__(self, kit_hash: str, path: Path | None = None) -> None:
        """An empty log.

        Args:
            kit_hash: the first part of every record's id.
            path: file to append to; None keeps the records in memory only.
        """
        self.kit_hash, self.path = kit_hash, path
        self.records: list[Record] = []
        self.broken: tuple[int, ...] = ()
        self._crashes: Counter[str] = Counter()

    def append(self, session: str, number: int, found: Iterable[Mapping[str, Any]]) -> None:
        """Keep what one round gave.

        Args:
            session, number: of the round.
            found: records as the worker sends them: `item` in place of an id.
        """
        records = [
            {"id": [self.kit_hash, session, number, record["item"]], **record} for record in found
        ]
        for record in records:
            del record["item"]
        if self.path is not None:
            append_lines(self.path, records)
        self.records += records

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """`code` and `text` of the error of each item that the engine cannot run."""
        return {r["id"][3]: r["failed"] for r in self.records if "failed" in r}

    def fail(self, session: str, number: int, found: Mapping[str, Mapping[str, str]]) -> None:
        """Keep that items could not be measured; they will not be tried again.

        Args:
            session, number: of the round.
            found: `code` and `text` of each item's error.
        """
        what = {"role": FAILED, "order": 0, "loops": 0}
        self.append(
            session, number, [{**what, "item": n, "failed": dict(e)} for n, e in found.items()]
        )

    def crashed(self, session: str, error: EngineCrashError) -> None:
        """Count a crash of the engine; an item on which it crashed twice is not tried again.

        Raises:
            EngineCrashError: the given one, when the engine crashes on whatever it is given.
        """
        self._crashes[error.item] += 1
        if self._crashes[error.item] < CRASHES_OF_ITEM:
            return
        if len(self._crashes) > MOST_CRASHING:
            raise error
        told = {"code": DeviceError.__name__, "text": str(error)}
        self.fail(session, self.next_round(session), {error.item: told})

    def next_round(self, session: str) -> int:
        """Number of the round that comes next; rounds that were cut are not used again."""
        return 1 + max((r["id"][2] for r in self.records if r["id"][1] == session), default=-1)

    def loops(self) -> dict[str, int]:
        """Runs of a sample of each item, as it was sampled first."""
        return {r["id"][3]: r["loops"] for r in reversed(self.records) if "ms" in r}


def open_log(path: Path, target: Target, environment: Mapping[str, Any], kit_hash: str) -> Log:
    """The log of a file, with what is in it; a new file where it was made for something else.

    Args:
        path: of the file; one of another kit, target or environment moves to `<name>.<n>.old`.
        target: what is measured on; its connection is not written, because tables are shipped.
        environment: of the device now.
        kit_hash: of the kit that is measured.
    """
    log = Log(kit_hash, path)
    found, broken = read_lines(path)
    if found and _serves(found[0], target, environment, kit_hash):
        for record in found[1:]:
            if is_record(record, kit_hash):
                log.records.append(record)
        log.broken = tuple(broken)
        return log
    if path.exists():
        set_aside(path)
    header = {
        "format": MEASUREMENTS_FORMAT,
        "target": {**target.to_json(), "connection": {"kind": "local"}, "meter_options": {}},
        "environment": dict(environment),
        "kit": kit_hash,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    append_lines(path, [header])
    return log


def read_log(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[int]]:
    """Header and records of a measurements file, and the numbers of the lines that are broken.

    Raises:
        FileFormatError: the file is missing, or does not begin with a whole header.
    """
    if not path.is_file():
        raise FileFormatError(f"{path} does not exist; `hwnas profile` makes measurements")
    found, broken = read_lines(path)
    header = found[0] if found else {}
    whole = all(isinstance(header.get(name), dict) for name in ("target", "environment"))
    if header.get("format") != MEASUREMENTS_FORMAT or not whole:
        raise FileFormatError(f"{path} does not begin with a header of {MEASUREMENTS_FORMAT!r}")
    return header, found[1:], broken


def is_record(value: Mapping[str, Any], kit_hash: str) -> bool:
    """Whether a line of the file is a whole record of this kit."""
    name = value.get("id")
    if not isinstance(name, list) or len(name) != 4 or name[0] != kit_hash:
        return False
    if [type(part) for part in name[1:]] != [str, int, str]:
        return False
    return is_found({**value, "item": name[3]})


def is_found(value: Mapping[str, Any]) -> bool:
    """Whether a record is whole: a time or a profile of a named item, or why there is none."""
    counted = (value.get("order"), value.get("loops"), value.get("warm", 0))
    if not all(isinstance(value.get(name), str) for name in ("item", "role")):
        return False
    if not all(type(number) is int for number in counted) or min(counted[1:]) < 0:
        return False
    if "failed" in value:
        told = value["failed"]
        return isinstance(told, dict) and all(isinstance(told.get(n), str) for n in ERROR_FIELDS)
    if "profile" in value:
        return isinstance(value["profile"], list) and all(map(_is_slot_time, value["profile"]))
    if "energy_mj" in value:
        return _is_window(value)
    return _is_time(value.get("ms")) and value.get("ms") != 0 and value["loops"] > 0


def _is_slot_time(entry: Any) -> bool:
    """Whether an entry of a profile is `[slot, ms]`."""
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and _is_time(entry[1])
    )


def _is_time(value: Any) -> bool:
    """Whether a value is a number of ms that could have been measured."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < MOST_MS


def _is_window(value: Mapping[str, Any]) -> bool:
    """Whether a record of energy is whole; what is unknown is None, but for the energy itself."""
    known = [value.get(name) for name in ("energy_mj", "window_s", "power_w", "run_ms", "samples")]
    maybe = [value.get(name, math.nan) for name in ("net_energy_mj", "idle_w", "period_s")]
    rails = value.get("rails")
    if not isinstance(rails, dict) or None in known or {"profile", "failed"} & set(value):
        return False
    numbers = [*known, *rails.values(), *(number for number in maybe if number is not None)]
    plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers)
    within = plain and all(abs(n) < MOST_OF_WINDOW for n in numbers)
    return within and min(*known, value["loops"]) > 0


def _serves(
    header: Mapping[str, Any], target: Target, environment: Mapping[str, Any], kit_hash: str
) -> bool:
    """Whether measurements under a header may go on with this target, environment and kit."""
    known, made_for = header.get("environment"), header.get("target")
    return (
        header.get("format") == MEASUREMENTS_FORMAT
        and header.get("kit") == kit_hash
        and isinstance(known, dict)
        and known.get("fingerprint") == environment["fingerprint"]
        and isinstance(made_for, dict)
        and made_for.get("name") == target.name
    )


def set_aside(path: Path) -> None:
    """Keep a file of something else as `<name>.<n>.old`."""
    number = 1
    while path.with_name(f"{path.name}.{number}.old").exists():
        number += 1
    try:
        os.replace(path, path.with_name(f"{path.name}.{number}.old"))
    except OSError as error:
        raise write_error(path, error) from error
