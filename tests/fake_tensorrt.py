"""TensorRT modules without a GPU, one for each version: the documented members and no others.

A plan holds the ONNX file; running it is ONNX Runtime's work on the CPU, so outputs are real. A
build may use TF32 unless that is cleared, as on a GPU: its weights are rounded then.
Layers are the graph's nodes, fused as TensorRT does: convolution and activation, and one region
over two blocks where asked for. `used` collects every member that was touched.
"""

import ctypes
import enum
import json
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_cuda
import numpy as np
import onnx
import onnxruntime
import tensorrt_api
import tf32

from profilers import __main__ as command
from profilers.engines import cudart, probe, tensorrt_build
from profilers.runtimes import tensorrt

LAYER_MS = 0.01
OTHER_DEVICE = b"+of another device"  # in a timing cache
WORKER = (
    "import sys; sys.path[:0] = {path!r}; import fake_tensorrt; fake_tensorrt.work({version!r})"
)


def worker(version):
    """The command of a worker on a machine with a modelled GPU and TensorRT of a version."""
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = WORKER.format(path=path, version=version)
    return [sys.executable, "-B", "-c", program, "serve"]


class Timed(fake_cuda.Library):
    """A GPU on which every layer takes equally long."""

    def _do(self, run):
        begin_ms = self.now_ms
        super()._do(run)
        self.now_ms = begin_ms + LAYER_MS * len(run.__self__.engine.layers)


def work(version):
    """Be that worker; nothing disturbs it."""
    library = Timed()
    tensorrt.waiting = lambda target: lambda: None
    made = module(version, library)
    cudart.load = lambda: cudart.Cuda(library)
    cudart._library = lambda: library
    cudart.probe_facts = cudart.facts
    tensorrt_build.module = lambda: made
    probe.ask = lambda *_: tensorrt_build.facts()
    sys.exit(command.main())


def module(version, cuda, region=()):
    """The module `tensorrt` of a version, on a fake libcudart.

    Args:
        version: of tensorrt_api.VERSIONS.
        cuda: a fake_cuda.Library.
        region: two node names that are fused into one layer, with a name of TensorRT's own.
    """
    known = tensorrt_api.members(version)
    trt = SimpleNamespace(__version__=version, used={})
    trt.header = f"modelled plan of {version} ".encode()

    def limited(name, value):
        """The object with the documented members only."""
        return Limited(name, value, known[name], trt.used.setdefault(name, set()))

    def enumeration(name):
        return enum.IntEnum(name, sorted(known.get(name, ())), start=0)

    for name in ("MemoryPoolType", "ProfilingVerbosity", "TensorIOMode", "LayerInformationFormat"):
        setattr(trt, name, enumeration(name))
    trt.BuilderFlag = enumeration("BuilderFlag")
    trt.NetworkDefinitionCreationFlag = enumeration("NetworkDefinitionCreationFlag")
    trt.IExecutionContext = type("IExecutionContext", (), dict.fromkeys(known["IExecutionContext"]))
    trt.ILogger, trt.IProfiler, trt.Logger = Logger, Profiler, StderrLogger
    trt.nptype = lambda dtype: dtype
    trt.Builder = lambda logger: limited("Builder", Builder(trt, limited, logger))
    trt.OnnxParser = lambda network, logger: limited("OnnxParser", Parser(limited, network))
    trt.Runtime = lambda logger: limited("Runtime", Runtime(trt, limited, cuda, region, logger))
    return trt


class Limited:
    """An object of which only the members that a version documents can be reached."""

    def __init__(self, name, value, allowed, used):
        object.__setattr__(self, "_parts", (name, value, allowed, used))

    def __getattr__(self, member):
        name, value, allowed, used = self._parts
        used.add(member)
        if member not in allowed:
            raise AttributeError(f"{name} has no member {member!r} in this version")
        return getattr(value, member)

    def __setattr__(self, member, content):
        name, value, allowed, used = self._parts
        used.add(member)
        if member not in allowed:
            raise AttributeError(f"{name} has no member {member!r} in this version")
        setattr(value, member, content)


