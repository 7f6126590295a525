"""OpenVINO and LiteRT, run for real: they compute what ONNX Runtime computes, of every op."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_ops import _examples
from test_runtimes import OPTIONAL

from hwnas.measuring import parity
from hwnas.networks import onnx_graph, spaces
from hwnas.networks.ops import op
from hwnas.networks.placed import PlacedOp, chain
from hwnas.settings.targets import REFERENCE, load_target
from profilers import runtimes
from profilers.errors import (
    ConfigError,
    MissingKernelError,
    RuntimeMissingError,
    VerificationError,
)
from profilers.precisions import fp16, int8
from profilers.schema import Target

LIMIT = 1e-5  # of the largest output
WINDOWS = {  # what no space holds, but models of the user's own do
    "conv:8:k7x7:p3x3:g8:b/h_swish": (8, 9, 9),
    "conv:8:k3x3:p2x2:d2x2:b/relu6": (8, 9, 9),
    "conv:8:k5x5:s2x2:p4x4:d2x2:g8:b/h_sigmoid": (8, 12, 12),
    "conv:12:k3x3:p1x1:g2:b/gelu": (8, 9, 9),
    "conv:16:k3x3:s2x2:p1x1:g8:b/silu": (8, 8, 8),
    "conv:8:k1x7:p0x3:b/relu": (3, 9, 9),
    "conv:6:k3:p4.0:d2:g2:b/relu": (8, 20),
    "conv:8:k5:s2:p2:g8:b/h_swish": (8, 21),
    "avg_pool:k3x3:s2x2:p1x1": (8, 8, 8),
    "avg_pool:k2x2:s2x2:p0.1x0.1": (8, 9, 9),
    "avg_pool:k3:s2:p1": (8, 10),
    "max_pool:k3x3:s2x2:p1x1": (8, 8, 8),
    "relu/max_pool:k3x3:s2x2:p1x1": (8, 8, 8),
    "max_pool:k3:s2:p1": (8, 10),
    "upsample:2/pad:p1.0x0.2/conv:4:b": (8, 5, 6),
    "upsample:3": (8, 7),
    "batch_norm/sigmoid": (8, 5, 6),
    "mean:1": (8, 5, 6),
    "mean:2:k": (8, 5, 6),
    "mean:1.2": (8, 5, 6),
    "relu/slice:0:f2:t8/concat:0@relu/slice:2:f1:t4": (8, 5, 6),
    "softmax": (7, 6),
    "affine:f2.0:o1.0/h_sigmoid": (8, 5, 6),
    "reshape:8x30/transpose:1.0/layer_norm/linear:8:b/attention:2@layer_norm+layer_norm": (8, 5, 6),
    "layer_norm/linear:6/gelu/linear:4:b/relu/mean:0": (7, 8),
    "conv:4:k3x3:p1x1:b/reshape/linear:10:b": (3, 5, 6),
    "matmul@in2": (4, 5, 5),
}


@pytest.fixture(params=OPTIONAL)
def runtime(request):
    """The name of a runtime whose engine is installed."""
    pytest.importorskip(runtimes.engine(request.param).module)
    return request.param


def weighted(ops, batch=2):
    """A model of some ops with weights inside, that keep values of order one."""
    rng = np.random.default_rng(0)
    weights = onnx_graph.weights_of(ops)
    sizes = {w.name: (w.shape, (2 / w.fan_in) ** 0.5 if w.fan_in else 0.3) for w in weights}
    values = {name: rng.normal(0, scale, shape) for name, (shape, scale) in sizes.items()}
    return onnx_graph.build(ops, values, batch)


def outputs(runtime, path, batch=2):
    """What an engine makes of one random batch; `[]` of a model of several inputs, which is run."""
    session = runtimes.load(runtime).load(path, Target("host", runtime, batch=batch))
    given = onnx.load(path).graph.input
    shapes = [[size.dim_value for size in each.type.tensor_type.shape.dim] for each in given]
    assert session.info()["input_shape"] == shapes[0]
    assert session.time(2) > 0
    image = np.random.default_rng(1).normal(size=shapes[0]).astype(np.float32)
    found = session.run(image) if len(shapes) == 1 else np.zeros(1)
    session.close()
    return found


def gap(runtime, ops, path):
    """Difference of an engine's outputs from ONNX Runtime's, as a share of the largest."""
    path.write_bytes(onnx_graph.to_bytes(weighted(ops)))
    return parity.difference(outputs("ort-cpu", path), outputs(runtime, path))


def test_every_op_of_the_spaces_computes_what_onnx_runtime_computes(runtime, tmp_path):
    gaps = {
        made.key: gap(runtime, chain([("slot", made)]), tmp_path / "model.onnx")
        for made in _examples()
        if len(made.inputs) == 1
    }
    assert {key: found for key, found in gaps.items() if found > LIMIT} == {}
    assert len(gaps) > 30


@pytest.mark.parametrize("does", WINDOWS)
def test_regions_of_own_models_compute_what_onnx_runtime_computes(runtime, does, tmp_path):
    reads = ("one", "two") if "in2" in does else ("one",)
    made = op("region", *[WINDOWS[does]] * len(reads), does=does)
    assert gap(runtime, (PlacedOp("slot", made, reads),), tmp_path / "model.onnx") <= LIMIT


@pytest.mark.parametrize("name", ["tiny", "mbv3-28", "tcn-128", "ofa-proxyless-w10"])
def test_random_networks_compute_what_onnx_runtime_computes(runtime, name, tmp_path):
    space = spaces.load(name)
    space = space.restricted(space.resolutions[:1])
    network = space.random(np.random.default_rng(3)).ops
    assert gap(runtime, network, tmp_path / "model.onnx") <= LIMIT


def test_a_file_without_a_name_of_its_own_is_known_by_its_content(runtime, tmp_path):
    network = spaces.load("tiny").smallest.ops
    (tmp_path / "m.onnx").write_bytes(onnx_graph.to_bytes(weighted(network)))
    expected = outputs(runtime, tmp_path / "m.onnx")
    convert = getattr(runtimes.load(runtime), "convert", None)
    data = convert(tmp_path / "m.onnx") if convert else (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "blob").write_bytes(data)
    session = runtimes.load(runtime).load(tmp_path / "blob", Target("host", runtime, batch=2))
    shape = session.info()["input_shape"]
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    assert np.array_equal(session.run(image), expected)
    session.close()


# ---- int8 --------------------------------------------------------------------------------------

EXACT = {  # the same integers in both engines
    "conv:8:k3x3:s2x2:p1x1:b/relu6": (8, 8, 8),
    "conv:8:k3x3:p1x1:g8:b/max_pool:k3x3:s2x2:p1x1": (8, 8, 8),
    "conv:12:k3x3:p1x1:g2:b/relu/mean:1.2:k": (8, 9, 9),
    "conv:6:k3:p4.0:d2:g2:b/relu": (8, 20),
    "conv:8:b/avg_pool:k2x2:s2x2:p0.1x0.1": (8, 9, 9),
    "conv:8:b/concat:0@in/slice:1:f1:t4": (8, 9, 9),
    "conv:8:b/silu/conv:4:b": (8, 9, 9),
    "conv:4:b/reshape/linear:10:b": (8, 3, 3),
    "layer_norm/linear:6:b/relu/linear:4:b": (7, 8),
}


def int8_gap(runtime, ops, path, recipe="s8s8"):
    """Difference of an engine's outputs from ONNX Runtime's, of one int8 file."""
    path.write_bytes(onnx_graph.to_bytes(weighted(ops)))
    path.write_bytes(int8.rewritten(path, recipe))
    return parity.difference(outputs("ort-cpu", path), outputs(runtime, path))


@pytest.mark.parametrize("does", EXACT)
def test_litert_computes_the_same_integers(does, tmp_path):
    pytest.importorskip("ai_edge_litert")
    made = chain([("slot", op("region", EXACT[does], does=does))])
    assert int8_gap("litert", made, tmp_path / "m.onnx") <= 1e-6
    assert int8_gap("litert", made, tmp_path / "m.onnx", "u8s8") <= 1e-6


@pytest.mark.parametrize("does", ["conv:8:b/h_sigmoid/mul@in/add@in", "conv:8:b/h_swish"])
def test_gates_of_litert_are_one_step_off_at_most(does, tmp_path):
    """Where a sum lies between two steps."""
    pytest.importorskip("ai_edge_litert")
    made = chain([("slot", op("region", (8, 9, 9), does=does))])
    assert int8_gap("litert", made, tmp_path / "m.onnx") <= 0.02


def test_networks_for_int8_compute_what_onnx_runtime_computes(runtime, tmp_path):
    network = spaces.load("mbv3-28-int8").random(np.random.default_rng(4)).ops
    assert int8_gap(runtime, network, tmp_path / "m.onnx") <= int8.PRECISION.tolerance
    data = (tmp_path / "m.onnx").read_bytes()
    convert = getattr(runtimes.load(runtime), "convert", None)
    assert convert is None or len(convert(tmp_path / "m.onnx")) < 1.2 * len(data)


def test_a_kit_is_written_in_int8_by_the_device(runtime, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_graph.to_bytes(weighted(spaces.load("tiny").smallest.ops)))
    target = Target("host", runtime, precision="int8", batch=2)
    plain = outputs(runtime, path)
    session = runtimes.load(runtime).load(path, target)
    shape = session.info()["input_shape"]
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    assert 0 < parity.difference(plain, session.run(image)) < 1
    session.close()


# ---- what is refused ---------------------------------------------------------------------------


def of_node(path, operator, shape=(1, 4, 6, 6), inputs=("image",), constants=(), **attributes):
    """A model of one node."""
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    names = [*inputs, *(each.name for each in constants)]
    node = helper.make_node(operator, names, ["out"], name="block/it", **attributes)
    graph = helper.make_graph([node], "g", [given], [out], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx_graph.to_bytes(model))
    return path


def numbers(name, values):
    return helper.make_tensor(name, TensorProto.FLOAT, np.shape(values), np.ravel(values).tolist())


@pytest.mark.parametrize(
    ("operator", "more"),
    [
        ("Erf", {}),
        ("Elu", {}),
        ("HardSigmoid", {"alpha": 0.2}),
        ("Softmax", {"axis": 1}),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [1] * 4, "count_include_pad": 1}),
    ],
)
def test_an_op_that_litert_lacks_is_named_with_the_engine_that_has_it(operator, more, tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = of_node(tmp_path / "m.onnx", operator, **more)
    told = rf"LiteRT has no {operator}.*block/it.*ort-cpu"
    with pytest.raises(MissingKernelError, match=told):
        runtimes.load("litert").load(path, Target("host", "litert"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", [REFERENCE, *OPTIONAL])
def test_an_op_that_no_engine_has_ends_with_the_engines_exit_code(name, precision, tmp_path):
    pytest.importorskip(runtimes.engine(name).module)
    path = of_node(tmp_path / "m.onnx", "Frobnicate")
    with pytest.raises(MissingKernelError, match=r" Frobnicate .*target of .*ort-cpu") as lacked:
        runtimes.load(name).load(path, Target("host", name, precision=precision))
    assert lacked.value.exit_code == 4


@pytest.mark.parametrize("content", [b"", b"\x08\x08", b"\0\0\0\0TFL3", b"\x1c\0\0\0TFL3" * 9])
def test_a_damaged_file_is_refused_in_one_line(runtime, content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match=r"m\.onnx|as ONNX|LiteRT file") as caught:
        runtimes.load(runtime).load(tmp_path / "m.onnx", Target("host", runtime))
    assert "\n" not in str(caught.value)


def test_an_engine_that_is_missing_or_old_is_told_with_the_command(runtime, monkeypatch):
    engine = runtimes.engine(runtime)
    monkeypatch.setattr(importlib.import_module(engine.module), "__version__", "1.0.0")
    with pytest.raises(
        RuntimeMissingError, match=rf"1\.0\.0 is older.*pip install -U {engine.pip}"
    ):
        runtimes.load(runtime).version()
    monkeypatch.setitem(sys.modules, engine.module, None)
    with pytest.raises(RuntimeMissingError, match=f"pip install {engine.pip}"):
        runtimes.load(runtime).version()


def test_an_optimisation_level_is_refused_where_an_engine_has_none(runtime, tmp_path):
    with pytest.raises(ConfigError, match="has no optimisation level 'basic'"):
        load_target(f"host.{runtime}.fp32.b1.t1.obasic", tmp_path)


def test_an_engine_that_computes_in_another_precision_is_noticed(tmp_path):
    """As OpenVINO does on ARM where nobody asks for single precision."""
    space = spaces.load("mbv3-28")
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_graph.to_bytes(weighted(space.smallest.ops, 1)))
    half = tmp_path / "half.onnx"
    half.write_bytes(fp16.rewritten(path))
    target = Target("board", "ort-cpu", hardware="host")
    with pytest.raises(VerificationError, match="computes something else"):
        parity.package_outputs(
            target, path, {"shape": space.input_shape(space.resolutions[0])}, half
        )


@pytest.mark.parametrize("recipe", ["u8s8", "s8s8"])
def test_what_an_engine_rounds_of_an_int8_file_tells_whether_it_ignores_its_pairs(
    runtime, recipe, tmp_path
):
    path, plain = tmp_path / "m.onnx", tmp_path / "plain.onnx"
    path.write_bytes(onnx_graph.to_bytes(weighted(spaces.load("tiny").largest.ops)))
    path.write_bytes(int8.rewritten(path, recipe))
    plain.write_bytes(int8.unrounded(path.read_bytes()))
    onnx.checker.check_model(plain, full_check=True)
    both = outputs(REFERENCE, path), outputs(REFERENCE, plain)
    assert parity.rounding(*both, outputs(runtime, path)) > 0.8
    assert parity.rounding(*both, outputs(runtime, plain)) < parity.LEAST_ROUNDING
