"""Hostile and broken input to `hwnas devices`: each is refused in one line, with its exit code.

Nothing of it reaches a shell, the terminal or a file outside `targets/`.
"""

import json
import os
import shlex
import stat

import pytest
from fake_boards import ORT, FakeBoard

from hwnas.cli import main
from hwnas.measuring import openssh
from hwnas.settings.targets import load_target
from profilers import errors
from profilers.errors import ConfigError, DeviceError

ADDRESSES = (
    *("-oProxyCommand=reboot", "--", "", " ", "a b", "a;reboot", "$(id)@h", "`id`@h", "u@-h"),
    *("a\nb", "a\x00b", "a\x1b[31m", "u@h@x", "ssh://h:22/../x", "ssh://-x", "ssh://h:99999999"),
    *("h|nc", "u@h>f", "h&", "\u00e9@h", "u@h\u202e", "../h", "~/h", "u:secret@h", "a" * 400),
)
OPTIONS = (
    *("--name=../up", "--name=a/b", "--name=a.b", "--name=-x", "--name=a b", "--name=a\nb"),
    *("--name=" + "x" * 65, "--name=\x1b[2J", "--python=-c", "--python=a\nb", "--python=\x1b[2J"),
    *("--cache=-rf", "--cache=a\nb", "--ssh-config=-x", "--ssh-config=a\x00b", "--threads=-1"),
    *("--threads=5000", "--threads=many"),
)
CONNECTIONS = (
    *("{ssh: -oProxyCommand=reboot}", "{ssh: 'a;b'}", "{ssh: {address: h, port: 22}}", "{ssh: []}"),
    *("{ssh: {config: x}}", "{ssh: {address: h, python: '-c'}}", "{ssh: 7}", "{ssh: null}"),
    *('{ssh: {address: h, cache: "a\\nb"}}', "{ssh: {address: [h]}}"),
)
LOOKS = (  # what the shell of the board says instead
    ({"system": ""}, "no POSIX shell"),
    ({"system": "Darwin"}, "only Linux"),
    ({"machine": "armv7l"}, "install a 64-bit system"),
    ({"machine": "x; reboot"}, "install a 64-bit system"),
    ({"python": "2.7.18"}, "too old"),
    ({"python": "3.7.17"}, "too old"),
    ({"python": "\x1b[2J"}, "that runs"),
    ({"python": "sh: python3: not found"}, "apt-get install python3"),
    ({"python": "9" * 100_000}, "that runs"),
)
RAW = (  # what the board's Python prints instead of a survey
    *(b"", b"garbage", b"{", b"[]", b"null", b"\xff\xfe\x00", b"\x1b[2Jgarbage", b"{}"),
    *(b'{"a":' * 100_000, b'{"format":"other"}', b'{"format":"hwnas-survey-1"}', b"{" * 3_000_000),
    b'{"format":"hwnas-survey-1","cores":' + b"9" * 10_000 + b"}",
)
FIELDS = (  # one field of a survey that is not what it should be
    *(("cores", "4"), ("cores", -1), ("cores", True), ("cores", 1 << 70), ("cores", 4.5)),
    *(("memory_bytes", float("inf")), ("temperature_c", float("nan")), ("clock_mhz", 1e300)),
    *(("board", "\x1b]0;owned\x07"), ("board", "a\nb"), ("board", "x" * 10_000), ("board", 7)),
    *(("os", "\u202eevil"), ("python", None), ("modules", {"numpy": "yes"}), ("modules", [])),
    *(("meters", [{"name": "rapl"}]), ("meters", [{}] * 100), ("meters", "rapl")),
    *(("throttled", {"now": []}), ("throttled", 7), ("load_average", [1, "2"]), ("extra", 1)),
    *(("cpu_features", ["x"] * 1000), ("governor", ["a"]), ("disk_free_bytes", None)),
)
TROUBLE = (  # what ssh says, and what we add
    ("ssh: Could not resolve hostname h: Name or service not known", "IP address"),
    ("ssh: connect to host h port 22: Connection refused", "runs an SSH server"),
    ("ssh: connect to host h port 22: Connection timed out", "is on and on this network"),
    ("ssh: connect to host h port 22: No route to host", "is on and on this network"),
    ("u@h: Permission denied (publickey,password).", "ssh-copy-id"),
    ("Host key verification failed.", "connect once by hand"),
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\r\nHost key verification failed.",
     "ssh-keygen -R"),
    ("", "try `ssh board` by hand"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def board(tmp_path, monkeypatch):
    fake = FakeBoard(tmp_path / "tree", "raspberry-pi-5")
    monkeypatch.setattr(openssh, "run_remote", fake)
    return fake


def refused(capsys, code, *words):
    """The one line that `hwnas devices` ends with, after checking what every refusal must hold."""
    with pytest.raises(SystemExit) as ended:
        main(["devices", *words])
    out, err = capsys.readouterr()
    assert ended.value.code == code, err
    assert err.startswith("hwnas: ")
    assert err.count("\n") == 1
    assert len(err) < 700
    assert (out + err).replace("\n", "").isprintable()
    return err


def test_more_than_forty_hostile_inputs_are_tried():
    kinds = (ADDRESSES, OPTIONS, CONNECTIONS, LOOKS, RAW, FIELDS, TROUBLE)
    assert sum(map(len, kinds)) >= 40


@pytest.mark.parametrize("address", ADDRESSES, ids=ascii)
def test_what_is_no_address_is_refused_before_anything_runs(capsys, board, project, address):
    refused(capsys, 2, "add", "--", address)
    assert board.asked == []
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("option", OPTIONS, ids=ascii)
def test_options_that_are_not_allowed_are_refused_before_anything_runs(
    capsys, board, project, option
):
    refused(capsys, 2, "add", "u@h", option)
    assert board.asked == []
    assert list(project.iterdir()) == []


def test_this_machine_takes_no_way_to_a_board(capsys):
    assert "leave them out" in refused(capsys, 2, "add", "local", "--python", "python3")


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_target_file_cannot_smuggle_options_or_commands(project, connection):
    (project / "targets").mkdir()
    path = project / "targets" / "pi.ort-cpu.fp32.b1.t1.yaml"
    path.write_text(f"device: pi\nruntime: ort-cpu\nconnection: {connection}\n")
    with pytest.raises(ConfigError):
        openssh.of_target(load_target("pi.ort-cpu.fp32.b1.t1", project))


@pytest.mark.parametrize(("look", "words"), LOOKS, ids=ascii)
def test_a_board_that_cannot_be_a_target_is_refused_with_the_reason(
    capsys, board, project, look, words
):
    board.look.update(look)
    assert words in refused(capsys, 4, "add", "u@h")
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: ascii(raw[:20]))
def test_an_answer_that_is_none_is_not_used(capsys, board, project, raw):
    board.raw = raw
    refused(capsys, 4, "add", "u@h")
    assert list(project.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), FIELDS, ids=lambda part: ascii(part)[:30])
