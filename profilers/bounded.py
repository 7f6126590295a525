"""A command of a meter, run without a shell, within a time and an amount of output."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import time
from typing import List

from profilers.errors import ConfigError, MeterError

MOST_BYTES = 1 << 16  # of output; a meter prints a few lines


def split(command: str) -> List[str]:
    """The words of a command line; nothing in it is seen by a shell.

    Raises:
        ConfigError: it is empty, or a quote is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"meter command {command!r} cannot be read: {error}") from None
    if not words:
        raise ConfigError("meter command is empty; expected a program and its arguments")
    return words


def output(words: List[str], timeout_s: float) -> str:
    """What a command prints on standard output.

    Args:
        words: program and arguments.
        timeout_s: after which it is ended.

    Raises:
        MeterError: it cannot be started, takes too long, prints too much, or fails.
    """
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MeterError(f"{words[0]} cannot be started: {reason}") from None
    assert process.stdout is not None
    with process.stdout:
        try:
            data = _collect(process.stdout.fileno(), words[0], timeout_s)
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise MeterError(f"{words[0]} did not end within {timeout_s:g} s") from None
        finally:
            process.kill()
            process.wait()
    if code != 0:
        raise MeterError(f"{words[0]} ended with status {code}")
    return data.decode("utf-8", "replace")


def _collect(descriptor: int, name: str, timeout_s: float) -> bytes:
    """Everything up to the end of the output."""
    deadline, data = time.monotonic() + timeout_s, b""
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            raise MeterError(f"{name} printed nothing more for {timeout_s:g} s")
        piece = os.read(descriptor, MOST_BYTES)
        if not piece:
            return data
        data += piece
        if len(data) > MOST_BYTES:
            raise MeterError(f"{name} printed more than {MOST_BYTES} bytes")
