"""A worker as seen from the host: every request of the protocol as a function, errors as ours.

Everything that touches the hardware happens in the worker, on this machine too. Protocol:
docs/formats.md, "Worker".
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import connections, replies, transport
from profilers import protocol
from profilers.errors import (
    ConfigError,
    DeviceError,
    DeviceFaultError,
    EngineCrashError,
    HwnasError,
    LostDeviceError,
)
from profilers.schema import LINE_BYTES, WORKER_PROTOCOL, Target, canonical_json

PIECE_BYTES = LINE_BYTES // 2  # of a file in one line; base64 adds a third
RUN_BYTES = 32 << 20  # of inputs of one request
ANSWER_BYTES = 1 << 30
ANSWER_S = (
    1800.0  # the longest a worker works on without progress; an engine may hang while it beats
)


class Memory(NamedTuple):
    """What the open models of a round may take.

    Attributes:
        memory_bytes: of all sessions together; 0: half of what is free when a session begins.
        alone: the models of other sessions are closed before this one opens more.
        opening: the order in which models are opened, until no more fit; () as they are measured.
    """

    memory_bytes: int = 0
    alone: bool = False
    opening: tuple[str, ...] = ()


WHOLE = Memory()


class Round(NamedTuple):
    """What one round gave: records without their id, the items that found no room in memory,
    seconds of device time, and the items that the engine refused, each with `code` and `text`.
    """

    records: list[dict[str, Any]]
    left: list[str]
    open_s: float
    sample_s: float
    profile_s: float
    failed: Mapping[str, Mapping[str, str]] = MappingProxyType({})


@contextlib.contextmanager
def connect(target: Target, purpose: str, exclusive: bool = True) -> Iterator[RemoteWorker]:
    """A worker for a target, ended with the context.

    Args:
        target: what it serves.
        purpose: told to whoever else wants the device.
        exclusive: keep others off; needed for everything but `probe`.

    Raises:
        ConfigError: the connection, device or runtime is unknown.
        LostDeviceError: the device cannot be reached now.
        DeviceBusyError: another worker holds it.
        DeviceError: no worker can run there.
    """
    if not connections.drives(target):
        raise ConfigError(
            f"{purpose} of {target.name} is not done through a cluster; leave out `cluster`"
        )
    opened = connections.of(target).open(target)
    with opened as connection, greet(connection, target, purpose, exclusive) as worker:
        yield worker


@contextlib.contextmanager
def greet(
    connection: transport.Connection, target: Target, purpose: str, exclusive: bool = True
) -> Iterator[RemoteWorker]:
    """The worker at the other end of a connection, which is closed with the context."""
    worker = RemoteWorker(connection)
    try:
        worker.hello(target, purpose, exclusive)
        yield worker
        with contextlib.suppress(LostDeviceError):  # the work is done
            worker.ask("bye")
    except BaseException:  # whatever it was: a worker in the middle of something is not waited for
        connection.kill()
        raise
    connection.close()


class RemoteWorker:
    """The protocol's requests."""

    def __init__(self, connection: transport.Connection) -> None:
        self._connection = connection
        self._seq = 0
        self._roles: dict[str, str] = {}

    @property
    def sent_bytes(self) -> int:
        """Given to the worker so far."""
        return self._connection.sent_bytes

    def hello(self, target: Target, purpose: str, exclusive: bool) -> None:
        """Greet."""
        self.ask(
            "hello",
            protocol=WORKER_PROTOCOL,
            target={**connections.published(target), "meter_options": target.meter_options},
            purpose=purpose,
            exclusive=exclusive,
        )

    def probe(self) -> dict[str, Any]:
        """The environment that numbers would be taken on."""
        found: dict[str, Any] = self.ask("probe")[0]["environment"]
        return found

    def send_kit(self, kit: Mapping[str, Any], files: Mapping[str, Path]) -> str:
        """Bring a kit to the device, only what is not there yet; the kit's hash.

        Args:
            kit: content of kit.json.
            files: model file of each sha256.
        """
        text = canonical_json(kit).encode()
        kit_hash = hashlib.sha256(text).hexdigest()
        self._roles = {item["name"]: item["role"] for item in kit["items"]}
        for _ in range(3):  # kit.json, then the models it names, then nothing
            missing = self.ask("kit", hash=kit_hash)[0]["missing"]
            if not missing:
                return kit_hash
            replies.check_missing(missing, {kit_hash: text, **files})
            for sha256 in missing:
                self.put(text if sha256 == kit_hash else files[sha256].read_bytes(), sha256)
        raise DeviceError("the device still lacks files of the kit after all of them were sent")

    def put(self, data: bytes, sha256: str = "") -> str:
        """Send a file; its sha256."""
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        for start in range(0, max(len(data), 1), PIECE_BYTES):
            piece = base64.b64encode(data[start : start + PIECE_BYTES]).decode("ascii")
            told = self.ask("put", sha256=sha256, offset=start, size=len(data), data=piece)[0]
            if told["have"] != min(start + PIECE_BYTES, len(data)):
                raise DeviceError(f"worker has {told['have']} bytes of a file, others were sent")
        return sha256

    def measure(
        self,
        session: str,
        items: Sequence[str],
        loops: Mapping[str, int],
        profile: Sequence[str] = (),
        tell: Callable[[str], None] = lambda text: None,
        memory: Memory = WHOLE,
    ) -> Round:
        """One round: a sample of each item in this order, then profiles of some.

        Args:
            session: items stay open while it is the same.
            items: names in the kit; one may come several times.
            loops: runs of a sample of items measured before; others are calibrated.
            profile: items whose node times are wanted as well.
            tell: called with a line of progress while models are opened.
            memory: what open models may take.

        Raises:
            EngineCrashError: the worker's process ended while it opened or profiled an item.
        """
        reply, records = self.ask(
            "measure",
            tell,
            session=session,
            items=list(items),
            loops=dict(loops),
            profile=list(profile),
            **memory._asdict(),
        )
        replies.check_round(reply, records, items, profile, self._roles)
        seconds = (reply["open_s"], reply["sample_s"], reply["profile_s"])
        return Round(records, reply["left"], *seconds, reply["failed"])

    def energy(
        self, items: Sequence[str], window: Mapping[str, float]
    ) -> tuple[list[dict[str, Any]], float]:
        """A window of each item: records without their id, and seconds of device time.

        Args:
            items: names in the kit.
            window: `least_s` and `periods` (of the sensor) that it takes at least.

        Raises:
            MeterError: the target's meter cannot be read, or the energy of a window is unknown.
        """
        reply, records = self.ask("energy", items=list(items), window=dict(window))
        replies.check_windows(records, items, self._roles)
        return records, float(reply["energy_s"])

    def cold(self, item: str) -> dict[str, Any]:
        """What loading and first running a model of the kit costs a worker that has none open:
        load_ms, first_run_ms, wait_ms (of both), engine_bytes, resident_bytes, input_shape; None
        where it is not known.
        """
        reply = self.ask("cold", item=item)[0]
        return {name: reply[name] for name in protocol.ANSWERS["cold"]}

    def built(self, item: str, count: int) -> list[bytes]:
        """The files that the device's engine made of a model of the kit."""
        reply, records = self.ask("built", item=item)
        return replies.files(records, reply["sizes"], count)

    def clean(self) -> tuple[str, int]:
        """Remove all that workers keep on the device; the folder there, and bytes freed."""
        reply = self.ask("clean")[0]
        return reply["folder"], reply["freed_bytes"]

    def run(self, model: bytes, inputs: np.ndarray) -> np.ndarray:
        """Outputs of a model, computed by the device's engine.

        Args:
            model: an ONNX file with its weights inside.
            inputs: (n, channels, height, width), any n.

        Returns:
            (n, ...), the first output.
        """
        per_request = max(1, RUN_BYTES // max(1, inputs[0].size * 4)) if len(inputs) else 1
        parts = [inputs[i : i + per_request] for i in range(0, len(inputs), per_request)]
        sha256 = self.put(model)
        return np.concatenate([self._run(sha256, part) for part in parts])

    def _run(self, model: str, inputs: np.ndarray) -> np.ndarray:
        reply, records = self.ask(
            "run",
            model=model,
            data=self.put(np.ascontiguousarray(inputs, dtype="<f4").tobytes()),
            shape=list(inputs.shape),
        )
        return replies.outputs(records, reply["shape"], len(inputs))

    def ask(
        self, kind: str, tell: Callable[[str], None] = lambda text: None, **fields: Any
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Send a request; its answer and the records that came before it.

        Raises:
            HwnasError: of the class the worker names.
            DeviceError: the worker ended, is silent, or does not follow the protocol.
            EngineCrashError: it ended by itself, while it was busy with one item.
        """
        self._seq += 1
        item, profiling = "", False
        line = canonical_json({"type": kind, "seq": self._seq, **fields})
        self._connection.send(line.encode() + b"\n")
        records: list[dict[str, Any]] = []
        deadline = time.monotonic() + ANSWER_S
        enough = self._connection.received_bytes + ANSWER_BYTES
        while time.monotonic() < deadline:
            reply = self._next(kind, item, profiling)
            if self._connection.received_bytes > enough:
                raise DeviceError(f"worker answered {kind} with more than {ANSWER_BYTES} bytes")
            if reply["type"] == "heartbeat":
                continue
            deadline = time.monotonic() + ANSWER_S
            if reply["type"] == "record":
                records.append(reply["record"])
            elif reply["type"] == "progress":
                item, profiling = reply["item"], reply["opened"] == reply["of"]
                if item not in ("", fields.get("item"), *fields.get("items", ())):
                    raise DeviceError(f"worker is busy with {item!r}, which nobody asked for")
                tell(f"{reply['opened']} of {reply['of']} models open")
            elif reply["type"] == "error":
                raise _of_item(replies.error_from_fields(reply), item, profiling)
            else:
                return reply, records
        raise DeviceError(f"worker is alive but has not gone on with {kind} for {ANSWER_S:.0f} s")

    def _next(self, kind: str, item: str, profiling: bool) -> dict[str, Any]:
        """The next message of a worker that is asked something and busy with an item, or none."""
        try:
            line = self._connection.receive()
        except DeviceError as error:
            if not self._connection.crashed or kind == "hello":
                raise
            busy = f"; it was busy with {item}" if item else ""
            raise EngineCrashError(f"{error}{busy}", item, profiling) from None
        reply: dict[str, Any] = protocol.parse(line)
        wrong = protocol.wrong_reply(reply, kind, self._seq)
        if wrong:
            raise DeviceError(f"worker sent a message outside the protocol: {wrong}: {line[:60]!r}")
        return reply


def _of_item(error: HwnasError, item: str, profiling: bool) -> HwnasError:
    """An error that a worker told; that of a device that failed says on which item."""
    if not item or not isinstance(error, DeviceFaultError):
        return error
    text = f"{error}; it was busy with {item}"
    return EngineCrashError(text, item, profiling, type(error).__name__)
