"""Runtimes by name: one file each, which defines `load(model_path, target) -> Session`.

A name with a colon, `module:NAME`, is an object of the user's own with the same functions. The
engine itself is imported by `load` and `version` only, so every runtime can be named anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Protocol

import numpy as np

from profilers.plugins import load_part, names_in
from profilers.schema import Target

NODE_JOIN = " + "  # between the names of nodes that an engine fused into one


class NodeTime(NamedTuple):
    """Time of one node of the graph that the engine ran, ms, averaged over loops. A node fused from
    several carries all their names, NODE_JOIN between them.
    """

    node_name: str
    tensor_name: str
    ms: float


class Session(Protocol):
    """One loaded model, its inputs and outputs resident."""

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """The first output for one batch of inputs."""

    def time(self, loops: int) -> float:
        """ms that `loops` inferences took together, by the engine's right clock."""

    def profile(self, loops: int) -> Optional[List[NodeTime]]:
        """Node times in the order of execution; None where the engine gives none."""

    def info(self) -> Dict[str, Any]:
        """`input_shape`; `memory_bytes` where the engine tells; `build_s`, the seconds that an
        engine took to build now what it keeps for the next time.
        """

    def close(self) -> None:
        """Give back what the session holds."""


class Runtime(Protocol):
    """What a runtime's file defines. A `clock(target)` beside it returns a function that gives
    monotonic seconds, for a runtime whose time is not the machine's; `free_bytes()` tells the
    memory that is free where models are, if that is not the machine's own; `MODELLED = True` marks
    what it tells as emulated.
    """

    def version(self) -> str:
        """Version of the engine; RuntimeMissingError where it is not installed."""

    def load(self, model_path: Path, target: Target) -> Session:
        """A session of the model.

        Raises:
            RuntimeMissingError: the engine is not installed, or too old.
            ConfigError: the model cannot be loaded, today or tomorrow, or not as the target says.
            DeviceError: the device failed; MemoryShortError, DeviceFaultError: as they say.
        """


def names() -> List[str]:
    """The runtimes that come with hwnas."""
    return names_in(__path__)


def load(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        ConfigError: no such runtime; the message holds the nearest name.
    """
    runtime: Runtime = load_part(name, __name__, __path__, "runtime")
    return runtime
