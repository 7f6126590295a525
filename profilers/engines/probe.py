"""Queries native code in a process of its own, so that a crash is reported, not fatal.

TensorRT's runtime without a driver was seen to end the process with a segmentation fault.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any, Dict

from profilers.errors import RuntimeMissingError

TIMEOUT_S = (
    120.0  # CUDA starts within seconds, a board that loads TensorRT for the first time later
)
CODE = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
from profilers.errors import HwnasError
try:
    found = {"facts": getattr(importlib.import_module(sys.argv[2]), sys.argv[3])()}
except HwnasError as error:
    found = {"error": str(error)}
print()
print(json.dumps(found))
"""


def ask(module: str, function: str) -> Dict[str, Any]:
    """What a function without arguments returns in a fresh process.

    Args:
        module: importable on this path.
        function: of the module; returns what JSON can hold.

    Raises:
        RuntimeMissingError: the function says what is missing, or its process died.
    """
    command = [sys.executable, "-I", "-S", "-c", CODE, json.dumps(sys.path), module, function]
    what = module.rpartition(".")[2]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeMissingError(f"{what} cannot be queried: {error}") from None
    if done.returncode:
        raise RuntimeMissingError(
            f"{what} crashed the process that queried it {_how(done.returncode)}: "
            f"{_last_line(done.stderr)}; check with `nvidia-smi` that the driver works"
        )
    found: Dict[str, Any] = json.loads(_last_line(done.stdout))
    if "error" in found:
        raise RuntimeMissingError(found["error"])
    facts: Dict[str, Any] = found["facts"]
    return facts


def _how(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