def test_a_field_that_is_not_what_it_should_be_is_not_used(capsys, board, project, name, value):
    board.answer[name] = value
    assert name in refused(capsys, 4, "add", "u@h")
    assert list(project.iterdir()) == []


@pytest.mark.parametrize(("words", "advice"), TROUBLE)
def test_the_reason_of_ssh_comes_with_what_to_do(capsys, monkeypatch, words, advice):
    def fail(address, *rest):
        raise DeviceError(openssh.reason(address, words))

    monkeypatch.setattr(openssh, "run_remote", fail)
    assert advice in refused(capsys, 4, "add", "board")


@pytest.mark.parametrize(
    "engine",
    [
        {**ORT, "version": "1.31\x1b[2J"},
        {**ORT, "version": 7},
        {**ORT, "providers": ["x" * 1000]},
        {**ORT, "extra": 1},
        {**ORT, "problem": "ImportError:\n\x1b[2J" + "x" * 10_000},
    ],
    ids=ascii,
)
def test_an_engine_that_answers_nonsense_counts_as_missing(capsys, board, engine):
    board.engines["onnxruntime"] = engine
    assert "onnxruntime: cannot be imported" in refused(capsys, 4, "add", "u@h")


def test_what_a_login_shell_prints_first_is_no_answer_but_is_told(capsys, board):
    board.raw = b'Welcome!\n{"format": "hwnas-survey-1"}\n' + json.dumps(board.answer).encode()
    chatty = FakeBoard._out

    def look(words):
        before = b"\x1b[1mWelcome!\x1b[0m\n" if words[:1] == ["sh"] else b""
        return before + chatty(board, words)

    board._out = look
    assert "prints '?[1mWelcome!" in refused(capsys, 4, "add", "u@h")


