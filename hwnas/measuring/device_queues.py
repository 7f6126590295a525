"""Lanes: work on one device is done one after another, on different devices at the same time.

A lane that fails does not stop the others. This machine's own lane goes first and alone: what is
timed here would be disturbed by driving the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import TypeVar

from hwnas.measuring import ssh
from profilers.errors import HwnasError
from profilers.schema import Target

THIS_MACHINE = "this machine"

Found = TypeVar("Found")
Lane = list[tuple[Callable[[], Found], "futures.Future[Found]"]]


def lane_of(target: Target) -> str:
    """The lane of a target: the device itself, whatever it is called and however it is driven.

    The workers of a cluster know a device by its name alone.
    """
    if "cluster" in target.connection:
        return target.device
    way = ssh.of_target(target)
    return THIS_MACHINE if way is None else f"{way.address} {way.config} {way.cache}"


def drive(
    work: Mapping[str, Callable[[], Found]], lanes: Mapping[str, str]
) -> dict[str, futures.Future[Found]]:
    """Do all work, lane by lane; a finished future of each piece, with what it gave or raised.

    Ctrl-C ends at once: workers end when their host does.

    Args:
        work: pieces by name, in order.
        lanes: the lane of each piece.
    """
    found: dict[str, futures.Future[Found]] = {name: futures.Future() for name in work}
    by_lane: dict[str, Lane[Found]] = {}
    for name, piece in work.items():
        by_lane.setdefault(lanes[name], []).append((piece, found[name]))
    _drive_lane(by_lane.pop(THIS_MACHINE, []), HwnasError)
    if len(by_lane) == 1:
        _drive_lane(next(iter(by_lane.values())), HwnasError)
        return found
    for name, lane in by_lane.items():
        thread = threading.Thread(
            target=_drive_lane, args=(lane, BaseException), name=f"lane {name}", daemon=True
        )
        thread.start()
    futures.wait(found.values())
    return found


def _drive_lane(lane: Lane[Found], kept: type[BaseException]) -> None:
    """Do a lane's work.

    Args:
        lane: pieces in order, each with where its outcome goes.
        kept: errors that are kept for whoever waits; in a thread of its own all of them are.
    """
    for piece, outcome in lane:
        try:
            outcome.set_result(piece())
        except kept as error:
            outcome.set_exception(error)
