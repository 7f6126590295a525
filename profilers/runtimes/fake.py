"""Modelled times on a modelled clock, so that measuring, resuming and fitting can be tested
anywhere.

A network takes `RUN_MS` plus, for each op, its MACs at `MACS_PER_MS` plus `NODE_MS` for each of
its nodes; a micro-model takes `MICRO_SHARE` more. The ops come from the `kit.json` beside the
model, or `{"ms": x}` from `<model>.fake.json`; a model of neither counts by its bytes. The
target's connection holds the rest, as text:

    seed     of the noise (0)                   noise    spread of a sample, as a share (0.005)
    slow     "2-3.5x1.5,9-10x2": from second 2 to 3.5 of the modelled clock, times are 1.5-fold
    open_s   seconds to load a model (0.002)    session_mb  memory a session claims (1)
    chatter  print to stdout, as engines do     no_profile  give no node times
    waits    share of all runs' time that the process waits for a processor (unknown)
    power_log  CSV file that the modelled power is written to, for the meter `replay`
    die_after, stop_after   samples after which the process kills itself (SIGKILL, SIGSTOP)
"""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from profilers import counts
from profilers.errors import ConfigError, DeviceError
from profilers.runtimes import NodeTime
from profilers.schema import Target, canonical_json, parse_key, read_json

RUN_MS = 0.010
NODE_MS = 0.004
MACS_PER_MS = 2e6
MICRO_SHARE = 0.3
MS_PER_BYTE = 1e-6
IDLE_W = 2.0
RUN_W = 0.8  # beside the ops' own energy, while anything runs
MJ_PER_MAC, MJ_PER_WEIGHT_BYTE = 1.5e-6, 4e-7


def version() -> str:
    """Version of the model of times."""
    return "1"


def clock(target: Target) -> Callable[[], float]:
    """The modelled clock of the target's machine, seconds."""
    machine = _machine(canonical_json(target.connection))
    return lambda: machine.now_s


def sleep(target: Target) -> Callable[[float], None]:
    """How time passes at rest on the target's machine."""
    return _machine(canonical_json(target.connection)).pass_time


def waiting(target: Target) -> Callable[[], Optional[float]]:
    """How many ms the modelled process has waited for a processor so far."""
    machine = _machine(canonical_json(target.connection))
    return lambda: machine.waited_ms if "waits" in machine.options else None


def load(model_path: Path, target: Target) -> FakeSession:
    """A session whose times are modelled.

    Raises:
        ConfigError: the file is missing, or the connection's options cannot be read.
    """
    model_path = Path(model_path)
    if not model_path.is_file():
        raise ConfigError(f"runtime fake cannot load {model_path.name}: no such file")
    machine = _machine(canonical_json(target.connection))
    open_s = machine.number("open_s", 0.002)
    machine.waited_ms += machine.number("waits", 0) * 1000 * open_s
    machine.pass_time(open_s)
    if "chatter" in machine.options:
        os.write(1, b"an engine prints to stdout\n")
    return FakeSession(machine, model_path, target.batch)


class Machine:
    """The modelled clock, what disturbs it, and the noise of its samples."""

    def __init__(self, options: Dict[str, str]) -> None:
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
        """Move the clock, while the machine draws so much."""
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


@functools.lru_cache(maxsize=None)
def _machine(options: str) -> Machine:
    """The one machine of a connection, in this process."""
    return Machine(json.loads(options))


def _interval(text: str) -> Tuple[float, float, float]:
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

    def __init__(self, machine: Machine, model_path: Path, batch: int) -> None:
        self._machine = machine
        self._nodes, self._shape = _cost(model_path, batch)
        self._ms = RUN_MS + sum(node.ms for node in self._nodes)
        self._own_mj = sum(
            op_mj(op["key"], batch) for op in (_item(model_path) or {}).get("ops", ())
        )

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """A modelled machine computes nothing.

        Raises:
            DeviceError: always.
        """
        raise DeviceError("runtime fake models times and computes no outputs; use ort-cpu")

    def time(self, loops: int) -> float:
        """Modelled ms of `loops` runs."""
        return self._machine.elapsed_ms(self._ms, loops, self._own_mj)

    def profile(self, loops: int) -> Optional[List[NodeTime]]:
        """Modelled node times; layout nodes stand between ops as in ONNX Runtime's profiles."""
        if "no_profile" in self._machine.options:
            return None
        share = self._machine.elapsed_ms(self._ms, loops) / (self._ms * loops)
        return [node._replace(ms=node.ms * share) for node in self._nodes]

    def info(self) -> Dict[str, Any]:
        """Shape of the input and the memory the session claims."""
        claimed = int(self._machine.number("session_mb", 1) * (1 << 20))
        return {"input_shape": self._shape, "memory_bytes": claimed}

    def close(self) -> None:
        """Nothing is held."""


def op_ms(key: str, batch: int = 1) -> float:
    """True ms of one op within a network."""
    spec = parse_key(key)
    return batch * counts.macs(spec) / MACS_PER_MS + NODE_MS * len(counts.nodes(spec))


def op_mj(key: str, batch: int = 1) -> float:
    """True mJ of one op, beside what the machine takes while it runs."""
    spec = parse_key(key)
    return batch * counts.macs(spec) * MJ_PER_MAC + counts.weight_bytes(spec) * MJ_PER_WEIGHT_BYTE


def _cost(model_path: Path, batch: int) -> Tuple[List[NodeTime], Optional[List[int]]]:
    """Node times of a model and the shape of its input, where known."""
    beside = model_path.with_name(model_path.name + ".fake.json")
    if beside.is_file():
        return [NodeTime("model", "", float(read_json(beside)["ms"]))], None
    item = _item(model_path)
    if item is None or not item["ops"]:
        return [NodeTime("model", "", model_path.stat().st_size * MS_PER_BYTE)], None
    nodes: List[NodeTime] = []
    for op in item["ops"]:
        nodes += _op_nodes(op["slot"], op["key"], batch)
    share = 1 + MICRO_SHARE if item["role"] == "micro" else 1.0
    return [node._replace(ms=node.ms * share) for node in nodes], item["inputs"].get("image")


def _op_nodes(slot: str, key: str, batch: int) -> List[NodeTime]:
    """The op's emitted nodes, its time spread evenly, a layout node in front."""
    names = ["ReorderInput_token_1"] + [
        f"{slot}/{node.output}_nchwc" for node in counts.nodes(parse_key(key))
    ]
    share_ms = op_ms(key, batch) / len(names)
    return [NodeTime(name, "", share_ms) for name in names]


def _item(model_path: Path) -> Optional[Dict[str, Any]]:
    kit = model_path.with_name("kit.json")
    if not kit.is_file():
        return None
    found = [item for item in _items(kit) if item["file"] == model_path.name]
    return found[0] if found else None


@functools.lru_cache(maxsize=4)
def _items(kit: Path) -> List[Dict[str, Any]]:
    items: List[Dict[str, Any]] = read_json(kit)["items"]
    return items
