"""LiteRT, once TensorFlow Lite, 2.1 or newer, with its XNNPACK kernels on the CPU.

It loads a file of its own: of a kit, the device writes it from the graph and the seeded weights, of
a package the host does, with the same code. Images go in with their channels last. It tells no node
times. Source: ai.google.dev/edge/litert, "Interpreter".
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter_ns
from typing import Any, Dict, List, Optional

import numpy as np

from profilers.engines import litert_model, litert_writer, models
from profilers.engines.failures import failure
from profilers.engines.inputs import Input, check_shape, values
from profilers.errors import ConfigError, RuntimeMissingError
from profilers.runtimes import Engine, NodeTime
from profilers.schema import Target

ENGINE = Engine(
    module="ai_edge_litert",
    title="LiteRT",
    floor=(2, 1),
    packages=("flatbuffers",),
    precisions=("fp32", "int8"),
    recipe="s8s8",
    pip="ai-edge-litert",
    newest={(3, 9): "2.1.0"},
    file="model.tflite",
    form="LiteRT flatbuffer (channels last)",
    node_times=False,
    levels=False,
    licence="Apache-2.0",
)


def version() -> str:
    """Version of LiteRT.

    Raises:
        RuntimeMissingError: it is not installed, or older than 2.1.
    """
    return str(_engine().__version__)


def convert(model_path: Path) -> bytes:
    """The file that LiteRT loads, of an ONNX file with static shapes.

    Raises:
        ConfigError: it cannot be read, or LiteRT lacks an op of it.
        RuntimeMissingError: the schema of LiteRT, which comes with it, is not installed.
    """
    path = Path(model_path)
    return litert_writer.written(path.read_bytes(), path.parent)


def load(model_path: Path, target: Target) -> LiteRtSession:
    """A session of a file that `convert` made, or of an ONNX file, which is converted.

    Raises:
        RuntimeMissingError: the engine is missing.
        ConfigError: the file cannot be loaded, or LiteRT lacks an op of it.
    """
    engine, path = _engine(), Path(model_path)
    if not path.is_file():
        raise ConfigError(f"LiteRT cannot load {path.name}: no such file")
    start = perf_counter_ns()
    data = path.read_bytes()
    is_own = data[4:8] == litert_model.IDENTIFIER
    if not is_own:
        made = models.in_precision(path, target, ENGINE.recipe)
        data = litert_writer.written(data if made is None else made, path.parent)
    build_s = 0.0 if is_own else (perf_counter_ns() - start) / 1e9
    return LiteRtSession(engine, data, path.name, target.threads, build_s)


def _engine() -> Any:
    """The module with the interpreter and the version."""
    try:
        import ai_edge_litert
        from ai_edge_litert import interpreter  # noqa: F401 -- its library is loaded
    except ImportError as error:
        raise RuntimeMissingError(
            f"LiteRT cannot be imported on the device ({error}); pip install ai-edge-litert"
        ) from None
    found = str(ai_edge_litert.__version__)
    if [int(part) for part in found.split(".")[:2]] < list(ENGINE.floor):
        raise RuntimeMissingError(
            f"LiteRT {found} is older than 2.1; pip install -U ai-edge-litert"
        )
    return ai_edge_litert


class LiteRtSession:
    """One interpreter with values in its inputs."""

    def __init__(self, engine: Any, data: bytes, name: str, threads: int, build_s: float) -> None:
        self._name, self._data, self._build_s = name, data, build_s
        make = engine.interpreter.Interpreter
        try:
            self._interpreter = make(model_content=data, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise failure(f"LiteRT cannot load {name}", str(error)) from None
        self._given = self._interpreter.get_input_details()
        self._out = self._interpreter.get_output_details()[0]
        told = litert_model.about(data)
        self._before = told.get("inputs") or [None for _ in self._given]
        self._after = (told.get("outputs") or [None])[0]
        for each, value in zip(self._given, values(map(_input, self._given)).values()):
            self._interpreter.set_tensor(each["index"], value)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """The first output for one batch.

        Args:
            inputs: of the shape of the ONNX model's input.

        Raises:
            ConfigError: the model takes other inputs.
        """
        check_shape(self._shapes(), inputs.shape)
        given, data = self._given[0], inputs
        if self._before[0] is not None:
            data = np.moveaxis(inputs, 1, -1).reshape(given["shape"])
        self._interpreter.set_tensor(given["index"], np.ascontiguousarray(data, given["dtype"]))
        self._invoke(1)
        out: np.ndarray = self._interpreter.get_tensor(self._out["index"])
        return out if self._after is None else np.moveaxis(out, -1, 1).reshape(self._after)

    def time(self, loops: int) -> float:
        """ms that `loops` inferences took together; perf_counter_ns round the calls, each of which
        ends when the inference is done.
        """
        return self._invoke(loops)

    def profile(self, loops: int) -> Optional[List[NodeTime]]:
        """None: LiteRT reports no node times."""
        return None

    def info(self) -> Dict[str, Any]:
        """Shape of the first input, as the ONNX model has it; seconds that converting took."""
        return {"input_shape": next(iter(self._shapes()), None), "build_s": self._build_s}

    def close(self) -> None:
        """Drop the interpreter; it frees its memory at once."""
        del self._interpreter, self._data

    def _invoke(self, loops: int) -> float:
        invoke = self._interpreter.invoke
        try:
            start = perf_counter_ns()
            for _ in range(loops):
                invoke()
            return (perf_counter_ns() - start) / 1e6
        except (RuntimeError, ValueError) as error:
            raise failure(f"LiteRT cannot run {self._name}", str(error)) from None

    def _shapes(self) -> List[List[int]]:
        """Of the inputs, as the ONNX model has them."""
        both = zip(self._given, self._before)
        return [list(before or map(int, given["shape"])) for given, before in both]


def _input(given: Dict[str, Any]) -> Input:
    return Input.static(given["name"], [int(size) for size in given["shape"]], given["dtype"])


class Deployed:
    """The model of this package in LiteRT."""

    def __init__(self, path: str, target: Any) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=path, num_threads=target["threads"])
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self.batch = int(self._input["shape"][0])

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of one batch, (batch, channels, ...) float32; the model takes channels last."""
        data = np.moveaxis(images, 1, -1).reshape(self._input["shape"])
        self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(data))
        self._interpreter.invoke()
        logits: np.ndarray = self._interpreter.get_tensor(self._output)
        return logits
