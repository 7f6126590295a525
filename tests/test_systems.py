"""macOS and Windows, as far as Linux without what they lack can stand in for them."""

import json
import os
import subprocess
import sys

import pytest
from test_shipped_tables import SETTINGS, prepare

MACOS = """
import os
for name in ("sched_getaffinity", "sched_setaffinity"):
    delattr(os, name)
"""
# What fcntl does for a process, in the words of msvcrt: locks of bytes from where the file stands.
WINDOWS = (
    MACOS
    + """
import fcntl, selectors, signal, subprocess, sys, tempfile, typer, types
flock, real = types.SimpleNamespace(**vars(fcntl)), fcntl
sys.modules["fcntl"] = None
for name in ("getuid", "fork", "O_NOFOLLOW"):
    delattr(os, name)
for name in ("SIGPIPE", "SIGKILL", "SIGBUS", "SIGSTOP"):
    delattr(signal, name)

def locking(descriptor, mode, count):
    try:
        flock.lockf(descriptor, flock.LOCK_EX | flock.LOCK_NB, count, os.lseek(descriptor, 0, 1))
    except OSError as error:
        raise PermissionError(13, "Permission denied") from error

msvcrt = sys.modules["msvcrt"] = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
"""
)
SYSTEMS = {"macos": MACOS, "windows": WINDOWS}
IMPORT_ALL = """
import importlib, pkgutil, torch, sklearn, onnx, onnxruntime, distributed
{system}
import hwnas
for found in pkgutil.walk_packages(hwnas.__path__, "hwnas."):
    if "templates" not in found.name and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""
COMMAND = """
import sys
{system}
from hwnas.cli import main
main(sys.argv[1:])
"""
HOLD = """
import sys
{system}
from pathlib import Path
from hwnas.run.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]


def python(code, system, *words, **options):
    command = [sys.executable, "-c", code.format(system=system), *map(str, words)]
    return subprocess.Popen(command, text=True, stdin=-1, stdout=-1, stderr=-1, **options)


def ended(process):
    out, err = process.communicate()
    return process.returncode, out, err


def test_every_module_imports_without_what_windows_and_macos_lack():
    code, _, err = ended(python(IMPORT_ALL, WINDOWS))
    assert code == 0, err


def test_search_front_and_report_work_on_files_that_were_made_elsewhere(tmp_path):
    prepare(tmp_path, "host.ort-cpu.fp32.b1.t1")
    for words in (["search"], ["front", "--csv", "front.csv"], ["report"]):
        words.insert(1, "hwnas.yaml")
        code, _, err = ended(python(COMMAND, WINDOWS, *words, cwd=tmp_path))
        assert code == 0, err
    assert (tmp_path / "front.csv").stat().st_size > 100
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000


def test_a_run_folder_is_held_by_one_process_alone(system, tmp_path):
    first = python(HOLD, system, tmp_path)
    assert first.stdout.readline() == "held\n"
    code, _, err = ended(python(HOLD, system, tmp_path))
    assert code == 1
    assert f"{tmp_path} is in use by process {first.pid}" in err.splitlines()[-1]
    first.kill()
    first.communicate()
    again = python(HOLD, system, tmp_path)
    assert again.stdout.readline() == "held\n"
    assert ended(again)[0] == 0


@pytest.mark.parametrize("words", [["profile", "hwnas.yaml"], ["devices", "add", "pi@board"]])
def test_what_needs_a_worker_says_on_windows_where_it_works(tmp_path, words):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS.replace("TARGET", "host.ort-cpu.fp32.b1.t1"))
    prepare(tmp_path, "host.ort-cpu.fp32.b1.t1")
    code, out, err = ended(python(COMMAND, WINDOWS, *words, cwd=tmp_path))
    assert (code, out) == (4, "")
    last = err.splitlines()[-1]
    assert last.startswith("hwnas: ")
    assert "are driven from Linux and macOS only" in last


def test_the_worker_describes_a_machine_that_tells_no_affinity():
    probe = "{system}\nimport hwnas\nfrom profilers.__main__ import main\nmain(['probe'])"
    code, out, err = ended(python(probe, MACOS))
    assert code == 0, err
    assert json.loads(out)["cores"] == os.cpu_count()
