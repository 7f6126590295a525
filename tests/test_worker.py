"""The worker as a process: what it speaks, what it can import, how it ends."""

import json
import os
import signal
import socket
import subprocess

import pytest
from worker_kits import connect, fake_kit, fake_target, files_of, plan

from hwnas.measuring.connections import local
from profilers import __main__ as command
from profilers import protocol, serving
from profilers.errors import ConfigError, DeviceError, FileFormatError, RuntimeMissingError
from profilers.schema import LINE_BYTES, WORKER_PROTOCOL, Target

SPY = """
import importlib, json

def _can(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True

class RUNTIME:
    @staticmethod
    def version():
        names = ("torch", "onnx", "sklearn", "hwnas", "pydantic", "site", "pip")
        names += ("numpy", "onnxruntime", "profilers")
        return json.dumps({name: _can(name) for name in names})
"""
HELLO = {
    "type": "hello",
    "seq": 1,
    "protocol": WORKER_PROTOCOL,
    "target": fake_target().to_json(),
    "purpose": "a test",
    "exclusive": False,
}


@pytest.fixture
def process(tmp_path):
    """A worker and nothing between it and the test."""
    with subprocess.Popen(
        local.local_command(fake_target(), tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as found:
        yield found
        found.kill()


def say(process, *messages):
    for message in messages:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        process.stdin.write(line + b"\n")
    process.stdin.flush()


def hear(process):
    return json.loads(process.stdout.readline())


# ---- what it can import ------------------------------------------------------------------------


def test_the_local_worker_imports_an_engine_and_nothing_of_the_host(tmp_path):
    (tmp_path / "spy.py").write_text(SPY)
    target = Target("host", "spy:RUNTIME", plugins=(str(tmp_path / "spy.py"),))
    with connect(target, exclusive=False) as remote:
        can = json.loads(remote.probe()["engine_version"])
    reached = {name for name, found in can.items() if found}
    assert reached - {"site"} == {"numpy", "onnxruntime", "profilers"}


def test_a_missing_engine_reaches_the_host_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_packages", lambda: ["numpy"])
    with (
        pytest.raises(RuntimeMissingError, match="pip install onnxruntime"),
        connect(Target("host", "ort-cpu"), exclusive=False) as remote,
    ):
        remote.probe()


# ---- what it speaks ----------------------------------------------------------------------------


def test_hello_and_bye_are_answered(process):
    say(process, HELLO)
    ready = hear(process)
    assert (ready["type"], ready["re"]) == ("ready", 1)
    say(process, {"type": "bye", "seq": 2})
    assert hear(process)["re"] == 2
    assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"type": "dance", "seq": 2}, "unknown message type 'dance'"),
        ({"type": ["x"], "seq": 2}, "unknown message type"),
        ({"type": "kit", "seq": 2}, "message kit lacks 'hash'"),
        ({"type": "kit", "seq": 2, "hash": 7}, "kit.hash is 7, expected a sha256"),
        ({"type": "probe", "seq": True}, "probe.seq is True"),
        ({"type": "probe", "seq": 2, "extra": 1}, "unknown field 'extra'"),
        ({"type": "run", "seq": 2, "shape": ["x"]}, "run.shape[0] is 'x'"),
        ({**HELLO, "seq": 2}, "hello came twice"),
        ([1, 2], "a line is not a JSON object"),
        (b"\xff\xfe not json", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"x" * (LINE_BYTES + 1), f"longer than {LINE_BYTES} bytes"),
    ],
    ids=lambda value: str(value)[:25],
)
def test_what_is_not_the_protocol_ends_the_session_with_a_reason(process, message, reason):
    say(process, HELLO)
    hear(process)
    say(process, message)
    answer = hear(process)
    assert answer["type"] == "error"
    assert reason in answer["text"]
    assert process.wait(10) == 1


def test_another_protocol_is_refused(process):
    say(process, {**HELLO, "protocol": "hwnas-worker-0"})
    assert "hwnas-worker-0" in hear(process)["text"]
    assert process.wait(10) == 1


