"""Runtimes by name: one file each, defining `ENGINE` and `load(model_path, target) -> Session`.

A name with a colon, `module:NAME`, is an object of the user's own with the same functions. The
engine itself is imported by `load` and `version` only, so every runtime can be named anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Protocol, Tuple

import numpy as np

from profilers.plugins import load_part, names_in
from profilers.schema import Target

NODE_JOIN = " + "  # between the names of nodes that an engine fused into one
MODEL = "model.onnx"  # of a package: the network as it was exported, whatever engine runs it


class Engine(NamedTuple):
    """What a runtime says of its engine as `ENGINE`, so that nothing else knows an engine by name.

    Attributes:
        module: what Python imports; runtimes of one module share the engine.
        title: for people.
        floor: lowest version.
        packages: folders beside the module's own that it needs.
        provider: what the module must have been built with.
        precisions: that the graph, which is fp32, is run or built in.
        recipe: of int8, where it takes one only, whatever the processor.
        gpu: it runs on a GPU, with one thread.
        pip: what installs it; newest: versions for a Python that later ones have dropped.
        file: what it loads of a package, where that is not the ONNX file: the runtime has a
            `convert` then, and a `Deployed`.
        form: what that file is, for people.
        built: names of the files that it makes of the ONNX file on a device and that load there
            only: the runtime has a `built` then.
        node_times: it tells what each node takes.
        levels: it has optimisation levels.
        spins: its threads may go on looking for work between inferences.
        jetson: how a Jetson gets it, where that is another way; of_system: a virtual environment
            sees it only with the system's packages.
        licence: of the engine, for people.
        modelled: its times are of no device.
    """

    module: str = ""
    title: str = ""
    floor: Tuple[int, int] = (0, 0)
    packages: Tuple[str, ...] = ()
    provider: str = ""
    precisions: Tuple[str, ...] = ("fp32",)
    recipe: str = ""
    gpu: bool = False
    pip: str = ""
    newest: Mapping[Tuple[int, int], str] = {}
    file: str = MODEL
    form: str = "ONNX (opset 17)"
    built: Tuple[str, ...] = ()
    node_times: bool = True
    levels: bool = True
    spins: bool = False
    jetson: str = ""
    of_system: bool = False
    licence: str = ""
    modelled: bool = False


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
        engine took to build now what it keeps for the next time; `rewrite_s`, those that writing
        the file in the target's precision took, or finding that it is so already.
        """

    def close(self) -> None:
        """Give back what the session holds."""


class Runtime(Protocol):
    """What a runtime's file defines. A `clock(target)` beside it returns a function that gives
    monotonic seconds, for a runtime whose time is not the machine's; `free_bytes()` tells the
    memory that is free where models are, if that is not the machine's own; `ENGINE` is an Engine.

    `convert(onnx_path) -> bytes` makes the file that the engine loads, where that is not the ONNX
    file. `built(onnx_path, target)` gives the content of each file of `ENGINE.built`, from where
    `load` keeps them. The class `Deployed(path, target)`, with `batch` and `run(images)`,
    runs what was measured with numpy (`np`), `pathlib`, `sys` and the engine alone: its text goes
    into `example.py`. `target` is that of the manifest, with `built`.
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


def engine(name: str) -> Engine:
    """What is said of the engine of a runtime that comes with hwnas; of others nothing is known."""
    return engine_of(load(name)) if name in names() else Engine()


def engine_of(runtime: Runtime) -> Engine:
    """What a runtime says of its engine."""
    found: Engine = getattr(runtime, "ENGINE", Engine())
    return found
