"""Real graphs on this machine's ONNX Runtime, through the worker. No time is judged."""

import numpy as np
import onnxruntime
import pytest
from worker_kits import connect, fake_target, networks, real_kit

from hwnas.fakes.runtimes import fake
from hwnas.measuring import campaign, remote
from hwnas.networks import onnx_graph
from hwnas.settings.config import ProfileConfig
from profilers import runtimes, stats
from profilers.errors import ConfigError, DeviceError, UnstableMeasurementError
from profilers.schema import Target, read_lines

ORT = Target("host", "ort-cpu")
FEW = ProfileConfig(budget_s=30, rounds=5)


def model(path, number=0, batch=1):
    """An exported network of `tiny` with its weights inside, and its ops."""
    ops = networks(number + 1)[number]
    rng = np.random.default_rng(number)
    values = {w.name: rng.normal(0, 0.2, w.shape) for w in onnx_graph.weights_of(ops)}
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values, batch)))
    return ops


@pytest.fixture
def two(tmp_path):
    paths = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    return paths, [model(path, i) for i, path in enumerate(paths)]


def test_a_campaign_on_the_real_engine_gives_times_and_attributed_profiles(tmp_path):
    kit = real_kit(tmp_path / "kit")
    said = []
    result = campaign.run_campaign(
        ORT, tmp_path / "kit", tmp_path / "out.jsonl", FEW, lambda *told: said.append(told), connect
    )
    (header, *records), broken = read_lines(result.path)
    assert not broken
    assert header["environment"]["engine_version"] == onnxruntime.__version__
    assert result.environment["fingerprint"] == header["environment"]["fingerprint"]
    items = {item["name"]: item for item in kit["items"]}
    assert {r["id"][3] for r in records} == set(items)
    assert all(0 < r["ms"] < 1000 for r in records if "ms" in r)
    profiles = [r for r in records if "profile" in r]
    assert {r["role"] for r in profiles} == {"covering"}
    for record in profiles:
        slots = {op["slot"] for op in items[record["id"][3]]["ops"]}
        assert {slot for slot, _ in record["profile"]} == slots
    assert said


def test_models_are_measured_under_the_statistic_of_campaigns(two):
    paths, _ = two
    found = remote.measure_models(ORT, paths, FEW)
    assert len(found) == 2
    for entry in found:
        assert 0 < entry["latency_ms"] <= entry["median_ms"] <= entry["p95_ms"]
        # On a busy machine the rounds of a worker that was slower than two others do not count.
        assert entry["rounds"] + entry["disturbed"] >= FEW.rounds
        assert entry["loops"] >= 1


def test_modelled_latencies_of_models_follow_their_ops(two):
    paths, ops = two
    told = []
    say = lambda text, share: told.append(share)  # noqa: E731
    found = remote.measure_models(fake_target(noise=0.001), paths, FEW, say, ops)
    for entry, placed in zip(found, ops, strict=True):
        true = fake.RUN_MS + sum(fake.op_ms(placed.op.key) for placed in placed)
        assert entry["latency_ms"] == pytest.approx(true, rel=0.002)
        assert entry["rounds"] == FEW.rounds
    assert told == sorted(told)


def test_one_model_is_its_own_anchor(two):
    found = remote.measure_models(fake_target(), two[0][:1], FEW)
    assert found[0]["rounds"] == FEW.rounds


def test_a_machine_that_never_settles_gives_no_latency(two):
    slow = ",".join(f"{i / 100}-{(i + 0.8) / 100}x{2 + i % 7}" for i in range(900))
    settings = FEW.model_copy(update={"budget_s": 0.4, "rounds": 40})
    reason = f"{campaign.MIN_ROUNDS} are needed; stop other work"
    with pytest.raises(UnstableMeasurementError, match=reason):
        remote.measure_models(fake_target(slow=slow, open_s=0.5), two[0], settings)


def test_models_are_not_given_up_while_there_is_time_for_the_machine_to_settle(two):
    restless = ",".join(f"{i / 40}-{(i + 1) / 40}x{2 + 7 * i % 13}" for i in range(120))  # 3 s
    settings = ProfileConfig(budget_s=10, rounds=5)
    found = remote.measure_models(fake_target(slow=restless), two[0], settings)
    assert [entry["rounds"] >= 5 for entry in found] == [True, True]


def test_outputs_of_the_device_are_those_of_the_engine_for_any_number_of_images(tmp_path):
    model(tmp_path / "m.onnx", batch=4)
    images = np.random.default_rng(0).normal(size=(10, 1, 8, 8)).astype(np.float32)
    plain = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    filled = np.concatenate([images, images[-1:], images[-1:]]).reshape(3, 4, 1, 8, 8)
    expected = np.concatenate([plain.run(None, {"image": part})[0] for part in filled])[:10]
    found = remote.run_model(Target("host", "ort-cpu", batch=4), tmp_path / "m.onnx", images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_many_images_go_in_several_requests(tmp_path, monkeypatch):
    model(tmp_path / "m.onnx")
    images = np.random.default_rng(0).normal(size=(7, 1, 8, 8)).astype(np.float32)
    whole = remote.run_model(ORT, tmp_path / "m.onnx", images)
    monkeypatch.setattr("hwnas.measuring.client.RUN_BYTES", 2 * 64 * 4)
    monkeypatch.setattr("hwnas.measuring.client.PIECE_BYTES", 5000)
    data = (tmp_path / "m.onnx").read_bytes()
    with connect(ORT, "a test") as worker:
        np.testing.assert_array_equal(worker.run(data, images), whole)
        assert worker.sent_bytes < 2 * len(data)  # the model once, not with each of 4 requests


def test_what_cannot_be_run_or_measured_is_refused_in_one_line(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(ConfigError, match=r"m\.onnx does not exist"):
        remote.run_model(ORT, path, np.zeros((1, 1, 8, 8)))
    with pytest.raises(ConfigError, match="no model was given"):
        remote.measure_models(ORT, [], FEW)
    path.write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="cannot load"):
        remote.measure_models(ORT, [path], FEW)
    model(path)
    with pytest.raises(ConfigError, match=r"inputs have shape \[1, 1, 9, 9\]"):
        remote.run_model(ORT, path, np.zeros((1, 1, 9, 9)))
    with pytest.raises(DeviceError, match="computes no outputs"):
        remote.run_model(fake_target(), path, np.zeros((1, 1, 8, 8)))


def test_a_probe_says_what_numbers_would_be_taken_on():
    assert remote.probe(ORT)["engine_version"] == runtimes.load("ort-cpu").version()
    assert remote.probe(fake_target())["cpu"] == "modelled"


def test_a_connection_of_another_kind_is_refused():
    known = r"unknown connection 'carrier-pigeon' \(known: cluster, local, none, ssh"
    with pytest.raises(ConfigError, match=f"target fake.fake.fp32.b1.t1: {known}"):
        remote.probe(Target("fake", "fake", connection={"kind": "carrier-pigeon"}))


def test_a_latency_is_the_low_quantile_over_rounds(two, monkeypatch):
    seen = []
    plain = stats.summarise
    monkeypatch.setattr(stats, "summarise", lambda found: seen.append(list(found)) or plain(found))
    remote.measure_models(fake_target(), two[0], FEW)
    anchor, *models = [len(samples) for samples in seen]
    assert models == [FEW.rounds, FEW.rounds]
    assert anchor == 2 * FEW.rounds
