"""Boards over a real OpenSSH server: reached, measured, lost, found again, cleaned, refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ssh_boards import board, written
from ssh_server import need_sshd, server
from worker_kits import fake_kit, files_of

from hwnas.commands import running
from hwnas.measuring import (
    campaign,
    client,
    connections,
    device_queues,
    here,
    openssh,
    remote,
    retry,
    transport,
)
from hwnas.measuring.connections import local, ssh
from hwnas.settings import targets
from hwnas.settings.config import ProfileConfig
from profilers.errors import (
    ConfigError,
    DeviceBusyError,
    DeviceError,
    LostDeviceError,
    RuntimeMissingError,
)
from profilers.schema import Target, read_lines

FEW = ProfileConfig(budget_s=600, rounds=6, seed=1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    need_sshd()
    with server(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def quick(monkeypatch):
    """No pause is long."""
    for name in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S", "BUSY_PAUSE_S"):
        monkeypatch.setattr(retry, name, 0.05)
    monkeypatch.setattr(retry, "ENDING_S", 0.0)


def silent(text, share):
    assert 0 <= share <= 1


def run(tmp_path, target, settings=FEW, say=silent):
    return campaign.run_campaign(target, tmp_path / "kit", tmp_path / "out.jsonl", settings, say)


def contents(path):
    """What a campaign's file holds, without when it was."""
    (header, *records), broken = read_lines(path)
    assert not broken
    names = [(*record["id"], record["order"]) for record in records]
    assert len(set(names)) == len(names)
    return header, records


# ---- addresses and words -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["pi@raspberrypi.local", "board-7", "ssh://pi@10.0.0.7:2222", "pi@fe80::1%eth0", "::1",
     "ssh://[::1]:22", "first.last@host"],
)  # fmt: skip
def test_addresses_as_people_write_them_are_taken(address):
    assert openssh.check_address(address) == address
    assert openssh.ssh_command(address, ["true"])[-2:] == [address, "true"]


@pytest.mark.parametrize(
    "address",
    ["-oProxyCommand=reboot", "pi@-x", "a b", "a;reboot", "$(reboot)", "a\nb", "a\x00", "", "pi@",
     "`x`@h", "h/../x", "ssh://h:22/x", "a" * 300, None, 7, ["a"], "pi@h -p 22", "häst", "a|b"],
)  # fmt: skip
def test_what_ssh_or_a_shell_could_read_otherwise_is_no_address(address):
    with pytest.raises(ConfigError, match=r"address .* is not allowed"):
        openssh.check_address(address)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (7, "neither an address nor"),
        ({"config": "x"}, "neither an address nor"),
        ({"address": "a", "port": 22}, "unknown key 'port'"),
        ({"address": "a", "config": "-x"}, "ssh.config '-x' must be a path"),
        ({"address": "a", "python": "py\nthon"}, "ssh.python"),
        ({"address": "a", "cache": ""}, "ssh.cache"),
        ({"address": "-a"}, "is not allowed"),
    ],
)
def test_a_connection_that_says_something_else_is_refused(given, reason):
    with pytest.raises(ConfigError, match=reason):
        client.connect(Target("b", "ort-cpu", connection={"ssh": given}), "").__enter__()


def test_a_board_gets_no_fake(tmp_path, config):
    fake = replace(board(tmp_path, config), runtime="fake", plugins=())
    with pytest.raises(ConfigError, match=r"names 'fake', which runs on this machine only"):
        remote.probe(fake)
    with pytest.raises(ConfigError, match=r"names 'fake', which runs on this machine only"):
        targets.load_target(written(tmp_path, fake).stem, tmp_path)


def test_a_command_that_ssh_would_read_as_its_own_option_is_refused():
    with pytest.raises(ConfigError, match="must not start with '-'"):
        openssh.ssh_command("board", ["-oProxyCommand=reboot"])


def test_words_reach_the_board_as_they_are(config):
    words = ["a b", "$HOME", "'", '"', "; exit 3", "\\", "*", "ä"]
    program = "import sys; print(ascii(sys.argv[1:])); print(len(sys.stdin.read()))"
    found = openssh.run_remote(
        "board-a", [sys.executable, "-c", program, *words], str(config), b"x" * 300_000
    )
    assert found.stdout.decode().split("\n")[:2] == [ascii(words), "300000"]
    assert found.returncode == 0


def test_a_status_of_the_command_is_no_failure_of_the_line(config):
    assert openssh.run_remote("board-a", ["false"], str(config)).returncode == 1


