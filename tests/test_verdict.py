"""How far to trust a measured number: evidence in raw records, and what is said of it."""

import json

import pytest
from test_commands_measure import model
from worker_kits import fake_target

from hwnas import cli
from hwnas.measuring import here, remote, verdict
from hwnas.settings.config import ProfileConfig
from profilers import stats
from profilers.schema import read_json, write_json
from profilers.waiting import waited_ms

QUIET = (0.0, 0.1)
FEW = ProfileConfig(budget_s=30, rounds=16)


def hwnas(*arguments):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def records(item_ms, waits_ms=(), sessions="mn", n=20):
    """Records of an item and its anchor: `item_ms(session, round)` is what both take."""
    found = []
    for session in sessions:
        for number in range(n):
            for order, (item, role) in enumerate((("anchor", "anchor"), ("x", "model"))):
                record = {"id": ["k", session, number, item], "role": role, "order": order}
                record |= {"warm": 2, "loops": 8, "ms": item_ms(session, number)}
                if waits_ms:
                    record["wait_ms"] = waits_ms[number % len(waits_ms)]
                found.append(record)
    return found


# ---- evidence ----------------------------------------------------------------------------------


def test_a_quiet_measurement_is_good_and_gives_no_reason():
    found = verdict.latency(records(lambda s, n: 1 + 0.002 * (n % 5), QUIET), "x")
    assert (found["verdict"], found["reason"]) == ("good", "")
    assert found["rounds"] == 40
    assert found["latency_ms"] == pytest.approx(1.0)


def test_samples_that_waited_do_not_count_as_long_as_enough_did_not():
    held = records(lambda s, n: 3.0 if n % 2 else 1.0, (0.0, 20.0))
    found = verdict.latency(held, "x")
    assert (found["latency_ms"], found["median_ms"], found["rounds"]) == (1.0, 1.0, 20)
    assert found["verdict"] == "disturbed"
    assert found["reason"] == "other programs held the processor in 50.0% of the samples"


def test_where_nearly_every_sample_waited_all_count_and_are_called_disturbed():
    held = records(lambda s, n: 3.0 if n else 1.0, (0.0,) + 19 * (20.0,))
    found = verdict.latency(held, "x")
    assert found["verdict"] == "disturbed"
    assert found["rounds"] > 8


def test_a_system_that_counts_no_waiting_is_judged_by_the_rest():
    assert verdict.latency(records(lambda s, n: 1.0), "x")["verdict"] == "good"
    apart = verdict.latency(records(lambda s, n: 1.0 if s == "m" else 1.2), "x")
    assert apart["verdict"] == "disturbed"
    assert "two fresh workers differ by 18.2% of the latency" in apart["reason"]
    jumpy = verdict.latency(records(lambda s, n: 1 + 0.6 * (n % 3) / 2), "x")
    assert jumpy["verdict"] == "disturbed"
    assert "of the rounds were disturbed" in jumpy["reason"]


def test_what_two_fresh_workers_agree_on_holds_though_a_third_one_was_slower():
    levels = {"m": 1.15, "n": 1.0, "o": 1.01}
    told = records(lambda s, n: levels[s], QUIET, "mno")
    assert verdict.is_confirmed(told, ["x"])
    found = verdict.latency(told, "x")
    assert (found["verdict"], found["reason"]) == ("usable", "33.3% of the rounds were disturbed")
    assert (found["latency_ms"], found["rounds"], found["disturbed"]) == (1.0, 40, 20)


def test_the_lowest_latency_must_be_found_again_by_another_worker():
    levels = {"m": 1.15, "n": 1.0, "o": 1.16}
    told = records(lambda s, n: levels[s], QUIET, "mno")
    assert not verdict.is_confirmed(told, ["x"])
    found = verdict.latency(told, "x")
    assert found["verdict"] == "disturbed"
    assert found["reason"] == "two fresh workers differ by 14.0% of the latency"
    assert (found["latency_ms"], found["rounds"], found["disturbed"]) == (1.0, 60, 0)


def test_one_worker_alone_confirms_nothing():
    assert not verdict.is_confirmed(records(lambda s, n: 1.0, QUIET, "m"), ["x"])
    assert verdict.latency(records(lambda s, n: 1.0, QUIET, "m"), "x")["verdict"] == "good"


