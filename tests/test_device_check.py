"""`hwnas devices check`: everything at once, what is missing is said, and nothing names anybody."""

import contextlib
import getpass
import json
import re
import runpy
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_boards import FakeBoard
from ssh_boards import board as ssh_board
from ssh_boards import written
from ssh_server import need_sshd, server

from hwnas import cli
from hwnas.boards import ask, check, checks, target_files
from hwnas.measuring import openssh
from profilers.errors import DeviceError, LostDeviceError
from profilers.schema import Target

DOCS = Path(__file__).parent.parent / "docs"
verified = SimpleNamespace(**runpy.run_path(str(DOCS / "verified.py")))
OF_DEVICE = [each.__name__ for each in checks.OF_DEVICE]
OF_TARGET = [each.__name__ for each in checks.OF_TARGET]


def hwnas(*words):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, words)))
    return ended.value.code


def rows_of(document):
    return {row["check"]: row for row in document["checks"]}


def named(document, *secrets):
    """Those of some texts that a document holds."""
    text = json.dumps(document)
    return [secret for secret in secrets if secret in text]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a modelled engine on a board that a real SSH server reaches."""
    need_sshd()
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        config = stack.enter_context(server(tmp_path / "sshd"))
        target = ssh_board(tmp_path, config, "anna")
        written(tmp_path, target)
        yield target, stack


def test_a_board_is_checked_into_a_file_that_names_nobody(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "UNITS", 900)  # short measurements, and time enough for all
    code = hwnas("devices", "check", "board-anna", "--budget", 900, "--out", "check.json")
    said = capsys.readouterr()
    found = json.loads((tmp_path / "check.json").read_text())
    assert [row["check"] for row in found["checks"]] == OF_DEVICE + OF_TARGET
    rows = rows_of(found)
    assert code == (4 if check.failed(found) else 0), said.err
    for name in ("identity", "engine", "resume"):
        assert rows[name]["holds"], rows[name]
    assert rows["latency"]["facts"]["network 1"]["latency_ms"] > 0
    assert rows["resume"]["facts"]["records"] > 50
    assert rows["table"]["holds"] or "disturbed rounds" in rows["table"]["reason"]
    assert not rows["outputs"]["holds"]  # modelled times compute nothing
    assert not named(found, "anna", "127.0.0.1", str(tmp_path), "/home", f'"{getpass.getuser()}"')
    for row in found["checks"]:
        assert f"{row['check']}" in said.out


def test_a_board_that_vanishes_costs_only_what_needs_it(project, tmp_path, monkeypatch):
    target, stack = project
    monkeypatch.setattr(checks, "RECONNECT_S", 1.0)
    kept = []

    def keep(document):
        kept.append(json.loads(json.dumps(document)))
        if document["checks"][-1]["check"] == "outputs":
            stack.close()  # the server ends

    found = ask.ask(openssh.of_target(target))
    document = check.check_device(found, [target], tmp_path, 60.0, keep, lambda text, share: None)
    rows = rows_of(document)
    assert kept[-1] == document
    assert rows["engine"]["holds"]
    assert rows["latency"]["holds"] is False
    assert "cannot be reached" in rows["latency"]["reason"]
    for name in OF_TARGET[OF_TARGET.index("latency") + 1 :]:
        assert rows[name]["holds"] is None
        assert rows[name]["reason"] == "the device was lost during latency"
    assert not named(document, "anna", "127.0.0.1", str(tmp_path))


def test_a_board_that_cannot_be_reached_at_all_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    target = Target("desk", "ort-cpu", connection={"ssh": {"address": "board.invalid"}})
    written(tmp_path, target)
    assert hwnas("devices", "check", "desk") == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("hwnas: board.invalid cannot be")
    assert not list(tmp_path.glob("*.json"))


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, Target("here", "fake", hardware="fake"))
    (tmp_path / "file").write_text("mine")
    code = hwnas("devices", "check", "here", "--budget", 20, "--out", "file/check.json")
    assert code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("hwnas: cannot write file/check")


@pytest.mark.parametrize(
    ("error", "holds"),
    [(DeviceError("no"), False), (LostDeviceError("gone"), False)]
    + [(kind("lacks it"), None) for kind in check.CANNOT_TELL],
    ids=lambda value: type(value).__name__,
)
def test_what_is_missing_is_unknown_and_what_fails_fails(monkeypatch, error, holds):
    def broken(visit, target):
        raise error

    monkeypatch.setattr(check, "_is_there", lambda visit, target: True)
    answer, lost = check._answer(broken, None, None)
    assert (answer.holds, answer.reason, lost) == (holds, str(error), False)


def test_time_that_is_over_ends_the_checks_but_not_the_file(tmp_path, monkeypatch):
    target = Target("fake", "fake")
    found = ask.ask(None)
    document = check.check_device(found, [target], tmp_path, 0.0, lambda d: None, lambda t, s: None)
    reasons = {row["reason"] for row in document["checks"]}
    assert reasons == {"no time was left of 0 s"}


# ---- recorded boards ---------------------------------------------------------------------------


def visit(tmp_path, monkeypatch, name, tools):
    """A recorded board whose vendor's tools print something; those without a name are missing."""
    fake = FakeBoard(tmp_path / "tree", name)
    monkeypatch.setattr(openssh, "run_remote", fake)
    board = ask.ask(openssh.parse({"address": "pi@board"}))

    def tool(way, words, given, wait_s):
        known = " ".join(words) in tools
        out = tools.get(" ".join(words), "")
        return subprocess.CompletedProcess(words, 0 if known else 127, out.encode(), b"")

    monkeypatch.setattr(checks, "run_words", tool)
    (target, *_) = target_files.targets_of(board, "mine")
    return checks.Visit(board, tmp_path, 1.0), target


