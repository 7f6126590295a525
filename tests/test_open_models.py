"""The device's part of the protocol, with scripted sessions: no time is measured here."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profilers import open_models
from profilers.errors import DeviceError, DeviceFaultError, MemoryShortError, RuntimeMissingError
from profilers.open_models import OpenModels, attribute, calibrate
from profilers.runtimes import NodeTime
from profilers.schema import Target

TARGET = Target("host", "ort-cpu")


class Scripted:
    """A session that takes ms a run, and more in its first runs."""

    def __init__(self, ms, first=(), memory=1, nodes=None):
        self.ms, self.first, self.memory, self.nodes = ms, list(first), memory, nodes
        self.runs, self.closed = 0, False

    def time(self, loops):
        self.runs += loops
        extra = sum(self.first.pop(0) for _ in range(min(loops, len(self.first))))
        return self.ms * loops + extra

    def profile(self, loops):
        self.profile_loops = loops
        return self.nodes

    def info(self):
        return {"input_shape": None, "memory_bytes": self.memory}

    def close(self):
        self.closed = True


class Scripts:
    """A runtime whose models are scripted."""

    def __init__(self, **sessions):
        self.sessions = sessions

    def load(self, model_path, target):
        return self.sessions[model_path.stem]


def opened(limit=None, **sessions):
    return OpenModels(Scripts(**sessions), TARGET, limit), {n: Path(f"{n}.onnx") for n in sessions}


def quiet(name, count, total):
    pass


def test_a_sample_of_spinning_threads_waits_until_those_of_the_model_before_rest(monkeypatch):
    slept = []
    monkeypatch.setattr(open_models.time, "sleep", slept.append)
    for target, expected in ((TARGET, []), (replace(TARGET, threads=2, spinning=True), [0.1])):
        models = OpenModels(Scripts(a=Scripted(1.0)), target, None)
        models.open({"a": Path("a.onnx")}, {}, quiet)
        models.sample("a")
        assert slept == expected


# ---- calibrate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ms", [1e-4, 0.02, 0.5, 1.9, 2.0, 7.0, 900.0])
def test_a_sample_is_long_against_the_clock_and_no_longer(ms):
    plan = calibrate(Scripted(ms))
    assert plan.loops * ms >= open_models.SAMPLE_MS or plan.loops == open_models.MAX_LOOPS
    assert plan.loops == 1 or (plan.loops - 1) * ms < open_models.SAMPLE_MS


@pytest.mark.parametrize("ms", [0.02, 2.9, 3.1, 5.9, 6.1, 30.0])
def test_every_model_runs_as_often_before_a_sample_so_that_no_step_in_latency_is_made(ms):
    assert calibrate(Scripted(ms)).warm == open_models.WARM_RUNS
    assert calibrate(Scripted(ms), loops=3).warm == open_models.WARM_RUNS


def test_runs_that_take_very_long_have_one_before_them():
    assert calibrate(Scripted(2 * open_models.LONG_MS)).warm == open_models.WARM_RUNS_LONG


def test_slow_first_runs_do_not_shorten_the_samples():
    assert calibrate(Scripted(0.5, first=[9, 5, 3, 1])).loops == calibrate(Scripted(0.5)).loops


def test_a_model_that_never_gets_steady_is_given_up_soon():
    session = Scripted(5.0, first=[2.0 ** (20 - i) for i in range(20)])
    calibrate(session)
    assert session.runs <= 3 + open_models.STEADY_TRIES


def test_loops_of_an_earlier_campaign_are_kept_and_cost_few_runs():
    session = Scripted(0.5)
    assert calibrate(session, loops=77).loops == 77
    assert session.runs == 3


# ---- open models --------------------------------------------------------------------------------


def test_a_sample_is_the_time_of_one_run():
    table, models = opened(a=Scripted(0.5))
    table.open(models, {}, quiet)
    assert table.sample("a") == {"warm": open_models.WARM_RUNS, "loops": 4, "ms": 0.5}


def test_models_that_find_no_room_are_left_and_two_always_find_some():
    table, models = opened(350, a=Scripted(1, memory=100), b=Scripted(1, memory=100),
                          c=Scripted(1, memory=100), d=Scripted(1, memory=100))  # fmt: skip
    assert table.open(models, {}, quiet) == ["d"]
    small, models = opened(10, a=Scripted(1, memory=100), b=Scripted(1, memory=100),
                          c=Scripted(1, memory=100))  # fmt: skip
    assert small.open(models, {}, quiet) == ["c"]


def test_models_that_are_not_wanted_any_more_are_closed_and_the_others_stay():
    a, b, c = Scripted(1), Scripted(1), Scripted(1)
    table, models = opened(a=a, b=b, c=c)
    table.open(models, {}, quiet)
    runs = a.runs
    table.open({"a": models["a"]}, {}, quiet)
    assert (a.closed, b.closed, c.closed) == (False, True, True)
    assert a.runs == runs
    table.close()
    assert a.closed


def test_opening_tells_how_far_it_is():
    told = []
    table, models = opened(a=Scripted(1), b=Scripted(1))
    table.open(models, {}, lambda *words: told.append(words))
    assert told == [("a", 0, 2), ("b", 1, 2)]


def test_a_profile_is_as_long_as_useful_and_none_stays_none():
    nodes = [NodeTime("stem/conv", "", 2.0)]
    table, models = opened(
        a=Scripted(1e-3, nodes=nodes), b=Scripted(100.0), c=Scripted(4, nodes=[])
    )
    table.open(models, {}, quiet)
    assert table.profile("a", {"stem"}) == {"loops": 20, "profile": [["stem", 2.0]]}
    assert table.profile("b", {"stem"}) is None
    assert table.profile("c", {"stem"}) == {"loops": 13, "profile": []}


# ---- attribute ---------------------------------------------------------------------------------

SLOTS = {"stem", "stage1.block1", "stage1.block2"}


def nodes(*names):
    return [NodeTime(name, "", 1.0 + i) for i, name in enumerate(names)]


def test_nodes_belong_to_the_slot_their_name_or_tensor_starts_with():
    given_ = [NodeTime("stem/conv_nchwc", "", 1.0), NodeTime("fused_7", "stage1.block1/add", 2.0)]
    assert attribute(given_, SLOTS) == [["stem", 1.0], ["stage1.block1", 2.0]]


def test_a_slot_is_no_prefix_of_another_slot():
    assert attribute(nodes("stage1.block11/conv", "stem/x"), {"stage1.block1", "stem"}) == [
        ["", 1.0],
        ["stem", 2.0],
    ]


def test_layout_nodes_belong_to_the_node_they_were_made_for():
    found = attribute(
        nodes("ReorderInput", "stem/conv", "ReorderOutput_token_3", "stage1.block1/se_pool",
              "ReorderInput_token_4", "stage1.block2/project", "Transpose_9"),
        SLOTS,
    )  # fmt: skip
    assert found == [["stem", 1 + 2 + 3], ["stage1.block1", 4.0], ["stage1.block2", 5 + 6 + 7]]


def test_a_nameless_node_within_one_op_belongs_to_it_and_between_two_to_none():
    within = attribute(nodes("stem/conv", "Mul_28", "stem/act"), SLOTS)
    assert within == [["stem", 6.0]]
    between = attribute(nodes("stem/conv", "Mul_28", "stage1.block1/expand"), SLOTS)
    assert between == [["stem", 1.0], ["", 2.0], ["stage1.block1", 3.0]]


def test_a_network_without_any_known_name_is_not_attributed():
    assert attribute(nodes("Conv_1", "ReorderInput"), SLOTS) == [["", 3.0]]


@given(st.lists(st.sampled_from(["stem/a", "stage1.block1/b", "ReorderInput", "Transpose", "x"])))
def test_attribution_loses_no_time(names):
    total = sum(ms for _, ms in attribute(nodes(*names), SLOTS))
    assert total == pytest.approx(sum(node.ms for node in nodes(*names)))


def test_a_model_that_the_engine_refuses_is_told_and_the_others_open():
    class Broken(Scripted):
        def time(self, loops):
            raise DeviceError("the engine failed")

    broken = Broken(1)
    table, models = opened(a=Scripted(1), b=broken, c=Scripted(1))
    assert table.open(models, {}, quiet) == []
    assert {name: str(error) for name, error in table.failed.items()} == {"b": "the engine failed"}
    assert broken.closed
    assert table.sample("c")["ms"] == 1
    assert table.open({"a": models["a"]}, {}, quiet) == []
    assert table.failed == {}


class Hungry(Scripted):
    """A session of a model that takes memory of a GPU when it first runs, or finds too little."""

    def __init__(self, gpu, takes):
        super().__init__(1)
        self.gpu, self.takes, self.held = gpu, takes, 0

    def time(self, loops):
        if not self.held and self.takes > self.gpu.free:
            raise MemoryShortError(f"out of memory, {self.takes} bytes wanted")
        if not self.held:
            self.gpu.free, self.held = self.gpu.free - self.takes, self.takes
        return super().time(loops)

    def close(self):
        self.gpu.free, self.held = self.gpu.free + self.held, 0
        super().close()


def gpu_bench(free, told=True, **takes):
    """Models on a GPU; told: whether its runtime tells what is free there."""
    gpu = SimpleNamespace(free=free)
    runtime = Scripts(**{name: Hungry(gpu, size) for name, size in takes.items()})
    if told:
        runtime.free_bytes = lambda: gpu.free
    return OpenModels(runtime, None, None), {name: Path(f"{name}.onnx") for name in takes}, gpu


def test_models_take_half_of_the_free_memory_of_the_gpu_at_most():
    table, models, gpu = gpu_bench(1000, a=100, b=150, c=120, d=100)
    assert table.open(models, {}, quiet) == ["d"]
    assert (gpu.free, table.failed) == (630, {})
    table.close()
    assert gpu.free == 1000


def test_memory_that_is_short_leaves_models_for_later_and_none_is_called_unable_to_run():
    table, models, gpu = gpu_bench(1000, told=False, a=400, b=400, c=300, d=100)
    assert table.open(models, {}, quiet) == ["c", "d"]
    assert table.failed == {}
    assert table.open({"a": models["a"], "c": models["c"], "d": models["d"]}, {}, quiet) == []
    assert gpu.free == 200


def test_a_model_too_large_beside_the_anchor_is_told_with_numbers():
    table, models, _ = gpu_bench(64 << 20, a=16 << 20, b=90 << 20, c=1 << 20)
    assert table.open(models, {}, quiet) == []
    assert isinstance(table.failed["b"], MemoryShortError)
    said = "1 other model was open, .*16 MB of them on the GPU, 48 MB free there"
    assert re.search(said, str(table.failed["b"]))
    assert table.holds(["a", "c"])


def test_a_fault_of_the_device_is_the_fault_of_no_model():
    class Broken(Scripted):
        def time(self, loops):
            raise DeviceFaultError("CUDA error 700")

    table, models = opened(a=Scripted(1), b=Broken(1))
    with pytest.raises(DeviceFaultError):
        table.open(models, {}, quiet)


def test_a_missing_engine_is_the_fault_of_no_model():
    def load(path, target):
        raise RuntimeMissingError("no engine")

    table = open_models.OpenModels(SimpleNamespace(load=load), None, None)
    with pytest.raises(RuntimeMissingError):
        table.open({"a": Path("a")}, {}, quiet)


def test_builds_that_an_engine_keeps_are_told_apart_from_opening():
    class Built(Scripted):
        def info(self):
            return {**super().info(), "build_s": 2.5}

    table, models = opened(a=Built(1), b=Built(1), c=Scripted(1))
    table.open(models, {}, quiet)
    assert table.built_s == 5.0
    table.open(models, {}, quiet)
    assert table.built_s == 0.0
