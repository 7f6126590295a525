"""Everything that an NVIDIA GPU can be asked, in eight minutes: the first thing to run on one.

    pip install -e '.[dev]' 'onnxruntime-gpu[cuda,cudnn]'    # in place of onnxruntime
    pip install tensorrt-cu13                                # or without it
    python benchmarks/gpu_check.py [--out hwnas-check-gpu.json] [--budget 480]

In this order: tests/test_gpu.py and the real builds of tests/test_tensorrt.py; a subnet's accuracy
and a short training on the GPU against the CPU; then `hwnas devices check` of ort-cuda and of
TensorRT where it is installed, fp32 and fp16: real outputs, latency, a campaign that is cut and
goes on, its table, energy by NVML, heat. Each part is a process of its own with an end in time, so
that what crashes or hangs costs only itself. Without a GPU it says so in one line and ends with 4.

It writes a file as `hwnas devices check` does (docs/formats.md, "Device check"), for
`python docs/verified.py`; the last line is that document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.boards import ask, check
from profilers.errors import HwnasError
from profilers.schema import Target, read_json, read_lines, write_json

ROOT = Path(__file__).parent.parent
SHARES = {
    "tests": 0.3,
    "learning": 0.15,
}  # of the budget; each target gets an equal part of the rest
TARGETS = [
    Target("host", runtime, precision=precision, hardware="nvidia", meter="nvml")
    for runtime in ("ort-cuda", "tensorrt")
    for precision in ("fp32", "fp16")
]
SETTINGS = {
    "run": "run",
    "data": {"kind": "digits"},
    "space": {"name": "tiny", "resolutions": [8, 12, 16]},
    "train": {"epochs": 8},
    "accuracy": {"measure": 20},
    "targets": ["host.ort-cpu.fp32.b1.t1"],
}
NEAR = 0.002  # accuracies of one network on GPU and CPU: 0.2 points
TRAINED_NEAR = 0.03  # best accuracy after the same training here and there: other rounding, other
# order of sums, so another network
LEFT_S = 5.0  # for writing down what a part that takes too long has given


def main(arguments: list[str] | None = None) -> int:
    """Run all parts, or one; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("hwnas-check-gpu.json"))
    parser.add_argument("--budget", type=float, default=480.0, help="seconds for all of it")
    parser.add_argument(
        "--part", choices=PARTS, help="run one part only, without looking for a GPU"
    )
    options = parser.parse_args(arguments)
    if options.part:
        PARTS[options.part](options.out, options.budget)
        return 0
    missing = no_gpu()
    if missing:
        print(f"gpu_check: {missing}", file=sys.stderr)
        return 4
    document = check.new_document(ask.ask(None))
    shares = {**SHARES, **{each.name: 0.0 for each in TARGETS}}
    left = (1 - sum(SHARES.values())) / len(TARGETS)
    for name, share in shares.items():
        document["checks"] += run_part(name, options.budget * (share or left))
        write_json(options.out, document)
    for row in document["checks"]:
        words = {True: "holds", False: "FAILS", None: "unknown"}[row["holds"]]
        print(f"{words:8}{row['check']:9} {row['target']}  {row['reason']}")
    print(json.dumps(document, sort_keys=True))
    return 6 if check.failed(document) else 0