def test_a_python_that_dies_is_told_with_its_last_words(capsys, board):
    board.status = 1
    assert "ended with status 1" in refused(capsys, 4, "add", "u@h")
    board.status = 137
    assert "signal 9 (SIGKILL)" in refused(capsys, 4, "add", "u@h")


# ---- a program in the place of ssh -------------------------------------------------------------


@pytest.fixture
def false_ssh(tmp_path, monkeypatch):
    """Puts a shell script where `ssh` is looked for."""

    def put(script):
        tool = tmp_path / "bin" / "ssh"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")

    return put


def test_a_gigantic_answer_is_cut_off(capsys, false_ssh):
    false_ssh("exec yes garbage")
    assert "sent more than" in refused(capsys, 4, "add", "u@h")


def test_a_board_that_never_answers_is_given_up(capsys, false_ssh, monkeypatch):
    false_ssh("exec sleep 60")
    monkeypatch.setattr("hwnas.boards.ask.LOOK_S", 0.5)
    assert "0 s" in refused(capsys, 4, "add", "u@h")


def test_ssh_gets_the_address_behind_its_options_and_one_quoted_command(
    capsys, false_ssh, tmp_path
):
    seen = tmp_path / "seen"
    false_ssh(f"printf '%s\\0' \"$@\" >> {seen}; exit 1")
    python = "py thon'; touch owned; $(id)"
    refused(capsys, 4, "add", "u@h", "--python", python)
    words = seen.read_text().rstrip("\0").split("\0")
    assert words[-3:-1] == ["--", "u@h"]
    assert shlex.split(words[-1]) == ["sh", "-s", "--", python]
    assert "BatchMode=yes" in words
    assert not any("StrictHostKeyChecking" in word for word in words)


# ---- files -------------------------------------------------------------------------------------


def test_a_link_in_the_place_of_a_target_file_is_not_followed(capsys, board, project, tmp_path):
    outside = tmp_path / "outside.yaml"
    outside.write_text("precious: 1\n")
    (project / "targets").mkdir()
    link = project / "targets" / "pi5.ort-cpu.fp32.b1.t4.yaml"
    link.symlink_to(outside)
    assert "was kept" in refused(capsys, 2, "add", "u@h")
    with pytest.raises(SystemExit):
        main(["devices", "add", "u@h", "--force"])
    assert outside.read_text() == "precious: 1\n"
    assert not link.is_symlink()


def test_a_file_in_the_place_of_the_folder_is_refused(capsys, board, project):
    (project / "targets").write_text("x")
    assert "cannot write" in refused(capsys, 2, "add", "u@h")


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [reboot]\n", "- 1\n", "\x00\x01", "a: &a [*a]\n"]
)
def test_a_file_that_is_no_target_hurts_nobody(capsys, board, project, text):
    (project / "targets").mkdir()
    (project / "targets" / "other.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["devices", "add", "u@h"])
    assert ended.value.code == 0


def test_text_for_people_is_one_short_line():
    assert errors.printable("a\n\x1b[2J\tb") == "a ?[2J b"
    assert errors.printable("x" * 1000) == "x" * 159 + "…"
