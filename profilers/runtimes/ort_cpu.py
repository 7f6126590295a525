"""ONNX Runtime on the CPU, 1.17 or newer: inputs and outputs bound once, timed around `Run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import numpy as np

from profilers.engines import ort
from profilers.runtimes import Engine, NodeTime
from profilers.schema import Target
from profilers.stats import mean_of_faster_half

ENGINE = Engine(
    module="onnxruntime",
    title="ONNX Runtime",
    floor=ort.FLOOR,
    precisions=("fp32", "int8"),
    spins=True,
    pip="onnxruntime",
    newest={(3, 8): "1.19.2", (3, 9): "1.19.2", (3, 10): "1.23.2"},  # aarch64 and x86-64
    licence="MIT",
)
BLOCKED = "_nchwc"  # suffix of a node that was moved to the blocked layout


def version() -> str:
    """Version of ONNX Runtime.

    Raises:
        RuntimeMissingError: it is not installed, or older than 1.17.
    """
    return str(ort.engine().__version__)


def load(model_path: Path, target: Target) -> ort.OrtSession:
    """A session of an ONNX file with static shapes.

    Raises:
        RuntimeMissingError: the engine is missing or lacks the target's optimisation level.
        ConfigError: the file cannot be loaded or its shapes are not static.
    """
    place = ort.Place(["CPUExecutionProvider"], "cpu", {}, node_times)
    return ort.OrtSession(ort.engine(), Path(model_path), target, place)


def node_times(events: List[ort.Event], runs: int) -> List[NodeTime]:
    """Mean node times over the faster half of a profile's runs, the first ones left out.

    Args:
        events: ONNX Runtime's profile.
        runs: how many runs it holds; the first PROFILE_WARM_UP do not count.

    Raises:
        DeviceError: the runs did not execute the same nodes.
    """
    nodes = sorted(filter(ort.is_node, events), key=lambda event: int(event["ts"]))
    names = ort.each_run(nodes, runs)
    us = np.array([event["dur"] for event in nodes], dtype=float).reshape(runs, len(names))
    means = mean_of_faster_half(us[ort.PROFILE_WARM_UP :]) / 1000
    return [NodeTime(names[i], _tensor(names[i]), float(means[i])) for i in range(len(names))]


def _tensor(node_name: str) -> str:
    """The output tensor of a node that was renamed after it; the profile names no others."""
    return node_name[: -len(BLOCKED)] if node_name.endswith(BLOCKED) else ""


class Deployed:
    """The model of this package in ONNX Runtime, on the CPU."""

    def __init__(self, path: str, target: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = target["threads"]
        if not target.get("spinning", False):
            options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0]
        self.batch = self._input.shape[0]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of one batch, (batch, channels, ...) float32."""
        logits: np.ndarray = self._session.run(None, {self._input.name: images})[0]
        return logits
