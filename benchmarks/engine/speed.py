"""Engines side by side on the same networks, samples interleaved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.networks import opened, write
from hwnas.networks import spaces
from hwnas.settings.targets import REFERENCE
from profilers.open_models import calibrate
from profilers.runtimes import Session

SPACES = ("tiny", "mbv3-28", "tcn-128", "ofa-mbv3-w10", "ofa-resnet50d")
NETWORKS, ROUNDS = 3, 25
DRAWS = 1000  # of the bootstrap


def measure(engines: list[str], names: list[str], out: Path, quick: bool) -> dict[str, Any]:
    """The document of this part."""
    out.mkdir(parents=True, exist_ok=True)
    names = names or (["tiny"] if quick else list(SPACES))
    rows = [row for name in names for row in timed(name, engines, out, quick)]
    for row in rows:
        told = ", ".join(f"{e} {row['ms'][e]:.4g} ms" for e in row["ms"])
        ratios = ", ".join(f"{e} {lo:.2f} to {hi:.2f}" for e, (lo, hi) in row["ratio"].items())
        print(f"{row['space']} {row['id']}: {told}; {REFERENCE} over it: {ratios}", flush=True)
    return {
        "n": len(rows),
        "spread": {f"{row['space']} {row['id']}": row["ratio"] for row in rows},
        "networks": rows,
        "bars": [],
    }


def timed(name: str, engines: list[str], out: Path, quick: bool) -> list[dict[str, Any]]:
    """Latency of random networks of a space at its middle resolution, ms."""
    space = spaces.load(name)
    space = space.restricted([space.resolutions[len(space.resolutions) // 2]])
    rng = np.random.default_rng(11)
    return [
        compared(space.random(rng), engines, out, 5 if quick else ROUNDS)
        for _ in range(1 if quick else NETWORKS)
    ]


def compared(arch: Any, engines: list[str], out: Path, rounds: int) -> dict[str, Any]:
    """One network in every engine: a sample of each in turn, in another order each time."""
    path = write(arch.ops, out / "network.onnx")
    sessions = {engine: opened(engine, path) for engine in (REFERENCE, *engines)}
    samples = in_turn(sessions, rounds)
    return {
        "space": arch.space.name,
        "id": arch.id,
        "ms": {engine: p10(each) for engine, each in samples.items()},
        "ratio": {e: interval(samples[REFERENCE], samples[e]) for e in engines},
    }


def in_turn(sessions: Mapping[str, Session], rounds: int) -> dict[str, list[float]]:
    """Samples of sessions, ms: one of each in turn, in another order each time; closes them."""
    plans = {name: calibrate(session) for name, session in sessions.items()}
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(sessions)).tolist():
            session, plan = sessions[name], plans[name]
            for _ in range(plan.warm):
                session.time(1)
            samples[name].append(session.time(plan.loops) / plan.loops)
    for session in sessions.values():
        session.close()
    return samples


def p10(samples: Sequence[float]) -> float:
    """Latency as tables have it, ms."""
    return float(np.percentile(samples, 10))


def interval(base: list[float], other: list[float]) -> tuple[float, float]:
    """How much faster the other one is: 95 % of ratios of 10th percentiles, bootstrapped."""
    rng = np.random.default_rng(0)
    drawn = [
        np.percentile(rng.choice(each, (DRAWS, len(each))), 10, axis=1) for each in (base, other)
    ]
    low, high = np.percentile(drawn[0] / drawn[1], (2.5, 97.5))
    return float(low), float(high)
