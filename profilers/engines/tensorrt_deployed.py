"""A package in TensorRT without hwnas: its plan, else one built anew of the ONNX file.

Its text goes into `example.py`, so the class holds all that it needs: CUDA through ctypes, as
`cudart` does it, and the build of `tensorrt_build`. Source: NVIDIA, "TensorRT Developer Guide",
"Engine Portability": a plan is for one version of TensorRT and one model of GPU.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np


class Deployed:
    """The model of this package in TensorRT: its plan, which fits one version and GPU, else built
    anew of the ONNX file.
    """

    def __init__(self, path: str, target: Any) -> None:
        import ctypes

        import tensorrt

        self._c, self._trt = ctypes, tensorrt
        self._cuda = self._library()
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        plan, timing = (pathlib.Path(path).with_suffix(end) for end in (".plan", ".timing"))
        given, here = (target.get("built") or {}).get("engine_version"), self._here()
        self._engine: Any = None
        if given and given.startswith(here[0]) and given.endswith(here[1]):
            self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            there = f"was built by TensorRT {given}" if given else "is not built yet"
            words = f"{plan.name} {there}; here is TensorRT {''.join(here)}"
            print(f"{words}: {path} is built now, which takes a while", file=sys.stderr)
            known = timing.read_bytes() if given else b""
            self._engine = self._runtime.deserialize_cuda_engine(self._built(path, target, known))
        if self._engine is None:
            raise SystemExit(
                f"TensorRT {''.join(here)} cannot load the plan that it built of {path}"
            )
        self._context = self._engine.create_execution_context()
        self._stream, self._memory = ctypes.c_void_p(), {}
        self._call("cudaStreamCreateWithFlags", ctypes.byref(self._stream), ctypes.c_uint(1))
        for n in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(n)
            values = np.zeros(tuple(self._engine.get_tensor_shape(name)), np.float32)
            pointer, is_input = ctypes.c_void_p(), tensorrt.TensorIOMode.INPUT
            self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(values.nbytes))
            self._context.set_tensor_address(name, pointer.value)
            self._memory[self._engine.get_tensor_mode(name) == is_input] = (pointer, values)
        self.batch = len(self._memory[True][1])

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of one batch, (batch, channels, ...) float32."""
        (given, values), (found, logits) = self._memory[True], self._memory[False]
        values[:] = images
        self._copy(given, values.ctypes.data_as(self._c.c_void_p), values.nbytes, 1)
        if not self._context.execute_async_v3(self._stream.value):
            raise RuntimeError("TensorRT failed to run")
        self._copy(logits.ctypes.data_as(self._c.c_void_p), found, logits.nbytes, 2)
        return logits.copy()

    def _copy(self, to: Any, source: Any, size: int, kind: int) -> None:
        sized = self._c.c_size_t(size)
        self._call("cudaMemcpyAsync", to, source, sized, kind, self._stream)
        self._call("cudaStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed: CUDA error {status}")

    def _library(self) -> Any:
        """libcudart, of pip's packages or of the system."""
        folders = [pathlib.Path(folder or ".") for folder in sys.path]
        names = [str(p) for f in folders for p in f.glob("nvidia/*/lib/libcudart.so.*")]
        for folder in ("", "/usr/local/cuda/lib64/"):
            names += [f"{folder}libcudart.so{end}" for end in (".13", ".12", ".11.0", "")]
        for name in names:
            try:
                return self._c.CDLL(name)
            except OSError:
                continue
        raise RuntimeError("libcudart is not found; install the CUDA runtime of this TensorRT")

    def _here(self) -> Any:
        """Beginning and end of what tells version and GPU."""
        name, parts = self._c.create_string_buffer(4096), []
        self._call("cudaGetDeviceProperties", name, 0)
        for attribute in (75, 76):  # cudaDevAttrComputeCapabilityMajor, ...Minor
            number = self._c.c_int()
            self._call("cudaDeviceGetAttribute", self._c.byref(number), attribute, 0)
            parts.append(str(number.value))
        gpu = f"{name.value.decode('ascii', 'replace')} (compute capability {'.'.join(parts)})"
        return f"{self._trt.__version__}, ", gpu

    def _built(self, path: str, target: Any, timing: bytes) -> Any:
        """The plan of the ONNX file, in the precision of the target."""
        trt, precision = self._trt, target["precision"]
        typed = "FP16" not in trt.BuilderFlag.__members__  # the types of the graph rule
        if typed and precision == "fp16":
            raise SystemExit(
                f"{path} is fp32, and TensorRT {trt.__version__} builds fp16 of fp16 files only: "
                "`hwnas verify` puts a plan for it here"
            )
        logger, modes = trt.Logger(trt.Logger.ERROR), trt.NetworkDefinitionCreationFlag.__members__
        builder, flags = trt.Builder(logger), 0
        for name in ("STRONGLY_TYPED",) if typed else ("EXPLICIT_BATCH",):
            flags |= 1 << int(modes[name]) if name in modes else 0
        network = builder.create_network(flags)
        parser = trt.OnnxParser(network, logger)
        with open(path, "rb") as file:
            if not parser.parse(file.read(), path):
                raise SystemExit(f"{path}: {parser.get_error(0).desc()}")
        config = builder.create_builder_config()
        if precision == "fp32":
            config.clear_flag(trt.BuilderFlag.TF32)
        elif not typed:
            config.set_flag(trt.BuilderFlag.__members__[precision.upper()])
        cache = config.create_timing_cache(timing)
        if cache is not None:
            config.set_timing_cache(cache, False)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise SystemExit(f"TensorRT {trt.__version__} cannot build {path}")
        return plan
