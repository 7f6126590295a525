"""ONNX Runtime sessions, 1.17 or newer, wherever they run: inputs and outputs bound once, resident.

The runtimes ort-cpu and ort-cuda say where; this says how. The memory arena stays on, as in the
shipped package. Sessions that spin slow down whatever is timed next, so they stop spinning when a
run ends, unless the target says that they spin on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Type

import numpy as np

from profilers.engines import models
from profilers.engines.failures import failure
from profilers.engines.inputs import Input, check_shape, values
from profilers.errors import DeviceError, HwnasError, ModelError, RuntimeMissingError
from profilers.runtimes import NodeTime
from profilers.schema import Target, read_json

LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",  # 1.20 and newer
    "all": "ORT_ENABLE_ALL",
}
DTYPES: Dict[str, Any] = {  # element types of inputs and outputs, as ONNX Runtime names them
    **{f"tensor({name})": getattr(np, name) for name in ("float16", "int8", "int16", "int32")},
    **{f"tensor({name})": getattr(np, name) for name in ("uint8", "uint16", "uint32", "uint64")},
    **{"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64},
    "tensor(bool)": np.bool_,
}
FLOOR = (1, 17)
PROFILE_WARM_UP = 3  # runs of a profile that are thrown away
NODE_EVENT = "_kernel_time"

Event = Dict[str, Any]  # of ONNX Runtime's profile: Chrome trace events, durations in whole us


class Place(NamedTuple):
    """Where sessions run.

    Attributes:
        providers: execution providers, as InferenceSession takes them.
        device: where inputs and outputs stay, as OrtValue names it.
        settings: session configuration entries.
        node_times: a profile's events and its number of runs to node times, or None.
    """

    providers: Sequence[Any]
    device: str
    settings: Dict[str, str]
    node_times: Callable[[List[Event], int], Optional[List[NodeTime]]]


class OrtSession:
    """One InferenceSession with its inputs and outputs bound."""

    def __init__(self, ort: Any, model_path: Path, target: Target, place: Place) -> None:
        self._ort, self._path, self._target, self._place = ort, model_path, target, place
        self._session = self._create(options(ort, target, place))
        self._inputs = [_input(source) for source in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._binding = self._bound(self._session)

    @property
    def providers(self) -> List[str]:
        """Execution providers that the engine took, the preferred one first."""
        return list(self._session.get_providers())

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """The first output for one batch.

        Args:
            inputs: of the shape of the model's input.

        Raises:
            ConfigError: the model takes other inputs.
        """
        check_shape([each.shape for each in self._inputs], inputs.shape)
        feed = {self._inputs[0].name: inputs.astype(self._inputs[0].dtype, copy=False)}
        try:
            return np.asarray(self._session.run([self._output], feed)[0])
        except errors(self._ort) as error:
            raise self._failed(error) from None

    def time(self, loops: int) -> float:
        """ms that `loops` runs took together; perf_counter_ns round the runs, each of which ends
        when its provider is done (ONNX Runtime waits for the device unless told not to).
        """
        run, binding = self._session.run_with_iobinding, self._binding
        try:
            binding.synchronize_inputs()
            start = perf_counter_ns()
            for _ in range(loops):
                run(binding)
            binding.synchronize_outputs()
            return (perf_counter_ns() - start) / 1e6
        except errors(self._ort) as error:
            raise self._failed(error) from None

    def profile(self, loops: int) -> Optional[List[NodeTime]]:
        """Node times of a second session with the profiler on, which slows the nodes down.

        The mean over the faster half of the runs: node times are whole microseconds, so a
        quantile would be coarse, and a mean of all would hold every interruption.
        """
        with tempfile.TemporaryDirectory(dir=str(self._path.parent), prefix=".profile-") as folder:
            chosen = options(self._ort, self._target, self._place)
            chosen.enable_profiling = True
            chosen.profile_file_prefix = str(Path(folder) / "profile")
            session = self._create(chosen)
            binding = self._bound(session)
            try:
                for _ in range(PROFILE_WARM_UP + loops):
                    session.run_with_iobinding(binding)
            except errors(self._ort) as error:
                raise self._failed(error) from None
            events = read_json(Path(session.end_profiling()))
        return self._place.node_times(events, PROFILE_WARM_UP + loops)

    def info(self) -> Dict[str, Any]:
        """Shape of the first input, seconds that writing the file in the target's precision took;
        ONNX Runtime does not tell a session's memory.
        """
        shape = list(self._inputs[0].shape) if self._inputs else None
        told = {"input_shape": shape, "rewrite_s": self._rewrite_s}
        return {**told, "providers": self.providers}

    def close(self) -> None:
        """Drop the session; the engine frees it at once."""
        del self._binding, self._session

    def _create(self, chosen: Any) -> Any:
        """A session of the model as it computes in the target's precision."""
        written, self._rewrite_s = models.timed(self._path, self._target)
        model = str(self._path) if written is None else written
        try:
            providers = list(self._place.providers)
            return self._ort.InferenceSession(model, chosen, providers=providers)
        except errors(self._ort) as error:
            words = f"ONNX Runtime cannot load {self._path.name}"
            raise failure(words, one_line(error)) from None

    def _bound(self, session: Any) -> Any:
        """An IO binding with the inputs and, where shapes are static, the outputs resident."""
        device, binding = self._place.device, session.io_binding()
        try:
            for name, value in values(self._inputs).items():
                held = self._ort.OrtValue.ortvalue_from_numpy(value, device, 0)
                binding.bind_ortvalue_input(name, held)
            for output in session.get_outputs():
                if all(isinstance(size, int) for size in output.shape) and output.type in DTYPES:
                    held = self._ort.OrtValue.ortvalue_from_shape_and_type(
                        output.shape, DTYPES[output.type], device, 0
                    )
                    binding.bind_ortvalue_output(output.name, held)
                else:
                    binding.bind_output(output.name, device)
        except errors(self._ort) as error:
            raise self._failed(error) from None
        return binding

    def _failed(self, error: Exception) -> HwnasError:
        """The error of a run that failed."""
        return failure(f"ONNX Runtime cannot run {self._path.name}", one_line(error))


