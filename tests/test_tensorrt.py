"""TensorRT of every supported version, modelled (no GPU here), and real builds with TensorRT-RTX.

The modelled modules have the documented members of their version and no others; the networks they
run are computed by ONNX Runtime, so outputs, layers and tensors are real and only times are not.
"""

import importlib.util
import json
import os
import signal
from types import SimpleNamespace

import fake_cuda
import fake_tensorrt
import numpy as np
import onnxruntime
import pytest
import tensorrt_api
import tf32
from onnx import TensorProto, helper, numpy_helper
from worker_kits import real_kit

from hwnas.measuring import parity
from hwnas.networks import onnx_graph, spaces
from profilers import open_models
from profilers.engines import cudart, plan_cache, probe, tensorrt_build, tensorrt_names
from profilers.errors import (
    ConfigError,
    DeviceError,
    DeviceFaultError,
    MemoryShortError,
    ModelError,
    RuntimeMissingError,
)
from profilers.runtimes import tensorrt
from profilers.schema import Target
from profilers.weights import generate

RUNNING = [version for version in tensorrt_api.VERSIONS if version != "rtx"]
FP32, FP16, INT8 = (Target("host", "tensorrt", precision=name) for name in ("fp32", "fp16", "int8"))
REGION = ("stage1.block1/project", "stage1.block2/expand")


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    content = real_kit(folder)
    generate(folder / "weights.bin", content["weights"], content["seed"])
    return folder


@pytest.fixture
def gpu(monkeypatch):
    """A modelled GPU; `gpu(version)` puts TensorRT of a version on it."""
    library = fake_cuda.Library()
    monkeypatch.setattr(cudart, "load", lambda: cudart.Cuda(library))
    monkeypatch.setattr(cudart, "_library", lambda: library)
    monkeypatch.setattr(cudart, "probe_facts", cudart.facts)

    def install(version, region=()):
        module = fake_tensorrt.module(version, library, region)
        monkeypatch.setattr(tensorrt_build, "module", lambda: module)
        monkeypatch.setattr(probe, "ask", lambda *_: tensorrt_build.facts())
        return module

    install.library = library
    return install


def opened(kit, target=FP32, number=1):
    return tensorrt.load(kit / f"model-{number:03d}.onnx", target)


def images(seed=0):
    return np.random.default_rng(seed).normal(size=(1, 1, 8, 8)).astype(np.float32)


def plain(path, inputs):
    return onnxruntime.InferenceSession(str(path)).run(None, {"image": inputs})[0]


def one_op(path, op="Relu", shape=(1, 3), **attributes):
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("image", "out")]
    node = helper.make_node(op, ["image"], ["out"], name="stem/op", **attributes)
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


# ---- every version -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", RUNNING)
@pytest.mark.parametrize("target", [FP32, FP16, INT8], ids=["fp32", "fp16", "int8"])
def test_a_network_is_built_timed_profiled_and_run_on_every_version(version, target, kit, gpu):
    trt = gpu(version)
    session = opened(kit, target)
    assert session.time(4) == pytest.approx(4 * fake_cuda.CALL_MS)
    assert gpu.library.launched == 4
    slots = {op["slot"] for op in json.loads((kit / "kit.json").read_text())["items"][1]["ops"]}
    found = dict(open_models.attribute(session.profile(3), slots))
    assert set(found) == slots
    expected = plain(kit / "model-001.onnx", images())
    gap = parity.difference(expected, session.run(images()))
    # the kit's weights are so small that steps of the rule's ranges are larger than activations
    assert gap < (np.inf if target is INT8 else parity.tolerance_of(target.precision))
    assert session.info()["input_shape"] == [1, 1, 8, 8]
    session.close()
    allowed = tensorrt_api.members(version)
    for name, used in trt.used.items():
        assert used <= allowed[name] | tensorrt_api.OPTIONAL.get(name, set())


@pytest.mark.parametrize("version", RUNNING)
def test_int8_is_in_the_graph_and_a_flag_where_there_is_one(version, kit, gpu):
    gpu(version)
    engine = fake_tensorrt.inside(opened(kit, INT8)._engine)
    assert ("INT8" in engine.flags) == (int(version.split(".")[0]) < 11)
    assert any(node.op_type == "QuantizeLinear" for node in engine.graph.node)
    tensors = {t.name: numpy_helper.to_array(t) for t in engine.graph.initializer}
    assert not any(value.any() for name, value in tensors.items() if name.startswith("zero_"))