def no_gpu() -> str:
    """Why there is no NVIDIA GPU to check; empty where there is one."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA GPU here (nvidia-smi is not installed); run this where there is one"
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    if found.returncode or "GPU 0" not in found.stdout:
        said = " ".join((found.stdout + found.stderr).split())[:120]
        return f"no NVIDIA GPU here (nvidia-smi: {said}); run this where there is one"
    return ""


def run_part(name: str, budget_s: float) -> list[dict[str, Any]]:
    """What a part tells within its time, in a process of its own."""
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hwnas-gpu-") as folder:
        out = Path(folder) / "part.json"
        command = [sys.executable, __file__, "--part", name, "--out", str(out)]
        process = subprocess.Popen(
            [*command, "--budget", str(max(budget_s - LEFT_S, 1.0))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, said = process.communicate(timeout=budget_s)
            ending = f"it ended with {process.returncode}: {(said.splitlines() or [''])[-1][:200]}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            ending = f"it took longer than {budget_s:.0f} s"
        rows = list(read_json(out)["checks"]) if out.exists() else []
    if process.returncode:
        spent_s = round(time.monotonic() - begin_s, 1)
        holds = None if "longer than" in ending else False
        rows.append(row(name, holds, check.anonymous_text(ending), {}, spent_s))
    return rows


def row(
    name: str, holds: bool | None, reason: str, facts: dict[str, Any], spent_s: float = 0.0
) -> dict[str, Any]:
    """A line of the document."""
    known = {"check": name, "target": "", "holds": holds, "reason": reason}
    return {**known, "facts": facts, "duration_s": spent_s}


# ---- parts -------------------------------------------------------------------------------------


def tests(out: Path, budget_s: float) -> None:
    """The tests that need a GPU, and the real builds."""
    begin_s = time.monotonic()
    report = out.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not versions"]
    files = [str(ROOT / "tests" / name) for name in ("test_gpu.py", "test_tensorrt.py")]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    subprocess.run(
        [*command, f"--junit-xml={report}", *files],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        timeout=budget_s,
    )
    rows = junit_rows(report, round(time.monotonic() - begin_s, 1))
    write_json(out, {"checks": rows})


def junit_rows(report: Path, spent_s: float) -> list[dict[str, Any]]:
    """A line for each test file: what passed, what failed, what was skipped and why."""
    import xml.etree.ElementTree as ElementTree

    found: dict[str, dict[str, list[str]]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        ended = found.setdefault(case.get("classname", ""), {"failed": [], "skipped": [], "ok": []})
        bad = [child for child in case if child.tag in ("failure", "error")]
        skipped = [child for child in case if child.tag == "skipped"]
        kind = "failed" if bad else "skipped" if skipped else "ok"
        message = (bad or skipped)[0].get("message", "") if bad or skipped else ""
        told = f"{case.get('name')}: {message.splitlines()[0] if message else ''}"
        ended[kind].append(check.anonymous_text(told))
    rows = []
    for name, ended in found.items():
        facts = {"passed": len(ended["ok"]), "failed": ended["failed"][:20]}
        facts["skipped"] = sorted(set(ended["skipped"]))[:20]
        holds = False if ended["failed"] else True if ended["ok"] else None
        reason = (ended["failed"] or ([] if ended["ok"] else ended["skipped"]) or [""])[0]
        rows.append(row(name.rpartition(".")[2], holds, reason, facts, spent_s))
    return rows


def learning(out: Path, budget_s: float) -> None:
    """A short training on the GPU and on the CPU, and the accuracy of the same subnets on both."""
    import yaml

    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hwnas-gpu-") as name:
        folders = {place: Path(name) / place for place in ("gpu", "cpu", "gpu-on-cpu")}
        for place, folder in folders.items():
            folder.mkdir()
            (folder / "hwnas.yaml").write_text(yaml.safe_dump(SETTINGS))
            if place == "gpu-on-cpu":  # the supernet of the GPU, measured on the CPU
                shutil.copytree(folders["gpu"] / "run", folder / "run")
                (folder / "run" / "accuracy.jsonl").unlink()
                (folder / "run" / "predictor.npz").unlink()
            stages = ("train", "evaluate")[place == "gpu-on-cpu" :]
            for stage in stages:
                _hwnas(folder, stage, hidden=place != "gpu")
        measured = {place: _accuracies(folder) for place, folder in folders.items()}
    spent_s = round(time.monotonic() - begin_s, 1)
    write_json(out, {"checks": learning_rows(measured, spent_s)})


def _hwnas(folder: Path, stage: str, hidden: bool) -> None:
    """Run a stage, with the GPU hidden or not."""
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if hidden else {})}
    command = [sys.executable, "-m", "hwnas", stage, "hwnas.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"hwnas {stage}: {done.stderr.splitlines()[-1]}")


def _accuracies(folder: Path) -> dict[str, float]:
    records, _ = read_lines(folder / "run" / "accuracy.jsonl")
    return {json.dumps(each["arch"], sort_keys=True): each["accuracy"] for each in records}


def learning_rows(measured: dict[str, dict[str, float]], spent_s: float) -> list[dict[str, Any]]:
    """What accuracies of the same subnets say: evaluated on both, and trained on both."""
    both = sorted(set(measured["gpu"]) & set(measured["gpu-on-cpu"]))
    gaps = [abs(measured["gpu"][arch] - measured["gpu-on-cpu"][arch]) for arch in both]
    mean, most = float(np.mean(gaps)), max(gaps)
    facts: dict[str, Any] = {"subnets": len(gaps), "mean_gap": mean, "largest_gap": most}
    reason = "" if mean <= NEAR else f"accuracies differ by {mean:.2%} on average"
    found = [row("evaluation", mean <= NEAR, reason, facts, spent_s)]
    best = {place: max(measured[place].values()) for place in ("gpu", "cpu")}
    gap = abs(best["gpu"] - best["cpu"])
    reason = "" if gap <= TRAINED_NEAR else f"the best accuracies differ by {gap:.2%}"
    return [*found, row("training", gap <= TRAINED_NEAR, reason, best)]


def device(target: Target, out: Path, budget_s: float) -> None:
    """`hwnas devices check` of one target."""
    board = ask.ask(None)
    with tempfile.TemporaryDirectory(prefix="hwnas-gpu-") as name:
        check.check_device(
            board, [target], Path(name), budget_s, lambda found: write_json(out, found), _quiet
        )


def _quiet(text: str, share: float) -> None:
    pass


def _device_part(target: Target) -> Callable[[Path, float], None]:
    return lambda out, budget_s: device(target, out, budget_s)


PARTS: dict[str, Callable[[Path, float], None]] = {
    "tests": tests,
    "learning": learning,
    **{target.name: _device_part(target) for target in TARGETS},
}

if __name__ == "__main__":
    try:
        sys.exit(main())
    except HwnasError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
