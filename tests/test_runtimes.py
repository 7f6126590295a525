"""Runtimes: one contract for all, and each against its engine."""

import json
import shutil

import fake_cuda
import fake_ort_cuda
import fake_tensorrt
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from worker_kits import TINY, fake_kit, fake_target, networks, real_kit

from hwnas.fakes import machine
from hwnas.fakes.runtimes import fake
from hwnas.networks import onnx_graph
from hwnas.networks.ops import op
from profilers import open_models, runtimes
from profilers.engines import cudart, ort, probe, tensorrt_build
from profilers.errors import ConfigError, DeviceError, RuntimeMissingError
from profilers.runtimes import ort_cpu
from profilers.schema import Target
from profilers.weights import generate

ORT = Target("host", "ort-cpu")
KNOWN = ("fake", "ort-cpu", "ort-cuda", "tensorrt")
OPTIONAL = tuple(sorted(set(runtimes.names()) - set(KNOWN)))  # run for real where installed


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kits")
    kit = real_kit(folder / "ort-cpu")
    generate(folder / "ort-cpu" / "weights.bin", kit["weights"], kit["seed"])
    fake_kit(folder / "fake")
    for name in sorted(set(runtimes.names()) - {"ort-cpu", "fake"}):
        shutil.copytree(folder / "ort-cpu", folder / name)
    return folder


@pytest.fixture
def engines(monkeypatch):
    """Modelled engines in place of those that need a GPU."""
    library = fake_cuda.Library()
    monkeypatch.setattr(cudart, "load", lambda: cudart.Cuda(library))
    monkeypatch.setattr(cudart, "_library", lambda: library)
    monkeypatch.setattr(cudart, "probe_facts", cudart.facts)
    trt = fake_tensorrt.module("10.3.0", library)
    monkeypatch.setattr(tensorrt_build, "module", lambda: trt)
    monkeypatch.setattr(probe, "ask", lambda *_: tensorrt_build.facts())
    gpu = fake_ort_cuda.module(kernels=True)

    def install(name):
        if name == "ort-cuda":
            monkeypatch.setattr(ort, "engine", lambda: gpu)
        if name in OPTIONAL:
            pytest.importorskip(runtimes.engine(name).module)

    return install


def opened(name, kits, number=1, **options):
    target = fake_target(**options) if name == "fake" else Target("host", name)
    return runtimes.load(name).load(kits / name / f"model-{number:03d}.onnx", target)


# ---- the contract of every runtime -------------------------------------------------------------


@pytest.mark.parametrize("name", runtimes.names())
def test_a_session_times_loops_and_closes(name, kits, engines):
    engines(name)
    session = opened(name, kits)
    assert session.time(3) > 0
    assert session.info()["input_shape"] == [1, 1, 8, 8]
    session.close()
    assert runtimes.load(name).version()


@pytest.mark.parametrize("name", runtimes.names())
def test_node_times_are_attributed_to_the_ops_of_the_network(name, kits, engines):
    engines(name)
    items = json.loads((kits / name / "kit.json").read_text())["items"]
    slots = {op["slot"] for op in items[1]["ops"]}
    nodes = opened(name, kits).profile(5)
    assert (nodes is not None) == runtimes.engine(name).node_times
    if nodes is None:
        return
    found = dict(open_models.attribute(nodes, slots))
    assert set(found) == slots
    assert all(ms >= 0 for ms in found.values())


@pytest.mark.parametrize("name", runtimes.names())
def test_a_model_that_is_not_there_is_named(name, tmp_path, engines):
    engines(name)
    with pytest.raises(ConfigError, match=r"missing\.onnx"):
        runtimes.load(name).load(tmp_path / "missing.onnx", Target("host", name))


def test_an_unknown_runtime_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown runtime 'ort-cup'; did you mean 'ort-cpu'"):
        runtimes.load("ort-cup")


def test_a_runtime_may_be_the_users_own():
    assert runtimes.load("profilers.runtimes:ort_cpu") is ort_cpu
    with pytest.raises(ConfigError, match="cannot be loaded"):
        runtimes.load("no_such_module:RUNTIME")