@pytest.mark.parametrize("version", RUNNING)
def test_a_closed_session_leaves_nothing_on_the_gpu(version, kit, gpu):
    gpu(version)
    session = opened(kit)
    session.time(1)
    session.profile(1)
    session.close()
    library = gpu.library
    assert library.memory == {}
    assert library.graphs.keys() <= set(range(0x2000))
    assert library.live == {"stream": set(), "event": set(), "graph_exec": set()}


@pytest.mark.parametrize("version", RUNNING)
def test_fp16_is_a_flag_where_there_is_one_and_the_graphs_type_where_not(version, kit, gpu):
    gpu(version)
    engine = fake_tensorrt.inside(opened(kit, FP16)._engine)
    has_flag = int(version.split(".")[0]) < 11
    assert ("FP16" in engine.flags) == has_flag
    casts = [node for node in engine.graph.node if node.op_type == "Cast"]
    assert bool(casts) != has_flag


@pytest.mark.parametrize("version", RUNNING)
def test_fp32_is_not_tf32_which_the_tolerance_of_fp32_would_refuse(version, kit, gpu):
    gpu(version)
    session, path = opened(kit, FP32), kit / "model-001.onnx"
    assert "TF32" not in fake_tensorrt.inside(session._engine).flags
    (kit / "tf32.onnx").write_bytes(tf32.model(path.read_bytes(), kit))
    expected = plain(path, images())
    assert parity.difference(expected, session.run(images())) < 1e-6
    assert parity.difference(expected, plain(kit / "tf32.onnx", images())) > parity.tolerance_of(
        "fp32"
    )


def test_versions_name_what_changes_a_latency(gpu):
    gpu("10.3.0")
    expected = "10.3.0, CUDA 12.6, Modelled GPU (compute capability 8.7)"
    assert tensorrt.version() == expected


def test_the_optimisation_level_reaches_the_build(kit, gpu):
    gpu("10.3.0")
    for name, level in tensorrt_build.LEVELS.items():
        target = Target("host", "tensorrt", optimisation=name)
        assert fake_tensorrt.inside(opened(kit, target)._engine).level == level
    with pytest.raises(ConfigError, match="no optimisation level 'layout'"):
        opened(kit, Target("host", "tensorrt", optimisation="layout"))
    gpu("8.5.2")
    with pytest.raises(ConfigError, match=r"8\.5\.2 has no optimisation levels"):
        opened(kit, Target("host", "tensorrt", optimisation="basic"))


# ---- fused layers ------------------------------------------------------------------------------


def test_a_region_over_two_blocks_keeps_both_names(kit, gpu):
    gpu("10.3.0", REGION)
    nodes = opened(kit).profile(2)
    slots = {op["slot"] for op in json.loads((kit / "kit.json").read_text())["items"][1]["ops"]}
    found = [slot for slot, _ in open_models.attribute(nodes, slots)]
    assert "stage1.block1+stage1.block2" in found
    assert "" not in found


@pytest.mark.parametrize(
    ("layer", "metadata", "nodes"),
    [
        ("a/conv + a/relu", "", ["a/conv", "a/relu"]),
        ("PWN(a/sigmoid, a/mul)", "", ["PWN", "a/sigmoid", "a/mul"]),
        ("{ForeignNode[a/x...b/y]}", "", ["ForeignNode", "a/x", "b/y"]),
        ("__myl_0", "[ONNX Layer: a/x]\x1e[ONNX Layer: b/y]\x1f[ONNX Layer: a/x]", ["a/x", "b/y"]),
        (
            "Reformatting CopyNode for Input Tensor 0 to a/conv",
            "",
            ["Reformatting", "CopyNode", "for", "Input", "Tensor", "0", "to", "a/conv"],
        ),
    ],
)
def test_layers_are_traced_to_the_onnx_nodes_they_were_fused_from(layer, metadata, nodes):
    assert tensorrt_names.nodes_of(layer, metadata) == nodes


# ---- plans that are kept -----------------------------------------------------------------------


