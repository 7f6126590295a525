"""JSON lines between worker and host, over the worker's stdin and stdout.

Stdout carries the protocol only: whatever an engine prints goes to stderr. Lines are read by a
thread of their own, so that a host that is gone ends the worker even in the middle of a round.
"""

from __future__ import annotations

import io
import os
import queue
import threading
import time
from typing import Any, BinaryIO, Dict, Optional

from profilers.errors import DeviceError, FileFormatError
from profilers.json_text import parse_json
from profilers.schema import BEAT, LINE_BYTES, canonical_json

READ_BYTES = 1 << 16
GRACE_S = 10.0  # a worker that is still busy this long after its host went is ended
EXIT_HOST_GONE = 4
HOST_SILENCE_S = 60.0  # a host that beat, and has not for so long, is at the end of a dead line


class Channel:
    """Both directions of a session, and the heartbeat."""

    def __init__(self, source: io.BufferedReader, sink: BinaryIO, heartbeat_s: float) -> None:
        self._source, self._sink = source, sink
        self._writing = threading.Lock()
        self._seq = 0
        self._lines: queue.Queue[bytes] = queue.Queue()
        self.host_gone = threading.Event()
        self._beaten_s: Optional[float] = None
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._beat, args=(heartbeat_s,), daemon=True).start()
        threading.Thread(target=self._watch, args=(heartbeat_s,), daemon=True).start()

    def receive(self) -> Optional[Dict[str, Any]]:
        """The next message; None when the host is gone.

        Raises:
            FileFormatError: the line is too long or not a JSON object.
        """
        line = self._lines.get()
        if not line:
            return None
        if len(line) > LINE_BYTES:
            raise FileFormatError(f"a line is longer than {LINE_BYTES} bytes")
        try:
            message = parse_json(line.decode("utf-8"))
        except ValueError as error:
            raise FileFormatError(f"a line is not JSON ({error})") from None
        if not isinstance(message, dict):
            raise FileFormatError("a line is not a JSON object")
        return message

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message of a type.

        Raises:
            DeviceError: the host is gone.
        """
        with self._writing:
            self._seq += 1
            text = canonical_json({"type": kind, "seq": self._seq, **fields})
            try:
                self._sink.write(text.encode("utf-8") + b"\n")
                self._sink.flush()
            except OSError:
                self.host_gone.set()
                raise DeviceError("the host closed the connection") from None

    def check(self) -> None:
        """Stop what is going on if the host is gone.

        Raises:
            DeviceError: it is.
        """
        if self.host_gone.is_set():
            raise DeviceError("the host closed the connection")

    def _read(self) -> None:
        """Lines until the end or one that is too long. Every piece of one is a sign of life from a
        host that beats: a long line takes minutes on a slow connection.
        """
        buffer, piece = b"", self._piece()
        while piece:
            self._beaten_s = self._beaten_s and time.monotonic()
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                self._take(line + b"\n")
            if len(buffer) > LINE_BYTES:
                self._lines.put(buffer)
                break
            piece = self._piece()
        self._end()

    def _piece(self) -> bytes:
        """Some bytes, none at the end; that of a line that was reset is an error."""
        try:
            return self._source.read1(READ_BYTES)
        except OSError:
            return b""

    def _take(self, line: bytes) -> None:
        if line == BEAT:
            self._beaten_s = time.monotonic()
        else:
            self._lines.put(line)

    def _end(self) -> None:
        """Let what is going on end by itself, then end this process."""
        self._lines.put(b"")
        self.host_gone.set()
        time.sleep(GRACE_S)
        os._exit(EXIT_HOST_GONE)

    def _watch(self, every_s: float) -> None:
        """End when the host is gone or has fallen silent: a line that was cut does not always
        close, and one that takes nothing any more may still be open for reading.
        """
        while not self.host_gone.wait(every_s):
            beaten_s = self._beaten_s
            if beaten_s is not None and time.monotonic() - beaten_s > HOST_SILENCE_S:
                break
        self._end()

    def _beat(self, heartbeat_s: float) -> None:
        while not self.host_gone.wait(heartbeat_s):
            try:
                self.send("heartbeat")
            except DeviceError:
                return


def take_over_stdio(heartbeat_s: float) -> Channel:
    """The channel over this process's stdin and stdout, which nothing else may use from now on."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return Channel(source, sink, heartbeat_s)
