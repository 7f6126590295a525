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

from hwnas.fakes.machine import (
    IDLE_W,
    MICRO_SHARE,
    MS_PER_BYTE,
    RUN_MS,
    RUN_W,
    FakeSession,
    Modelled,
    OpCost,
)
from hwnas.networks.ops import parse_key

__all__ = [
    "ENGINE", "IDLE_W", "MICRO_SHARE", "MS_PER_BYTE", "RUN_MS", "RUN_W", "FakeSession", "clock",
    "load", "op_mj", "op_ms", "sleep", "version", "waiting",
]  # fmt: skip

NODE_MS = 0.004
MACS_PER_MS = 2e6
MJ_PER_MAC, MJ_PER_WEIGHT_BYTE = 1.5e-6, 4e-7
ENGINE = Modelled.ENGINE


def op_ms(key: str, batch: int = 1) -> float:
    """True ms of one op within a network."""
    op = parse_key(key)
    return batch * op.macs / MACS_PER_MS + NODE_MS * len(op.exported)


def op_mj(key: str, batch: int = 1) -> float:
    """True mJ of one op, beside what the machine takes while it runs."""
    op = parse_key(key)
    return batch * op.macs * MJ_PER_MAC + op.weight_bytes * MJ_PER_WEIGHT_BYTE


def _cost(key: str, batch: int) -> OpCost:
    names = tuple(step.name for step in parse_key(key).exported)
    return OpCost(op_ms(key, batch), op_mj(key, batch), names)


_RUNTIME = Modelled(_cost)
version, clock, sleep = _RUNTIME.version, _RUNTIME.clock, _RUNTIME.sleep
waiting, load = _RUNTIME.waiting, _RUNTIME.load
