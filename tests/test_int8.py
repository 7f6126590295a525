"""fp32 graphs made int8: checked by onnx, and run by ONNX Runtime as written and as it joins it."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from worker_kits import TINY, networks, real_kit

from hwnas.measuring import kit
from hwnas.networks import onnx_graph, spaces
from profilers import open_models, precisions, qdq, runtimes
from profilers.errors import ConfigError
from profilers.precisions import int8
from profilers.runtimes import ort_cpu
from profilers.schema import Target
from profilers.weights import generate

RECIPES = sorted(int8.RECIPES)
X86 = {"machine": "x86_64", "cpu_features": ["avx2"]}
INT8 = Target("host", "ort-cpu", precision="int8")


def data_of(ops, seed=0):
    """The file of a network, its activations of order one."""
    rng = np.random.default_rng(seed)
    values = {
        weight.name: rng.uniform(-1, 1, weight.shape) * kit.scale(placed.op, weight)
        for placed in ops
        for weight in onnx_graph.weights_of([placed])
    }
    return onnx_graph.to_bytes(onnx_graph.build(ops, values))


def images(ops, n=1):
    return np.random.default_rng(1).normal(size=(n, *ops[0].op.inputs[0])).astype(np.float32)


def run(data, x, plain=False):
    """Logits; `plain`: each node as ONNX says, none joined."""
    options = onnxruntime.SessionOptions()
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options).run(None, {"image": x})[0]


def exact_ranges(data, x):
    """Of each tensor that wants one, the range in float on these very images."""
    model = onnx.load_from_string(data)
    wanted = qdq.placed(data).ranged
    inner = [name for name in wanted if name not in ("image", "logits")]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = dict(zip(inner, session.run(inner, {"image": x}), strict=True))
    found |= {"image": x, "logits": run(data, x)}
    return {name: (found[name].min(), found[name].max()) for name in wanted}


def written(data, recipe, ranges):
    return int8.calibrated(data, recipe, ranges)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("seed", range(2))
def test_the_int8_network_is_valid_and_computes_nearly_the_same(seed, recipe):
    ops = networks(1, seed)[0]
    data, x = data_of(ops), images(ops)
    made = written(data, recipe, exact_ranges(data, x))
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    expected, found = run(data, x), run(made, x, plain=True)
    assert found.dtype == np.float32
    gap = np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean())
    assert 0 < gap < 0.15


@pytest.mark.parametrize("name", spaces.names())
def test_networks_of_every_space_are_joined_to_integer_kernels_and_say_what_stays_in_float(
    name, tmp_path
):
    space = spaces.load(name)
    ops = space.restricted([space.resolutions[0]]).smallest.ops
    path = tmp_path / "model.onnx"
    path.write_bytes(data_of(ops))
    told = int8.in_float(path.read_bytes(), "u8s8")
    nodes = optimised(path, "u8s8", tmp_path)
    kinds = [node.op_type for node in nodes]
    assert not {"Gemm", "Add", "Mul", "GlobalAveragePool", "Relu", "Clip"} & set(kinds)
    assert sum(kind in ("Conv", "FusedConv") for kind in kinds) == told.pop("Conv", 0) <= 2
    # engines may compute more in integers than is counted on, as pools with a window
    assert {op: kinds.count(op) for op in told if op in kinds}.items() <= told.items()
    slots = {placed.slot for placed in ops}
    strange = {n.name for n in nodes if n.name.partition("/")[0] not in slots}
    assert all(name.startswith(("Transpose", "Reorder")) for name in strange)


def optimised(path, recipe, folder):
    """Nodes of a file in int8 as ONNX Runtime runs them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(int8.rewritten(path, recipe), options)
    return onnx.load(folder / "optimised.onnx").graph.node


@pytest.fixture(scope="module")
def kit_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    content = real_kit(folder)
    generate(folder / "weights.bin", content["weights"], content["seed"])
    return folder, content


