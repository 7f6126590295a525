"""ONNX Runtime on an NVIDIA GPU: the CUDA execution provider alone, tensors resident on the GPU.

A session never falls back: without the provider, or with a node left to the CPU, it is refused.
fp32 is fp32: TF32, the provider's default, has the mantissa of fp16 and is turned off. Timed around
`Run`, which ends when the GPU is done. Sources: onnxruntime.ai, "CUDA Execution Provider" and its
options, "I/O Binding", "Profiling tools" (kernel events); session.disable_cpu_ep_fallback in
onnxruntime_session_options_config_keys.h.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from profilers.engines import cudart, ort
from profilers.errors import DeviceError, RuntimeMissingError
from profilers.runtimes import Engine, NodeTime
from profilers.schema import Target
from profilers.stats import mean_of_faster_half

PROVIDER = "CUDAExecutionProvider"
ENGINE = Engine(
    module="onnxruntime",
    title="ONNX Runtime",
    floor=ort.FLOOR,
    packages=("nvidia",),  # where pip's packages put the libraries of CUDA
    provider=PROVIDER,
    gpu=True,
    pip="onnxruntime-gpu in place of onnxruntime",
    jetson="onnxruntime-gpu of NVIDIA's index for its JetPack (docs/devices.md)",
    licence="MIT",
)
OPTIONS = {
    "device_id": "0",
    "cudnn_conv_algo_search": "EXHAUSTIVE",  # the default, pinned: algorithms are timed
    "do_copy_in_default_stream": "1",
}
SETTINGS = {"session.disable_cpu_ep_fallback": "1"}
NO_TF32 = {"use_tf32": "0"}  # 1.18 and newer; for 1.17 NVIDIA's libraries are told
NO_TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"  # 0: overrides any default and setting
KERNEL = "Kernel"  # category of the events that hold the GPU's own times


def version() -> str:
    """Version of ONNX Runtime, of CUDA, and the GPU: all that changes a latency.

    Raises:
        RuntimeMissingError: ONNX Runtime, its CUDA provider, CUDA or a GPU is missing.
    """
    return f"{_engine().__version__}, {cudart.summary(cudart.probe_facts())}"


def free_bytes() -> int:
    """Memory of the GPU that is free now."""
    return cudart.load().memory()[0]


def load(model_path: Path, target: Target) -> ort.OrtSession:
    """A session of an ONNX file with static shapes, on the GPU and nowhere else.

    Raises:
        RuntimeMissingError: ONNX Runtime or its CUDA provider is missing.
        ConfigError: the file cannot be loaded, an op of it has no CUDA kernel, or its shapes are
            not static.
        DeviceError: the provider could not be started, and ONNX Runtime fell back to the CPU.
    """
    engine = _engine()
    place = ort.Place([(PROVIDER, _options(engine))], "cuda", SETTINGS, node_times)
    session = ort.OrtSession(engine, Path(model_path), target, place)
    providers = session.providers
    if providers[:1] != [PROVIDER]:
        session.close()
        raise DeviceError(
            f"ONNX Runtime could not start {PROVIDER} and fell back to "
            f"{', '.join(providers)}; install the CUDA and cuDNN that this version needs "
            "(pip install 'onnxruntime-gpu[cuda,cudnn]')"
        )
    return session


def _options(engine: Any) -> Dict[str, str]:
    """The provider's options; before 1.18 it starts with known ones only."""
    if ort.version_of(engine) >= [1, 18]:
        return {**OPTIONS, **NO_TF32}
    os.environ[NO_TF32_VARIABLE] = "0"  # read when the first session of this process is made
    return OPTIONS


def node_times(events: List[ort.Event], runs: int) -> Optional[List[NodeTime]]:
    """Time of each node's kernels on the GPU, or None where the engine does not tell them: only a
    build with --enable_cuda_profiling does, and a node's own duration is that of its launch.

    Args:
        events: ONNX Runtime's profile; the kernels of a node follow it, in the file's order.
        runs: how many runs it holds; the first PROFILE_WARM_UP do not count.

    Raises:
        DeviceError: the runs did not execute the same nodes.
    """
    nodes: List[ort.Event] = []
    us: List[float] = []
    kernels = 0
    for event in events:
        if ort.is_node(event):
            nodes.append(event)
            us.append(0.0)
        elif event["cat"] == KERNEL and nodes:
            us[-1] += event["dur"]
            kernels += 1
    if not kernels:
        return None
    names = ort.each_run(nodes, runs)
    each = np.array(us).reshape(runs, len(names))
    means = mean_of_faster_half(each[ort.PROFILE_WARM_UP :]) / 1000
    return [NodeTime(names[i], "", float(means[i])) for i in range(len(names))]


def _engine() -> Any:
    """ONNX Runtime with its CUDA provider, CUDA's libraries from pip's packages loaded."""
    found = ort.engine()
    if hasattr(found, "preload_dlls"):  # 1.21 and newer
        found.preload_dlls()
    available = found.get_available_providers()
    if PROVIDER not in available:
        raise RuntimeMissingError(
            f"ONNX Runtime {found.__version__} has no {PROVIDER} (it has {', '.join(available)}); "
            "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' (JetPack: "
            "NVIDIA's own wheel)"
        )
    return found
