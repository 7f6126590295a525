"""ONNX Runtime on the CPU, 1.17 or newer: inputs and outputs bound once, timed around `Run`.

The memory arena stays on, as in the shipped package. Sessions that spin would slow down whatever
is timed next, so they stop spinning when a run ends.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Dict, List, Optional, Tuple, Type

import numpy as np

from profilers.errors import ConfigError, DeviceError, RuntimeMissingError
from profilers.runtimes import NodeTime
from profilers.schema import Target

PROVIDERS = ["CPUExecutionProvider"]
LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",  # 1.20 and newer
    "all": "ORT_ENABLE_ALL",
}
DTYPES: Dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
INPUT_SEED = 0
PROFILE_WARM_UP = 3  # runs of a profile that are thrown away
BLOCKED = "_nchwc"  # suffix of a node that was moved to the blocked layout
NODE_EVENT = "_kernel_time"


def version() -> str:
    """Version of ONNX Runtime.

    Raises:
        RuntimeMissingError: it is not installed, or older than 1.17.
    """
    return str(_engine().__version__)


def load(model_path: Path, target: Target) -> OrtSession:
    """A session of an ONNX file with static shapes.

    Raises:
        RuntimeMissingError: the engine is missing or lacks the target's optimisation level.
        ConfigError: the file cannot be loaded or its shapes are not static.
    """
    return OrtSession(_engine(), Path(model_path), target)


class OrtSession:
    """One InferenceSession with its input and output bound; input values of order one, seeded."""

    def __init__(self, ort: Any, model_path: Path, target: Target) -> None:
        self._ort, self._path, self._target = ort, model_path, target
        self._session = _create(ort, model_path, _options(ort, target))
        source, result = self._session.get_inputs(), self._session.get_outputs()
        if len(source) != 1:
            raise ConfigError(f"model has {len(source)} inputs, expected 1 (an image batch)")
        self._name, self._output = source[0].name, result[0].name
        self._shape = _static(source[0].shape, self._name)
        self._dtype = _dtype(source[0].type, self._name)
        values = np.random.default_rng(INPUT_SEED).standard_normal(self._shape)
        self._binding = _bind(ort, self._session, values.astype(self._dtype))

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """The first output for one batch.

        Args:
            inputs: of the shape of the model's input.
        """
        try:
            feed = {self._name: inputs.astype(self._dtype, copy=False)}
            return np.asarray(self._session.run([self._output], feed)[0])
        except _errors(self._ort) as error:
            raise DeviceError(f"ONNX Runtime failed: {_line(error)}") from None

    def time(self, loops: int) -> float:
        """ms that `loops` runs took together; perf_counter_ns round the runs."""
        run, binding = self._session.run_with_iobinding, self._binding
        try:
            start = perf_counter_ns()
            for _ in range(loops):
                run(binding)
            return (perf_counter_ns() - start) / 1e6
        except _errors(self._ort) as error:
            raise DeviceError(f"ONNX Runtime failed: {_line(error)}") from None

    def profile(self, loops: int) -> Optional[List[NodeTime]]:
        """Node times of a second session with the profiler on, which slows the nodes down.

        The mean over the faster half of the runs: node times are whole microseconds, so a
        quantile would be coarse, and a mean of all would hold every interruption.
        """
        with tempfile.TemporaryDirectory(prefix="hwnas-profile-") as folder:
            options = _options(self._ort, self._target)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _create(self._ort, self._path, options)
            values = np.random.default_rng(INPUT_SEED).standard_normal(self._shape)
            binding = _bind(self._ort, session, values.astype(self._dtype))
            for _ in range(PROFILE_WARM_UP + loops):
                session.run_with_iobinding(binding)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return node_times(events, PROFILE_WARM_UP + loops)

    def info(self) -> Dict[str, Any]:
        """Shape of the input; ONNX Runtime does not tell a session's memory."""
        return {"input_shape": list(self._shape), "providers": self._session.get_providers()}

    def close(self) -> None:
        """Drop the session; the engine frees it at once."""
        del self._binding, self._session