def test_an_engine_is_built_once_and_its_timings_are_kept(tmp_path, gpu, monkeypatch):
    trt = gpu("10.3.0")
    path = one_op(tmp_path / "m.onnx")
    built = []
    real = tensorrt_build.build
    monkeypatch.setattr(
        tensorrt_build, "build", lambda *given: built.append(given[3]) or real(*given)
    )
    first = plan_cache.plan_of(trt, path, FP32, "gpu")
    assert plan_cache.plan_of(trt, path, FP32, "gpu") == (first.data, 0.0, b"+m.onnx")
    assert plan_cache.plan_of(trt, path, FP16, "gpu").data != first.data
    assert plan_cache.plan_of(trt, path, FP32, "another gpu").data
    assert built == [b"", b"+m.onnx", b""]
    assert len(list(tmp_path.glob("*.timing"))) == 2


def test_a_plan_that_is_not_whole_is_built_again(tmp_path, gpu):
    trt = gpu("10.3.0")
    path = one_op(tmp_path / "m.onnx")
    plan_cache.plan_of(trt, path, FP32, "gpu")
    kept = next(tmp_path.glob("*.plan"))
    for damage in (kept.read_bytes()[:-1], b"", b"x" * 100):
        kept.write_bytes(damage)
        assert plan_cache.plan_of(trt, path, FP32, "gpu").data == plan_cache.opened(kept)


@pytest.mark.parametrize("kept", [b"damaged", fake_tensorrt.OTHER_DEVICE])
def test_timings_that_the_engine_does_not_take_are_taken_anew(tmp_path, gpu, kept):
    """Whether it makes no cache of them, or a cache that it refuses to use."""
    trt = gpu("10.3.0")
    assert tensorrt_build.build(trt, one_op(tmp_path / "m.onnx"), FP32, kept).timing == b"+m.onnx"


def test_a_layer_of_which_the_inspector_says_nothing_goes_by_its_name(kit, gpu, monkeypatch):
    trt = gpu("10.3.0")
    whole = fake_tensorrt.Engine.create_engine_inspector

    def silent(engine):
        inspector = whole(engine)
        told = fake_tensorrt.inside(inspector).get_layer_information
        fake_tensorrt.inside(inspector).get_layer_information = lambda i, form: (
            told(i, form) if i else ""
        )
        return inspector

    known = [time.node_name for time in opened(kit).profile(2)]
    monkeypatch.setattr(fake_tensorrt.Engine, "create_engine_inspector", silent)
    assert [time.node_name for time in opened(kit).profile(2)] == known
    assert trt.used["EngineInspector"] == {"get_layer_information"}


def test_a_plan_that_was_built_in_another_way_is_not_read(tmp_path, gpu, monkeypatch):
    trt = gpu("10.3.0")
    path = one_op(tmp_path / "m.onnx")
    plan_cache.plan_of(trt, path, FP32, "gpu")
    monkeypatch.setattr(tensorrt_build, "BUILD_VERSION", tensorrt_build.BUILD_VERSION - 1)
    assert plan_cache.plan_of(trt, path, FP32, "gpu").build_s > 0


def test_plans_that_find_no_room_are_built_anew(tmp_path, gpu, monkeypatch):
    trt = gpu("10.3.0")
    path = one_op(tmp_path / "m.onnx")
    monkeypatch.setattr(plan_cache, "MOST_BYTES", 10)
    plans = [plan_cache.plan_of(trt, path, FP32, "gpu").data for _ in range(2)]
    assert plans[0] != plans[1]
    assert not list(tmp_path.glob("*.plan"))
    assert len(list(tmp_path.glob("*.timing"))) == 1


# ---- what is refused ---------------------------------------------------------------------------


def test_every_error_of_the_parser_is_told_in_one_line(tmp_path, gpu):
    gpu("10.3.0")
    with pytest.raises(ConfigError, match="Einsum is not there; nor is it planned"):
        tensorrt.load(one_op(tmp_path / "m.onnx", "Einsum", equation="ab->ab"), FP32)
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"cannot load m\.onnx: not ONNX"):
        tensorrt.load(tmp_path / "m.onnx", FP32)
    with pytest.raises(ConfigError, match="no such file"):
        tensorrt.load(tmp_path / "missing.onnx", FP32)


def test_a_build_that_fails_says_what_the_engine_said(tmp_path, gpu):
    gpu("10.3.0")
    with pytest.raises(ConfigError, match=r"cannot build m\.onnx: no kernel for what the graph"):
        tensorrt.load(one_op(tmp_path / "m.onnx", "Det", (2, 2)), FP32)