def test_every_message_of_the_contract_has_a_shape():
    known = {
        "hello",
        "probe",
        "put",
        "kit",
        "measure",
        "cold",
        "run",
        "bye",
        "energy",
        "clean",
        "built",
    }
    assert set(protocol.REQUESTS) == set(protocol.ANSWERS) == known
    with pytest.raises(FileFormatError):
        serving.check_message({})


def test_a_request_that_fails_does_not_end_the_session():
    with connect(fake_target()) as remote:
        with pytest.raises(ConfigError, match="before a whole kit"):
            remote.measure("a", ["x"], {})
        assert remote.probe()["device"] == "fake"


def test_measuring_needs_the_device_for_itself():
    with (
        connect(fake_target(), exclusive=False) as remote,
        pytest.raises(ConfigError, match="exclusive"),
    ):
        remote.put(b"x")


def test_an_unknown_device_or_key_of_a_target_is_refused():
    for target, reason in (
        (Target("hots", "fake"), "did you mean 'host'"),
        (Target("fake", "fakee"), "did you mean 'fake'"),
    ):
        with pytest.raises(ConfigError, match=reason), connect(target):
            pass


# ---- measuring ---------------------------------------------------------------------------------


def test_a_round_gives_a_record_of_every_sample_in_order(tmp_path):
    kit = fake_kit(tmp_path)
    names = [item["name"] for item in kit["items"]]
    order = [names[0], *names[1:4], names[0]]
    with connect(fake_target()) as remote:
        remote.send_kit(kit, files_of(kit, tmp_path))
        found = remote.measure("a", order, {names[1]: 7}, profile=names[1:3])
    samples, profiles = found.records[:5], found.records[5:]
    assert [record["item"] for record in samples] == order
    assert [record["order"] for record in found.records] == list(range(7))
    assert samples[1]["loops"] == 7
    assert set(samples[0]["probe"]) == {*remote_state()}
    assert all(record["ms"] > 0 for record in samples)
    assert [record["item"] for record in profiles] == names[1:3]
    assert all("ms" not in record for record in profiles)
    times = [record["t_s"] for record in found.records]
    assert times == sorted(times)


def remote_state():
    from hwnas.fakes.devices import fake

    return fake.state()


def test_engine_chatter_does_not_reach_the_protocol(tmp_path):
    kit = fake_kit(tmp_path)
    with connect(fake_target(chatter=1)) as remote:
        remote.send_kit(kit, files_of(kit, tmp_path))
        assert remote.measure("a", [kit["items"][0]["name"]], {}).records


def test_another_session_opens_the_models_anew(tmp_path):
    kit = fake_kit(tmp_path)
    name = kit["items"][0]["name"]
    with connect(fake_target(open_s=5)) as remote:
        remote.send_kit(kit, files_of(kit, tmp_path))
        opened = [remote.measure(s, [name], {}).open_s for s in "aab"]
    assert [seconds > 5 for seconds in opened] == [True, False, True]


def test_items_that_find_no_room_are_told(tmp_path):
    kit = fake_kit(tmp_path, plan(2, 3, 2))
    names = [item["name"] for item in kit["items"]]
    with connect(fake_target(session_mb=200)) as remote:
        remote.send_kit(kit, files_of(kit, tmp_path))
        found = remote.measure("a", names, {})
    assert found.left == names[2:]
    assert [record["item"] for record in found.records] == names[:2]


# ---- how it ends -------------------------------------------------------------------------------


def test_the_worker_ends_when_its_host_is_gone(process):
    say(process, HELLO)
    hear(process)
    process.stdin.close()
    assert process.wait(10) == 0