# ---- ONNX Runtime on the CPU -------------------------------------------------------------------


def embedded(path, batch=1, seed=0):
    ops = networks(1, seed)[0]
    rng = np.random.default_rng(seed)
    values = {w.name: rng.normal(0, 0.2, w.shape) for w in onnx_graph.weights_of(ops)}
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values, batch)))
    return path


@pytest.mark.parametrize(
    "level", [n for n, v in ort.LEVELS.items() if hasattr(onnxruntime.GraphOptimizationLevel, v)]
)
def test_outputs_are_those_of_the_engine_at_every_level(level, tmp_path):
    path = embedded(tmp_path / "model.onnx", batch=2)
    images = np.random.default_rng(1).normal(size=(2, TINY.in_channels, 8, 8)).astype(np.float32)
    plain = onnxruntime.InferenceSession(str(path)).run(None, {"image": images})[0]
    session = ort_cpu.load(path, Target("host", "ort-cpu", batch=2, optimisation=level))
    np.testing.assert_allclose(session.run(images), plain, rtol=1e-4, atol=1e-5)
    session.close()


def test_threads_spin_on_where_the_target_says_so():
    place = ort.Place([], "cpu", {}, None)
    stop = "session.force_spinning_stop"
    for target, expected in [
        (Target("host", "ort-cpu"), ("0", "1")),
        (Target("host", "ort-cpu", threads=2), ("1", "1")),
        (Target("host", "ort-cpu", threads=2, spinning=True), ("1", None)),
    ]:
        chosen = ort.options(onnxruntime, target, place)
        assert chosen.get_session_config_entry("session.intra_op.allow_spinning") == expected[0]
        if expected[1]:
            assert chosen.get_session_config_entry(stop) == expected[1]
        else:
            with pytest.raises(RuntimeError, match="does not have"):
                chosen.get_session_config_entry(stop)


def test_the_optimisation_level_reaches_the_engine(tmp_path):
    path = embedded(tmp_path / "model.onnx")

    def count(level):
        session = ort_cpu.load(path, Target("host", "ort-cpu", optimisation=level))
        return len(session.profile(2))

    assert count("disable") > count("extended")  # more than that adds nodes that reorder tensors


