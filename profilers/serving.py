"""The conversation with the host: each message is checked and answered, until it says bye."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from profilers import protocol
from profilers.channel import Channel
from profilers.errors import DeviceError, DeviceFaultError, FileFormatError, HwnasError
from profilers.schema import WORKER_PROTOCOL, target_from_json, write_error
from profilers.worker import Worker, error_fields


def serve(channel: Channel, cache: Path) -> int:
    """Answer the host until it says bye or is gone; the exit status of the process.

    Args:
        channel: to the host.
        cache: folder that ours lies in.
    """
    worker: Optional[Worker] = None
    try:
        while True:
            message = channel.receive()
            if message is None:
                return 0
            kind, fields = check_message(message)
            if kind == "bye":
                channel.send("done", re=message["seq"])
                return 0
            if worker is None:
                worker = _greet(channel, cache, message["seq"], kind, fields)
            else:
                _answer(channel, worker, message["seq"], kind, fields)
    except FileFormatError as error:  # not the protocol: say why and end the session
        channel.send("error", re=0, code="ProtocolError", text=str(error))
        return 1
    except DeviceFaultError:  # nothing works in this process any more
        return 1
    except DeviceError:  # the host is gone, nobody to tell
        return 0
    finally:
        if worker is not None:
            with contextlib.suppress(HwnasError):
                worker.close()


def check_message(message: Dict[str, Any]) -> Tuple[str, Dict[str, Any]]:
    """Type and fields of a message.

    Raises:
        FileFormatError: it is not one of the protocol.
    """
    wrong = protocol.wrong_request(message)
    if wrong:
        raise FileFormatError(wrong)
    kind: str = message["type"]
    return kind, {name: message[name] for name in protocol.REQUESTS[kind]}


def _greet(
    channel: Channel, cache: Path, seq: int, kind: str, fields: Dict[str, Any]
) -> Optional[Worker]:
    """The worker of a first message; None where it cannot serve the target."""
    if kind != "hello":
        raise FileFormatError(f"first message is {kind}, expected hello")
    if fields["protocol"] != WORKER_PROTOCOL:
        raise FileFormatError(
            f"host speaks {fields['protocol']!r}, this worker {WORKER_PROTOCOL!r}"
        )
    try:
        worker = Worker(channel, target_from_json(fields["target"]), cache)
        if fields["exclusive"]:
            worker.lock(fields["purpose"])
    except HwnasError as error:
        channel.send("error", re=seq, **error_fields(error))
        return None
    channel.send("ready", re=seq)
    return worker


def _answer(channel: Channel, worker: Worker, seq: int, kind: str, fields: Dict[str, Any]) -> None:
    if kind == "hello":
        raise FileFormatError("hello came twice")
    try:
        reply = worker.handle(kind, fields, seq)
    except OSError as error:  # of a temporary file; a full disk, most of all
        channel.send("error", re=seq, **error_fields(write_error(Path(str(error.filename)), error)))
    except HwnasError as error:
        channel.check()
        channel.send("error", re=seq, **error_fields(error))
        if isinstance(error, DeviceFaultError):
            raise
    else:
        channel.send("done", re=seq, **reply)