def test_the_worker_ends_when_the_line_is_reset(tmp_path):
    """As over a socket whose other end closes with heartbeats unread: reading is an error."""
    here, there = socket.socketpair()
    line = [*local.local_command(fake_target(), tmp_path), "--heartbeat", "0.1"]
    with subprocess.Popen(line, stdin=there, stdout=there) as process:
        there.close()
        here.sendall(json.dumps(HELLO).encode() + b"\n")
        assert here.recv(1)  # the rest stays unread
        here.close()
        try:
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_an_idle_worker_whose_heartbeats_nobody_takes_ends(tmp_path):
    line = [*local.local_command(fake_target(), tmp_path), "--heartbeat", "0.1"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        say(process, HELLO)
        hear(process)
        process.stdout.close()
        try:
            assert process.wait(10) == 0
        finally:
            process.kill()


SLOW = """
import time

class Session:
    def time(self, loops):
        time.sleep(0.05)
        return 50.0 * loops

    def info(self):
        return {"memory_bytes": 1}

    def close(self):
        pass

class RUNTIME:
    @staticmethod
    def load(model_path, target):
        return Session()
"""


def leave_in_the_middle(target, kit, folder):
    message = {"type": "measure", "seq": 99, "session": "a", "loops": {}, "profile": []}
    message.update(memory_bytes=0, alone=False, opening=[])
    items = [kit["items"][0]["name"]] * 10_000  # 1000 s
    with connect(target) as remote:
        remote.send_kit(kit, files_of(kit, folder))
        connection = remote._connection
        connection.send(json.dumps({**message, "items": items}).encode() + b"\n")
        connection._stdin.close()
        for _ in range(100):  # heartbeats may come first
            connection.receive()


def test_a_worker_in_the_middle_of_a_round_ends_when_its_host_is_gone(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    kit = fake_kit(tmp_path / "kit")
    target = Target("fake", "slow:RUNTIME", plugins=(str(tmp_path / "slow.py"),))
    with pytest.raises(DeviceError, match="exit status 0"):
        leave_in_the_middle(target, kit, tmp_path / "kit")


def kill_and_ask():
    with connect(fake_target()) as remote:
        os.kill(remote._connection._process.pid, signal.SIGKILL)
        remote.probe()


def test_the_lock_of_a_killed_worker_does_not_stay():
    with pytest.raises(DeviceError, match="signal 9"):
        kill_and_ask()
    with connect(fake_target()) as remote:
        assert remote.probe()


def test_a_second_campaign_is_told_who_holds_the_device():
    with (
        connect(fake_target(), "profiling of tiny"),
        pytest.raises(DeviceError, match=r"in use by profiling of tiny \(process"),
        connect(fake_target(), "another"),
    ):
        pass


def measure_until_it_stops(kit, folder, seen):
    with connect(fake_target(stop_after=20), silence_s=1.0) as remote:
        seen.append(remote._connection._process)
        remote.send_kit(kit, files_of(kit, folder))
        remote.measure("a", [item["name"] for item in kit["items"]], {})


def test_a_stopped_worker_is_noticed_and_killed(tmp_path):
    seen = []
    with pytest.raises(DeviceError, match="silent for 1 s"):
        measure_until_it_stops(fake_kit(tmp_path), tmp_path, seen)
    assert seen[0].returncode == -signal.SIGKILL


def test_a_heartbeat_comes_while_nothing_is_asked(tmp_path):
    line = [*local.local_command(fake_target(), tmp_path), "--heartbeat", "0.1"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        say(process, HELLO)
        assert [hear(process)["type"] for _ in range(3)] == ["ready", "heartbeat", "heartbeat"]
        process.stdin.close()
        assert process.wait(10) == 0


# ---- the command line --------------------------------------------------------------------------


def test_probe_prints_the_environment(capsys):
    assert command.main(["probe", "--target", "fake.fake.fp32.b1.t1"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == "fake"


def test_probe_of_an_unknown_device_says_which_is_near(capsys):
    assert command.main(["probe", "--target", "hots.fake.fp32.b1.t1"]) == 2
    assert "did you mean 'host'" in capsys.readouterr().err