@pytest.mark.parametrize(
    ("name", "tools", "holds", "reason"),
    [
        ("raspberry-pi-4-throttled", {"vcgencmd get_throttled": "throttled=0x50005"}, True, ""),
        ("raspberry-pi-4-throttled", {"vcgencmd get_throttled": "throttled=0x0"}, False, "get_th"),
        ("raspberry-pi-5", {"vcgencmd measure_temp": "temp=12.0'C"}, False, "measure_temp reports"),
        ("raspberry-pi-5", {}, None, "no tool of its vendor"),
        ("jetson-orin-nano", {"nvpmodel -q": "NV Power Mode: 15W\n0\n"}, True, ""),
        (
            "jetson-orin-nano",
            {"nvpmodel -q": "NV Power Mode: MAXN\n9\n"},
            False,
            "nvpmodel reports",
        ),
        ("x86-server", {}, None, "no tool of its vendor"),
    ],
)
def test_flags_of_a_board_are_held_against_its_vendors_tool(
    tmp_path, monkeypatch, name, tools, holds, reason
):
    answer = checks.flags(*visit(tmp_path, monkeypatch, name, tools))
    assert answer.holds is holds, answer
    assert answer.reason.startswith(reason)


def test_worker_and_survey_that_differ_are_not_one_machine(tmp_path, monkeypatch):
    seen, target = visit(tmp_path, monkeypatch, "raspberry-pi-5", {})
    told = {**seen.board.survey, "engine_version": "1"}
    monkeypatch.setattr(checks.here, "probe", lambda target, settings: told)
    assert checks.probes(seen, target).holds
    monkeypatch.setattr(checks.here, "probe", lambda target, settings: {**told, "cpu": "another"})
    assert checks.probes(seen, target)[:2] == (False, "worker and survey differ in cpu")
    told = {**told, "temperature_c": None}
    monkeypatch.setattr(checks.here, "probe", lambda target, settings: told)
    assert checks.probes(seen, target)[:2] == (False, "it does not report temperature_c")


