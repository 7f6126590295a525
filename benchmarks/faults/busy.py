"""Does `hwnas measure` tell that a machine is busy? One file, quiet and with 4 programs a core.

A trial is one command. It is marked where its verdict is `disturbed`, or it refuses to give a
number (`unstable`, exit code 4). A quiet trial has no load of its own, and a loop of Python takes
within 3 % as long after it as before; others are repeated and counted. What is quiet is the median
of the quiet trials that are not marked.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = "host.ort-cpu.fp32.b1.t1"
TRIALS, BUSY_PER_CORE = 20, 4
BUDGET_S = 5
NEAR = 0.05  # of quiet, that a measurement without a mark may be off by
STEADY = 0.03  # that the anchor may differ by around a quiet trial
MOST_REPEATS = 3  # times as many quiet trials as wanted, after which there is no quiet machine
MOST_MARKED = 1  # quiet trials
SPIN = """
import os, time
parent, end = os.getppid(), time.time() + {s}
while os.getppid() == parent and time.time() < end:
    pass
"""
LONGEST_S = 180  # of one trial


class Trial(NamedTuple):
    """One measurement: latency (None where it was refused), whether it is marked, and why."""

    latency_ms: float | None
    marked: bool
    reason: str


def bars(quick: bool) -> list[dict[str, Any]]:
    """What the trials must keep, after a table of them.

    Args:
        quick: one trial of each, on a short budget.
    """
    n = 1 if quick else TRIALS
    budget_s = 2 if quick else BUDGET_S
    with tempfile.TemporaryDirectory(prefix="hwnas-busy-") as folder:
        model = _model(Path(folder) / "m.onnx")
        steady = 1.0 if quick else STEADY  # a quick run shows that all works, whatever the machine
        calm, repeated = _quiet(model, n, budget_s, steady)
        busy = [_busy(model, budget_s) for _ in range(n)]
    known = [t.latency_ms for t in calm if t.latency_ms and not t.marked]
    reference_ms = statistics.median(known) if known else None
    wrong = [t for t in busy if not t.marked and not _near(t.latency_ms, reference_ms)]
    _show(calm, busy, reference_ms, repeated)
    marked = sum(t.marked for t in calm)
    return [
        _bar("quiet trials that are marked", marked, MOST_MARKED, calm),
        _bar(f"quiet trials missing, of {n}", n - len(calm), 0, calm),
        _bar(f"busy trials neither within {NEAR:.0%} of quiet nor marked", len(wrong), 0, busy),
    ]


def _bar(name: str, value: int, limit: int, trials: list[Trial]) -> dict[str, Any]:
    """A bar; its spread is of the latencies, ms."""
    found = {"name": name, "value": value, "limit": f"<= {limit}", "holds": value <= limit}
    times = [t.latency_ms for t in trials if t.latency_ms is not None]
    return {**found, "n": len(trials), "spread": [min(times), max(times)] if times else None}


def _near(latency_ms: float | None, reference_ms: float | None) -> bool:
    if latency_ms is None or reference_ms is None:
        return False
    return abs(latency_ms / reference_ms - 1) <= NEAR


def _quiet(model: Path, n: int, budget_s: float, steady: float) -> tuple[list[Trial], int]:
    """n trials with no load of their own, fewer where the machine is never quiet; and how many
    were repeated because the anchor moved.
    """
    found: list[Trial] = []
    tried = 0
    while len(found) < n and tried < MOST_REPEATS * n:
        tried += 1
        before = _anchor_s()
        trial = _measured(model, budget_s)
        if abs(_anchor_s() / before - 1) <= steady:
            found.append(trial)
    return found, tried - len(found)


def _busy(model: Path, budget_s: float) -> Trial:
    """A trial with busy programs on every core."""
    with _load(BUSY_PER_CORE * len(os.sched_getaffinity(0))):
        return _measured(model, budget_s)


@contextlib.contextmanager
def _load(n: int) -> Iterator[None]:
    """So many busy programs, which end with this one at the latest."""
    command = [sys.executable, "-c", SPIN.format(s=2 * LONGEST_S)]
    running = [subprocess.Popen(command) for _ in range(n)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def _measured(model: Path, budget_s: float) -> Trial:
    command = [sys.executable, "-m", "hwnas", "measure", str(model), "--target", TARGET]
    command += ["--budget", f"{budget_s:g}", "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:  # a machine that is busier than the trial makes it
        return Trial(None, True, f"no answer within {LONGEST_S} s")
    if done.returncode == 4:
        return Trial(None, True, done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"measure ended with {done.returncode}: {done.stderr.strip()}")
    (found,) = json.loads(done.stdout)["models"]
    return Trial(found["latency_ms"], found["verdict"] == "disturbed", found["reason"])


def _anchor_s() -> float:
    """Seconds that a fixed loop takes: the median of many."""
    times = []
    for _ in range(60):
        begin = time.perf_counter()
        sum(range(100_000))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _model(path: Path) -> Path:
    """A convolution and a ReLU: a run takes microseconds, so one sample is many."""
    weight = np.random.default_rng(1).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16))
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, 16, 16))
    initial = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", [given], [made], initial)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def _show(calm: list[Trial], busy: list[Trial], reference_ms: float | None, repeated: int) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"\nhwnas measure, {TARGET}, {cores} cores; {BUSY_PER_CORE} busy programs for each")
    print(f"quiet trials repeated because the anchor moved: {repeated}\n")
    print(f"{'':<8}{'trials':>8}{'marked':>8}{'least ms':>12}{'median ms':>12}{'most ms':>12}")
    for name, trials in (("quiet", calm), ("busy", busy)):
        times = [t.latency_ms for t in trials if t.latency_ms is not None]
        marked = sum(t.marked for t in trials)
        values = (min(times), statistics.median(times), max(times)) if times else ()
        cells = "".join(f"{value:>12.5f}" for value in values)
        print(f"{name:<8}{len(trials):>8}{marked:>8}{cells}")
    off = [
        t.latency_ms / reference_ms - 1 for t in busy if t.latency_ms is not None and reference_ms
    ]
    if off:
        print(f"busy against quiet: {min(off):+.1%} to {max(off):+.1%}")
    for reason in dict.fromkeys(t.reason for t in (*calm, *busy) if t.marked):
        print(f"marked: {reason}")
