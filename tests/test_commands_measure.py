"""`hwnas measure`: once with the real engine, whose times are not judged, else modelled."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from worker_kits import connect, fake_kit, fake_target, files_of, networks, real_kit

from hwnas import cli
from hwnas.commands import measure
from hwnas.measuring import campaign, here
from hwnas.measuring.onnx_files import OwnModel
from hwnas.measuring.sustained import over_time, sustained
from hwnas.networks import onnx_graph
from hwnas.settings.errors import ConfigError
from profilers.precisions import int8
from profilers.schema import Target, read_json, sha256_file

ORT = "host.ort-cpu.fp32.b1.t1"


def hwnas(*arguments):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def model(path, number=0, batch=1):
    """A network of `tiny` with its weights inside."""
    ops = networks(number + 1)[number]
    rng = np.random.default_rng(number)
    values = {w.name: rng.normal(0, 0.2, w.shape) for w in onnx_graph.weights_of(ops)}
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values, batch)))
    return path


def adder(path, shapes):
    """A graph that adds its inputs."""
    inputs = [
        onnx.helper.make_tensor_value_info(f"in{n}", onnx.TensorProto.FLOAT, shape)
        for n, shape in enumerate(shapes)
    ]
    names = [value.name for value in inputs] * (2 if len(inputs) == 1 else 1)
    output = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, shapes[0])
    node = onnx.helper.make_node("Add", names, ["out"])
    graph = onnx.helper.make_graph([node], "adder", inputs, [output])
    opset = onnx.helper.make_opsetid("", 17)
    made = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def test_a_model_in_fp32_on_a_target_in_int8_is_timed_and_said_to_be_no_such_network(tmp_path):
    target, plain = Target("host", "ort-cpu", precision="int8"), model(tmp_path / "one.onnx")
    (told,) = measure._by_rule(target, [OwnModel(plain, plain)])
    assert "its outputs mean nothing (left in float: " in told
    plain.write_bytes(int8.rewritten(plain, "u8s8"))
    assert not list(measure._by_rule(target, [OwnModel(plain, plain)]))
    assert not list(measure._by_rule(Target("host", "ort-cpu"), [OwnModel(plain, plain)]))


def test_models_of_the_user_are_timed_with_cold_start_and_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = [model(Path("one.onnx")), model(Path("two.onnx"), 1)]
    assert hwnas("measure", *paths, "--target", ORT, "--json", "--save", "mine") == 0
    found = json.loads(capsys.readouterr().out)
    assert read_json(tmp_path / "baselines" / "mine.json", "hwnas-baselines-1") == found
    assert found["target"]["name"] == ORT
    assert [entry["file"] for entry in found["models"]] == ["one.onnx", "two.onnx"]
    for path, entry in zip(paths, found["models"], strict=True):
        assert entry["sha256"] == sha256_file(path)
        assert 0 < entry["latency_ms"] <= entry["median_ms"] <= entry["p95_ms"]
        assert entry["rounds"] + entry["disturbed"] >= campaign.MIN_ROUNDS
        assert entry["load_ms"] > 0
        assert entry["first_run_ms"] > 0
        assert 0 < entry["engine_bytes"] < entry["resident_bytes"]
        assert entry["input_shape"] == [1, 1, 8, 8]


def test_people_get_a_table(tmp_path, capsys):
    assert hwnas("measure", model(tmp_path / "m.onnx"), "--target", "fake.fake.fp32.b1.t1") == 0
    assert "m.onnx" in capsys.readouterr().out


def test_a_modelled_cold_start_is_what_the_model_of_times_says(tmp_path):
    found = here.cold_start(fake_target(open_s=0.5, noise=0), model(tmp_path / "m.onnx"))
    assert found["load_ms"] == pytest.approx(500)
    assert 0 < found["first_run_ms"] < 100
    assert found["input_shape"] is None


REWRITING = """
from hwnas.fakes.runtimes import fake

class Session(fake.FakeSession):
    def info(self):
        return {**super().info(), "build_s": 0.1, "rewrite_s": 0.2}

class RUNTIME:
    version, clock = staticmethod(fake.version), staticmethod(fake.clock)

    @staticmethod
    def load(path, target):
        session = fake.load(path, target)
        session.__class__ = Session
        return session
