"""The protocol of measuring, as far as the device goes: open, warm up, calibrate, sample, profile.

    open     load a model, run it until it is steady, choose how many loops make one sample
    sample   a few runs to bring the model back into the caches, then `loops` runs, timed together
    profile  the engine's own time of each node, attributed to slots by node and tensor names

In what order and how often is the host's business; statistics are derived (profilers/stats.py).
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set

from profilers.errors import (
    ConfigError,
    DeviceError,
    DeviceFaultError,
    DiskFullError,
    HwnasError,
    MemoryShortError,
    RuntimeMissingError,
)
from profilers.memory import give_back, resident_bytes
from profilers.runtimes import NODE_JOIN, NodeTime, Runtime, Session
from profilers.schema import Target

# A sample is as short as the clock and the Python call (about 1 us) allow: on a shared machine many
# short samples are better than few long ones (tiny, x86-64, equal device time: 80 samples of 1 ms
# repeat within 0.5 %, 20 of 4 ms within 1.1 %).
SAMPLE_MS = 2.0
MAX_LOOPS = 100_000
# After other models ran, runs 1 to 4 are 29, 16, 7 and 4 % slower than the eighth (ofa-mbv3-w10,
# 224 px). How many run before a sample must not depend on the model: networks that had one such run
# instead of two took 5 % longer, which no table can tell and which made repeats differ.
WARM_RUNS = 2
LONG_MS = 100.0  # of one run: it turns over every cache by itself ...
WARM_RUNS_LONG = 1  # ... and more of them are long
SPIN_S = 0.1  # after it, threads of the model before do not spin any more (ONNX Runtime)
STEADY_SHARE = 0.02  # a run counts as steady when it gains less on the best one before
STEADY_TRIES = 6
PROFILE_MS = 50.0
PROFILE_LOOPS = (5, 20)  # fewest, most
REGION = "+"  # between the slots of a node that was fused from several
INPUT_LAYOUT = "ReorderInput"  # ONNX Runtime, made for the node after it
LAYOUT = ("Reorder", "Transpose")  # every node that only changes the layout


class Plan(NamedTuple):
    """How one model is sampled: runs before a sample, runs of a sample, ms of one run."""

    warm: int
    loops: int
    ms: float


def calibrate(session: Session, loops: Optional[int] = None) -> Plan:
    """Run a model until it is steady and plan its samples.

    Args:
        session: just loaded.
        loops: runs of a sample, where an earlier campaign fixed it.
    """
    session.time(1)
    best = max(min(session.time(1), session.time(1)), 1e-6)
    if loops is None:
        best = _steady(session, best)
    wanted = loops or min(max(1, math.ceil(SAMPLE_MS / best)), MAX_LOOPS)
    return Plan(WARM_RUNS if best < LONG_MS else WARM_RUNS_LONG, wanted, best)


def _steady(session: Session, best: float) -> float:
    """ms of one run, once it gains no more on the best before, or after enough tries."""
    count = 1
    for _ in range(STEADY_TRIES):
        now = session.time(count) / count
        steady, best = now > (1 - STEADY_SHARE) * best, max(min(best, now), 1e-6)
        if steady and (count * best >= SAMPLE_MS / 4 or count >= MAX_LOOPS):
            break
        count = min(max(1, math.ceil(SAMPLE_MS / 4 / best)), MAX_LOOPS)
    return best


class OpenModels:
    """The models of one kit that are open at the same time, within the memory they may take."""

    def __init__(
        self,
        runtime: Runtime,
        target: Target,
        memory_bytes: Optional[int],
        waited_ms: Callable[[], Optional[float]] = lambda: None,
    ) -> None:
        """Nothing is open yet.

        Args:
            runtime: loads models.
            target: how it is driven.
            memory_bytes: what the open models may take; None where free memory is unknown.
            waited_ms: how long this process has waited for a processor so far; None: unknown.
        """
        self._runtime, self._target, self._waited_ms = runtime, target, waited_ms
        self._most, self._limit = memory_bytes, memory_bytes
        self._sessions: Dict[str, Session] = {}
        self._plans: Dict[str, Plan] = {}
        self._claimed: Dict[str, int] = {}
        # Of a GPU: what is free now, what shall stay free, what each model took.
        self._gpu_free: Optional[Callable[[], int]] = getattr(runtime, "free_bytes", None)
        self._gpu_kept = self._gpu_free() // 2 if self._gpu_free else 0
        self._gpu_claimed: Dict[str, int] = {}
        self.failed: Dict[str, HwnasError] = {}
        self.built_s = 0.0

    def open(
        self,
        models: Dict[str, Path],
        loops: Dict[str, int],
        tell: Callable[[str, int, int], None],
    ) -> List[str]:
        """Open these models and close all others; the names of those that found no room.

        The first two are opened whatever they take: an anchor and something to compare with it.
        `failed` holds afterwards the models that could not be opened, and why: the engine refused
        them, or memory was short for one of the first two; `built_s` the seconds that went into
        builds which the engine keeps.

        Args:
            models: file of each model, in the order to open them.
            loops: runs of a sample of models sampled before; others are calibrated.
            tell: called before each model with its name, how many are open and how many are
                wanted: a crash of the engine is then the model's that was named last.

        Raises:
            RuntimeMissingError, DiskFullError: this is the fault of no model.
            DeviceFaultError: only another process can go on.
        """
        closed = [name for name in self._sessions if name not in models]
        for name in closed:
            self.close_model(name)
        if closed:
            give_back()
        left: List[str] = []
        self.failed, self.built_s = {}, 0.0
        for name in models:
            if name in self._sessions:
                continue
            if left or self._full():
                left.append(name)
                continue
            tell(name, len(self._sessions), len(models))
            try:
                self._open(name, models[name], loops.get(name))
            except (RuntimeMissingError, DiskFullError, DeviceFaultError):
                raise
            except MemoryShortError as error:
                give_back()
                if len(self._sessions) < 2:
                    self.failed[name] = MemoryShortError(f"{error}; {self._room()}")
                else:
                    left.append(name)
            except (ConfigError, DeviceError) as error:
                self.failed[name] = error
        return left

    def _room(self) -> str:
        """How many models are open, and what they take."""
        count, claimed = len(self._sessions), self.claimed_bytes
        words = (
            f"{count} other model was open, with {claimed >> 20} MB" if count else "none was open"
        )
        if self._gpu_free:
            used = sum(self._gpu_claimed.values())
            words += f", {used >> 20} MB of them on the GPU, {self._gpu_free() >> 20} MB free there"
        return words

    @property
    def claimed_bytes(self) -> int:
        """Memory of the open models."""
        return sum(self._claimed.values())

    def limit(self, memory_bytes: int) -> None:
        """Cap the memory of open models, never above the cap set at session start."""
        self._limit = memory_bytes if self._most is None else min(memory_bytes, self._most)

    def holds(self, names: Iterable[str]) -> bool:
        """Whether all these models are open."""
        return set(names) <= set(self._sessions)

    def _full(self) -> bool:
        if len(self._sessions) < 2:
            return False
        if self._gpu_free and self._gpu_free() - max(self._gpu_claimed.values()) < self._gpu_kept:
            return True
        largest = max(self._claimed.values())
        return self._limit is not None and self.claimed_bytes + largest > self._limit

    def _open(self, name: str, path: Path, loops: Optional[int]) -> None:
        before, free = resident_bytes(), self._gpu_free() if self._gpu_free else 0
        session = self._runtime.load(path, self._target)
        try:
            self._plans[name] = calibrate(session, loops)
        except HwnasError:
            session.close()
            raise
        self._sessions[name] = session
        info = session.info()
        self.built_s += float(info.get("build_s", 0.0))
        told = info.get("memory_bytes")
        give_back()
        self._claimed[name] = max(resident_bytes() - before, 0) if told is None else int(told)
        self._gpu_claimed[name] = max(free - self._gpu_free(), 0) if self._gpu_free else 0

    @property
    def is_short(self) -> bool:
        """Whether memory was short for one of the models that have to be open."""
        return any(isinstance(error, MemoryShortError) for error in self.failed.values())

    def close_model(self, name: str) -> None:
        """Close one model."""
        self._sessions.pop(name).close()
        del self._plans[name], self._claimed[name], self._gpu_claimed[name]

    def close(self) -> None:
        """Close every model."""
        for name in list(self._sessions):
            self.close_model(name)
        give_back()

    def sample(self, name: str) -> Dict[str, Any]:
        """One sample of an open model: `warm` (runs before it), `loops`, `ms` of one run, and
        `wait_ms` of all these runs where it is known.
        """
        session, plan = self._sessions[name], self._plans[name]
        if self._target.spinning:
            time.sleep(SPIN_S)
        before_ms = self._waited_ms()  # read outside: nothing comes between the runs and the sample
        for _ in range(plan.warm):
            session.time(1)
        ms = session.time(plan.loops) / plan.loops
        found = {"warm": plan.warm, "loops": plan.loops, "ms": round(ms, 7)}
        return {**found, **waited_since(before_ms, self._waited_ms())}

    def profile(self, name: str, slots: Set[str]) -> Optional[Dict[str, Any]]:
        """`loops` and `profile` ([[slot, ms], ...]) of an open model; None where the engine tells
        no node times.
        """
        fewest, most = PROFILE_LOOPS
        loops = min(max(math.ceil(PROFILE_MS / self._plans[name].ms), fewest), most)
        nodes = self._sessions[name].profile(loops)
        return None if nodes is None else {"loops": loops, "profile": attribute(nodes, slots)}


def waited_since(before_ms: Optional[float], now_ms: Optional[float]) -> Dict[str, float]:
    """`wait_ms` between two readings; nothing where the system does not tell."""
    if before_ms is None or now_ms is None:
        return {}
    return {"wait_ms": round(max(now_ms - before_ms, 0.0), 4)}


def attribute(nodes: Sequence[NodeTime], slots: Set[str]) -> List[List[Any]]:
    """Node times summed by slot: `[[slot, ms], ...]` in the order of execution.

    A node belongs to the slot its name or tensor starts with; one that was fused from nodes of
    several slots goes to a slot of its own, "a+b": how it divides is for the reader to say, who
    knows what these ops take alone. A node without a slot belongs to its
    neighbours in the order of execution where they agree; a layout node between two slots belongs
    to the node it was made for: the next one for an input, else the one before. What is left goes
    to slot "".
    """
    own = [_slots(node, slots) for node in nodes]
    before = _known([found[-1:] for found in own])
    after = _known([found[:1] for found in own[::-1]])[::-1]
    total: Dict[str, float] = {}
    for i, node in enumerate(nodes):
        slot = REGION.join(own[i]) or _neighbour(node.node_name, before[i], after[i])
        total[slot] = total.get(slot, 0.0) + node.ms
    return [[slot, round(ms, 7)] for slot, ms in total.items()]


def _slots(node: NodeTime, slots: Set[str]) -> List[str]:
    """Slots that a node's name speaks of, each once; else those of its tensor's."""
    for name in (node.node_name, node.tensor_name):
        parts = [part.partition("/")[0] for part in name.split(NODE_JOIN)]
        found = list(dict.fromkeys(part for part in parts if part in slots))
        if found:
            return found
    return []


def _known(slots: Iterable[List[str]]) -> List[str]:
    """The last slot that was named, at each place."""
    last, out = "", []
    for found in slots:
        last = found[0] if found else last
        out.append(last)
    return out


def _neighbour(node_name: str, before: str, after: str) -> str:
    if before == after:
        return before
    if not node_name.startswith(LAYOUT):
        return ""
    chosen = after if node_name.startswith(INPUT_LAYOUT) else before
    return chosen or before or after