def test_a_kit_is_written_in_int8_on_the_device_and_nearly_all_of_its_time_belongs_to_slots(
    kit_folder,
):
    folder, content = kit_folder
    for item in content["items"][:2]:
        session = ort_cpu.load(folder / item["file"], INT8)
        slots = {op["slot"] for op in item["ops"]}
        profile = session.profile(20)
        shares = dict(map(tuple, open_models.attribute(profile, slots)))
        assert set(shares) - {""} <= slots
        assert shares.get("", 0.0) < 0.05 * sum(shares.values())
        assert session.time(1) > 0
        session.close()


def test_the_weights_of_a_kit_come_from_their_file(kit_folder):
    folder, content = kit_folder
    made = int8.rewritten(folder / content["items"][0]["file"], "u8s7")
    tensors = map(numpy_helper.to_array, onnx.load_from_string(made).graph.initializer)
    weights = [value for value in tensors if value.dtype == np.int8 and value.ndim > 1]
    assert len(weights) > 3
    assert all(np.abs(value).max() == 64 for value in weights)


def test_files_of_a_megabyte_are_a_third_of_their_fp32_at_most():
    """Of `mbv3-28-int8`, whose depthwise weights have three numbers of 4 bytes for each nine."""
    data = data_of(spaces.load("mbv3-28-int8").largest.ops)
    made = written(data, "u8s8", dict.fromkeys(qdq.placed(data).ranged, (-3, 3)))
    assert len(data) > 1 << 20
    assert len(made) < 0.32 * len(data)


def test_a_file_that_is_quantised_is_loaded_as_it_is(tmp_path):
    ops = networks(1)[0]
    path = tmp_path / "model.onnx"
    path.write_bytes(data_of(ops))
    path.write_bytes(int8.rewritten(path, "u8s8"))
    assert int8.rewritten(path, "u8s8") is None
    expected = run(path.read_bytes(), images(ops))
    session = ort_cpu.load(path, INT8)
    np.testing.assert_array_equal(session.run(images(ops)), expected)
    session.close()


@pytest.mark.parametrize("runtime", ["ort-cpu", "openvino"])
def test_a_session_says_how_long_its_file_was_written_or_read_for_that(runtime, tmp_path):
    """A package's program does none of it: it is no part of a cold start."""
    path = tmp_path / "model.onnx"
    path.write_bytes(data_of(networks(1)[0]))
    path.write_bytes(int8.rewritten(path, "u8s8"))
    session = runtimes.load(runtime).load(path, Target("host", runtime, precision="int8"))
    assert session.info()["rewrite_s"] > 0
    session.close()


@pytest.mark.parametrize(
    ("facts", "runtime", "expected"),
    [
        (X86, "ort-cpu", "u8s7"),
        ({**X86, "cpu_features": ["avx2", "avx512_vnni"]}, "ort-cpu", "u8s8"),
        ({**X86, "cpu_features": ["avx2", "avx_vnni"]}, "openvino", "u8s8"),
        ({"machine": "aarch64", "cpu_features": ["asimd"]}, "ort-cpu", "s8s8"),
        ({"machine": "aarch64", "cpu_features": None}, "tensorrt", "symmetric"),
        (X86, "litert", "s8s8"),
    ],
)
def test_the_recipe_is_that_of_the_processor_or_of_the_engine(facts, runtime, expected):
    own = runtimes.engine(runtime).recipe
    assert precisions.recipe("int8", facts, own) == expected
    assert precisions.recipe("fp32", facts, own) == precisions.recipe("fp16", facts, own) == ""


def test_a_convolution_that_reads_few_channels_stays_in_float_where_that_is_quicker():
    data = data_of(networks(1)[0])
    assert int8.in_float(data, "u8s8") == {**int8.in_float(data), "Conv": 1}
    assert int8.in_float(data, "u8s7") == int8.in_float(data, "u8s8")
    assert int8.in_float(data, "s8s8") == int8.in_float(data, "symmetric") == int8.in_float(data)
    made = onnx.load_from_string(written(data, "u8s8", dict.fromkeys(int8.ranged(data), (-3, 3))))
    assert made.graph.node[0].op_type == "Conv"
    assert "stem/conv/weight" in {tensor.name for tensor in made.graph.initializer}


