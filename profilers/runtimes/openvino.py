"""OpenVINO on the CPU, 2024.0 or newer: the ONNX file itself, one stream, f32, threads as asked.

Its importer leaves HardSigmoid, and with it hard-swish, to a reference kernel; at load they become
the ops that it fuses into convolutions. Without a precision hint it computes in half precision on
ARM. Sources: docs.openvino.ai, "CPU Device", "Precision control", InferRequest.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter_ns
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from profilers import onnx_bytes
from profilers.engines import models
from profilers.engines.failures import failure
from profilers.engines.inputs import Input, check_shape, values
from profilers.errors import ConfigError, DeviceError, HwnasError, RuntimeMissingError
from profilers.runtimes import NODE_JOIN, Engine, NodeTime
from profilers.schema import Target
from profilers.stats import mean_of_faster_half

ENGINE = Engine(
    module="openvino",
    title="OpenVINO",
    floor=(2024, 0),
    precisions=("fp32", "int8"),
    pip="openvino",
    newest={(3, 8): "2024.4.0", (3, 9): "2025.2.0"},  # with glibc 2.31
    levels=False,
    licence="Apache-2.0",
)
PROFILE_WARM_UP = 3  # runs of a profile that are thrown away
REORDER = "Reorder"  # type of a node that only changes the layout
ENDS = ("Parameter", "Result")  # types of nodes that compute nothing


def version() -> str:
    """Version of OpenVINO.

    Raises:
        RuntimeMissingError: it is not installed, or older than 2024.0.
    """
    return str(_engine().__version__).split("-")[0]


def load(model_path: Path, target: Target) -> OpenVinoSession:
    """A session of an ONNX file with static shapes.

    Raises:
        RuntimeMissingError: the engine is missing.
        ConfigError: the file cannot be loaded, or its shapes are not static.
    """
    path = Path(model_path)
    if not path.is_file():
        raise ConfigError(f"OpenVINO cannot load {path.name}: no such file")
    return OpenVinoSession(_engine(), path, target)


def _engine() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise RuntimeMissingError(
            f"OpenVINO cannot be imported on the device ({error}); pip install openvino"
        ) from None
    found = str(openvino.__version__)
    if [int(part) for part in found.split(".")[:2]] < list(ENGINE.floor):
        raise RuntimeMissingError(f"OpenVINO {found} is older than 2024.0; pip install -U openvino")
    return openvino


class OpenVinoSession:
    """One compiled model and a request with its tensors."""

    def __init__(self, ov: Any, path: Path, target: Target) -> None:
        self._ov, self._path, self._target = ov, path, target
        self._core = ov.Core()
        self._model, self._rewrite_s = _read(ov, self._core, path, target)
        self._inputs = [_input(source) for source in self._model.inputs]
        self._compiled = self._compile()
        self._request = self._bound(self._compiled)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """The first output for one batch.

        Args:
            inputs: of the shape of the model's input.

        Raises:
            ConfigError: the model takes other inputs.
        """
        check_shape([each.shape for each in self._inputs], inputs.shape)
        given = np.ascontiguousarray(inputs, dtype=self._inputs[0].dtype)
        try:
            self._request.infer({0: given})
        except RuntimeError as error:
            raise self._failed("run", error) from None
        out: np.ndarray = self._request.get_output_tensor(0).data.copy()
        return out

    def time(self, loops: int) -> float:
        """ms that `loops` inferences took together; perf_counter_ns round the calls, each of which
        ends when the inference is done.
        """
        infer = self._request.infer
        try:
            start = perf_counter_ns()
            for _ in range(loops):
                infer(share_outputs=True)
            return (perf_counter_ns() - start) / 1e6
        except RuntimeError as error:
            raise self._failed("run", error) from None

    def profile(self, loops: int) -> Optional[List[NodeTime]]:
        """Mean node times over the faster half of the runs of a second model that counts, which
        slows the nodes down.

        Raises:
            DeviceError: the runs did not execute the same nodes.
        """
        compiled = self._compile(PERF_COUNT="YES")
        request, runs = self._bound(compiled), []
        for _ in range(PROFILE_WARM_UP + loops):
            request.infer(share_outputs=True)
            runs.append(request.get_profiling_info())
        known = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ops()}
        told = [each for each in runs[0] if each.node_name in known]  # the others are fused
        if not told or any(len(run) != len(runs[0]) for run in runs):
            raise DeviceError("OpenVINO reported other nodes in one run than in another")
        places = [place for place, each in enumerate(runs[0]) if each.node_name in known]
        ms = np.array([[run[i].real_time.total_seconds() * 1e3 for i in places] for run in runs])
        means = mean_of_faster_half(ms[PROFILE_WARM_UP:])
        names = self._node_names()
        return [
            NodeTime(_nodes_of(each, known[each.node_name], names), "", float(mean))
            for each, mean in zip(told, means)
            if each.node_type not in ENDS
        ]

    def info(self) -> Dict[str, Any]:
        """Shape of the first input, seconds that writing the file in the target's precision took;
        OpenVINO does not tell a model's memory.
        """
        shape = list(self._inputs[0].shape) if self._inputs else None
        return {"input_shape": shape, "rewrite_s": self._rewrite_s}

    def close(self) -> None:
        """Drop the model; the engine frees it at once."""
        del self._request, self._compiled, self._model

    def _compile(self, **settings: str) -> Any:
        """The model for this processor, in the target's precision and no other."""
        settings = {**Deployed.settings(self._target.threads), **settings}
        try:
            return self._core.compile_model(self._model, "CPU", settings)
        except RuntimeError as error:
            raise self._failed("load", error) from None

    def _bound(self, compiled: Any) -> Any:
        """A request with values in its inputs."""
        request = compiled.create_infer_request()
        try:
            for number, value in enumerate(values(self._inputs).values()):
                request.set_input_tensor(number, self._ov.Tensor(value))
        except RuntimeError as error:  # numbers that numpy does not have
            raise self._failed("load", error) from None
        return request

    def _node_names(self) -> Dict[str, str]:
        """Names of nodes by their results, after which OpenVINO names them."""
        nodes = onnx_bytes.nodes_of(onnx_bytes.graph_of(self._path.read_bytes()))
        return {name: node.name for node in nodes for name in node.outputs if node.name}

    def _failed(self, what: str, error: Exception) -> HwnasError:
        return failure(f"OpenVINO cannot {what} {self._path.name}", str(error))


