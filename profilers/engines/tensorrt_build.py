"""TensorRT from ONNX to a plan: 8.5, 10 and 11, told apart by what their modules hold.

    weakly typed (up to 10)     the fp32 graph is parsed; fp16 is a flag of the build
    strongly typed (11)         the graph's types rule; an fp32 graph is made fp16 before parsing

In int8 the graph holds what is quantised in either case, and a weakly typed build allows it.

TensorRT computes fp32 in TF32, which has the mantissa of fp16, unless that is forbidden: fp32 means
fp32 here. Nothing needs a GPU but what TensorRT itself asks for.
Source: NVIDIA, "TensorRT Python API", https://docs.nvidia.com/deeplearning/tensorrt/
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Type

from profilers.engines import models
from profilers.engines.failures import failure
from profilers.engines.inputs import Input
from profilers.errors import ConfigError, HwnasError, ModelError, RuntimeMissingError
from profilers.schema import Target

WORKSPACE_BYTES = 1 << 30
TIMING_ITERATIONS = 8  # of each tactic; the default of 1 makes the choice of tactics a lottery
LEVELS = {"disable": 0, "basic": 1, "extended": 2, "all": 3}  # 3 is TensorRT's own default
RECIPE = "symmetric"  # of int8: zero points and quantised biases are refused
BUILD_VERSION = 3  # raised when the same file and target give another engine: kept plans are stale


class Built(NamedTuple):
    """A serialised engine, and the timing cache with what building it added."""

    plan: bytes
    timing: bytes


def module() -> Any:
    """The module tensorrt.

    Raises:
        RuntimeMissingError: it is not installed, or older than 8.5.
    """
    try:
        found = importlib.import_module("tensorrt")
    except ImportError as error:
        raise RuntimeMissingError(
            f"TensorRT cannot be imported on the device ({error}); pip install tensorrt-cu13 "
            "(Jetson: it comes with JetPack as python3-libnvinfer; use the system's Python)"
        ) from None
    if not hasattr(found.IExecutionContext, "execute_async_v3"):
        raise RuntimeMissingError(
            f"TensorRT {found.__version__} is older than 8.5; use JetPack 5.1 or newer, or "
            "pip install -U tensorrt-cu13"
        )
    return found


def facts() -> Dict[str, Any]:
    """`tensorrt` (its version), from a builder that was really made; for a process of its own.

    Raises:
        RuntimeMissingError: TensorRT is missing or finds no CUDA driver.
    """
    trt = module()
    _builder(trt, make_logger(trt))
    return {"tensorrt": str(trt.__version__)}


def make_logger(trt: Any) -> Any:
    """A logger that keeps errors as lines in `errors`; it must outlive what it is given to."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split())[:300])

    return Logger()


def is_strongly_typed(trt: Any) -> bool:
    """Whether the graph's types rule, because there are no flags for precisions."""
    return "FP16" not in trt.BuilderFlag.__members__


def build(trt: Any, model_path: Path, target: Target, timing: bytes) -> Built:
    """The plan of an ONNX file with static shapes.

    Args:
        trt: the module tensorrt.
        model_path: weights inside, or in a file beside it.
        target: its precision and optimisation level are used.
        timing: serialised timing cache of earlier builds, or nothing.

    Raises:
        ConfigError: the file cannot be read, parsed or built, or the target asks for what
            TensorRT does not have.
        RuntimeMissingError: TensorRT finds no CUDA driver.
    """
    logger = make_logger(trt)
    builder = _builder(trt, logger)
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, logger, model_path, target)
    config = _config(trt, builder, target)
    with warnings.catch_warnings():  # versions warn of what the next ones may drop
        warnings.simplefilter("ignore", DeprecationWarning)
        _use_timings(config, timing)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise failed(f"TensorRT cannot build {model_path.name}", logger)
        found = config.get_timing_cache()
        return Built(bytes(plan), bytes(found.serialize()) if found is not None else b"")


def _use_timings(config: Any, timing: bytes) -> None:
    """Begin with a timing cache; with none where TensorRT does not take it (damaged, or of another
    device): it then returns nothing, or false.
    """
    for data in (timing, b""):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def failed(words: str, logger: Any, otherwise: Type[HwnasError] = ModelError) -> HwnasError:
    """The error that TensorRT wrote before it returned nothing; arguments as of `failure`. A tactic
    that finds no memory is skipped, and the last line then names a node without any.
    """
    reason = logger.errors[-1] if logger.errors else "it gives no reason"
    return failure(words, reason, otherwise, logger.errors)


def _builder(trt: Any, logger: Any) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError:  # pybind11: the factory function returned nullptr
        reason = logger.errors[-1] if logger.errors else "no CUDA driver"
        raise RuntimeMissingError(
            f"TensorRT {trt.__version__} cannot start: {reason}; install the NVIDIA driver and "
            "check with `nvidia-smi`"
        ) from None


def _network_flags(trt: Any) -> int:
    """8 must be told that the batch is in the shapes, 11 that types are strong; 10 neither."""
    known = trt.NetworkDefinitionCreationFlag.__members__
    wanted = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if is_strongly_typed(trt) else [])
    return sum(1 << int(known[name]) for name in wanted if name in known)


def _parse(trt: Any, network: Any, logger: Any, path: Path, target: Target) -> None:
    try:
        model = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"TensorRT cannot load {path.name}: {error.strerror}") from None
    if target.precision == "int8" or is_strongly_typed(trt):
        model = models.in_precision(path, target, RECIPE) or model
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model, str(path)):
        reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
        text = "; ".join(reasons) or "it gives no reason"
        raise failure(f"TensorRT cannot load {path.name}", text)
    for i in range(network.num_inputs):
        source = network.get_input(i)
        Input.static(source.name, list(source.shape), None)


def _config(trt: Any, builder: Any, target: Target) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.avg_timing_iterations = TIMING_ITERATIONS
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # names of fused ONNX nodes
    _set_level(trt, config, target.optimisation)
    if target.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # set by default
    if target.precision != "fp32" and not is_strongly_typed(trt):
        config.set_flag(getattr(trt.BuilderFlag, target.precision.upper()))
    return config


def _set_level(trt: Any, config: Any, level: str) -> None:
    if level not in LEVELS:
        raise ConfigError(
            f"TensorRT has no optimisation level {level!r}; use one of {', '.join(LEVELS)}"
        )
    if hasattr(config, "builder_optimization_level"):  # 8.6 and newer
        config.builder_optimization_level = LEVELS[level]
    elif level != "all":
        raise ConfigError(
            f"TensorRT {trt.__version__} has no optimisation levels; use the default, 'all'"
        )
