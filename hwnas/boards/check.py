"""`hwnas devices check`: everything that can be asked of a device in minutes, into one file.

The file can be attached to a report: it names no address, person, machine or serial number. What
cannot be told is said and the rest goes on; a device that vanishes ends only what needs it.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.boards.ask import Board
from hwnas.boards.checks import OF_DEVICE, OF_TARGET, Answer, Check, Visit
from hwnas.measuring import here
from hwnas.settings import versions
from profilers.errors import (
    ConfigError,
    DeviceBusyError,
    HwnasError,
    LostDeviceError,
    MemoryShortError,
    MeterError,
    RuntimeMissingError,
    printable,
)
from profilers.schema import Target

FORMAT = "hwnas-check-1"
UNITS = 20  # units of time that all checks of a device may take
CANNOT_TELL = (ConfigError, DeviceBusyError, MemoryShortError, MeterError, RuntimeMissingError)
SURVEYED = (  # what is kept of a survey
    *("hardware", "board", "cpu", "cpu_id", "cpu_features", "cores", "memory_bytes", "machine"),
    *("virtual", "emulated", "os", "kernel", "l4t", "python", "governor", "power_mode", "gpu"),
    *("gpu_driver", "clocks_locked"),
)
REASON_CHARS = 300
NUMERIC = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-fA-F]{1,4}:){3,}[0-9a-fA-F:]*")

Keep = Callable[[dict[str, Any]], None]
Say = Callable[[str, float], None]


def check_device(
    board: Board, targets: Sequence[Target], folder: Path, budget_s: float, keep: Keep, say: Say
) -> dict[str, Any]:
    """Run every check of a device.

    Args:
        board: as it answered.
        targets: at least one, each with an engine that works there.
        folder: for files that are gone afterwards.
        budget_s: what all of it may take, about, in seconds.
        keep: called with the document after each check.
        say: called with a line of progress and the share of the time that has passed.

    Returns:
        the document (docs/formats.md, "Device check").
    """
    begin_s, gone = time.monotonic(), ""
    unusable: dict[str, str] = {}
    visit = Visit(board, folder, budget_s / UNITS)
    document = new_document(board)
    for check, target in _plan(targets):
        passed_s = time.monotonic() - begin_s
        share = passed_s / budget_s if budget_s else 1.0
        say(f"{check.__name__} of {_published(board, target)}", min(share, 0.99))
        late = f"no time was left of {budget_s:.0f} s" if share > 1 - 1 / UNITS else ""
        reason = gone or late or unusable.get(target.name, "")
        answer, lost = (
            (Answer(None, reason, {}), False) if reason else _answer(check, visit, target)
        )
        if lost:
            gone = f"the device was lost during {check.__name__}"
        if check is OF_TARGET[0] and not answer.holds:
            unusable[target.name] = "its engine does not start"
        spent_s = round(time.monotonic() - begin_s - passed_s, 1)
        document["checks"].append(_row(check, board, target, answer, spent_s))
        keep(document)
    return document


def _plan(targets: Sequence[Target]) -> Iterator[tuple[Check, Target]]:
    """What is asked in which order: all of the device first, then each target."""
    yield from ((check, targets[0]) for check in OF_DEVICE)
    for target in targets:
        yield from ((check, target) for check in OF_TARGET)


def _answer(check: Check, visit: Visit, target: Target) -> tuple[Answer, bool]:
    """What a check gave, and whether the device is gone since."""
    try:
        return check(visit, target), False
    except LostDeviceError as error:
        return Answer(False, str(error), {}), not _is_there(visit, target)
    except CANNOT_TELL as error:
        return Answer(None, str(error), {}), False
    except HwnasError as error:
        return Answer(False, str(error), {}), False


def _is_there(visit: Visit, target: Target) -> bool:
    try:
        here.probe(target, visit.settings())
    except HwnasError:
        return False
    return True


# ---- the document ------------------------------------------------------------------------------


def new_document(board: Board) -> dict[str, Any]:
    """What a document says of a device, before any check."""
    engines = {name: found["version"] for name, found in board.engines.items()}
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "hwnas": versions.code(),
        "device": {
            "family": board.family.title,
            **{name: board.survey[name] for name in SURVEYED},
            "engines": engines,
            "meters": {m["name"]: m["problem"] or "works" for m in board.survey["meters"]},
        },
        "checks": [],
    }


def _row(
    check: Check, board: Board, target: Target, answer: Answer, spent_s: float
) -> dict[str, Any]:
    return {
        "check": check.__name__,
        "target": "" if check in OF_DEVICE else _published(board, target),
        "holds": answer.holds,
        "reason": anonymous(answer.reason, board, target),
        "facts": answer.facts,
        "duration_s": spent_s,
    }


def _published(board: Board, target: Target) -> str:
    """A target's name with the device's family in place of the user's own name for it."""
    return replace(target, device=board.family.name).name


def anonymous(text: str, board: Board, target: Target) -> str:
    """A message without the address, the user's name of the device, paths and numeric addresses."""
    names = {target.device} - {board.family.name, board.survey["hardware"]}
    if board.way is not None:
        address = board.way.address.removeprefix("ssh://")
        names |= {board.way.address, address, address.rpartition("@")[2].partition(":")[0]}
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "DEVICE", text)
    return anonymous_text(text)


def anonymous_text(text: str) -> str:
    """A message without paths and addresses, whoever it is of."""
    text = re.sub(r"\S*@\S+", "ADDRESS", text)
    text = re.sub(r"(?<![\w.])(?:~|\.\.?)?/[^\s:;,'\"()]+", "PATH", text)
    return printable(NUMERIC.sub("ADDRESS", text), REASON_CHARS)


def failed(document: dict[str, Any]) -> list[str]:
    """Names of the checks that do not hold."""
    return [
        " of ".join(filter(None, (row["check"], row["target"])))
        for row in document["checks"]
        if row["holds"] is False
    ]