"""


def test_what_the_worker_itself_does_to_a_file_is_no_cold_start(tmp_path):
    (tmp_path / "rewriting.py").write_text(REWRITING)
    plugins = (str(tmp_path / "rewriting.py"),)
    slow = fake_target(open_s=0.5, noise=0)
    target = replace(slow, runtime="rewriting:RUNTIME", plugins=plugins)
    found = here.cold_start(target, model(tmp_path / "m.onnx"))
    assert found["load_ms"] == pytest.approx(200)


def test_what_cannot_be_measured_is_refused_with_the_name_of_its_file(tmp_path):
    target = Target("host", "ort-cpu")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    for path, reason in (
        (tmp_path / "none.onnx", r"none\.onnx does not exist"),
        (bad, r"bad\.onnx: ONNX Runtime cannot load it: "),
        (adder(tmp_path / "any.onnx", [["n", 3]]), r"any\.onnx: .* only static shapes"),
        (adder(tmp_path / "two.onnx", [[4, 3], [4, 3]]), r"two\.onnx: takes batches of 4"),
        (model(tmp_path / "four.onnx", 0, 4), r"four\.onnx: takes batches of 4.*with b4"),
    ):
        with pytest.raises(ConfigError, match=reason) as refused:
            here.cold_start(target, path)
        assert "\n" not in str(refused.value)


def test_what_is_no_onnx_file_is_refused_before_a_device_is_reached(tmp_path, capsys):
    whole = model(tmp_path / "whole.onnx").read_bytes()
    cases = {"none.onnx": None, "empty.onnx": b"", "cut.onnx": whole[: len(whole) // 2]}
    words = {"none.onnx": "does not exist", "empty.onnx": "is truncated", "cut.onnx": "truncated"}
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert hwnas("measure", tmp_path / name, "--target", "fake.fake.fp32.b1.t1") == 2
        said = capsys.readouterr().err
        assert name in said
        assert words[name] in said
    assert hwnas("measure", tmp_path, "--target", "fake.fake.fp32.b1.t1") == 2
    assert f"{tmp_path} is no file; name an ONNX file" in capsys.readouterr().err


# ---- without rest ------------------------------------------------------------------------------


def test_a_model_that_gets_slower_while_it_runs_without_rest_is_told_by_how_much(tmp_path):
    target = fake_target(noise=0.001, slow="10-1e9x1.25")
    said = []
    found = sustained(target, model(tmp_path / "m.onnx"), 20.0, lambda *told: said.append(told))
    assert 20 <= found["duration_s"] < 22
    assert found["slowdown"] == pytest.approx(0.25, abs=0.01)
    assert found["last_ms"] == pytest.approx(1.25 * found["first_ms"], rel=0.01)
    times, rates = zip(*found["rate"], strict=True)
    assert list(times) == sorted(times)
    assert len(times) > 15
    assert rates[0] == pytest.approx(1000 / found["first_ms"], rel=0.02)
    assert rates[-1] == pytest.approx(0.8 * rates[0], rel=0.02)
    assert said[-1][1] <= 1


def test_the_rate_counts_every_image_of_a_batch():
    records = [{"t_s": float(n), "ms": 2.0} for n in range(40)]
    found = over_time(records, 8)
    assert {rate for _, rate in found["rate"]} == {4000.0}
    assert (found["first_ms"], found["slowdown"]) == (2.0, 0.0)
    assert over_time(records[:1], 1)["rate"] == [[0.0, 500.0]]


def test_the_command_prints_and_keeps_what_a_model_takes_when_hot(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ("--target", "fake.fake.fp32.b1.t1", "--sustained", "3s", "--save", "hot")
    assert hwnas("measure", model(Path("m.onnx")), *arguments) == 0
    assert "m.onnx without rest for 3 s: " in capsys.readouterr().out
    (kept,) = read_json(Path("baselines") / "hot.json")["models"]
    assert kept["sustained"]["duration_s"] >= 3
    assert kept["sustained"]["temperature_c"] == [None, None]


@pytest.mark.parametrize("text", ["soon", "60x", "0s", "25h", "-3s", "1e9"])
def test_what_is_no_duration_is_refused_before_measuring(tmp_path, capsys, text):
    path = model(tmp_path / "m.onnx")
    assert hwnas("measure", path, "--target", "fake.fake.fp32.b1.t1", f"--sustained={text}") == 2
    assert "expected a duration like 60s, 5m or 1h" in capsys.readouterr().err


def test_a_wrong_name_to_save_under_fails_before_measuring(tmp_path, capsys):
    path = model(tmp_path / "m.onnx")
    assert hwnas("measure", path, "--target", ORT, "--save", "../elsewhere") == 2
    assert "--save '../elsewhere'" in capsys.readouterr().err


# ---- the worker's part -------------------------------------------------------------------------


def test_a_cold_start_closes_what_is_open_and_measuring_goes_on(tmp_path):
    kit = real_kit(tmp_path / "kit")
    names = [item["name"] for item in kit["items"]]
    with connect(Target("host", "ort-cpu")) as worker:
        worker.send_kit(kit, files_of(kit, tmp_path / "kit"))
        worker.measure("a", names[:3], {})
        found = worker.cold(names[1])
        assert found["resident_bytes"] >= found["engine_bytes"]
        assert len(worker.measure("a", names[:3], {}).records) == 3


def test_a_cold_start_needs_a_kit_and_an_item_of_it(tmp_path):
    with connect(fake_target()) as worker:
        with pytest.raises(ConfigError, match="cold came before a whole kit"):
            worker.cold("x")
        kit = fake_kit(tmp_path)
        worker.send_kit(kit, files_of(kit, tmp_path))
        with pytest.raises(ConfigError, match="no item 'x'"):
            worker.cold("x")
