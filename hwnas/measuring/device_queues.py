"""Device queues: work on one device is done piece by piece, on different devices at the same time.

A queue that fails does not stop the others. This machine's own queue goes first and alone: what is
timed here would be disturbed by driving the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import TypeVar

from hwnas.measuring.connections import THIS_MACHINE
from profilers.errors import HwnasError

Found = TypeVar("Found")
Queue = list[tuple[Callable[[], Found], "futures.Future[Found]"]]


def drive(
    work: Mapping[str, Callable[[], Found]], queues: Mapping[str, str]
) -> dict[str, futures.Future[Found]]:
    """Do all work, queue by queue; a finished future of each piece, with what it gave or raised.

    Ctrl-C ends at once: workers end when their host does.

    Args:
        work: pieces by name, in order.
        queues: the queue of each piece.
    """
    found: dict[str, futures.Future[Found]] = {name: futures.Future() for name in work}
    by_queue: dict[str, Queue[Found]] = {}
    for name, piece in work.items():
        by_queue.setdefault(queues[name], []).append((piece, found[name]))
    _drive_queue(by_queue.pop(THIS_MACHINE, []), HwnasError)
    if len(by_queue) == 1:
        _drive_queue(next(iter(by_queue.values())), HwnasError)
        return found
    for name, queue in by_queue.items():
        thread = threading.Thread(
            target=_drive_queue, args=(queue, BaseException), name=f"queue {name}", daemon=True
        )
        thread.start()
    futures.wait(found.values())
    return found


def _drive_queue(queue: Queue[Found], kept: type[BaseException]) -> None:
    """Do a queue's work.

    Args:
        queue: pieces in order, each with where its outcome goes.
        kept: errors that are kept for whoever waits; in a thread of its own all of them are.
    """
    for piece, outcome in queue:
        try:
            outcome.set_result(piece())
        except kept as error:
            outcome.set_exception(error)