def test_free_shapes_are_refused(tmp_path, gpu):
    gpu("10.3.0")
    with pytest.raises(ConfigError, match="--input-shape"):
        tensorrt.load(one_op(tmp_path / "m.onnx", shape=("n", 3)), FP32)


def test_a_gpu_that_fails_is_an_error_of_the_device(kit, gpu):
    gpu("10.3.0")
    session = opened(kit)
    gpu.library.fails["cudaStreamEndCapture"] = 901
    with pytest.raises(DeviceError, match=r"cudaStreamEndCapture failed: modelled error .*901"):
        session.time(1)
    with pytest.raises(ConfigError, match=r"inputs have shape \[1, 1, 9, 9\], the model takes"):
        session.run(np.zeros((1, 1, 9, 9), np.float32))


def test_a_fault_of_the_gpu_is_told_from_memory_that_is_short(kit, gpu):
    """After a fault only another process can go on; what was short of memory gives all back."""
    gpu("10.3.0")
    session = opened(kit)
    held = gpu.library.free_bytes()
    gpu.library.total_bytes -= held - 100
    with pytest.raises(MemoryShortError, match=r"cudaMalloc failed: .*256 bytes.*100 of \d+ are"):
        opened(kit, number=2)
    assert gpu.library.free_bytes() == 100
    assert tensorrt.free_bytes() == 100
    gpu.library.fault = 700
    with pytest.raises(DeviceFaultError, match=r"CUDA error 700"):
        session.time(1)


def test_what_a_kernel_did_is_told_by_a_later_call(kit, gpu):
    """Launches return at once, and without an error."""
    gpu("10.3.0")
    session = opened(kit)
    session.time(1)
    gpu.library.fault_after = 2
    with pytest.raises(DeviceFaultError, match=r"cudaEventSynchronize failed: .*CUDA error 700"):
        session.time(2)
    with pytest.raises(DeviceFaultError, match=r"CUDA error 700"):
        session.run(images())


@pytest.mark.parametrize(
    ("logged", "kind"),
    [
        (["no kernel for what the graph asks"], ModelError),
        (["Error Code 1: Cuda Runtime (out of memory)", "Error Code 10: no implementation for"],
         MemoryShortError),
        (["Error Code 2: OutOfMemory (no further information)", "no plan"], MemoryShortError),
        (["1: [scopedCudaResources.cpp] Error Code 1: Cuda Runtime (an illegal memory access was "
          "encountered)"], DeviceFaultError),
    ],
)  # fmt: skip
def test_a_build_that_finds_no_memory_is_not_the_models_fault(logged, kind):
    """The reason is an earlier line of the log: tactics are skipped for want of memory."""
    assert type(tensorrt_build.failed("cannot build", SimpleNamespace(errors=logged))) is kind


def test_an_engine_that_does_not_load_is_an_error_of_the_device(gpu):
    trt = gpu("10.3.0")
    with pytest.raises(DeviceError, match="the plan is of another version"):
        tensorrt.TensorRtSession(trt, cudart.load(), plan_cache.Plan(b"a plan", 0.0), "m.onnx")


def test_without_tensorrt_its_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(RuntimeMissingError, match=r"pip install tensorrt-cu13 \(Jetson"):
        tensorrt_build.module()


def test_tensorrt_older_than_8_5_is_refused(monkeypatch):
    old = type("Old", (), {"__version__": "8.2.1", "IExecutionContext": object})
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", old)
    with pytest.raises(RuntimeMissingError, match=r"8\.2\.1 is older than 8\.5"):
        tensorrt_build.module()


def test_without_a_driver_the_builder_says_so(gpu, monkeypatch):
    trt = gpu("10.3.0")

    def nothing(logger):
        logger.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Builder", nothing)
    with pytest.raises(RuntimeMissingError, match="error: 35; install the NVIDIA driver"):
        tensorrt_build.facts()


# ---- asking in a process of its own ------------------------------------------------------------


def test_cuda_here_is_an_answer_and_never_a_crash():
    """On a machine with a GPU the facts, elsewhere what is missing and how to get it."""
    try:
        found, said = cudart.probe_facts(), ""
    except RuntimeMissingError as missing:
        found, said = {}, str(missing)
    assert set(found) == {"cuda", "driver", "gpu", "capability"} or "install" in said
    assert "\n" not in said


