"""What a worker said, before it is believed: a board may be broken, or may not be a friend.

Nothing a board sends becomes a path, a name of a file or a number of a table unless it is what was
asked for. Formats: docs/formats.md, "Worker".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.measuring.records import is_found
from profilers.errors import DeviceError
from profilers.json_text import parse_json
from profilers.schema import canonical_json

FIELDS = {"item", "role", "order", "t_s", "warm", "loops", "ms", "profile", "probe"}
MOST_LOOPS = 10**9
LONGEST_MS = 3_600_000.0
STATE_BYTES = 8 << 10  # of what a record says of the device's state
ENVIRONMENT_BYTES = 64 << 10
_HASH = re.compile(r"[0-9a-f]{64}")


def parse(line: bytes) -> Any:
    """The value of a line of JSON; None where it is none, or holds what cannot be written again."""
    try:
        return parse_json(line.decode("utf-8"))
    except ValueError:
        return None


def check_records(records: Sequence[Mapping[str, Any]], roles: Mapping[str, str]) -> None:
    """Refuse records that are not of what was asked for.

    Args:
        records: as the worker sent them.
        roles: of the items that were asked for, by name.

    Raises:
        DeviceError: one is not whole, of another kit, or came twice.
    """
    for record in records:
        wrong = _wrong(record, roles)
        if wrong:
            raise DeviceError(f"worker sent a record {wrong}: {str(record)[:80]}")
    orders = [record["order"] for record in records]
    if len(set(orders)) < len(orders):
        raise DeviceError("worker sent a record twice")


def _wrong(record: Any, roles: Mapping[str, str]) -> str:
    """What is wrong with a record; empty if nothing."""
    if not isinstance(record, dict) or not is_found(record) or "failed" in record:
        return "that is not whole"
    if record["item"] not in roles:
        return "of an item that was not asked for"
    if record["role"] != roles[record["item"]]:
        return "of another kit"
    if set(record) - FIELDS:
        return f"with the unknown field {min(set(record) - FIELDS)!r}"
    numbers = ("t_s", 0.0, 1e12), ("ms", 0.0, LONGEST_MS), ("loops", 1, MOST_LOOPS)
    limits = (*numbers, ("order", 0, 10**6), ("warm", 0, MOST_LOOPS))
    if not all(_within(record[name], low, high) for name, low, high in limits if name in record):
        return "with a number out of range"
    if not all(_is_node_time(entry) for entry in record.get("profile", [])):
        return "with a profile that is no list of [slot, ms]"
    state = record.get("probe", {})
    if not isinstance(state, dict) or len(canonical_json(state)) > STATE_BYTES:
        return "with a state that is not whole"
    return ""


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high


def _is_node_time(entry: Any) -> bool:
    pair = isinstance(entry, list) and len(entry) == 2
    return pair and isinstance(entry[0], str) and _within(entry[1], 0.0, LONGEST_MS)


def check_round(reply: Mapping[str, Any], items: Sequence[str]) -> None:
    """Refuse the end of a round that is not one of these items.

    Raises:
        DeviceError: an item, an error or a duration is not what it can be.
    """
    left, failed = reply["left"], reply["failed"]
    whole = isinstance(left, list) and isinstance(failed, dict)
    if not whole or not all(isinstance(name, str) for name in left):
        raise DeviceError("worker sent an end of a round that is not whole")
    if not {*left, *failed} <= set(items):
        raise DeviceError("worker sent an end of a round of other items")
    told = [error.get(name) for error in failed.values() for name in ("code", "text")]
    seconds = [reply[name] for name in ("open_s", "sample_s", "profile_s")]
    if not all(isinstance(text, str) for text in told):
        raise DeviceError("worker sent an error of an item without its words")
    if not all(_within(value, 0.0, 1e9) for value in seconds):
        raise DeviceError(f"worker sent durations that cannot be: {seconds}")


def check_environment(found: Any) -> dict[str, Any]:
    """An environment that can be written into files.

    Raises:
        DeviceError: it is not whole, or too large.
    """
    named = isinstance(found, dict) and isinstance(found.get("fingerprint"), str)
    if not named or not _HASH.fullmatch(found["fingerprint"]):
        raise DeviceError("worker sent an environment without a fingerprint")
    if len(canonical_json(found)) > ENVIRONMENT_BYTES:
        raise DeviceError(f"worker sent an environment of more than {ENVIRONMENT_BYTES} bytes")
    return dict(found)