def inside(limited):
    """The object itself, as native code sees it."""
    return limited._parts[1]


class Logger:
    """Base of loggers; native code calls `log`."""

    Severity = enum.IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)


class StderrLogger(Logger):
    """The logger that TensorRT brings; it writes what is as severe as asked."""

    ERROR = Logger.Severity.ERROR

    def __init__(self, min_severity):
        self.least = min_severity

    def log(self, severity, message):
        if severity <= self.least:
            print(f"[TRT] [E] {message}", file=sys.stderr)


class Profiler:
    """Base of profilers; native code calls `report_layer_time`."""


class Builder:
    def __init__(self, trt, limited, logger):
        self.trt, self.limited, self.logger = trt, limited, logger

    def create_network(self, flags=0):
        known = self.trt.NetworkDefinitionCreationFlag.__members__
        if "EXPLICIT_BATCH" in known and self.trt.__version__.startswith("8"):
            assert flags & 1 << int(known["EXPLICIT_BATCH"])
        return self.limited("INetworkDefinition", Network())

    def create_builder_config(self):
        return self.limited("IBuilderConfig", Config(self.limited))

    def build_serialized_network(self, network, config):
        model, path = inside(network).model, inside(network).path
        if model is None:
            self.logger.log(Logger.Severity.ERROR, "no kernel\n for what the graph wants")
            return None
        chosen = inside(config)
        chosen.cache.data += b"+" + Path(path).name.encode()
        content = (model, path, sorted(chosen.flags), chosen.builder_optimization_level)
        return self.trt.header + pickle.dumps((content, os.urandom(4)))  # no two builds are equal


class Network:
    model = path = None
    inputs = ()

    @property
    def num_inputs(self):
        return len(self.inputs)

    def get_input(self, i):
        shape = [d.dim_value if d.HasField("dim_value") else -1 for d in self.inputs[i].type.tensor_type.shape.dim]  # noqa: E501  # fmt: skip
        return SimpleNamespace(name=self.inputs[i].name, shape=tuple(shape))


class Config:
    avg_timing_iterations, profiling_verbosity, builder_optimization_level = 1, None, 3

    def __init__(self, limited):
        self.limited, self.flags, self.cache = limited, {"TF32"}, None

    def set_memory_pool_limit(self, pool, size):
        assert size > 0

    def set_flag(self, flag):
        self.flags.add(flag.name)

    def clear_flag(self, flag):
        self.flags.discard(flag.name)

    def create_timing_cache(self, data):
        if data and not data.startswith(b"+"):
            return None  # not one of its own
        return self.limited("ITimingCache", SimpleNamespace(data=data))

    def set_timing_cache(self, cache, ignore_mismatch):
        if not ignore_mismatch and OTHER_DEVICE in inside(cache).data:
            return False
        self.cache = inside(cache)
        self.cache.serialize = lambda: self.cache.data
        return True

    def get_timing_cache(self):
        return self.limited("ITimingCache", self.cache)


class Parser:
    def __init__(self, limited, network):
        self.limited, self.network, self.errors = limited, inside(network), []

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, i):
        return self.limited("ParserError", SimpleNamespace(desc=lambda: self.errors[i]))

    def parse(self, model, path=None):
        try:
            graph = onnx.load_from_string(model).graph
        except Exception as error:
            self.errors.append(f"not\n ONNX: {type(error).__name__}")
            return False
        if any(node.op_type == "Einsum" for node in graph.node):
            self.errors += ["Einsum is not there", "nor is it\n planned"]
            return False
        self.network.inputs = graph.input
        fits = all(node.op_type != "Det" for node in graph.node)
        self.network.model, self.network.path = (model if fits else None), path
        return True


