"""A first use: from a folder of photos with every trap to a first package, and what is refused.

    python benchmarks/first_use.py            3 x 300 photos of Fashion-MNIST, about 10 minutes on
                                              two quiet cores (Debian: dataset-fashion-mnist)
    python benchmarks/first_use.py --quick    digits, a small space and modelled times; seconds
    python benchmarks/first_use.py refused    wrong settings and folders alone, seconds

The photos are real images, enlarged, tinted and saved as JPEG of many sizes; the traps are what
phones, archives and systems leave in such folders, and files that cannot be read. Every command is
a process of its own. The wrong settings and folders are in benchmarks/first/cases.py: each must be
refused by `hwnas run` before anything is made, in one line that names file and line, key, the
nearest name where there is one, and what to do; none may end in a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from first import cases, photos

COMMANDS, MINUTES, REFUSED = 4, 15, 60  # the bars
SMALL = (
    "train.epochs=1", "space.name=tiny", "space.resolutions=[8]", "data.image_size=8",
    "accuracy.measure=8", "accuracy.training_free=0", "accuracy.bn_images=32", "profile.heldout=5",
    "profile.rounds=5", "targets=[fake.fake.fp32.b1.t1]", "pick=[{rule: best}]",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="a first use, and what is refused")
    parser.add_argument("part", nargs="?", choices=("package", "refused"), help="default: both")
    parser.add_argument("--quick", action="store_true", help="seconds; no bar of time")
    arguments = parser.parse_args()
    bars, spread, n = [], {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.part != "refused":
            found = first_package(Path(temporary), arguments.quick)
            bars += _package_bars(found, arguments.quick)
            spread["seconds"], n["photos"] = found["seconds"], found["photos"]
        if arguments.part != "package":
            refused = cases.tried(Path(temporary), 3 if arguments.quick else 1)
            bars += _refused_bars(refused, arguments.quick)
            n["cases"] = len(refused)
    print(f"\n{'bar':<52}{'value':>12}{'limit':>12}  holds")
    for name, value, limit, holds in bars:
        print(f"{name:<52}{value!s:>12}{limit!s:>12}  {'yes' if holds else 'NO'}")
    told = [dict(zip(("name", "value", "limit", "holds"), bar, strict=True)) for bar in bars]
    setting = {"quick": arguments.quick, "cores": os.cpu_count(), "part": arguments.part or "both"}
    print(json.dumps({"setting": setting, "n": n, "spread": spread, "bars": told}))


def first_package(folder: Path, quick: bool) -> dict[str, Any]:
    """What a newcomer types, in a folder of their own: seconds and output of each command, exit
    codes, and the packages that there are then.
    """
    made = photos.make(folder / "photos", quick)
    small = [word for setting in SMALL for word in ("--set", setting)] if quick else []
    hwnas = [sys.executable, "-m", "hwnas"]
    package = folder / "runs/mine/packages" / ("*" if quick else "host.ort-cpu.fp32.b1.t1") / "best"
    typed = (
        [*hwnas, "init", "mine.yaml", "--images", "photos"],
        [*hwnas, "run", "mine.yaml", *small, *(["--accept", "emulated"] if quick else [])],
        [sys.executable, f"{package}/example.py", "--top", "3", *made["examples"]],
    )
    seconds, codes = [], []
    for words in typed:
        words = [str(w) for word in words for w in (_matching(word) if "*" in word else [word])]
        started = time.monotonic()
        done = subprocess.run(words, cwd=folder, check=False, env=_environment(quick))
        seconds.append(round(time.monotonic() - started, 1))
        codes.append(done.returncode)
    manifests = [json.loads(p.read_text()) for p in package.parent.parent.glob("*/*/manifest.json")]
    return {**made, "seconds": seconds, "codes": codes, "packages": len(manifests)}


def _matching(pattern: str) -> list[str]:
    folder, _, rest = pattern.partition("*")
    return sorted(str(path) for path in Path(folder).glob(f"*{rest}")) or [pattern]


def _environment(quick: bool) -> dict[str, str]:
    root = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, **({"OMP_NUM_THREADS": "1"} if quick else {})}


def _package_bars(found: dict[str, Any], quick: bool) -> list[tuple[Any, ...]]:
    minutes, limit = sum(found["seconds"]) / 60, None if quick else MINUTES
    wrong = sum(code != 0 for code in found["codes"])
    n = len(found["codes"])
    return [
        ("commands to a first package and its use", n, COMMANDS, n <= COMMANDS),
        ("commands that failed", wrong, 0, wrong == 0),
        ("packages", found["packages"], 1, found["packages"] >= 1),
        ("minutes", round(minutes, 1), limit, quick or minutes <= MINUTES),
    ]


def _refused_bars(found: list[cases.Tried], quick: bool) -> list[tuple[Any, ...]]:
    print(f"\n{'wrong settings and folders':<44}what is said")
    for case in found:
        print(f"{'' if case.good else 'NOT '}{case.name:<44}{case.said[:160]}")
        for fault in case.faults:
            print(f"{'':<44}  ^ {fault}")
    least = None if quick else REFUSED
    tracebacks = sum(case.traceback for case in found)
    good = sum(case.good for case in found)
    return [
        ("wrong settings and folders tried", len(found), least, len(found) >= (least or 0)),
        ("refused with place, key, name and fix", good, len(found), good == len(found)),
        ("tracebacks", tracebacks, 0, tracebacks == 0),
    ]


if __name__ == "__main__":
    main()