def test_a_command_that_does_not_end_or_says_too_much_is_ended(config, monkeypatch):
    with pytest.raises(DeviceError, match="has not ended after 1 s"):
        openssh.run_remote("board-a", ["sleep", "60"], str(config), timeout_s=1)
    monkeypatch.setattr(openssh, "OUTPUT_BYTES", 1 << 16)
    with pytest.raises(DeviceError, match="sent more than 65536 bytes"):
        openssh.run_remote("board-a", ["cat", "/dev/zero"], str(config))


def test_an_unknown_and_a_changed_host_key_are_told_with_what_to_do(config, tmp_path):
    known = config.with_name("known_hosts")
    other = tmp_path / "ssh_config"
    other.write_text(config.read_text().replace(str(known), str(tmp_path / "known")))
    with pytest.raises(DeviceError, match=r"Host key verification failed.*by hand"):
        openssh.run_remote("board-a", ["true"], str(other))
    key = config.with_name("user.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(" ".join([known.read_text().split()[0], *key]) + "\n")
    with pytest.raises(DeviceError, match=r"not the known one.*ssh-keygen -R"):
        openssh.run_remote("board-a", ["true"], str(other))


def test_a_board_that_is_not_there_is_told_with_sshs_reason(config, tmp_path):
    text = config.read_text().replace("Port ", "Port 1\n  # ")
    (tmp_path / "ssh_config").write_text(text)
    target = board(tmp_path, tmp_path / "ssh_config")
    with pytest.raises(LostDeviceError, match=r"board-a cannot be reached: .*Connection refused"):
        retry.persistently(target, "", lambda worker: 0, ProfileConfig(reconnect_s=0))


# ---- a worker there ----------------------------------------------------------------------------


def test_the_worker_is_sent_once_and_leaves_only_its_cache_which_can_be_cleaned(config, tmp_path):
    target, kit = board(tmp_path, config), fake_kit(tmp_path / "kit")
    sent = []
    for _ in range(2):
        with client.connect(target, "a test") as worker:
            worker.send_kit(kit, files_of(kit, tmp_path / "kit"))
            sent.append(worker.sent_bytes)
    assert sent[0] - sent[1] > 100_000
    assert sent[1] < 20_000  # the program that starts it, and requests
    assert {path.name for path in tmp_path.iterdir()} == {"kit", "cache-a"}
    folder, freed = here.clean(target)
    assert folder == str(tmp_path / "cache-a" / "hwnas-worker")
    assert freed > 100_000
    assert not list((tmp_path / "cache-a").iterdir())


def test_a_cache_folder_may_hold_things_of_the_users(config, tmp_path):
    """Programs, names as ours, links: all is as it was, when the worker came and when it went."""
    target, cache = board(tmp_path, config), tmp_path / "cache-a"
    (tmp_path / "precious").mkdir()
    for name in ("bin/a", "bin/b", "bin/c", "bin/d", "bin/e", "bin/f", "kits/x", "lock", "blobs/y"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("precious")
    (cache / "board-a").symlink_to(tmp_path / "precious")
    before = tree(cache)
    kit = fake_kit(tmp_path / "kit")
    with client.connect(target, "a test") as worker:
        worker.send_kit(kit, files_of(kit, tmp_path / "kit"))
    assert {name for name in tree(cache) if name not in before} == {
        name for name in tree(cache) if name.startswith("hwnas-worker")
    }
    here.clean(target)
    assert tree(cache) == before
    assert not list((tmp_path / "precious").iterdir())


def tree(folder):
    """What each path below a folder is and holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.is_symlink()
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("ours", ["a file", "a link", "a folder of others"])
def test_what_is_in_the_place_of_our_folder_is_left_as_it_is(config, tmp_path, ours):
    cache = tmp_path / "cache-a"
    (cache / "elsewhere").mkdir(parents=True)
    place = cache / "hwnas-worker"
    if ours == "a file":
        place.write_text("precious")
    elif ours == "a link":
        place.symlink_to(cache / "elsewhere")
    else:
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "program").write_text("precious")
    before = tree(cache)
    with pytest.raises(ConfigError, match=r"hwnas-worker: .*; name another folder as ssh\.cache"):
        client.connect(board(tmp_path, config), "").__enter__()
    assert tree(cache) == before


def test_a_worker_that_is_used_now_stays_though_the_clock_fell_back(config, tmp_path):
    target, programs = board(tmp_path, config), tmp_path / "cache-a" / "hwnas-worker" / "bin"
    with client.connect(target, ""):
        (mine,) = programs.iterdir()
    for number in range(6):
        other = programs / f"{number:064x}.pyz"
        other.write_text("the worker of another host")
        os.utime(other, (4e9 + number, 4e9 + number))  # the year 2096
    (programs / "program").write_text("of the user's")
    mine.unlink()
    sent = []
    for _ in range(2):
        with client.connect(target, "") as worker:
            sent.append(worker.sent_bytes)
    assert sent[1] < 20_000 < sent[0]
    left = {f"{number:064x}.pyz" for number in (3, 4, 5)}
    assert {path.name for path in programs.iterdir()} == {mine.name, "program", *left}


def test_no_file_and_no_worker_hears_where_the_board_is(config, tmp_path):
    fake_kit(tmp_path / "kit")
    result = run(tmp_path, board(tmp_path, config))
    assert result.good == {"a": 6, "b": 6}
    assert "ssh_config" not in result.path.read_text()
    public = connections.published(board(tmp_path, config, noise=0.1))
    assert public["connection"] == {"kind": "ssh", "noise": "0.1"}


def test_a_second_campaign_is_told_who_holds_the_board_or_waits(config, tmp_path, quick):
    target = board(tmp_path, config)
    with (
        client.connect(target, "profiling of tiny"),
        pytest.raises(DeviceBusyError, match=r"in use by profiling of tiny \(process"),
    ):
        retry.persistently(target, "another", lambda worker: 0)
    holder = client.connect(target, "profiling of tiny")
    holder.__enter__()
    timer = threading.Timer(1.0, holder.__exit__, (None, None, None))
    timer.start()
    waiting = ProfileConfig(wait_s=60)
    assert retry.persistently(target, "another", lambda worker: 7, waiting) == 7
    timer.join()


# ---- what cannot run there ---------------------------------------------------------------------


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


OLD = "import sys; sys.version_info = (3, 6, 9); exec(eval(sys.stdin.buffer.raw.readline()))"
BARE = "import sys; sys.path[:] = [p for p in sys.path if not p.endswith('-packages')]; "
STOPPED_CLOCK = "import sys, time; time.time = lambda: 5.0; "
LOAD = "exec(eval(sys.stdin.buffer.raw.readline()))"


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        (f'exec {sys.executable} -c "{OLD}"', DeviceError, "Python 3.6.9 .*too old.*ssh.python"),
        (f'exec {sys.executable} -S -c "{BARE}{LOAD}"', RuntimeMissingError, "pip install numpy"),
        (f'exec {sys.executable} -c "{STOPPED_CLOCK}{LOAD}"', DeviceError, "clock is before 2024"),
        ("echo Welcome to Linux; sleep 5", DeviceError, "b'Welcome to Linux.*login shell"),
        ("echo '[1]'; sleep 5", DeviceError, "instead of starting the worker"),
        ("echo '{\"missing\": 3}'; sleep 5", DeviceError, "instead of starting the worker"),
        ("head -c 2000000 /dev/zero; sleep 5", DeviceError, "line longer than"),
        ("exit 127", LostDeviceError, "exit status 127"),
        ("echo no python here >&2; exit 1", LostDeviceError, "last line: no python here"),
    ],
)
def test_a_board_that_cannot_run_the_worker_says_why(config, tmp_path, text, error, reason):
    target = board(tmp_path, config, python=script(tmp_path / "python", text))
    with pytest.raises(error, match=reason):
        client.connect(target, "").__enter__()


def test_a_cache_that_cannot_be_written_is_named_with_the_setting(config, tmp_path):
    (tmp_path / "cache-a").write_text("a file, not a folder")
    with pytest.raises(
        ConfigError, match=r"cache-a/hwnas-worker: Not a directory; name .* as ssh\.cache"
    ):
        client.connect(board(tmp_path, config), "").__enter__()


def test_a_damaged_worker_in_the_cache_is_sent_again(config, tmp_path):
    target = board(tmp_path, config)
    with client.connect(target, ""):
        pass
    (path,) = (tmp_path / "cache-a" / "hwnas-worker" / "bin").iterdir()
    path.write_bytes(b"damaged")
    with client.connect(target, "") as worker:
        assert worker.probe()["emulated"]


# ---- lost and found ----------------------------------------------------------------------------


class Saboteur:
    """Starts connections as usual and kills the ssh process of some after so many lines."""

    def __init__(self, monkeypatch, after):
        self.after, self.cuts, self.lines = list(after), 0, 0
        receive = transport.Connection.receive

        def count(connection):
            self.lines += 1
            if self.after and self.lines >= self.after[0]:
                self.after.pop(0)
                self.cuts += 1
                os.kill(connection._process.pid, signal.SIGKILL)
            return receive(connection)

        monkeypatch.setattr(transport.Connection, "receive", count)


@pytest.mark.parametrize("after", [(1, 2), (4, 9), (30, 75, 140)])
def test_a_line_cut_in_any_phase_costs_a_round_at_most(config, tmp_path, monkeypatch, quick, after):
    fake_kit(tmp_path / "kit")
    sabotage = Saboteur(monkeypatch, after)
    told = []
    result = run(tmp_path, board(tmp_path, config), say=lambda text, share: told.append(text))
    assert sabotage.cuts == len(after)
    assert any("trying again for" in text for text in told)
    assert (result.stable, result.good) == (True, {"a": 6, "b": 6})
    contents(result.path)


def test_a_killed_worker_on_the_board_is_started_again(config, tmp_path, quick):
    fake_kit(tmp_path / "kit")
    result = run(tmp_path, board(tmp_path, config, die_after=90))
    assert (result.stable, result.good) == (True, {"a": 6, "b": 6})
    contents(result.path)


HOST = """
import sys
from pathlib import Path
from hwnas.settings.config import ProfileConfig
from hwnas.measuring import campaign
from profilers.schema import target_from_json
import json
target = target_from_json(json.loads(sys.argv[1]))
settings = ProfileConfig(budget_s=600, rounds=6, seed=1)
kit, out = Path(sys.argv[2]), Path(sys.argv[3])
campaign.run_campaign(target, kit, out, settings, lambda text, share: None)
"""


def test_a_host_that_is_killed_goes_on_where_it_stopped(config, tmp_path):
    fake_kit(tmp_path / "kit")
    target, out = board(tmp_path, config), tmp_path / "out.jsonl"
    words = [json.dumps(target.to_json()), str(tmp_path / "kit"), str(out)]
    with subprocess.Popen([sys.executable, "-c", HOST, *words]) as host:
        while host.poll() is None and not (out.exists() and out.stat().st_size > 4000):
            time.sleep(0.02)
        host.kill()
    before = out.read_bytes()
    result = run(tmp_path, target)
    assert out.read_bytes().startswith(before.rpartition(b"\n")[0])
    assert result.good == {"a": 6, "b": 6}


def test_a_worker_that_dies_each_time_is_not_tried_for_ever(config, tmp_path, quick):
    fake_kit(tmp_path / "kit")
    with pytest.raises(LostDeviceError, match=r"exit status 137.*same command again"):
        run(tmp_path, board(tmp_path, config, die_after=0))


def test_a_board_that_reboots_is_found_again(tmp_path, quick):
    need_sshd()
    fake_kit(tmp_path / "kit")
    told, down = [], threading.Event()

    def say(text, share):
        told.append(text)
        if "session a: 1 of" in text:
            down.set()

    with server(tmp_path / "sshd") as config:
        port = int(config.read_text().split("Port ")[1].split()[0])
        target, found = board(tmp_path, config), []
        thread = threading.Thread(target=lambda: found.append(run(tmp_path, target, say=say)))
        thread.start()
        assert down.wait(60)
    holder = re.search(
        r"process (\d+)",
        (tmp_path / "cache-a" / "hwnas-worker" / "devices" / "board-a" / "lock").read_text(),
    )
    if holder:  # a worker is at work
        os.kill(int(holder[1]), signal.SIGKILL)
    time.sleep(0.3)
    with server(tmp_path / "sshd", port):
        thread.join(60)
    assert found[0].good == {"a": 6, "b": 6}
    contents(found[0].path)


def test_a_host_that_falls_silent_ends_the_worker(tmp_path):
    target = Target("host", "ort-cpu")
    command = [*local.local_command(target, tmp_path), "--heartbeat", "0.1"]
    program = "import profilers.channel as c; c.HOST_SILENCE_S, c.GRACE_S = 0.5, 0.1\n"
    entry = Path(command[4])
    shutil.unpack_archive(entry, tmp_path / "unpacked", "zip")
    main = tmp_path / "unpacked" / "__main__.py"
    main.write_text(program + main.read_text())
    command[4] = str(tmp_path / "unpacked")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(transport.BEAT)
        process.stdin.flush()
        assert process.wait(30) is not None


# ---- several -----------------------------------------------------------------------------------


def test_targets_of_one_board_share_a_queue_and_boards_do_not(tmp_path):
    one, two = board(tmp_path, "c"), board(tmp_path, "c", "b")
    assert connections.queue(one) == connections.queue(board(tmp_path, "c", engine="ort-cpu"))
    assert connections.queue(one) != connections.queue(two)
    assert connections.queue(Target("host", "ort-cpu")) == connections.THIS_MACHINE


def test_queues_run_at_the_same_time_and_a_failure_stays_in_its_queue():
    together, order = threading.Barrier(2, timeout=30), []

    def piece(name, fail=None):
        def work():
            if name in ("a1", "b1"):
                together.wait()
            order.append(name)
            if fail:
                raise fail
            return name

        return work

    work = {name: piece(name) for name in ("h1", "a2", "b2")}
    work |= {"a1": piece("a1", DeviceError("gone")), "b1": piece("b1", ZeroDivisionError())}
    names = {name: connections.THIS_MACHINE if name == "h1" else name[0] for name in work}
    done = device_queues.drive({name: work[name] for name in ("a1", "b1", "h1", "a2", "b2")}, names)
    assert order[0] == "h1"
    assert order.index("a1") < order.index("a2")
    assert [done[name].result() for name in ("h1", "a2", "b2")] == ["h1", "a2", "b2"]
    assert isinstance(done["a1"].exception(), DeviceError)
    assert isinstance(done["b1"].exception(), ZeroDivisionError)


def test_a_board_that_fails_does_not_stop_the_others_and_is_named(config, tmp_path, capsys):
    nowhere = tmp_path / "ssh_config"
    nowhere.write_text(config.read_text().replace("Port ", "Port 1\n  # "))
    both = [board(tmp_path, config, "near"), board(tmp_path, nowhere, "far")]
    for target in both:
        written(tmp_path, target)
    settings = {
        "run": "run",
        "data": {"kind": "digits"},
        "space": {"name": "tiny", "resolutions": [8]},
        "profile": {"budget_s": 20, "heldout": 5, "rounds": 5, "reconnect_s": 0},
        "targets": [target.name for target in both],
    }
    (tmp_path / "hwnas.yaml").write_text(json.dumps(settings))
    accept = "unreliable,emulated"
    request = running.Request(tmp_path / "hwnas.yaml", accept=accept, clean=True)
    assert running.run(("data", "profile"), request) == 4
    words = capsys.readouterr().err
    assert re.search(r"hwnas: profile\.board-far\S*: board-far cannot be reached: ", words)
    assert "hwnas: profile.board-near" not in words
    assert (tmp_path / "run" / "tables" / f"{both[0].name}.json").exists()
    assert f"{both[0].name}: removed" in words
    assert not list((tmp_path / "cache-near").iterdir())


def test_an_ssh_configuration_is_found_from_where_the_settings_lie(tmp_path):
    path = written(tmp_path, board(tmp_path, "lab/ssh_config"))
    way = openssh.of_target(targets.load_target(path.stem, tmp_path))
    assert way.config == str(tmp_path / "lab" / "ssh_config")


def test_a_devices_name_stands_for_its_only_target(tmp_path):
    path = written(tmp_path, board(tmp_path, "c"))
    assert targets.full_name("board-a", tmp_path) == path.stem
    assert targets.full_name(path.stem, tmp_path) == path.stem
    assert targets.full_name("board-b", tmp_path) == "board-b"
    path.with_name(path.name.replace(".b1.", ".b8.")).write_text("")
    with pytest.raises(ConfigError, match=r"several targets; name one of board-a\.modelled"):
        targets.full_name("board-a", tmp_path)


def test_outputs_of_a_board_are_those_of_the_engine(config, tmp_path):
    from test_remote import model

    model(tmp_path / "m.onnx")
    images = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    here = remote.run_model(Target("host", "ort-cpu"), tmp_path / "m.onnx", images)
    there = remote.run_model(board(tmp_path, config, engine="ort-cpu"), tmp_path / "m.onnx", images)
    np.testing.assert_array_equal(here, there)


def test_the_program_that_starts_a_worker_is_one_line():
    line = ssh._program("cache with\nnewline and ' quote", "0" * 64, 7)
    assert line.count(b"\n") == 1