def test_the_worst_evidence_decides_and_unknown_evidence_says_nothing():
    small, middle = (
        verdict.Evidence(0.05, 0.1, 0.3, "a {}"),
        verdict.Evidence(0.2, 0.1, 0.3, "b {}"),
    )
    large, none = verdict.Evidence(0.4, 0.1, 0.3, "c {}"), verdict.Evidence(None, 0, 0, "d {}")
    assert verdict.judged(small, none) == {"verdict": "good", "reason": ""}
    assert verdict.judged(small, middle) == {"verdict": "usable", "reason": "b 20.0%"}
    assert verdict.judged(large, middle, none) == {"verdict": "disturbed", "reason": "c 40.0%"}


def test_the_energy_of_one_window_is_not_known_to_repeat():
    told = {"energy_spread": 0.0, "windows": 3}
    assert verdict.energy(told) == {"verdict": "good", "reason": ""}
    alone = verdict.energy({**told, "windows": 1})
    assert alone["verdict"] == "usable"
    assert "one window cannot show" in alone["reason"]
    assert verdict.doubts({"verdict": "good", "energy": alone})


def test_a_sample_waited_when_more_than_two_percent_of_its_time_was_waiting():
    sample = {"ms": 1.0, "loops": 8, "warm": 2}
    assert stats.waited(sample) is None
    assert stats.waited({**sample, "wait_ms": 0.19}) is False
    assert stats.waited({**sample, "wait_ms": 0.21}) is True


def test_the_waiting_of_all_threads_is_read_where_the_system_counts_it(tmp_path):
    assert waited_ms(tmp_path) is None
    for thread, content in (("1", "5 2000000 1"), ("2", "7 500000 1"), ("3", "nonsense")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(content)
    assert waited_ms(tmp_path) == 2.5


# ---- what is said ------------------------------------------------------------------------------


def test_a_busy_machine_is_named_in_terminal_and_document_and_the_command_ends_with_0(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    name = "busy.fake.fp32.b1.t1"
    target = fake_target(waits=0.6).to_json()
    write_json(
        tmp_path / "targets" / f"{name}.yaml",
        {**target, "name": name, "device": "busy", "hardware": "fake"},
    )
    path = model(tmp_path / "m.onnx")
    extra = ("--sustained", "2s", "--save", "busy")
    assert hwnas("measure", path, "--target", name, "--json", *extra) == 0
    said = capsys.readouterr()
    (found,) = json.loads(said.out)["models"]
    for about in (found, found["cold_start"], found["sustained"]):
        assert about["verdict"] == "disturbed"
        assert "processor" in about["reason"]
    for part in ("latency", "cold start", "sustained"):
        assert f"{part} is disturbed: " in said.err
    assert read_json(tmp_path / "baselines" / "busy.json", "hwnas-baselines-1")["models"] == [found]
    assert hwnas("measure", path, "--target", name) == 0
    said = capsys.readouterr()
    assert "disturbed" in said.out
    assert "stop other work on the device" in said.err


def test_a_real_sample_tells_how_long_it_waited(tmp_path):
    found = remote.measure_models(
        remote.Target("host", "ort-cpu"), [model(tmp_path / "m.onnx")], FEW
    )
    assert found[0]["verdict"] in verdict.VERDICTS
    start = here.cold_start(remote.Target("host", "ort-cpu"), tmp_path / "m.onnx")
    assert start["wait_ms"] is None or start["wait_ms"] >= 0
    assert start["cold_start"]["verdict"] in (*verdict.VERDICTS, "unknown")


def test_half_of_the_rounds_come_from_a_fresh_worker(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(verdict, "latency", lambda found, name: seen.append(list(found)) or {})
    remote.measure_models(fake_target(), [model(tmp_path / "m.onnx")], FEW)
    sessions = [r["id"][1] for r in seen[0] if r["id"][3] == "model-000"]
    assert (sessions.count("m"), sessions.count("n")) == (8, 8)


@pytest.mark.parametrize(
    ("budget_s", "after", "expected"), [(30, 3, "mno"), (30, 9, "mnop"), (1.01, 9, "mn")]
)
def test_workers_that_disagree_are_followed_by_others_while_there_is_time(
    tmp_path, monkeypatch, budget_s, after, expected
):
    seen = []

    def sessions(found, names):
        seen[:] = sorted({record["id"][1] for record in found})
        return len(seen) >= after

    monkeypatch.setattr(verdict, "is_confirmed", sessions)
    monkeypatch.setattr(verdict, "latency", sessions)
    settings = ProfileConfig(budget_s=budget_s, rounds=500 if budget_s < 2 else 16)
    remote.measure_models(fake_target(), [model(tmp_path / "m.onnx")], settings)
    assert "".join(seen) == expected
