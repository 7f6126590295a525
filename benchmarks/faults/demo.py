"""The demo with half of the CPUs in use, against its quiet time: runs of both, one after the other.

Each run is the command of `make demo` in a folder of its own. Busy: a program that computes without
end for every second CPU, at the same priority. `quick` trains for one epoch instead.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "digits.yaml"
PAIRS = 3
LIMIT = 2.0


def bars(quick: bool) -> list[dict[str, Any]]:
    """The median of busy runs over that of quiet ones, and how many runs failed."""
    runs: dict[str, list[float]] = {"quiet": [], "busy": []}
    failed = 0
    for _ in range(1 if quick else PAIRS):
        for name, load in (("quiet", contextlib.nullcontext()), ("busy", _busy())):
            with load:
                seconds, code = _demo(quick)
            runs[name].append(seconds)
            failed += code != 0
            print(f"demo, {name}: {seconds:.1f} s, exit code {code}")
    ratio = round(statistics.median(runs["busy"]) / statistics.median(runs["quiet"]), 3)
    n = len(runs["busy"])
    slower = {"name": "demo with half of the CPUs busy, times its quiet time", "value": ratio}
    broken = {"name": "runs of the demo that failed", "value": failed, "limit": 0}
    return [
        {**slower, "limit": LIMIT, "holds": ratio <= LIMIT, "n": n, "spread": runs},
        {**broken, "holds": failed == 0, "n": 2 * n},
    ]


def _demo(quick: bool) -> tuple[float, int]:
    """Seconds and exit code of one run."""
    settings = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    command = ["run", "hwnas.yaml", "--accept", "unreliable,gap,budget,untimed"]
    if quick:
        settings |= {"train": {"epochs": 1}, "space": {"name": "tiny", "resolutions": [8]}}
        command = ["train", "hwnas.yaml"]
    with tempfile.TemporaryDirectory(prefix="hwnas-demo-") as folder:
        (Path(folder) / "hwnas.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "hwnas", *command],
            cwd=folder,
            env={**os.environ, "XDG_CACHE_HOME": folder, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - started
    if ended.returncode:
        print("".join(ended.stderr.splitlines(keepends=True)[-1:]), end="")
    return seconds, ended.returncode


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Half of the CPUs that this process may use, in use by others."""
    endless = [sys.executable, "-c", "while True: pass"]
    half = max(1, len(os.sched_getaffinity(0)) // 2)
    others = [subprocess.Popen(endless) for _ in range(half)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
