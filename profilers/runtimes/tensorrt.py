"""TensorRT itself, 8.5 and newer: engines built here, replayed as a CUDA graph, timed by events.

A small network is bound by its launches, so one inference is captured as a graph and replays of it
are timed between two events: GPU time, tensors resident, no copies. Plans and TensorRT's timing
cache stay beside the model, so that a kit is built once and builds choose equal tactics. Source:
NVIDIA, "TensorRT Developer Guide", sections "CUDA Graphs" and "Performance Benchmarking".
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from profilers.engines import cudart, plan_cache, probe, tensorrt_build, tensorrt_names
from profilers.engines.cudart import TO_DEVICE, TO_HOST, Cuda
from profilers.engines.inputs import Input, check_shape, values
from profilers.engines.plan_cache import Plan
from profilers.engines.tensorrt_deployed import Deployed as Deployed  # read by others from here
from profilers.errors import ConfigError, DeviceError, MemoryShortError
from profilers.runtimes import NODE_JOIN, Engine, NodeTime
from profilers.schema import Target
from profilers.stats import mean_of_faster_half

ENGINE = Engine(
    module="tensorrt",
    title="TensorRT",
    floor=(8, 5),
    packages=("tensorrt_bindings", "tensorrt_libs", "nvidia"),
    precisions=("fp32", "fp16", "int8"),
    recipe=tensorrt_build.RECIPE,
    built=("model.plan", "model.timing"),
    gpu=True,
    pip="tensorrt-cu13",
    of_system=True,
    jetson="sudo apt-get install python3-libnvinfer (or nvidia-jetpack for all of it)",
    licence="NVIDIA's own, not open",
)
PROFILE_WARM_UP = 3  # runs of a profile that are thrown away
REPLAY_WARM_UP = 2  # runs before the graph is captured: the first ones load kernels


def version() -> str:
    """Version of TensorRT, of CUDA, and the GPU: all that changes a latency.

    Raises:
        RuntimeMissingError: TensorRT, CUDA or a GPU is missing, or asking them ends in a crash.
    """
    tensorrt_build.module()
    known = cudart.probe_facts()
    told = probe.ask(tensorrt_build.__name__, "facts")
    return f"{told['tensorrt']}, {cudart.summary(known)}"


def free_bytes() -> int:
    """Memory of the GPU that is free now."""
    return cudart.load().memory()[0]


def load(model_path: Path, target: Target) -> TensorRtSession:
    """A session of an ONNX file with static shapes, whose engine is built, or read if it was
    before; or of a plan, as `plan_cache` keeps them.

    Raises:
        RuntimeMissingError: TensorRT, CUDA or a GPU is missing.
        ConfigError: the file cannot be loaded, parsed or built.
        DeviceError: the GPU failed, or has too little memory; of which kind says
            `engines.failures`.
    """
    path = Path(model_path)
    if not path.is_file():
        raise ConfigError(f"TensorRT cannot load {path.name}: no such file")
    sent = plan_cache.opened(path)
    plan = _plan(path, target) if sent is None else Plan(sent, 0.0)
    return TensorRtSession(tensorrt_build.module(), cudart.load(), plan, path.name)


def built(model_path: Path, target: Target) -> List[bytes]:
    """The plan of an ONNX file, and the timing cache with which it is built again quickly.

    Raises:
        RuntimeMissingError, ConfigError, DeviceError: as `load`.
    """
    plan = _plan(model_path, target)
    return [plan.data, plan.timing]


def _plan(path: Path, target: Target) -> Plan:
    trt = tensorrt_build.module()
    return plan_cache.plan_of(trt, path, target, cudart.summary(cudart.probe_facts()))


class Tensor(NamedTuple):
    """An input or output of an engine and its memory on the GPU."""

    name: str
    is_input: bool
    shape: List[int]
    dtype: Any
    memory: ctypes.c_void_p

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape)) * int(np.dtype(self.dtype).itemsize)


class TensorRtSession:
    """One engine with its tensors on the GPU, a stream, and a graph of one inference."""

    def __init__(self, trt: Any, cuda: Cuda, plan: Plan, name: str) -> None:
        self._trt, self._cuda, self._plan_bytes = trt, cuda, len(plan.data)
        self._build_s = plan.build_s
        self._logger = tensorrt_build.make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            words = f"TensorRT cannot load the engine of {name}"
            raise tensorrt_build.failed(words, self._logger, DeviceError)
        self._stream, self._start, self._stop = cuda.stream(), cuda.event(), cuda.event()
        self._tensors: List[Tensor] = []
        self._context: Any = None
        self._graph: Optional[ctypes.c_void_p] = None
        try:
            self._prepare()
        except DeviceError:  # for want of memory, it may be: what it got goes back
            self.close()
            raise

    def _prepare(self) -> None:
        """Put the tensors on the GPU, the inputs with values."""
        for number in range(self._engine.num_io_tensors):
            self._tensors.append(self._tensor(number))
        self._context = self._new_context()
        sources = [tensor for tensor in self._tensors if tensor.is_input]
        wanted = values(Input.static(each.name, each.shape, each.dtype) for each in sources)
        for tensor in sources:
            self._send(tensor, wanted[tensor.name])

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """The first output for one batch.

        Args:
            inputs: of the shape of the model's input.

        Raises:
            ConfigError: the model takes other inputs.
        """
        sources = [tensor for tensor in self._tensors if tensor.is_input]
        check_shape([tensor.shape for tensor in sources], inputs.shape)
        self._send(sources[0], inputs)
        self._enqueue()
        result = next(tensor for tensor in self._tensors if not tensor.is_input)
        out = np.empty(result.shape, dtype=result.dtype)
        target = out.ctypes.data_as(ctypes.c_void_p)
        self._cuda.copy(target, result.memory, result.size, TO_HOST, self._stream)
        return out

    def time(self, loops: int) -> float:
        """ms that `loops` inferences took together: replays of a graph between two events."""
        graph = self._replay()
        self._cuda.record(self._start, self._stream)
        for _ in range(loops):
            self._cuda.launch(graph, self._stream)
        self._cuda.record(self._stop, self._stream)
        return self._cuda.elapsed_ms(self._start, self._stop)

    def profile(self, loops: int) -> Optional[List[NodeTime]]:
        """Mean layer times over the faster half of the runs, in a context of its own, because
        profiling slows the layers down. A layer that was fused from several ONNX nodes carries all
        their names, joined by " + ".
        """
        recorder = _make_recorder(self._trt)
        context = self._new_context()
        context.profiler = recorder
        context.enqueue_emits_profile = False
        runs: List[List[float]] = []
        for _ in range(PROFILE_WARM_UP + loops):
            recorder.layers.clear()
            self._enqueue(context)
            self._cuda.synchronize(self._stream)
            context.report_to_profiler()
            runs.append([ms for _, ms in recorder.layers])
        names = [name for name, _ in recorder.layers]
        if not names or any(len(run) != len(names) for run in runs):
            raise DeviceError("TensorRT reported other layers in one run than in another")
        means = mean_of_faster_half(np.array(runs[PROFILE_WARM_UP:]))
        known = tensorrt_names.onnx_names(self._trt, self._engine)
        nodes = [known.get(n) or NODE_JOIN.join(tensorrt_names.nodes_of(n)) for n in names]
        return [NodeTime(nodes[i], "", float(means[i])) for i in range(len(names))]

    def info(self) -> Dict[str, Any]:
        """Shape of the first input; bytes of the plan, its scratch memory and the tensors; seconds
        that building took now.
        """
        scratch = getattr(self._engine, "device_memory_size_v2", None)
        scratch = self._engine.device_memory_size if scratch is None else scratch
        resident = self._plan_bytes + int(scratch) + sum(tensor.size for tensor in self._tensors)
        return {
            "input_shape": next((each.shape for each in self._tensors if each.is_input), None),
            "memory_bytes": resident,
            "build_s": self._build_s,
            "clock": "CUDA events round replays of a CUDA graph",
        }

    def close(self) -> None:
        """Give back the graph, the tensors, the stream, then the engine."""
        if self._graph is not None:
            self._cuda.destroy("graph_exec", self._graph)
        for event in (self._start, self._stop):
            self._cuda.destroy("event", event)
        self._cuda.destroy("stream", self._stream)
        del self._context
        for tensor in self._tensors:
            self._cuda.free(tensor.memory)
        del self._engine, self._runtime

    def _tensor(self, number: int) -> Tensor:
        name = self._engine.get_tensor_name(number)
        is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        shape = [int(size) for size in self._engine.get_tensor_shape(name)]
        dtype = self._trt.nptype(self._engine.get_tensor_dtype(name))
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return Tensor(name, is_input, shape, dtype, self._cuda.malloc(size))

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise MemoryShortError("TensorRT has no memory for an execution context")
        for tensor in self._tensors:
            context.set_tensor_address(tensor.name, tensor.memory.value)
        return context

    def _send(self, tensor: Tensor, value: np.ndarray) -> None:
        data = np.ascontiguousarray(value, dtype=tensor.dtype)
        source = data.ctypes.data_as(ctypes.c_void_p)
        self._cuda.copy(tensor.memory, source, tensor.size, TO_DEVICE, self._stream)

    def _enqueue(self, context: Any = None) -> None:
        if not (context or self._context).execute_async_v3(self._stream.value):
            raise tensorrt_build.failed("TensorRT failed to run", self._logger, DeviceError)

    def _replay(self) -> ctypes.c_void_p:
        """The graph of one inference, captured when it is first needed."""
        if self._graph is None:
            for _ in range(REPLAY_WARM_UP):
                self._enqueue()
            self._cuda.synchronize(self._stream)
            self._graph = self._cuda.captured(self._enqueue, self._stream)
        return self._graph


def _make_recorder(trt: Any) -> Any:
    """A profiler that keeps (layer, ms) in the order of execution in `layers`."""

    class Recorder(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: List[Any] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers.append((layer_name, ms))

    return Recorder()
