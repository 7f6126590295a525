"""What a worker said against what it was asked: a board may be broken, or may not be a friend.

The shape of every message is checked before (profilers/protocol.py). Here: nothing a board sends
becomes a path, a name of a file or a number of a table unless it is what was asked for.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from profilers import errors
from profilers.errors import ConfigError, DeviceError, HwnasError

Records = Sequence[Mapping[str, Any]]


def check_missing(missing: Sequence[str], known: Mapping[str, Any]) -> None:
    """Refuse a wish for files that are not the kit's.

    Raises:
        DeviceError: one is of another hash.
    """
    strange = [name for name in missing if name not in known]
    if strange:
        raise DeviceError(f"worker asks for the file {strange[0]}, which is not of its kit")


def check_round(
    reply: Mapping[str, Any],
    records: Records,
    items: Sequence[str],
    profile: Sequence[str],
    roles: Mapping[str, str],
) -> None:
    """Refuse a round that is not a sample of each item in order and then profiles of some.

    Args:
        reply: the end of the round.
        records: as they came.
        items, profile: as they were asked for.
        roles: of the kit's items.

    Raises:
        DeviceError: a record is missing, of something else, or came twice.
    """
    closed = {*reply["left"], *reply["failed"]}
    if not closed <= set(items):
        raise DeviceError("worker sent an end of a round of other items")
    _check_roles(records, roles)
    sampled = [record["item"] for record in records if "ms" in record]
    if sampled != [name for name in items if name not in closed]:
        raise DeviceError(f"worker sent {len(sampled)} samples that are not those asked for")
    profiled = Counter(record["item"] for record in records if "profile" in record)
    if profiled - Counter(name for name in profile if name not in closed):
        raise DeviceError("worker sent a profile that was not asked for")
    _check_order(records)


def check_windows(records: Records, items: Sequence[str], roles: Mapping[str, str]) -> None:
    """Refuse what is not one window of each item in order.

    Raises:
        DeviceError: one is missing, of something else, or came twice.
    """
    if [record["item"] for record in records] != list(items):
        raise DeviceError(f"worker sent {len(records)} windows that are not those asked for")
    _check_roles(records, roles)
    _check_order(records)


def _check_roles(records: Records, roles: Mapping[str, str]) -> None:
    for record in records:
        if record["role"] != roles.get(record["item"]):
            raise DeviceError(f"worker sent a record of another kit: {str(dict(record))[:80]}")


def _check_order(records: Records) -> None:
    if [record["order"] for record in records] != list(range(len(records))):
        raise DeviceError("worker sent records out of order or twice")


def outputs(records: Records, shape: Sequence[int], count: int) -> np.ndarray:
    """The outputs that a worker sent in pieces.

    Args:
        records: `offset` and `data` (base64) of each piece.
        shape: of all of them, as it says.
        count: of the inputs.

    Raises:
        DeviceError: they are not whole, or not of so many inputs.
    """
    data = _joined(records)
    if list(shape[:1]) != [count] or len(data) != 4 * math.prod(shape):
        raise DeviceError(
            f"worker sent {len(data)} bytes of outputs of shape {list(shape)} for {count} inputs"
        )
    return np.frombuffer(data, dtype="<f4").reshape(shape)


def files(records: Records, sizes: Sequence[int], count: int) -> list[bytes]:
    """The files that a worker sent one after the other, in pieces.

    Args:
        records: as of `outputs`.
        sizes: bytes of each, as it says.
        count: of the files.

    Raises:
        DeviceError: they are not whole, or others.
    """
    data, ends = _joined(records), list(itertools.accumulate(sizes))
    if len(sizes) != count or len(data) != sum(sizes):
        raise DeviceError(f"worker sent {len(data)} bytes of files of {list(sizes)}")
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _joined(records: Records) -> bytes:
    """What pieces hold together."""
    data = bytearray()
    for record in records:
        try:
            piece = base64.b64decode(record["data"], validate=True)
        except binascii.Error as error:
            raise DeviceError(f"worker sent a piece that is not base64: {error}") from None
        if record["offset"] != len(data):
            raise DeviceError("worker sent pieces out of order")
        data += piece
    return bytes(data)


def error_from_fields(told: Mapping[str, str]) -> HwnasError:
    """The error that a board told as `code` and `text`: one about its device or what it was given,
    DeviceError where it names another. What a board says never passes for a missed budget or a
    lost line.
    """
    kind = getattr(errors, told["code"], None)
    strange = (errors.LostDeviceError, errors.EngineCrashError, errors.TableFormatError)
    if isinstance(kind, type) and issubclass(kind, (ConfigError, DeviceError)):
        return (DeviceError if kind in strange else kind)(told["text"])
    return DeviceError(told["text"])