def test_profiles_leave_no_files_behind(kits, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert opened("ort-cpu", kits).profile(2)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_model_is_refused_in_one_line(tmp_path):
    path = embedded(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"cannot load model\.onnx") as caught:
        ort_cpu.load(path, ORT)
    assert "\n" not in str(caught.value)


def test_a_model_with_free_shapes_is_refused_with_what_to_do(tmp_path):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["out"])], "g", [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "free.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match="--input-shape"):
        ort_cpu.load(tmp_path / "free.onnx", ORT)


def test_inputs_of_another_shape_are_refused(tmp_path):
    session = ort_cpu.load(embedded(tmp_path / "model.onnx"), ORT)
    with pytest.raises(ConfigError, match=r"inputs have shape \[1, 1, 9, 9\], the model takes"):
        session.run(np.zeros((1, 1, 9, 9), np.float32))


def test_an_engine_without_a_level_is_said_to_lack_it(monkeypatch):
    monkeypatch.delattr(onnxruntime.GraphOptimizationLevel, "ORT_ENABLE_LAYOUT", raising=False)
    place = ort.Place([], "cpu", {}, ort_cpu.node_times)
    with pytest.raises(RuntimeMissingError, match="no optimisation level 'layout'"):
        ort.options(onnxruntime, Target("host", "ort-cpu", optimisation="layout"), place)


def test_an_old_engine_is_refused(monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", "1.9.0")
    with pytest.raises(RuntimeMissingError, match=r"1\.9\.0 is older than 1\.17"):
        ort_cpu.version()


def test_a_missing_engine_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(RuntimeMissingError, match="pip install onnxruntime"):
        ort_cpu.version()


def event(name, ts, dur, cat="Node"):
    return {"cat": cat, "name": name, "ts": ts, "dur": dur}


def test_node_times_are_means_over_the_faster_half_of_the_runs():
    runs = ort.PROFILE_WARM_UP + 4
    slow = [90, 90, 90, 4, 8, 50, 6]  # three runs of warm-up, then four
    events = [event("model_loading", 0, 1, "Session")]
    for i in reversed(range(runs)):  # order in the file does not count
        events.append(event("stem/conv_nchwc_kernel_time", 10 * i, slow[i]))
        events.append(event("ReorderOutput_kernel_time", 10 * i + 5, 2))
    found = ort_cpu.node_times(events, runs)
    assert found == [("stem/conv_nchwc", "stem/conv", 0.005), ("ReorderOutput", "", 0.002)]


def test_a_profile_whose_runs_differ_is_refused():
    events = [event(f"n{i}_kernel_time", i, 1) for i in range(5)]
    with pytest.raises(DeviceError, match="same nodes"):
        ort_cpu.node_times(events, 5)
    with pytest.raises(DeviceError, match="same nodes"):
        ort_cpu.node_times([], 5)


# ---- modelled times ----------------------------------------------------------------------------


def test_modelled_times_follow_the_ops(kits):
    items = json.loads((kits / "fake" / "kit.json").read_text())["items"]
    quiet = opened("fake", kits, noise=0, seed=1)
    expected = fake.RUN_MS + sum(fake.op_ms(op["key"]) for op in items[1]["ops"])
    assert quiet.time(10) == pytest.approx(10 * expected)
    micro = next(i for i, item in enumerate(items) if item["role"] == "micro")
    alone = (1 + fake.MICRO_SHARE) * fake.op_ms(items[micro]["ops"][0]["key"])
    found = opened("fake", kits, micro, noise=0, seed=1).time(1)
    assert found == pytest.approx(fake.RUN_MS + alone)


def test_more_macs_cost_more_modelled_time():
    small, large = (op("conv", (3, s, s), out=8, kernel=3, act="relu").key for s in (8, 16))
    assert fake.op_ms(small) < fake.op_ms(large) < fake.op_ms(large, batch=8)


def test_equal_seeds_give_equal_times_and_others_do_not(kits):
    def times(**options):
        machine._machine.cache_clear()
        session = opened("fake", kits, **options)
        return [session.time(1) for _ in range(5)]

    assert times(seed=1) == times(seed=1) != times(seed=2)


def test_a_disturbance_lasts_as_long_as_it_says(kits):
    machine._machine.cache_clear()
    options = {"noise": 0, "open_s": 0, "slow": "0.01-0.02x3"}
    session, now_s = opened("fake", kits, **options), fake.clock(fake_target(**options))
    seen = []
    while now_s() < 0.05:
        before = now_s()
        seen.append((0.01 <= before < 0.02, session.time(1)))
    base = min(ms for _, ms in seen)
    assert {slow: round(ms / base, 6) for slow, ms in seen} == {False: 1.0, True: 3.0}


def test_a_companion_file_sets_the_modelled_time(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x" * 1000)
    assert fake.load(tmp_path / "m.onnx", fake_target(noise=0)).time(1) == pytest.approx(0.011)
    (tmp_path / "m.onnx.fake.json").write_text('{"ms": 2.5}')
    assert fake.load(tmp_path / "m.onnx", fake_target(noise=0)).time(2) == pytest.approx(5.02)


def test_a_modelled_machine_computes_nothing_and_says_so(kits):
    with pytest.raises(DeviceError, match="computes no outputs"):
        opened("fake", kits).run(np.zeros((1, 1, 8, 8)))


@pytest.mark.parametrize("options", [{"noise": "much"}, {"slow": "1-2"}, {"slow": "ax2"}])
def test_an_option_that_cannot_be_read_is_named(kits, options):
    with pytest.raises(ConfigError, match=f"fake option {next(iter(options))}"):
        opened("fake", kits, **options).time(1)
