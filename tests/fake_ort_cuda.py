"""ONNX Runtime's Python API as if it had a GPU: what is documented of CUDA, computed on the CPU.

Every member that hwnas uses has the name and the parameters of the installed onnxruntime (a test
compares them). Tensors remember the device they are on; binding one of the CPU is an error, because
that would time copies. Products are TF32 unless that is turned off, as on a GPU since Ampere: by
the provider's option `use_tf32` (1.18 and newer; before, it is unknown and the provider does not
start) or, before the provider starts, by NVIDIA's own environment variable.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import tf32

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
LAUNCH_US, KERNEL_US = 3, 20


def module(available=(CUDA, CPU), starts=True, kernels=False, version=onnxruntime.__version__):
    """The module `onnxruntime` of a machine with a GPU.

    Args:
        available: providers that this build has.
        starts: whether the CUDA provider can be started; ONNX Runtime falls back to the CPU if not.
        kernels: a build with --enable_cuda_profiling, whose profiles hold kernels.
        version: of onnxruntime.
    """
    ort = SimpleNamespace(
        **{
            name: getattr(onnxruntime, name) for name in ("capi", "SessionOptions", "ExecutionMode")
        },
        __version__=version,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        OrtValue=OrtValue,
        get_available_providers=lambda: list(available),
        preloaded=0,
        sessions=[],
    )

    def preload_dlls(cuda=True, cudnn=True, msvc=True, directory=None):
        ort.preloaded += 1

    def inference_session(path_or_bytes, sess_options=None, providers=None, **kwargs):
        given = dict(providers).get(CUDA, {})
        unknown = "use_tf32" in given and version.startswith(("1.16.", "1.17."))
        on_gpu = starts and not unknown
        off = given.get("use_tf32", "1") == "0" or os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
        found = InferenceSession(path_or_bytes, sess_options, providers, on_gpu and not off)
        found.providers = [CUDA, CPU] if on_gpu else [CPU]
        found.kernels = kernels
        ort.sessions.append(found)
        return found

    ort.preload_dlls, ort.InferenceSession = preload_dlls, inference_session
    return ort


class OrtValue:
    """A tensor and the device it is on."""

    def __init__(self, value, device_type):
        self.value, self.device_type = value, device_type

    @classmethod
    def ortvalue_from_numpy(cls, numpy_obj, device_type="cpu", device_id=0):
        return cls(onnxruntime.OrtValue.ortvalue_from_numpy(numpy_obj), device_type)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape, element_type, device_type="cpu", device_id=0):
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, element_type)
        return cls(value, device_type)


class IOBinding:
    """A binding that takes tensors of the GPU only."""

    def __init__(self, binding):
        self.binding, self.calls = binding, []

    def bind_ortvalue_input(self, name, ortvalue):
        assert ortvalue.device_type == "cuda"
        self.binding.bind_ortvalue_input(name, ortvalue.value)

    def bind_ortvalue_output(self, name, ortvalue):
        assert ortvalue.device_type == "cuda"
        self.binding.bind_ortvalue_output(name, ortvalue.value)

    def bind_output(self, name, device_type="cpu", device_id=0):
        assert device_type == "cuda"
        self.binding.bind_output(name)

    def synchronize_inputs(self):
        self.calls.append("inputs")

    def synchronize_outputs(self):
        self.calls.append("outputs")


class InferenceSession:
    """A session whose provider says that it is CUDA."""

    def __init__(self, path_or_bytes, sess_options, providers, use_tf32):
        self.asked, self.options = providers, sess_options
        path = Path(path_or_bytes)
        if use_tf32 and path.is_file():
            path_or_bytes = tf32.model(path.read_bytes(), path.parent)
        own = onnxruntime.SessionOptions()
        own.enable_profiling = sess_options.enable_profiling
        own.profile_file_prefix = sess_options.profile_file_prefix
        own.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.real = onnxruntime.InferenceSession(path_or_bytes, own, providers=[CPU])
        self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs
        self.run = self.real.run
        self.bindings = []

    def get_providers(self):
        return self.providers

    def io_binding(self):
        self.bindings.append(IOBinding(self.real.io_binding()))
        return self.bindings[-1]

    def run_with_iobinding(self, iobinding, run_options=None):
        iobinding.calls.append("run")
        self.real.run_with_iobinding(iobinding.binding, run_options)

    def end_profiling(self):
        """A profile as on a GPU: nodes are launches, kernels follow the node that launched them."""
        path = Path(self.real.end_profiling())
        out = []
        for event in json.loads(path.read_text(encoding="utf-8")):
            is_node = event["cat"] == "Node" and event["name"].endswith("_kernel_time")
            out.append({**event, "dur": LAUNCH_US} if is_node else event)
            if is_node and self.kernels:
                kernel = {"cat": "Kernel", "name": "modelled_kernel", "dur": KERNEL_US, "ts": 0}
                out += [kernel, kernel]
        path.write_text(json.dumps(out), encoding="utf-8")
        return str(path)