def test_a_library_without_a_gpu_is_said_to_find_none(monkeypatch):
    monkeypatch.setattr(cudart, "_library", lambda: fake_cuda.Library(devices=0))
    with pytest.raises(RuntimeMissingError, match=r"finds no GPU: modelled error \(CUDA error 100"):
        cudart.facts()


def test_the_installed_library_has_every_function_that_the_modelled_one_has():
    try:
        library = cudart._library()
    except RuntimeMissingError as missing:
        pytest.skip(str(missing))
    names = [name for name in dir(fake_cuda.Library()) if name.startswith("cuda")]
    assert [name for name in names if not hasattr(library, name)] == []


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def refuse():
    raise RuntimeMissingError("it is not installed")


def answer():
    print("engines print")
    return {"version": 3}


@pytest.fixture
def here(monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))


def test_a_crash_in_the_process_that_asks_is_told(here):
    with pytest.raises(RuntimeMissingError, match=r"crashed the process that queried .* SIGSEGV"):
        probe.ask("test_tensorrt", "crash")


def test_answers_and_errors_come_back_from_the_process_that_asks(here):
    assert probe.ask("test_tensorrt", "answer") == {"version": 3}
    with pytest.raises(RuntimeMissingError, match=r"^it is not installed$"):
        probe.ask("test_tensorrt", "refuse")


# ---- real builds: TensorRT-RTX needs no GPU for them -------------------------------------------

RTX_MISSING = importlib.util.find_spec("tensorrt_rtx") is None
real_builds = pytest.mark.skipif(
    RTX_MISSING, reason="tensorrt-rtx-cu13 (95 MB) is not installed: pip install tensorrt-rtx-cu13"
)


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx")


@real_builds
@pytest.mark.parametrize("target", [FP32, FP16, INT8], ids=["fp32", "fp16", "int8"])
def test_networks_of_a_kit_are_really_built(rtx, kit, target):
    built = tensorrt_build.build(rtx, kit / "model-001.onnx", target, b"")
    assert len(built.plan) > 10_000
    assert built.timing
    assert tensorrt_build.build(rtx, kit / "model-007.onnx", target, built.timing).plan


@real_builds
@pytest.mark.parametrize("name", spaces.names())
def test_networks_of_every_space_are_really_built_and_fewer_bits_make_smaller_plans(
    rtx, name, tmp_path
):
    space = spaces.load(name)
    ops = space.restricted([space.resolutions[0]]).smallest.ops
    rng = np.random.default_rng(0)
    values = {w.name: rng.normal(0, 0.05, w.shape) for w in onnx_graph.weights_of(ops)}
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values)))
    single, half, quarter = (
        len(tensorrt_build.build(rtx, path, t, b"").plan) for t in (FP32, FP16, INT8)
    )
    weights = 4 * sum(value.size for value in values.values())
    assert single - half > 0.4 * weights or weights < 1 << 20
    assert single - quarter > 0.2 * weights or weights < 1 << 20


@real_builds
def test_what_the_real_parser_refuses_is_told_in_one_line(rtx, tmp_path):
    path = one_op(tmp_path / "m.onnx", "Det", (2, 2))
    with pytest.raises(ConfigError, match=r"cannot (load|build) m\.onnx: .") as refused:
        tensorrt_build.build(rtx, path, FP32, b"")
    assert "\n" not in str(refused.value)


@real_builds
def test_the_real_builder_allows_tf32_unless_that_is_cleared(rtx):
    builder = rtx.Builder(tensorrt_build.make_logger(rtx))
    assert builder.create_builder_config().get_flag(rtx.BuilderFlag.TF32)
    for target, allowed in ((FP32, False), (FP16, True)):
        config = tensorrt_build._config(rtx, builder, target)
        assert config.get_flag(rtx.BuilderFlag.TF32) == allowed


@real_builds
def test_the_real_module_has_the_members_that_the_table_names(rtx):
    for name, known in tensorrt_api.members("rtx").items():
        assert known <= set(dir(getattr(rtx, name))), name
    for name, optional in tensorrt_api.OPTIONAL.items():
        found = optional & set(dir(getattr(rtx, name)))
        assert found == optional & tensorrt_api.members("rtx")[name]
