"""int8: static quantisation, with a scale for each channel of weights (`profilers/qdq.py`).

One rewrite serves kits, on the device, and packages, on the host: kits have ranges of activations
given by a rule, since times do not depend on them, packages those of training images. How it is
written depends on what the processor multiplies exactly (`RECIPES`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from profilers import onnx_bytes, qdq
from profilers.onnx_bytes import NODE, OUTPUT
from profilers.precisions import Precision, Range
from profilers.qdq import DEQUANTISE, QUANTISE, Recipe

PRECISION = Precision(
    # A value rounded to the next step in one engine only, carried on through some 60 layers: random
    # networks of the public spaces differ by up to 0.073, and from fp32 by up to 0.12.
    tolerance=0.1,
    loss=0.3,
    weight_bytes=1,
    activation_bytes=1,
    calibrated=True,
)
# Stems in float: networks of mbv3-28-int8 are 5 to 9 % quicker, of mbv3-224-int8 2 to 5 % (VNNI).
FEW = 8
RECIPES = {
    "u8s8": Recipe(False, symmetric=False, weight_limit=127, bias=True, least_channels=FEW),
    # x86 without VNNI adds pairs of products in 16 bits: 2 * 255 * 64 still fits
    "u8s7": Recipe(False, symmetric=False, weight_limit=64, bias=True, least_channels=FEW),
    "s8s8": Recipe(signed=True, symmetric=False, weight_limit=127, bias=True),
    "symmetric": Recipe(signed=True, symmetric=True, weight_limit=127, bias=False),  # TensorRT
}
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")
X86 = ("x86_64", "AMD64", "i686")
# Ranges by rule, of tensors by the op that makes them: activations of kits are of order one.
RULES: Mapping[str, Range] = {
    **dict.fromkeys(("Relu", "Clip"), (0.0, 6.0)),
    **dict.fromkeys(("HardSigmoid", "Sigmoid", "Softmax"), (0.0, 1.0)),
}
RULE: Range = (-6.0, 6.0)  # of others


def recipe(facts: Mapping[str, Any]) -> str:
    """Of `RECIPES`, the one for a processor.

    Args:
        facts: `machine` and `cpu_features` of its environment.
    """
    if facts.get("machine") not in X86:
        return "s8s8"
    return "u8s8" if set(VNNI) & set(facts.get("cpu_features") or ()) else "u8s7"


def rewritten(model_path: Path, recipe: str = "") -> Optional[bytes]:
    """The file in int8, ranges of activations by rule, weights inside; None where it is quantised.

    Raises:
        ConfigError: it cannot be read.
    """
    path = Path(model_path)
    found = qdq.placed(path.read_bytes(), RECIPES[recipe].least_channels)
    if found.is_done:
        return None
    ranges = {name: RULES.get(maker, RULE) for name, maker in found.ranged.items()}
    return qdq.written(found, path.parent, RECIPES[recipe], ranges)


def ranged(model: bytes) -> List[str]:
    """Names of the activations whose ranges decide how a file is written."""
    return list(qdq.placed(model).ranged)


def calibrated(model: bytes, recipe: str, ranges: Mapping[str, Range]) -> bytes:
    """A file with its weights inside, in int8 with given ranges of activations."""
    way = RECIPES[recipe]
    return qdq.written(qdq.placed(model, way.least_channels), Path(), way, ranges)


def is_written(model: bytes) -> bool:
    """Whether a file is quantised already."""
    return qdq.placed(model).is_done


def unrounded(model: bytes) -> bytes:
    """A quantised file without the pairs of its activations: what an engine computes that ignores
    them.
    """
    graph = onnx_bytes.graph_of(model)
    nodes, results = onnx_bytes.nodes_of(graph), dict(onnx_bytes.values_of(graph, OUTPUT))
    given = {node.outputs[0]: node.inputs[0] for node in nodes if node.op == QUANTISE}
    now: Dict[str, str] = {}
    for node in nodes:
        if node.op == DEQUANTISE and node.inputs[0] in given:
            source, last = given[node.inputs[0]], node.outputs[0]
            now.update({source: last} if last in results else {last: source})
    body = [
        onnx_bytes.rewired(node, *([now.get(n, n) for n in names] for names in node[3:]))
        for node in nodes
        if node.op != QUANTISE and not given.keys() & node.inputs
    ]
    return onnx_bytes.with_graph(model, [*body, *(each for each in graph if each[0] != NODE)])


def in_float(model: bytes, recipe: str = "") -> Dict[str, int]:
    """How many nodes of each op of a file stay in float; without a recipe, whatever it is."""
    return qdq.placed(model, RECIPES[recipe].least_channels if recipe else 0).in_float
