"""fp32 graphs made fp16: checked by onnx, and run by ONNX Runtime beside the fp32 ones."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from worker_kits import networks

from hwnas.networks import onnx_graph, spaces
from profilers.errors import ConfigError
from profilers.precisions import fp16


def network(seed=0):
    ops = networks(1, seed)[0]
    rng = np.random.default_rng(seed)
    values = {w.name: rng.normal(0, 0.2, w.shape) for w in onnx_graph.weights_of(ops)}
    return onnx_graph.build(ops, values, batch=2)


def outputs(data):
    inputs = np.random.default_rng(1).normal(size=(2, 1, 8, 8)).astype(np.float32)
    return onnxruntime.InferenceSession(data).run(None, {"image": inputs})[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_fp16_network_is_valid_and_computes_the_same_within_fp16(seed):
    single = onnx_graph.to_bytes(network(seed))
    data = fp16.to_half(single)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    expected, found = outputs(single), outputs(data)
    assert found.dtype == np.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.02


def test_everything_between_the_casts_is_fp16():
    graph = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(fp16.to_half(onnx_graph.to_bytes(network())))
    ).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    computed = [node.output[0] for node in graph.node if node.op_type != "Cast"]
    assert {kinds[name] for name in computed} == {TensorProto.FLOAT16}


def test_nodes_keep_their_names_and_casts_carry_the_slot_of_their_tensor():
    before = network()
    after = onnx.load_from_string(fp16.to_half(onnx_graph.to_bytes(before)))
    kept = [node.name for node in after.graph.node if node.op_type != "Cast"]
    assert kept == [node.name for node in before.graph.node]
    casts = {node.name for node in after.graph.node if node.op_type == "Cast"}
    assert {name.partition("/")[0] for name in casts} >= {"stem", "stage1.block1"}


@pytest.mark.parametrize("name", spaces.names())
def test_networks_of_every_space_can_be_fp16(name):
    space = spaces.load(name)
    ops = space.restricted([space.resolutions[0]]).smallest.ops
    graph = onnx_graph.build_external(ops, {w.name: 0 for w in onnx_graph.weights_of(ops)})
    kinds = [node.op_type for node in graph.graph.node]
    found = onnx.load_from_string(fp16.to_half(onnx_graph.to_bytes(graph))).graph
    assert [node.op_type for node in found.node if node.op_type != "Cast"] == kinds


def test_a_graph_that_is_fp16_already_stays_as_it_is():
    weight = numpy_helper.from_array(np.ones((1, 3), np.float16), "weight")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, (1, 3)) for n in ("image", "out")]
    node = helper.make_node("Mul", ["image", "weight"], ["out"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight]))
    data = model.SerializeToString()
    assert fp16.to_half(data) is None


def test_an_op_that_may_need_fp32_is_named():
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 3)) for n in ("image", "out")]
    node = helper.make_node("Einsum", ["image"], ["out"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    with pytest.raises(ConfigError, match="holds the op Einsum"):
        fp16.to_half(model.SerializeToString())


def test_damaged_files_are_refused_or_still_a_message():
    data = onnx_graph.to_bytes(network())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data[: rng.integers(1, len(data))])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            fp16.to_half(bytes(damaged))
        except ConfigError:
            refused += 1
    assert refused > 150
