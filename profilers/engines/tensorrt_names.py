"""Names of TensorRT's layers to names of the ONNX nodes they were fused from."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List

from profilers.runtimes import NODE_JOIN

ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")  # in a layer's metadata, one for each node
# What may stand between names: "a + PWN(b, c)", "Reformatting CopyNode for Input Tensor 0 to a"
BETWEEN = re.compile(r"[\s+,()\[\]{}|]+|\.\.\.")


def onnx_names(trt: Any, engine: Any) -> Dict[str, str]:
    """ONNX nodes of every layer of an engine, joined by " + ", by the layer's name.

    Args:
        trt: the module tensorrt.
        engine: built with detailed profiling verbosity.
    """
    inspector = engine.create_engine_inspector()
    out: Dict[str, str] = {}
    for number in range(engine.num_layers):
        text = inspector.get_layer_information(number, trt.LayerInformationFormat.JSON)
        try:
            layer = json.loads(text)
        except ValueError:  # it says nothing of this layer
            continue
        if isinstance(layer, dict):
            name = str(layer.get("Name", ""))
            out[name] = NODE_JOIN.join(nodes_of(name, str(layer.get("Metadata", ""))))
    return out


def nodes_of(layer: str, metadata: str = "") -> List[str]:
    """The ONNX nodes of a layer, each once: as its metadata says, else by the parts of its name.

    A name made by TensorRT itself is returned as it is; it belongs to no node.
    """
    found = ONNX_LAYER.findall(metadata) or [part for part in BETWEEN.split(layer) if part]
    return list(dict.fromkeys(found))