@pytest.mark.parametrize(
    ("virtual", "board", "holds"),
    [(None, None, None), (None, "Raspberry Pi 5", False), (False, None, False), (True, None, None)],
)
def test_only_what_is_known_to_be_real_hardware_must_report_its_heat(
    tmp_path, monkeypatch, virtual, board, holds
):
    seen, target = visit(tmp_path, monkeypatch, "raspberry-pi-5", {})
    seen.board.survey.update(virtual=virtual, board=board)
    told = {**seen.board.survey, "temperature_c": None}
    monkeypatch.setattr(checks.here, "probe", lambda target, settings: told)
    assert checks.probes(seen, target).holds is holds


def flagged(now=(), since_boot=(), **events):
    return {"now": list(now), "since_boot": list(since_boot), "events": events}


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        (flagged(), flagged(["throttled"], ["throttled"]), True),
        (flagged(), flagged(since_boot=["throttled"]), True),
        (flagged(thermal=7), flagged(thermal=8), True),
        (flagged(thermal=7), flagged(thermal=7), False),
        (flagged(), flagged(), False),
        (flagged(since_boot=["under-voltage"]), flagged(since_boot=["under-voltage"]), None),
        (None, None, None),
    ],
)
def test_what_a_board_told_before_does_not_explain_that_it_got_slower(
    tmp_path, monkeypatch, before, after, holds
):
    seen, target = visit(tmp_path, monkeypatch, "raspberry-pi-5", {})
    found = {"first_ms": 1.0, "last_ms": 1.5, "slowdown": 0.5, "temperature_c": [50.0, 85.0]}
    flags = iter([before, after])
    monkeypatch.setattr(checks.here, "probe", lambda *given: {"throttled": next(flags)})
    monkeypatch.setattr(checks.sustained, "sustained", lambda *given: found)
    assert checks.heat(seen, target).holds is holds


def energies(monkeypatch, by_meter):
    """Meters of which each gives (W under load, W at rest); energy follows the model's size."""

    def measure(target, paths, settings, ops=()):
        load_w, idle_w = by_meter[target.meter]
        about = {"energy_spread": 0.01, "windows": 3, "window_s": 2.0, "period_s": 0.1, "rails": {}}
        return [
            {"energy_mj": n + 1.0, "power_w": load_w, "idle_w": idle_w, **about}
            for n, _ in enumerate(paths)
        ]

    monkeypatch.setattr(checks.here, "measure_energies", measure)


@pytest.mark.parametrize(
    ("readings", "own", "holds"),
    [
        ({"rapl": (9.0, 4.0), "hwmon": (12.0, 6.0)}, "none", True),
        ({"rapl": (9.0, 4.0), "hwmon": (5.0, 4.5)}, "none", False),
        ({"rapl": (9.0, 4.0)}, "none", None),
        ({"rapl": (9.0, 4.0), "nvml": (30.0, 30.0)}, "none", None),  # a card's watts are others
        ({"pi5-pmic": (5.0, 3.0), "csv": (6.5, 4.0)}, "csv", True),  # a USB meter beside it
    ],
)
def test_meters_are_held_against_each_other(tmp_path, monkeypatch, readings, own, holds):
    seen, target = visit(tmp_path, monkeypatch, "raspberry-pi-5", {})
    known = [{"name": name, "problem": None} for name in readings if name != own]
    seen.board.survey["meters"] = known
    energies(monkeypatch, readings)
    assert checks.meters(seen, replace(target, meter=own)).holds is holds


def test_a_meter_that_does_not_move_under_load_does_not_hold(tmp_path, monkeypatch):
    seen, _target = visit(tmp_path, monkeypatch, "raspberry-pi-5", {})
    metered = Target("mine", "ort-cpu", meter="hwmon")
    energies(monkeypatch, {"hwmon": (9.0, 4.0)})
    assert checks.energy(seen, metered).holds
    energies(monkeypatch, {"hwmon": (4.0, 4.0)})
    assert "no more power under load" in checks.energy(seen, metered).reason
    assert checks.energy(seen, Target("mine", "ort-cpu")).holds is None


