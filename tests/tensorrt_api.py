"""The members of TensorRT's Python modules that hwnas uses, by version: what a fake may have.

Read from the documentation of each version ("TensorRT Python API Reference",
https://docs.nvidia.com/deeplearning/tensorrt/ archives: Core Concepts, Builder, Network, Engine,
ExecutionContext, ONNX Parser) and compared with the extension modules of 8.6.1, 10.3.0, 10.16.1 and
11.4.0; 8.5 is documented only. TensorRT-RTX 1.7 stands beside them because it can be installed, so
that one column is checked against a real module.
"""

VERSIONS = ("8.5.2", "8.6.1", "10.3.0", "10.16.1", "11.4.0", "rtx")

_EVERYWHERE = {
    "ILogger": {"Severity", "log"},
    "Logger": {"ERROR"},
    "Builder": {"create_network", "create_builder_config", "build_serialized_network"},
    "INetworkDefinition": {"num_inputs", "get_input"},
    "IBuilderConfig": {
        "set_memory_pool_limit",
        "avg_timing_iterations",
        "profiling_verbosity",
        "set_flag",
        "clear_flag",
        "create_timing_cache",
        "set_timing_cache",
        "get_timing_cache",
    },
    "ITimingCache": {"serialize"},
    "OnnxParser": {"parse", "num_errors", "get_error"},
    "ParserError": {"desc"},
    "Runtime": {"deserialize_cuda_engine"},
    "ICudaEngine": {
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_shape",
        "get_tensor_dtype",
        "create_execution_context",
        "create_engine_inspector",
        "num_layers",
    },
    "IExecutionContext": {
        "execute_async_v3",
        "set_tensor_address",
        "profiler",
        "enqueue_emits_profile",
        "report_to_profiler",
    },
    "IProfiler": {"report_layer_time"},
    "EngineInspector": {"get_layer_information"},
    "BuilderFlag": {"TF32"},  # set by default, in every version
    "MemoryPoolType": {"WORKSPACE"},
    "ProfilingVerbosity": {"DETAILED"},
    "TensorIOMode": {"INPUT"},
    "LayerInformationFormat": {"JSON"},
}
_WEAK = {"BuilderFlag": {"FP16", "INT8"}}
_LEVELS = {"IBuilderConfig": {"builder_optimization_level"}}  # 8.6 and newer
_ONE_SIZE = {"ICudaEngine": {"device_memory_size"}}
_TWO_SIZES = {"ICudaEngine": {"device_memory_size_v2"}}
_BATCH = {"NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH"}}
_TYPED = {"NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"}}

_BY_VERSION = {
    "8.5.2": (_WEAK, _ONE_SIZE, _BATCH),
    "8.6.1": (_WEAK, _ONE_SIZE, _BATCH, _LEVELS),
    "10.3.0": (_WEAK, _ONE_SIZE, _TWO_SIZES, _BATCH, _TYPED, _LEVELS),
    "10.16.1": (_WEAK, _ONE_SIZE, _TWO_SIZES, _BATCH, _TYPED, _LEVELS),
    "11.4.0": (_TWO_SIZES, _TYPED, _LEVELS),
    "rtx": (_TWO_SIZES, _TYPED, _LEVELS),
}
# Names that a version does not have, among those that another one has and hwnas looks for.
OPTIONAL = {
    "BuilderFlag": {"FP16", "INT8"},
    "IBuilderConfig": {"builder_optimization_level"},
    "ICudaEngine": {"device_memory_size", "device_memory_size_v2"},
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH", "STRONGLY_TYPED"},
}


def members(version):
    """Names of each class or enumeration of one version that hwnas may use."""
    out = {name: set(known) for name, known in _EVERYWHERE.items()}
    for part in _BY_VERSION[version]:
        for name, known in part.items():
            out.setdefault(name, set()).update(known)
    return out