def engine() -> Any:
    """The module onnxruntime.

    Raises:
        RuntimeMissingError: it is not installed, or older than 1.17.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(
            f"ONNX Runtime cannot be imported on the device ({error}); pip install onnxruntime"
        ) from None
    # run_with_iobinding and OrtValue came with 1.17's Python API as they are used here
    if version_of(onnxruntime) < list(FLOOR):
        raise RuntimeMissingError(
            f"ONNX Runtime {onnxruntime.__version__} is older than 1.17; pip install -U onnxruntime"
        )
    return onnxruntime


def version_of(ort: Any) -> List[int]:
    """Major and minor number of the engine."""
    return [int(part) for part in ort.__version__.split(".")[:2]]


def errors(ort: Any) -> Tuple[Type[Exception], ...]:
    """Every exception the engine raises; its own have no common base, and a bound run that fails
    raises RuntimeError, memory that is short MemoryError.
    """
    module = ort.capi.onnxruntime_pybind11_state
    found = [value for value in vars(module).values() if isinstance(value, type)]
    own = (value for value in found if issubclass(value, Exception))
    return (*own, RuntimeError, MemoryError)


def options(ort: Any, target: Target, place: Place) -> Any:
    """The session options of a target.

    Raises:
        RuntimeMissingError: the engine lacks the target's optimisation level.
    """
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = target.threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.log_severity_level = 3  # errors only
    level = getattr(ort.GraphOptimizationLevel, LEVELS[target.optimisation], None)
    if level is None:
        raise RuntimeMissingError(
            f"ONNX Runtime {ort.__version__} has no optimisation level {target.optimisation!r}; "
            "use another level or a newer version"
        )
    chosen.graph_optimization_level = level
    spin = "0" if target.threads == 1 else "1"
    chosen.add_session_config_entry("session.intra_op.allow_spinning", spin)
    if not target.spinning:
        chosen.add_session_config_entry("session.force_spinning_stop", "1")
    for name, value in place.settings.items():
        chosen.add_session_config_entry(name, value)
    return chosen


def each_run(nodes: List[Event], runs: int) -> List[str]:
    """Names of the nodes that every run executed, in their order.

    Args:
        nodes: node events of all runs, in the order of execution.
        runs: how many runs they are of.

    Raises:
        DeviceError: the runs did not execute the same nodes.
    """
    names = [event["name"][: -len(NODE_EVENT)] for event in nodes]
    count = len(nodes) // runs
    if not count or names != names[:count] * runs:
        raise DeviceError(
            f"ONNX Runtime's profile holds {len(nodes)} nodes for {runs} runs, "
            "expected the same nodes in each"
        )
    return names[:count]


def is_node(event: Event) -> bool:
    """Whether an event is the run of a node."""
    return event["cat"] == "Node" and str(event["name"]).endswith(NODE_EVENT)


def _input(source: Any) -> Input:
    """An input of a model; refused where no value of it can be made."""
    if source.type not in DTYPES:
        raise ModelError(
            f"model input {source.name!r} is a {source.type}, expected one of "
            f"{', '.join(sorted(DTYPES))}"
        )
    return Input.static(source.name, source.shape, DTYPES[source.type])


def one_line(error: Exception) -> str:
    """An engine's error as one line of at most 400 characters."""
    words = str(error) or ("out of memory" if isinstance(error, MemoryError) else repr(error))
    return " ".join(words.split())[:400]
