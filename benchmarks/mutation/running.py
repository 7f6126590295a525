"""Tests on a copy of the repository in which one file is changed.

Every run is a fork of this process, which has imported what tests import but nothing of ours: that
saves seconds a mutant. A run ends at the first failure, at its time limit, or when it wants more
memory than tests need.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("numpy", "moocore", "onnx", "onnxruntime", "scipy.stats", "sklearn.linear_model", "torch")
LEFT_OUT = (
    ".git",
    ".venv",
    "build",
    "runs",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*.egg-info",
)
MEMORY_BYTES = 8 << 30
TIME_FACTOR, TIME_EXTRA_S = 4.0, 30.0  # a run may take so much longer than the unchanged one
PASSED, FAILED, INTERRUPTED = 0, 1, 2  # exit codes of pytest; the last: a file did not even import


class Outcome(NamedTuple):
    """How a run ended: exit code (None: it ran into its time limit), the test, seconds."""

    code: int | None
    by: str
    seconds: float


class _Order:
    """A plug-in of pytest: the shortest tests first; also takes the time of each."""

    def __init__(self, known: dict[str, float]) -> None:
        self.times: dict[str, float] = {}
        self._known = known

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: self._known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.times[report.nodeid] = self.times.get(report.nodeid, 0.0) + report.duration


class Slot:
    """A copy of the repository, and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "copy"
        self._scratch = folder / "scratch"
        self._said = folder / "said.txt"
        shutil.copytree(ROOT, self.folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        self._pid = 0
        self._began = self._limit_s = 0.0

    def change(self, file: str, text: str) -> None:
        """Write a file; what was compiled of it goes, because a time stamp may not tell."""
        path = self.folder / file
        path.write_text(text, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def restore(self, file: str) -> None:
        """Make a file what it is in the repository."""
        self.change(file, (ROOT / file).read_text(encoding="utf-8"))

    def start(self, test: str, times: dict[str, float], limit_s: float) -> None:
        """Begin to run a test file, the shortest tests first; with no times known, take them."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        self._began, self._limit_s = time.monotonic(), limit_s
        sys.stdout.flush()
        self._pid = os.fork()
        if not self._pid:
            try:
                code = self._run(test, times)
            finally:
                os._exit(code if "code" in locals() else 70)

    def outcome(self) -> Outcome | None:
        """How the run ended; None: it goes on."""
        seconds = time.monotonic() - self._began
        done, status = os.waitpid(self._pid, os.WNOHANG)
        if not done and seconds < self._limit_s:
            return None
        for number in (signal.SIGTERM, signal.SIGKILL):  # and what a test had started
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                break
            if not done:
                time.sleep(0.1)
        if not done:
            os.waitpid(self._pid, 0)
            return Outcome(None, "time limit", seconds)
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", self.said(), re.MULTILINE)
        return Outcome(os.waitstatus_to_exitcode(status), found[1] if found else "", seconds)

    def said(self) -> str:
        """What pytest printed."""
        return self._said.read_text(encoding="utf-8", errors="replace")

    def times(self) -> dict[str, float]:
        """Seconds of each test, after a run in which all passed."""
        return json.loads((self._scratch / "times.json").read_text(encoding="utf-8"))

    def _run(self, test: str, times: dict[str, float]) -> int:
        """In the fork: pytest, and nothing else afterwards."""
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        for number, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, str(self._said), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            os.dup2(os.open(path, flags, 0o644), number)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        os.chdir(self.folder)
        paths = [
            str(self.folder),
            *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
        ]
        os.environ.update(PYTHONPATH=os.pathsep.join(paths), TMPDIR=str(self._scratch))
        sys.path[:] = [paths[0], *(p for p in sys.path if p not in paths and "benchmarks" not in p)]
        if times:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest

        order = _Order(times)
        options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        code = int(pytest.main([*options, test], plugins=[order]))
        import hwnas

        if str(Path(hwnas.__file__).parent.parent) != str(self.folder):
            raise RuntimeError(f"tests took hwnas from {hwnas.__file__}")
        if not times:
            (self._scratch / "times.json").write_text(json.dumps(order.times), encoding="utf-8")
        sys.stdout.flush()
        return code
