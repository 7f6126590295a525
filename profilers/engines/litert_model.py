"""A LiteRT model while it is written: tensors, constants and operators, then its flatbuffer.

The schema is the one inside ai-edge-litert, so a file is of the version that loads it. Constants
are aligned to 16 bytes, as the schema asks and its Python code does not. Source: schema.fbs.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from profilers.errors import RuntimeMissingError

IDENTIFIER = b"TFL3"  # of such a file, from its fifth byte on
ALIGNMENT = 16  # bytes
ABOUT = "hwnas"  # name of the metadata: shapes before of tensors that have their channels last
TYPES = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8", "uint8": "UINT8"}
OPTIONS = {  # name of an operator's options, where it is not made of the operator's
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    **dict.fromkeys(("MEAN", "SUM"), "ReducerOptions"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions"),
    "PADV2": "PadV2Options",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    **dict.fromkeys(("LOG", "LOGISTIC", "RELU", "RELU6", "RSQRT", "SQRT", "TANH"), ""),  # none
}
VERSIONS = {  # of operators over int8, where it is not 1
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 3),
    **dict.fromkeys(("ADD", "CONCATENATION", "DEQUANTIZE", "MAX_POOL_2D", "MEAN", "MUL"), 2),
    **dict.fromkeys(("PAD", "PADV2", "SLICE", "TRANSPOSE"), 2),
    "FULLY_CONNECTED": 4,
}


class Scales(NamedTuple):
    """How int8 numbers stand for values: value = scale * (number - zero); of a weight a scale for
    each channel, which are along an axis.
    """

    scale: np.ndarray
    zero: int
    axis: int = 0


class LiteRtModel:
    """Tensors and operators in their order."""

    def __init__(self) -> None:
        self._schema = schema()
        self._tensors: List[Any] = []
        self._constants: List[bytes] = [b""]  # of the first buffer nothing may be read
        self._operators: List[Any] = []
        self._codes: Dict[Tuple[str, int], int] = {}

    def tensor(self, name: str, shape: Sequence[int], dtype: Any, scales: Optional[Scales]) -> int:
        """The number of a new tensor that an operator writes, or that is given."""
        made = self._schema.TensorT()
        made.name, made.shape = name, np.array(shape, np.int32)
        made.type = getattr(self._schema.TensorType, TYPES[np.dtype(dtype).name])
        made.buffer = 0
        if scales is not None:
            quantised = self._schema.QuantizationParametersT()
            quantised.scale = np.atleast_1d(scales.scale).astype(np.float32)
            quantised.zeroPoint = np.full(quantised.scale.shape, scales.zero, np.int64)
            quantised.quantizedDimension = scales.axis
            made.quantization = quantised
        self._tensors.append(made)
        return len(self._tensors) - 1

    def constant(self, name: str, value: np.ndarray, scales: Optional[Scales] = None) -> int:
        """The number of a new tensor that holds these values."""
        number = self.tensor(name, value.shape, value.dtype, scales)
        self._tensors[number].buffer = len(self._constants)
        self._constants.append(np.ascontiguousarray(value).tobytes())
        return number

    def shape(self, number: int) -> List[int]:
        """Shape of a tensor."""
        return [int(size) for size in self._tensors[number].shape]

    def operator(self, code: str, inputs: Sequence[int], output: int, **options: Any) -> None:
        """Append an operator.

        Args:
            code: of BuiltinOperator.
            inputs, output: numbers of tensors.
            options: of its options, by name.
        """
        made = self._schema.OperatorT()
        floats = self._tensors[inputs[0]].type == self._schema.TensorType.FLOAT32
        version = 1 if floats else VERSIONS.get(code, 1)
        made.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        name = OPTIONS.get(code, code.title().replace("_", "") + "Options")
        if name:
            made.builtinOptionsType = getattr(self._schema.BuiltinOptions, name)
            made.builtinOptions = getattr(self._schema, f"{name}T")()
            for key, value in options.items():
                setattr(made.builtinOptions, key, value)
        self._operators.append(made)

    def packed(self, inputs: Sequence[int], outputs: Sequence[int], about: Any) -> bytes:
        """The file.

        Args:
            inputs, outputs: numbers of its tensors.
            about: kept in the metadata, as JSON.
        """
        flatbuffers, made = importlib.import_module("flatbuffers"), self._schema.ModelT()
        graph, told = self._schema.SubGraphT(), self._schema.MetadataT()
        graph.tensors, graph.operators, graph.name = self._tensors, self._operators, "main"
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        told.name, told.buffer = ABOUT, len(self._constants)
        text = json.dumps(about, sort_keys=True, separators=(",", ":")).encode("utf-8")
        made.version, made.description, made.subgraphs, made.metadata = 3, "hwnas", [graph], [told]
        made.buffers = [_Buffer(self._schema, data) for data in (*self._constants, text)]
        made.operatorCodes = [self._code(*code) for code in self._codes]
        builder = flatbuffers.Builder(1024 + sum(map(len, self._constants)))
        builder.Finish(made.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _code(self, name: str, version: int) -> Any:
        made, number = self._schema.OperatorCodeT(), getattr(self._schema.BuiltinOperator, name)
        made.builtinCode, made.version = number, version
        made.deprecatedBuiltinCode = min(number, 127)  # what older readers look at
        return made


class _Buffer:
    """The bytes of a constant, which the schema's own code would not align."""

    def __init__(self, schema: Any, data: bytes) -> None:
        self._schema, self._data = schema, data

    def Pack(self, builder: Any) -> int:
        if self._data:
            builder.Prep(ALIGNMENT, len(self._data))
            vector = builder.CreateByteVector(self._data)
        self._schema.BufferStart(builder)
        if self._data:
            self._schema.BufferAddData(builder, vector)
        number: int = self._schema.BufferEnd(builder)
        return number


def schema() -> Any:
    """The schema's module.

    Raises:
        RuntimeMissingError: it is not installed.
    """
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise RuntimeMissingError(
            f"the schema of LiteRT cannot be imported ({error}); pip install ai-edge-litert"
        ) from None


def about(data: bytes) -> Any:
    """What the metadata of a file that LiteRT has loaded say of it; nothing where they are not
    ours.
    """
    model = schema().Model.GetRootAs(data, 0)
    for number in range(model.MetadataLength()):
        told = model.Metadata(number)
        if told.Name() == ABOUT.encode("ascii"):
            text = model.Buffers(told.Buffer()).DataAsNumpy().tobytes()
            return json.loads(text.decode("utf-8"))
    return {}
