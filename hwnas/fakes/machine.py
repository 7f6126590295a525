"""A modelled machine: its clock, what disturbs it, and a runtime on it whose ops cost as one says.

Needs the worker's own modules only, so that a plug-in for a board can be made of it.
"""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from profilers.errors import ConfigError, DeviceError
from profilers.runtimes import Engine, NodeTime
from profilers.schema import Target, canonical_json, read_json

RUN_MS = 0.010
MICRO_SHARE = 0.3
MS_PER_BYTE = 1e-6
IDLE_W = 2.0
RUN_W = 0.8  # beside the ops' own energy, while anything runs


class OpCost(NamedTuple):
    """What an op takes: ms within a network and mJ beside the machine's own, for a batch; and the
    nodes that its time is spread over, each named after its output.
    """

    ms: float
    mj: float
    nodes: tuple[str, ...]


class Modelled:
    """A runtime: `cost(key, batch)` of each op of a model is all that it knows of it."""

    ENGINE = Engine(precisions=("fp32", "int8"), modelled=True)

    def __init__(self, cost: Callable[[str, int], OpCost]) -> None:
        self._cost = cost

    def version(self) -> str:
        """Version of the model of times."""
        return "1"

    def clock(self, target: Target) -> Callable[[], float]:
        """The modelled clock of the target's machine, seconds."""
        machine = machine_of(target)
        return lambda: machine.now_s

    def sleep(self, target: Target) -> Callable[[float], None]:
        """How time passes at rest on the target's machine."""
        return machine_of(target).pass_time

    def waiting(self, target: Target) -> Callable[[], float | None]:
        """How many ms the modelled process has waited for a processor so far."""
        machine = machine_of(target)
        return lambda: machine.waited_ms if "waits" in machine.options else None

    def load(self, model_path: Path, target: Target) -> FakeSession:
        """A session whose times are modelled.

        Raises:
            ConfigError: the file is missing, or the connection's options cannot be read.
        """
        model_path = Path(model_path)
        if not model_path.is_file():
            raise ConfigError(f"runtime fake cannot load {model_path.name}: no such file")
        machine = machine_of(target)
        open_s = machine.number("open_s", 0.002)
        machine.waited_ms += machine.number("waits", 0) * 1000 * open_s
        machine.pass_time(open_s)
        if "chatter" in machine.options:
            os.write(1, b"an engine prints to stdout\n")
        return FakeSession(machine, *self._model(model_path, target.batch))

    def _model(
        self, model_path: Path, batch: int
    ) -> tuple[list[NodeTime], list[int] | None, float]:
        """Node times of a model, the shape of its input where known, and mJ of its ops."""
        beside = model_path.with_name(model_path.name + ".fake.json")
        if beside.is_file():
            return [NodeTime("model", "", float(read_json(beside)["ms"]))], None, 0.0
        item = _item(model_path)
        if item is None or not item["ops"]:
            return [NodeTime("model", "", model_path.stat().st_size * MS_PER_BYTE)], None, 0.0
        share = 1 + MICRO_SHARE if item["role"] == "micro" else 1.0
        nodes: list[NodeTime] = []
        own_mj = 0.0
        for op in item["ops"]:
            cost = self._cost(op["key"], batch)
            own_mj += cost.mj
            # A layout node stands in front of each op, as in ONNX Runtime's profiles.
            names = ["ReorderInput_token_1", *(f"{op['slot']}/{n}_nchwc" for n in cost.nodes)]
            nodes += [NodeTime(name, "", share * cost.ms / len(names)) for name in names]
        return nodes, item["inputs"].get("image"), own_mj


