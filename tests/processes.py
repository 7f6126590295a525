"""Processes that train together, started as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess


def together(command: list[str]) -> list[subprocess.Popen]:
    """Two processes of a command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def ends(running: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    """Exit codes, and what was written."""
    said = ["".join(process.communicate(timeout=120)) for process in running]
    return [process.returncode for process in running], said
