"""An emulated aarch64 board behind a real SSH server: all that a board does, but for its times."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emulated import need_emulated_board
from ssh_server import need_sshd, server
from test_int8 import data_of, exact_ranges, images, written
from test_package import MANIFEST
from test_remote import model
from worker_kits import networks

from hwnas.boards import ask, check, checks
from hwnas.measuring import openssh, parity, remote
from hwnas.networks import spaces
from hwnas.run import package
from hwnas.settings.targets import load_target
from hwnas.tables import table
from profilers.errors import TableError

pytestmark = [pytest.mark.slow, pytest.mark.emulated]
BOARDS = ("pi", "pc")  # the emulated one, and this machine as a board
SETTINGS = """
run: run
data: {kind: digits}
space: {name: tiny, resolutions: [8]}
profile: {budget_s: 60, heldout: 5, rounds: 5}
targets: [pi.ort-cpu.fp32.b1.t1, pc.ort-cpu.fp32.b1.t1]
"""


def hwnas(folder, *words, codes=(0,)):
    """Run the command line in a folder."""
    command = [sys.executable, "-m", "hwnas", *map(str, words)]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert found.returncode in codes, found.stderr[-2000:]
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with two boards, added by the command that users type."""
    need_sshd()
    folder = tmp_path_factory.mktemp("project")
    with server(folder / "sshd") as config:
        for name, python in zip(BOARDS, (need_emulated_board(), sys.executable), strict=True):
            way = ("--ssh-config", config, "--python", python, "--cache", folder / f"cache-{name}")
            # 4: something that users would want is missing, and said
            hwnas(
                folder, "devices", "add", f"board-{name}", "--name", name, "--threads", 1, *way,
                codes=(0, 4),
            )  # fmt: skip
        (folder / "hwnas.yaml").write_text(SETTINGS)
        yield folder


def cut_a_line(parent, seen):
    """Kill an ssh of a process as soon as measurements are coming."""
    while parent.poll() is None:
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                number, name, _, owner = path.read_text().split()[:4]
            except (OSError, ValueError):
                continue
            if name == "(ssh)" and int(owner) == parent.pid and seen():
                os.kill(int(number), signal.SIGKILL)
                return
        time.sleep(0.1)


def test_two_boards_are_profiled_at_once_through_a_cut_line(project):
    folder = project / "run" / "measurements"
    logs = [folder / f"{name}.ort-cpu.fp32.b1.t1.jsonl" for name in BOARDS]
    pi = logs[0]
    measured = lambda: pi.exists() and pi.stat().st_size > 5000  # noqa: E731
    command = [sys.executable, "-m", "hwnas", "profile", "--accept", "unreliable,emulated"]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as process:
        killer = threading.Thread(target=cut_a_line, args=(process, measured))
        killer.start()
        words = process.communicate(timeout=400)[1]
        killer.join()
    assert process.returncode == 0, words[-2000:]
    for log in logs:
        header, *records = map(json.loads, log.read_text().splitlines())
        environment = header["environment"]
        facts = (environment["machine"], environment["emulated"], environment["cpu"])
        assert (facts == ("aarch64", True, "Cortex-A72")) == (log == pi)
        names = [(*record["id"], record["order"]) for record in records]
        assert len(set(names)) == len(names)
        found = table.load_table(project / "run" / "tables" / f"{log.stem}.json")
        assert found.marks == ("emulated" if log == pi else "measured",)
        assert not found.validation["missing"]
        assert "board-" not in json.dumps(found.target)


def test_a_table_of_an_emulated_board_is_refused_unless_told(project):
    (path,) = (project / "run" / "tables").glob("pi.*.json")
    found, space = table.load_table(path), spaces.load("tiny").restricted([8])
    with pytest.raises(TableError, match="emulated"):
        table.check_serves(found, space, ["unreliable"])
    assert table.check_serves(found, space, ["unreliable", "emulated"])


def test_a_package_is_verified_on_the_board(project, tmp_path):
    model(tmp_path / package.MODEL)
    package.write_manifest(tmp_path, MANIFEST)
    found = hwnas(project, "verify", tmp_path, "--target", "pi", "--json", codes=(0, 4))
    document = json.loads(found.stdout)
    if found.returncode == 4:  # an emulator on a busy machine; the outputs were compared before
        assert "undisturbed rounds" in document["error"]
        return
    assert document["marks"] == ["emulated"]
    assert document["outputs"]["max_relative_difference"] <= document["outputs"]["tolerance"]
    assert document["latency"]["latency_ms"] > 0


def test_a_check_of_the_board_compares_real_outputs_and_names_nobody(project, monkeypatch):
    target = load_target("pi.ort-cpu.fp32.b1.t1", project)
    board = ask.ask(openssh.of_target(target))
    monkeypatch.setattr(check, "OF_TARGET", (checks.engine, checks.outputs))
    monkeypatch.setattr(checks, "IMAGES", 50)
    found = check.check_device(board, [target], project, 900, lambda _: None, lambda *_: None)
    rows = {row["check"]: row for row in found["checks"]}
    assert rows["identity"]["holds"]
    assert rows["probes"]["holds"] is None  # an emulated processor has no heat
    assert rows["outputs"]["holds"], rows["outputs"]
    assert rows["outputs"]["facts"]["tiny"]["images"] == 50
    assert "board-pi" not in json.dumps(found)
    assert str(project) not in json.dumps(found)


def test_an_int8_file_computes_on_arm_what_it_means(project, tmp_path):
    target = replace(load_target("pi.ort-cpu.fp32.b1.t1", project), precision="int8")
    assert remote.probe(target)["recipe"] == "s8s8"
    ops = networks(1)[0]
    data, x = data_of(ops), images(ops)
    path = tmp_path / "model.onnx"
    path.write_bytes(written(data, "s8s8", exact_ranges(data, x)))
    inputs = np.random.default_rng(2).normal(size=(8, *x.shape[1:])).astype(np.float32)
    found = parity.compare_outputs(target, path, inputs)
    assert found["max_relative_difference"] <= found["tolerance"]


def test_what_was_left_on_the_board_is_removed(project):
    assert (project / "cache-pi" / "hwnas-worker" / "bin").is_dir()
    assert "removed" in hwnas(project, "devices", "clean", "pi").stdout
    assert not list((project / "cache-pi").iterdir())
