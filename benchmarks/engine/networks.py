"""Networks with seeded weights as ONNX files, for engines to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import kit
from hwnas.networks import onnx_graph
from hwnas.networks.placed import PlacedOp
from profilers import runtimes
from profilers.runtimes import Session
from profilers.schema import Target


def write(ops: tuple[PlacedOp, ...], path: Path, seed: int = 0) -> Path:
    """A network's file; biases as well are not zero."""
    rng, values = np.random.default_rng(seed), {}
    for placed in ops:
        for weight in onnx_graph.weights_of([placed]):
            largest = kit.scale(placed.op, weight) or 0.1
            values[weight.name] = rng.uniform(-largest, largest, weight.shape)
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values)))
    return path


def opened(runtime: str, path: Path, precision: str = "fp32") -> Session:
    """A session with one thread."""
    return runtimes.load(runtime).load(path, Target("host", runtime, precision=precision))


def bar(name: str, value: float | None, limit: float) -> dict[str, Any]:
    """A bar that is not to be passed; one without a value does not hold."""
    holds = value is not None and value <= limit
    return {"name": name, "value": value, "limit": limit, "holds": holds}