def test_products_of_the_recipe_without_vnni_fit_in_16_bits():
    assert 2 * 255 * int8.RECIPES["u8s7"].weight_limit < 1 << 15
    assert 2 * 255 * int8.RECIPES["u8s8"].weight_limit > 1 << 15


def test_a_symmetric_network_has_no_zero_point_and_a_float_bias():
    data = data_of(networks(1)[0])
    made = onnx.load_from_string(
        written(data, "symmetric", dict.fromkeys(qdq.placed(data).ranged, (-3, 3)))
    )
    tensors = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    zeros = [value for value in tensors.values() if value.dtype == np.int8 and value.ndim < 2]
    assert zeros
    assert not any(value.any() for value in zeros)
    biases = [value for name, value in tensors.items() if name.endswith("/bias")]
    assert {value.dtype for value in biases} == {np.dtype(np.float32)}


@pytest.mark.parametrize("ends", [(-0.3, 6.0), (0.0, 6.0), (2.0, 6.0), (-4.0, -1.0), (0.0, 0.0)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_zero_and_the_ends_of_a_range_come_back(ends, recipe):
    made = int8.RECIPES[recipe]
    scale = qdq.scale_of(*ends, made)
    values = np.array([0.0, *ends])
    steps = qdq.as_steps(values, scale, "i1" if made.signed else "u1")
    back = scale.scale * (steps.astype(float) - scale.zero)
    assert back[0] == 0
    assert np.abs(back - values).max() <= scale.scale


@pytest.mark.parametrize("end", [np.nan, np.inf])
def test_a_range_that_is_no_number_is_refused(end):
    with pytest.raises(ConfigError, match="not a number"):
        qdq.scale_of(0.0, end, int8.RECIPES["u8s8"])


def test_a_large_bias_on_a_small_weight_fits_in_its_32_bits():
    weight, bias = np.full((2, 1), 1e-9, np.float32), np.array([100.0, 0.0], np.float32)
    scales = qdq.weight_scales(weight, 0, 127, bias, 0.01)
    assert np.abs(bias / (scales * 0.01)).max() < 2**31
    assert scales[1] == pytest.approx(1e-9 / 127)


def test_a_dead_channel_has_a_scale():
    scales = qdq.weight_scales(np.zeros((3, 4)), 0, 127, np.zeros(0), 1.0)
    assert scales.tolist() == [1.0] * 3


def test_an_op_without_an_integer_kernel_stays_between_two_pairs():
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 2, 4, 4)) for n in ("image", "out")
    ]
    weight = numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "a/w")
    nodes = [
        helper.make_node("Conv", ["image", "a/w"], ["a/x"], "a/x"),
        helper.make_node("Softsign", ["a/x"], ["a/y"], "a/y"),
        helper.make_node("Conv", ["a/y", "a/w"], ["out"], "b/z"),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    assert qdq.placed(data).in_float == {"Softsign": 1}
    made = onnx.load_from_string(
        written(data, "s8s8", dict.fromkeys(("image", "a/x", "a/y", "out"), (-1, 1)))
    )
    onnx.checker.check_model(made, full_check=True)
    read = {node.op_type: list(node.input) for node in made.graph.node}
    assert read["Softsign"] == ["a/x_dq"]
    assert [n.name for n in made.graph.node if n.op_type == "QuantizeLinear"] == [
        "a/image_q", "a/x_q", "a/y_q", "b/z_q",
    ]  # fmt: skip


def test_an_opset_without_scales_for_channels_is_refused():
    model = onnx.load_from_string(data_of(networks(1)[0]))
    model.opset_import[0].version = 11
    with pytest.raises(ConfigError, match="opset 11"):
        qdq.placed(model.SerializeToString())


def test_damaged_files_are_refused_or_still_a_message(tmp_path):
    data = data_of(TINY.smallest.ops)
    rng, path, refused = np.random.default_rng(0), tmp_path / "m.onnx", 0
    for _ in range(100):
        damaged = bytearray(data[: rng.integers(1, len(data))])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            int8.rewritten(path, "u8s8")
        except ConfigError:
            refused += 1
    assert refused > 70