def _read(ov: Any, core: Any, path: Path, target: Target) -> Tuple[Any, float]:
    """The model of an ONNX file in the target's precision, fused; seconds that writing it took."""
    data, rewrite_s = models.timed(path, target)
    if data is None and path.suffix != ".onnx":  # it is not known as ONNX; weights are inside then
        data = path.read_bytes()
    try:
        model = core.read_model(str(path) if data is None else data)
    except RuntimeError as error:
        raise failure(f"OpenVINO cannot load {path.name}", str(error)) from None
    return Deployed.fused(ov, model), rewrite_s


def _input(source: Any) -> Input:
    """An input of a model; refused where its shape is not fixed."""
    name, shape = source.get_any_name(), source.get_partial_shape()
    sizes = [int(each.get_length()) if each.is_static else 0 for each in shape]
    return Input.static(name, sizes, source.get_element_type().to_dtype())


def _nodes_of(told: Any, node: Any, names: Mapping[str, str]) -> str:
    """Names of the ONNX nodes that an executed one was made of."""
    if told.node_type == REORDER:
        return REORDER
    layers = str(node.get_rt_info()["originalLayersNames"].value).split(",")
    return NODE_JOIN.join(names.get(layer, layer) for layer in layers if layer)


class Deployed:
    """The model of this package in OpenVINO, on the CPU."""

    def __init__(self, path: str, target: Any) -> None:
        import openvino

        core = openvino.Core()
        model = self.fused(openvino, core.read_model(path))
        compiled = core.compile_model(model, "CPU", self.settings(target["threads"]))
        self._request = compiled.create_infer_request()
        self.batch = compiled.inputs[0].shape[0]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of one batch, (batch, channels, ...) float32."""
        self._request.infer({0: np.ascontiguousarray(images)})
        logits: np.ndarray = self._request.get_output_tensor(0).data.copy()
        return logits

    @staticmethod
    def settings(threads: int) -> Any:
        """Single precision, which is not the default on ARM; one inference at a time; and no thread
        bound to a core, which takes 13 % longer on small networks and waits where that is busy.
        """
        settled = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
        return {**settled, "ENABLE_CPU_PINNING": "NO", "INFERENCE_NUM_THREADS": str(threads)}

    @staticmethod
    def fused(openvino: Any, model: Any) -> Any:
        """The model with hard-swish, and its gate, as ops of their own: HardSigmoid is slow, and
        fuses with nothing. Names stay.
        """
        made = openvino if hasattr(openvino, "opset8") else openvino.runtime  # before 2025
        for gate in model.get_ordered_ops():
            source = gate.input_value(0) if gate.get_type_name() == "HardSigmoid" else None
            if source is None or not np.allclose(
                [gate.input_value(n).get_node().get_data().item() for n in (1, 2)], [1 / 6, 0.5]
            ):
                continue
            old, new = gate, made.opset8.hsigmoid(source)
            readers = [each.get_node() for each in gate.output(0).get_target_inputs()]
            if len(readers) == 1 and readers[0].get_type_name() == "Multiply":
                factors = [readers[0].input_value(n).get_node() for n in (0, 1)]
                name = source.get_node().get_friendly_name()
                if name in [each.get_friendly_name() for each in factors]:
                    old, new = readers[0], made.opset8.hswish(source)
            new.set_friendly_name(old.get_friendly_name())
            for place in list(old.output(0).get_target_inputs()):
                place.replace_source_output(new.output(0))
        return model
