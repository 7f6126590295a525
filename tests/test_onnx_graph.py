"""Emitted graphs against what independent readers say of them: the file and its own tensors."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from hwnas.networks import onnx_graph, spaces
from hwnas.networks.space import PlacedOp


def _weights(ops) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        w.name: rng.standard_normal(w.shape).astype(np.float32) / max(1, w.fan_in) ** 0.5
        for w in onnx_graph.weights_of(ops)
    }


def _archs(name: str, n: int):
    space, rng = spaces.load(name), np.random.default_rng(3)
    space = space.for_data(space.in_channels, 10)
    return [space.largest, space.smallest, *(space.random(rng) for _ in range(n - 2))]


def peak_bytes_of_graph(model: onnx.ModelProto) -> int:
    """Largest sum of live activations, by walking the file's nodes with onnx's own shapes."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    size = {
        v.name: 4 * int(np.prod([d.dim_value for d in v.type.tensor_type.shape.dim]))
        for v in [*graph.value_info, *graph.input, *graph.output]
    }
    weights = {t.name for t in graph.initializer}
    uses = [{n for n in node.input if n not in weights} for node in graph.node]
    needed_later = [set.union(set(), *uses[i + 1 :]) for i in range(len(uses))]
    peak, alive = 0, {given.name for given in graph.input}
    for node, later in zip(graph.node, needed_later, strict=True):
        alive |= set(node.output)
        peak = max(peak, sum(size[name] for name in alive))
        alive = {n for n in alive if n in later or n == graph.output[0].name}
    return peak


@pytest.mark.parametrize("name", spaces.names())
def test_weight_bytes_and_peak_memory_are_those_of_the_file_and_a_walk_over_its_nodes(name):
    for arch in _archs(name, 60):
        names = [w.name for w in onnx_graph.weights_of(arch.ops)]
        model = onnx_graph.build_external(arch.ops, dict.fromkeys(names, 0))
        stored = sum(
            int(entry.value)
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "length"
        )
        assert stored == sum(placed.op.weight_bytes for placed in arch.ops)
        expected = max(placed.op.peak_activation_bytes for placed in arch.ops)
        assert peak_bytes_of_graph(model) == expected


@pytest.mark.parametrize("name", spaces.names())
def test_every_graph_passes_the_checker_and_loads_in_onnxruntime(name):
    for arch in _archs(name, 4):
        model = onnx_graph.build(arch.ops, _weights(arch.ops), batch=2)
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(onnx_graph.to_bytes(model))
        given = session.get_inputs()[0]
        image = np.ones(given.shape, np.float32)
        assert session.run(None, {given.name: image})[0].shape == (2, 10)


def test_equal_networks_give_equal_bytes():
    arch = _archs("tiny", 2)[0]
    weights = _weights(arch.ops)
    first, second = (
        onnx_graph.to_bytes(onnx_graph.build(arch.ops, weights, 1, {"b": "2", "a": "1"}))
        for _ in range(2)
    )
    assert first == second


def test_opset_and_ir_version_are_those_that_old_engines_take():
    arch = _archs("tiny", 2)[0]
    model = onnx_graph.build(arch.ops, _weights(arch.ops))
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)


def test_node_and_tensor_names_start_with_their_slot():
    arch = _archs("mbv3-28", 2)[0]
    model = onnx_graph.build(arch.ops, _weights(arch.ops))
    slots = {op.slot for op in arch.ops}
    for node in model.graph.node:
        assert node.name.split("/")[0] in slots
        assert node.output[0] == "logits" or node.output[0].split("/")[0] in slots
    assert all(t.name.split("/")[0] in slots for t in model.graph.initializer)


def test_a_chain_of_micro_models_gives_the_networks_output():
    arch = _archs("tiny", 2)[0]
    weights = _weights(arch.ops)
    x = np.random.default_rng(5).standard_normal((1, 1, 16, 16)).astype(np.float32)
    expected = _run(arch.ops, weights, x)
    for op in arch.ops:
        x = _run((op,), weights, x)
    assert np.abs(x - expected).max() < 1e-5


def _run(ops: tuple[PlacedOp, ...], weights, x: np.ndarray) -> np.ndarray:
    data = onnx_graph.to_bytes(onnx_graph.build(ops, weights))
    return onnxruntime.InferenceSession(data).run(None, {"image": x})[0]


def test_a_weight_of_the_wrong_shape_is_refused():
    arch = _archs("tiny", 2)[0]
    weights = {**_weights(arch.ops), "stem/conv/weight": np.zeros((1, 1, 3, 3), np.float32)}
    with pytest.raises(ValueError, match="stem/conv/weight has shape"):
        onnx_graph.build(arch.ops, weights)