def node_times(events: List[Dict[str, Any]], runs: int) -> List[NodeTime]:
    """Mean node times over the faster half of a profile's runs, the first ones left out.

    Args:
        events: ONNX Runtime's profile (Chrome trace events, durations in whole us).
        runs: how many runs it holds; the first PROFILE_WARM_UP do not count.

    Raises:
        DeviceError: the runs did not execute the same nodes.
    """
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(NODE_EVENT)]
    nodes.sort(key=lambda event: int(event["ts"]))
    names = [event["name"][: -len(NODE_EVENT)] for event in nodes]
    count = len(nodes) // runs
    if not count or names != names[:count] * runs:
        raise DeviceError(
            f"ONNX Runtime's profile holds {len(nodes)} nodes for {runs} runs, "
            "expected the same nodes in each"
        )
    us = np.array([event["dur"] for event in nodes], dtype=float).reshape(runs, count)
    us = us[PROFILE_WARM_UP:]
    faster = np.argsort(us.sum(axis=1), kind="stable")[: (len(us) + 1) // 2]
    means = us[faster].mean(axis=0) / 1000
    return [NodeTime(names[i], _tensor(names[i]), float(means[i])) for i in range(count)]


def _tensor(node_name: str) -> str:
    """The output tensor where the node was renamed after it; the profile tells no others."""
    return node_name[: -len(BLOCKED)] if node_name.endswith(BLOCKED) else ""


def _engine() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(
            f"ONNX Runtime cannot be imported on the device ({error}); pip install onnxruntime"
        ) from None
    # run_with_iobinding and OrtValue came with 1.17's Python API as they are used here
    numbers = [int(part) for part in onnxruntime.__version__.split(".")[:2]]
    if numbers < [1, 17]:
        raise RuntimeMissingError(
            f"ONNX Runtime {onnxruntime.__version__} is older than 1.17; pip install -U onnxruntime"
        )
    return onnxruntime


def _errors(ort: Any) -> Tuple[Type[Exception], ...]:
    """Every exception the engine raises itself; they have no common base."""
    module = ort.capi.onnxruntime_pybind11_state
    found = [value for value in vars(module).values() if isinstance(value, type)]
    return tuple(value for value in found if issubclass(value, Exception))


def _options(ort: Any, target: Target) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors only
    level = getattr(ort.GraphOptimizationLevel, LEVELS[target.optimisation], None)
    if level is None:
        raise RuntimeMissingError(
            f"ONNX Runtime {ort.__version__} has no optimisation level {target.optimisation!r}; "
            "use another level or a newer version"
        )
    options.graph_optimization_level = level
    spin = "0" if target.threads == 1 else "1"
    options.add_session_config_entry("session.intra_op.allow_spinning", spin)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _create(ort: Any, model_path: Path, options: Any) -> Any:
    try:
        return ort.InferenceSession(str(model_path), options, providers=PROVIDERS)
    except _errors(ort) as error:
        raise ConfigError(f"ONNX Runtime cannot load {model_path.name}: {_line(error)}") from None


def _bind(ort: Any, session: Any, values: np.ndarray) -> Any:
    """An IO binding with the input and, where shapes are static, the outputs resident."""
    binding = session.io_binding()
    name = session.get_inputs()[0].name
    binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values))
    for output in session.get_outputs():
        if all(isinstance(size, int) for size in output.shape) and output.type in DTYPES:
            value = ort.OrtValue.ortvalue_from_shape_and_type(
                output.shape, DTYPES[output.type], "cpu"
            )
            binding.bind_ortvalue_output(output.name, value)
        else:
            binding.bind_output(output.name)
    return binding


def _static(shape: List[Any], name: str) -> Tuple[int, ...]:
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ConfigError(
            f"model input {name!r} has shape {shape}; only static shapes can be timed "
            "(onnxruntime.tools.make_dynamic_shape_fixed sets them)"
        )
    return tuple(shape)


def _dtype(kind: str, name: str) -> Any:
    if kind not in DTYPES:
        raise ConfigError(
            f"model input {name!r} is a {kind}, expected one of {', '.join(sorted(DTYPES))}"
        )
    return DTYPES[kind]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