# ---- names and documents -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("anna@desk.lan cannot be reached", "DEVICE cannot be reached"),
        ("desk.lan: no engine", "DEVICE: no engine"),
        ("cannot write /home/anna/x.json: full", "cannot write PATH: full"),
        ("see ~/.ssh/config", "see PATH"),
        ("to 192.168.0.17 or fe80:0:0:1::7", "to ADDRESS or ADDRESS"),
        ("mine.ort-cpu.fp32.b1.t1 differs by 0.5/2", "DEVICE.ort-cpu.fp32.b1.t1 differs by 0.5/2"),
        ("root@other: Permission denied", "ADDRESS Permission denied"),
    ],
)
def test_messages_lose_what_names_somebody(tmp_path, monkeypatch, text, told):
    fake = FakeBoard(tmp_path / "tree", "raspberry-pi-5")
    monkeypatch.setattr(openssh, "run_remote", fake)
    board = ask.ask(openssh.parse({"address": "anna@desk.lan"}))
    assert check.anonymous(text, board, Target("mine", "ort-cpu")) == told


def document(**changes):
    row = {"check": "identity", "target": "", "holds": True, "reason": "", "facts": {}}
    failed = {**row, "check": "table", "target": "pi5.ort-cpu", "holds": False, "reason": "a | b"}
    device = {"family": "Raspberry Pi 5", "board": "Raspberry Pi 5 Model B", "cpu": "Cortex-A76"}
    device |= {"os": "Debian 12", "python": "3.11.2", "engines": {"onnxruntime": "1.20"}}
    found = {"format": check.FORMAT, "date": "2030-01-02", "hwnas": "1+abc", "device": device}
    return {**found, "checks": [row, failed, {**row, "check": "heat", "holds": None}], **changes}


def test_files_of_checks_become_lines_of_one_page(tmp_path, capsys):
    page, first = tmp_path / "verified.md", tmp_path / "a.json"
    first.write_text(json.dumps(document()))
    second = tmp_path / "b.json"
    second.write_text(json.dumps(document(date="2030-01-03")))
    words = [str(first), str(second), "--into", str(page)]
    assert verified.main(words) == 0
    assert verified.main(words) == 0  # again: nothing new
    lines = page.read_text().removeprefix(verified.HEAD).splitlines()
    assert lines[0] == (
        "| Raspberry Pi 5 Model B, Cortex-A76 | 2030-01-02 | hwnas 1+abc, Debian 12, "
        "Python 3.11.2, onnxruntime 1.20 | identity | table of pi5.ort-cpu (a \\| b) | heat |"
    )
    assert len(lines) == 2
    assert (DOCS / "verified.md").read_text(encoding="utf-8").startswith(verified.HEAD)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "another"},
        {"date": "yesterday"},
        {"checks": []},
        {"checks": [{"check": "identity"}]},
        {"device": "a Pi"},
        {"hwnas": 1},
    ],
    ids=str,
)
def test_what_is_no_document_of_checks_is_refused_and_the_page_stays(tmp_path, capsys, changes):
    path, page = tmp_path / "a.json", tmp_path / "verified.md"
    path.write_text(json.dumps(document(**changes)))
    assert verified.main([str(path), "--into", str(page)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not page.exists()


def test_every_check_answers_a_row_of_what_is_not_verified():
    rows = (DOCS / "unverified.md").read_text(encoding="utf-8").splitlines()
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row.rpartition("check: ")[2])}
    assert set(OF_DEVICE + OF_TARGET) <= told


@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_in_int8_are_those_of_a_quantised_file(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(checks, "IMAGES", 20)
    target = Target("host", "ort-cpu", precision="int8", batch=batch)
    found = checks.outputs(checks.Visit(None, tmp_path, 1.0), target)
    assert found.holds
    assert {0.8 < each["rounding"] < 1.2 for each in found.facts.values()} == {True}