class Runtime:
    def __init__(self, trt, limited, cuda, region, logger):
        self.parts = trt, limited, cuda, region
        self.logger = logger

    def deserialize_cuda_engine(self, plan):
        if not plan.startswith(self.parts[0].header):
            self.logger.log(Logger.Severity.ERROR, "the plan is of another version")
            return None
        trt, limited, cuda, region = self.parts
        engine = Engine(trt, limited, cuda, region, pickle.loads(plan[len(trt.header) :])[0])
        return limited("ICudaEngine", engine)


class Engine:
    device_memory_size = device_memory_size_v2 = 4096

    def __init__(self, trt, limited, cuda, region, content):
        self.trt, self.limited, self.cuda = trt, limited, cuda
        model, path, self.flags, self.level = content
        self.graph = onnx.load_from_string(model).graph
        beside = Path(path).with_name("fake-engine.onnx")
        if "TF32" in self.flags:
            model = tf32.model(model, beside.parent)
        if any(t.external_data for t in onnx.load_from_string(model).graph.initializer):
            beside.write_bytes(model)  # weights are found beside it
            model = str(beside)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options)
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.layers = fused(self.graph.node, region)

    @property
    def num_io_tensors(self):
        return len(self.tensors)

    @property
    def num_layers(self):
        return len(self.layers)

    def get_tensor_name(self, i):
        return self.tensors[i].name

    def _named(self, name):
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def get_tensor_mode(self, name):
        is_input = self._named(name) in self.session.get_inputs()
        return self.trt.TensorIOMode.INPUT if is_input else "OUTPUT"

    def get_tensor_shape(self, name):
        return tuple(self._named(name).shape)

    def get_tensor_dtype(self, name):
        assert self._named(name).type == "tensor(float)"
        return np.float32

    def create_execution_context(self):
        return self.limited("IExecutionContext", Context(self))

    def create_engine_inspector(self):
        def get_layer_information(i, form):
            assert form == self.trt.LayerInformationFormat.JSON
            name, nodes = self.layers[i]
            told = "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes)
            return json.dumps({"Name": name, "Metadata": told} if nodes else name)

        found = SimpleNamespace(get_layer_information=get_layer_information)
        return self.limited("EngineInspector", found)


class Context:
    profiler, enqueue_emits_profile = None, True

    def __init__(self, engine):
        self.engine, self.addresses, self.ran = engine, {}, False

    def set_tensor_address(self, name, address):
        assert isinstance(address, int)
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle):
        assert isinstance(stream_handle, int)
        assert set(self.addresses) == {tensor.name for tensor in self.engine.tensors}
        self.ran = False
        self.engine.cuda.work(stream_handle, self._run)
        return True

    def _run(self):
        self.ran = True
        session = self.engine.session
        source, result = session.get_inputs()[0], session.get_outputs()[0]
        size = int(np.prod(source.shape))
        raw = (ctypes.c_float * size).from_address(self.addresses[source.name])
        feed = {source.name: np.ctypeslib.as_array(raw).reshape(source.shape).copy()}
        out = np.ascontiguousarray(session.run([result.name], feed)[0])
        ctypes.memmove(self.addresses[result.name], out.ctypes.data, out.nbytes)

    def report_to_profiler(self):
        assert self.ran  # and is done
        assert self.profiler is not None
        assert not self.enqueue_emits_profile
        self.ran = False
        for number, (name, _) in enumerate(self.engine.layers, start=1):
            self.profiler.report_layer_time(name, number / 1000)
        return True


def fused(nodes, region):
    """(name, ONNX nodes) of each layer: an activation joins the convolution before it, the nodes of
    a region share a layer, casts are folded away."""
    out = []
    for node in nodes:
        if node.op_type == "Cast":
            continue
        if node.name in region and out and region[0] in out[-1][1] + [node.name]:
            if node.name == region[0]:
                out.append(("__myl_Fused_0", [node.name]))
            else:
                out[-1][1].append(node.name)
        elif out and node.op_type == "Relu" and node.input[0].removesuffix("_fp16") in str(out[-1]):
            name, before = out.pop()
            out.append((f"{name} + {node.name}", [*before, node.name]))
        else:
            out.append((node.name, [node.name]))
    return out