class Machine:
    """The modelled clock, what disturbs it, and the noise of its samples."""

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.now_s, self.waited_ms = 0.0, 0.0
        self._samples = 0
        self._slow = [_interval(text) for text in options.get("slow", "").split(",") if text]
        self._rng = np.random.default_rng(int(self.number("seed", 0)))
        self._logged = False

    def number(self, name: str, default: float) -> float:
        """An option as a number."""
        try:
            return float(self.options.get(name, default))
        except ValueError:
            raise ConfigError(
                f"fake option {name} = {self.options[name]!r} is not a number"
            ) from None

    def pass_time(self, seconds: float, power_w: float = IDLE_W) -> None:
        """Move the clock on while the machine draws this power."""
        begin_s, self.now_s = self.now_s, self.now_s + seconds
        if "power_log" in self.options:
            self._log_power(begin_s, power_w)

    def _log_power(self, begin_s: float, power_w: float) -> None:
        """Write the power from a time until now; the file begins anew with the process."""
        path = self.options["power_log"]
        with open(path, "a" if self._logged else "w", encoding="ascii") as handle:
            if not self._logged:
                handle.write("t_s,machine\n")
            handle.write(f"{begin_s!r},{power_w!r}\n{self.now_s!r},{power_w!r}\n")
        self._logged = True

    def elapsed_ms(self, cost_ms: float, loops: int, own_mj: float = 0.0) -> float:
        """ms that loops runs of cost_ms take now, whose ops take own_mj each; moves the clock, or
        ends the process.
        """
        self._samples += 1
        for option, number in (("die_after", signal.SIGKILL), ("stop_after", signal.SIGSTOP)):
            if option in self.options and self._samples > self.number(option, 0):
                os.kill(os.getpid(), number)
        factor = 1 + self.number("noise", 0.005) * abs(float(self._rng.standard_normal()))
        for start_s, stop_s, slowness in self._slow:
            factor *= slowness if start_s <= self.now_s < stop_s else 1
        total_ms = cost_ms * factor * loops
        self.waited_ms += self.number("waits", 0) * total_ms
        self.pass_time(total_ms / 1000, IDLE_W + RUN_W + own_mj * loops / total_ms)
        return total_ms


def machine_of(target: Target) -> Machine:
    """The one machine of a target's connection, in this process."""
    return _machine(canonical_json(target.connection))


@functools.cache
def _machine(options: str) -> Machine:
    return Machine(json.loads(options))


def _interval(text: str) -> tuple[float, float, float]:
    try:
        span, factor = text.split("x")
        start, stop = span.split("-")
        return float(start), float(stop), float(factor)
    except ValueError:
        raise ConfigError(
            f"fake option slow = {text!r} cannot be read; expected start-stopxfactor, as 2-3.5x1.5"
        ) from None


class FakeSession:
    """A model of known cost."""

    def __init__(
        self, machine: Machine, nodes: list[NodeTime], shape: list[int] | None, own_mj: float
    ) -> None:
        self._machine, self._nodes, self._shape, self._own_mj = machine, nodes, shape, own_mj
        self._ms = RUN_MS + sum(node.ms for node in nodes)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """A modelled machine computes nothing.

        Raises:
            DeviceError: always.
        """
        raise DeviceError("runtime fake models times and computes no outputs; use ort-cpu")

    def time(self, loops: int) -> float:
        """Modelled ms of `loops` runs."""
        return self._machine.elapsed_ms(self._ms, loops, self._own_mj)

    def profile(self, loops: int) -> list[NodeTime] | None:
        """Modelled node times; layout nodes stand between ops as in ONNX Runtime's profiles."""
        if "no_profile" in self._machine.options:
            return None
        share = self._machine.elapsed_ms(self._ms, loops) / (self._ms * loops)
        return [node._replace(ms=node.ms * share) for node in self._nodes]

    def info(self) -> dict[str, Any]:
        """Shape of the input and the memory the session claims."""
        claimed = int(self._machine.number("session_mb", 1) * (1 << 20))
        return {"input_shape": self._shape, "memory_bytes": claimed}

    def close(self) -> None:
        """Nothing is held."""


def _item(model_path: Path) -> dict[str, Any] | None:
    kit = model_path.with_name("kit.json")
    if not kit.is_file():
        return None
    found = [item for item in _items(kit) if item["file"] == model_path.name]
    return found[0] if found else None


@functools.lru_cache(maxsize=4)
def _items(kit: Path) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = read_json(kit)["items"]
    return items
