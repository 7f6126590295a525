"""The measurements file of a campaign: the only master copy of what a device said.

JSON Lines, header first, appended round by round. What is not a whole record of this kit is
reported by line number and skipped, so a cut line costs one sample. Format: docs/formats.md,
"Measurements".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from profilers import errors, protocol
from profilers.errors import ConfigError, EngineCrashError, FileFormatError, printable
from profilers.schema import (
    MEASUREMENTS_FORMAT,
    Target,
    append_lines,
    check_format,
    read_lines,
    target_from_json,
    write_error,
)

Record = dict[str, Any]
FAILED = "failed"  # role of a record that says that an item cannot be measured
PROFILED = "covering"  # role of the items whose node times are taken
CRASHES_OF_ITEM = 2  # the first may be chance: memory that ran out, another process
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
            {**record, "id": [self.kit_hash, session, number, record["item"]]} for record in found
        ]
        for record in records:
            del record["item"]
        if self.path is not None:
            append_lines(self.path, records)
        self.records += records

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """`code` and `text` of the error of each item that is not measured any more."""
        return failures(self.records)

    def fail(self, session: str, number: int, found: Mapping[str, Mapping[str, str]]) -> None:
        """Keep that items could not be measured; they are not tried again, or not now: `failures`.

        Args:
            session, number: of the round.
            found: `code` and `text` of each item's error.
        """
        what = {"role": FAILED, "order": 0, "loops": 0}
        self.append(
            session, number, [{**what, "item": n, "failed": dict(e)} for n, e in found.items()]
        )

    def crashed(self, session: str, error: EngineCrashError) -> None:
        """Count a crash of the engine; an item on which it crashed twice is not tried again. One
        that it crashed on while node times were taken has none.

        Raises:
            EngineCrashError: the given one, when the engine crashes on whatever it is given.
        """
        if error.profiling:
            reason = printable(str(error), 300)
            what = {"role": PROFILED, "order": 0, "t_s": 0, "loops": 1, "profile": []}
            number = self.next_round(session)
            self.append(session, number, [{**what, "item": error.item, "reason": reason}])
            return
        self._crashes[error.item] += 1
        if self._crashes[error.item] < CRASHES_OF_ITEM:
            return
        if len(self._crashes) > MOST_CRASHING:
            raise error
        told = {"code": error.code, "text": str(error)}
        self.fail(session, self.next_round(session), {error.item: told})

    def next_round(self, session: str) -> int:
        """Number of the round that comes next; rounds that were cut are not used again."""
        return 1 + max((r["id"][2] for r in self.records if r["id"][1] == session), default=-1)

    def loops(self) -> dict[str, int]:
        """Runs of a sample of each item, as it was sampled first."""
        return {r["id"][3]: r["loops"] for r in reversed(self.records) if "ms" in r}


def failures(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """`code` and `text` of the error of each item that could not be measured: because the engine
    cannot run it, or because memory or the device failed and it was not measured since.

    Args:
        records: of one measurements file, in its order.
    """
    found: dict[str, dict[str, str]] = {}
    for record in records:
        item = record["id"][3]
        if "failed" in record:
            found[item] = record["failed"]
        elif "ms" in record and item in found and not is_lasting(found[item]):
            del found[item]
    return found


def is_lasting(told: Mapping[str, str]) -> bool:
    """Whether an item with an error of this code would fail again: the engine cannot run it."""
    kind = getattr(errors, told["code"], None)
    lasting = (ConfigError, EngineCrashError)
    return isinstance(kind, type) and issubclass(kind, lasting)


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
            passing = "failed" in record and not is_lasting(record["failed"])
            if is_record(record, kit_hash) and not passing:  # what passed is tried again
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
        "created": now(),
    }
    append_lines(path, [header])
    return log


def now() -> str:
    """The time, ISO 8601 in UTC; that of SOURCE_DATE_EPOCH (reproducible-builds.org) where set.

    Raises:
        ConfigError: that is not a number of seconds.
    """
    told = os.environ.get("SOURCE_DATE_EPOCH")
    if not told:
        return datetime.now(timezone.utc).replace(microsecond=0).isoformat()
    try:
        return datetime.fromtimestamp(int(told), timezone.utc).isoformat()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"SOURCE_DATE_EPOCH is {told!r}, expected seconds since 1970") from None


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
    whole = whole and isinstance(header.get("kit"), str)
    if not whole:
        raise FileFormatError(f"{path} does not begin with a header of {MEASUREMENTS_FORMAT!r}")
    check_format(path, header, MEASUREMENTS_FORMAT)
    try:
        name = target_from_json(header["target"]).name
    except ConfigError as error:
        raise FileFormatError(f"{path}: {error}") from None
    if header["target"].get("name") != name:
        given = header["target"].get("name")
        raise FileFormatError(f"{path}: the target is called {given!r}, its parts are {name!r}")
    return header, found[1:], broken


def is_record(value: Mapping[str, Any], kit_hash: str) -> bool:
    """Whether a line of the file is a whole record of this kit: a sample, a profile, a window of
    energy, or why there is none.
    """
    return not protocol.KEPT(value) and value["id"][0] == kit_hash


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
