"""Runs as pipelines see them: what nothing and little to do costs, kills, and what `compare` finds.

    python benchmarks/pipeline.py                  every part, about 20 minutes
    python benchmarks/pipeline.py compare          one of them
    python benchmarks/pipeline.py --quick          comparisons of drawn numbers, seconds

Parts, each in a folder of its own:

    repeat      the demo run again with nothing changed, and with another budget
    kills       a run on modelled times without noise, killed at random moments; the packages of
                every rerun, byte for byte. Samples that a campaign takes after a kill have other
                time stamps, so the hash of its table in the manifests is left out there
    compare     the demo's packages measured 21 times, each held against the one before: what is
                called worse although nothing changed, and slowdowns put into one package each

Slowdowns are in multiples of the noise of the difference, as `compare` knows it.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from hwnas.run import compare

ROOT = Path(__file__).parent.parent
ACCEPTED = ["--accept", "unreliable,emulated,gap,budget,untimed"]
KILLS, PAIRS = 30, 20
FOUND_AT = 4.0  # noises of a slowdown that must be found
CURVE = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
FAKE = """
run: runs/digits
data: {kind: digits}
space: {name: tiny, resolutions: [8, 12]}
train: {epochs: 2, threads: 1, checkpoint_s: 1}
accuracy: {measure: 12, bn_images: 256}
targets: [fake.fake.fp32.b1.t1]
profile: {budget_s: 5, heldout: 10, rounds: 10}
search: {population: 20, generations: 10}
pick: [{rule: best}, {rule: knee}, {budget: {latency_ms: 60%}}, {rule: spread, k: 3}]
"""
FAKE_TARGET = "fake.fake.fp32.b1.t1"
QUIET = '{device: fake, runtime: fake, connection: {kind: local, noise: "0"}}'


def bar(name: str, value: Any, limit: Any, holds: bool, n: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "limit": limit, "holds": holds, "n": n}


# ---- runs ---------------------------------------------------------------------------------------


def command(folder: Path, *words: str) -> list[str]:
    """`hwnas run` in a folder."""
    return [sys.executable, "-m", "hwnas", "run", str(folder / "hwnas.yaml"), *ACCEPTED, *words]


def environment(folder: Path) -> dict[str, str]:
    ours = {"XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    return {**os.environ, **ours, "SOURCE_DATE_EPOCH": "0"}  # no table tells when it was made


def hwnas(folder: Path, *words: str) -> tuple[float, dict[str, Any]]:
    """Seconds and summary of a run."""
    started_s = time.perf_counter()
    ended = subprocess.run(
        command(folder, *words, "--json"), env=environment(folder), capture_output=True, text=True
    )
    if ended.returncode:
        sys.exit(f"hwnas ended with {ended.returncode}: {ended.stderr}")
    return time.perf_counter() - started_s, json.loads(ended.stdout)


def demo(folder: Path, targets: Iterable[str] = ()) -> None:
    """A finished run of the demo."""
    settings = yaml.safe_load((ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8"))
    settings["targets"] = list(targets) or settings["targets"]
    (folder / "hwnas.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    hwnas(folder)


# ---- parts --------------------------------------------------------------------------------------


def repeat(folder: Path, _: bool) -> list[dict[str, Any]]:
    """Seconds of a run with nothing to do, and of one with another budget."""
    demo(folder)
    hwnas(folder)
    idle = [hwnas(folder) for _ in range(5)]
    done = sum(len(told["done"]) for _, told in idle)
    changed = [_with_budget(folder, share) for share in (55, 70, 45)]
    twice = _made_twice(folder)
    idle_s = sorted(seconds for seconds, _ in idle)[len(idle) // 2]
    changed_s = max(changed)
    print(f"nothing changed: {[round(s, 2) for s, _ in idle]} s; another budget: {changed} s")
    return [
        bar("nothing changed, s (median)", round(idle_s, 2), 2.0, idle_s <= 2.0, len(idle)),
        bar("nothing changed, stages", done, 0, done == 0, len(idle)),
        bar("another budget, s (longest)", changed_s, 10.0, changed_s <= 10.0, len(changed)),
        bar("models made again with other bytes", twice[0], 0, twice[0] == 0, twice[1]),
    ]


def _made_twice(folder: Path) -> tuple[int, int]:
    """Packages are deleted and made again, after a kill: how many models differ, of how many."""
    hwnas(folder)
    before = packages(folder)
    shutil.rmtree(folder / "runs" / "digits" / "packages")
    _killed(folder, 4.0)
    hwnas(folder)
    after = packages(folder)
    models = [path for path in before if path.endswith("model.onnx")]
    return sum(before[path] != after.get(path) for path in models), len(models)


def _with_budget(folder: Path, share: int) -> float:
    """Seconds of a run with another latency budget; only export, verify and the report are done."""
    settings = yaml.safe_load((folder / "hwnas.yaml").read_text(encoding="utf-8"))
    rules = [r for r in settings["pick"] if "budget" not in r]
    picks = [*rules, {"name": "budgeted", "budget": {"latency_ms": f"{share}%"}}]
    seconds, told = hwnas(folder, "--set", f"pick={json.dumps(picks)}")
    stages = {name.partition(".")[0] for name in told["done"]}
    assert stages <= {"export", "verify", "report"}, stages
    return round(seconds, 2)


def packages(folder: Path, with_table: bool = True) -> dict[str, str]:
    """sha256 of every file of every package, by its path; of manifests, where that is asked for,
    without the hash of the table.
    """
    root, found = folder / "runs" / "digits" / "packages", {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "manifest.json" and not with_table:
                content = json.loads(data)
                del content["hashes"]["table"]
                data = json.dumps(content).encode()
            found[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def kills(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Runs that were killed and run again, and how many ended in other packages."""
    whole, rng = _modelled(folder, "whole"), random.Random(0)
    length_s, _ = hwnas(whole)
    n, other, cut = KILLS, 0, 0
    for number in range(n):
        again = _modelled(folder, str(number))
        while not _killed(again, rng.uniform(1.0, length_s)):  # it ended before
            shutil.rmtree(again)
            again = _modelled(folder, str(number))
        hwnas(again)
        same_table = _table(again) == _table(whole)
        cut += not same_table
        found, expected = (packages(each, same_table) for each in (again, whole))
        other += found != expected
        if found != expected:
            names = [p for p in {**found, **expected} if found.get(p) != expected.get(p)]
            print(f"kill {number}: {', '.join(sorted(names)[:5])} differ")
    print(f"a run takes {length_s:.1f} s; {cut} of {n} kills were in the campaign")
    return [bar("killed runs that end in other packages", other, 0, other == 0, n)]


def _modelled(folder: Path, name: str) -> Path:
    """A folder with the settings of a run on modelled times without noise."""
    made = folder / name
    (made / "targets").mkdir(parents=True)
    (made / "targets" / f"{FAKE_TARGET}.yaml").write_text(QUIET, encoding="utf-8")
    (made / "hwnas.yaml").write_text(FAKE, encoding="utf-8")
    return made


def _table(folder: Path) -> bytes:
    return (folder / "runs" / "digits" / "tables" / f"{FAKE_TARGET}.json").read_bytes()


def _killed(folder: Path, after_s: float) -> bool:
    """Start a run and kill it; whether it was still running."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(folder), env=environment(folder), **quiet)
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def comparisons(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """What `compare` says of the same packages measured again, and of slowdowns."""
    n = PAIRS
    if quick:
        rng = random.Random(0)
        results = [_drawn(rng) for _ in range(n + 1)]
    else:
        demo(folder, ["host.ort-cpu.fp32.b1.t1"])
        results = [_measured(folder, number) for number in range(n + 1)]
    pairs = list(itertools.pairwise(results))
    false = sum(compare.compared(a, b)["regression"] for a, b in pairs)
    power = {k: _power(pairs, k) for k in CURVE}
    found = sum(_found(*pair, number, FOUND_AT) for number, pair in enumerate(pairs))
    noise = [p["metrics"]["latency_ms"] for r in results for p in r["packages"]]
    shares = sorted(told["noise"] / told["value"] for told in noise)
    print(f"noise of latencies {shares[0]:.2%} to {shares[-1]:.2%}")
    print("slowdown in noises of the difference, share found: ", power)
    least = n - 1
    return [
        bar("pairs of the same that are called worse", false, 0, false == 0, n),
        bar("pairs with a slowdown of 4 noises that are found", found, least, found >= least, n),
    ]


def _measured(folder: Path, number: int) -> dict[str, Any]:
    """The result of packages that are measured anew."""
    for path in (folder / "runs" / "digits" / "results").glob("*.json"):
        path.unlink()
    hwnas(folder, "--ci", str(folder / f"out-{number}"))
    return json.loads((folder / f"out-{number}" / "result.json").read_text(encoding="utf-8"))


def _drawn(rng: random.Random) -> dict[str, Any]:
    """A result whose latencies are off by as much as their noise says: the mean difference of two
    workers, of whom each package has the mean.
    """
    about = {"engine": "drawn"}
    values = [1.0 + 0.01 * rng.gauss(0, 1) / 1.128 / math.sqrt(2) for _ in range(8)]
    packages = [
        {"target": "t", "package": str(n), "metrics": {"latency_ms": {"value": v, "noise": 0.01}}}
        for n, v in enumerate(values)
    ]
    return {"targets": {"t": about}, "packages": packages}


def _found(base: dict[str, Any], new: dict[str, Any], package: int, noises: float) -> bool:
    """Whether a slowdown of one package is found."""
    told = json.loads(json.dumps(new))
    slowed = told["packages"][package % len(told["packages"])]
    old = base["packages"][package % len(told["packages"])]["metrics"]["latency_ms"]
    now = slowed["metrics"]["latency_ms"]
    now["value"] += noises * math.hypot(old["noise"], now["noise"])
    rows = compare.compared(base, told)["rows"]
    return any(
        (row["package"], row["metric"], row["verdict"])
        == (slowed["package"], "latency_ms", "worse")
        for row in rows
    )


def _power(pairs: list[tuple[dict[str, Any], dict[str, Any]]], noises: float) -> float:
    """Share of slowdowns that are found, over every pair and package."""
    tried = [
        _found(*pair, package, noises)
        for pair in pairs
        for package in range(len(pair[1]["packages"]))
    ]
    return round(sum(tried) / len(tried), 3)


PARTS = {"repeat": repeat, "kills": kills, "compare": comparisons}


def main() -> None:
    parser = argparse.ArgumentParser(description="runs as pipelines see them")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="comparisons of drawn numbers alone")
    arguments = parser.parse_args()
    strange = sorted(set(arguments.parts) - set(PARTS))
    if strange:
        parser.error(f"unknown part {strange[0]!r}; known: {', '.join(PARTS)}")
    parts = arguments.parts or (["compare"] if arguments.quick else list(PARTS))
    bars = []
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="hwnas-pipeline-") as folder:
            bars += PARTS[part](Path(folder), arguments.quick)
    for each in bars:
        holds = "yes" if each["holds"] else "NO"
        print(
            f"{each['name']:<52}{each['value']!s:>8}{each['limit']!s:>8}{each['n']!s:>4}  {holds}"
        )
    document = {
        "setting": {"quick": arguments.quick, "parts": parts, "cores": os.cpu_count()},
        "n": {each["name"]: each["n"] for each in bars},
        "spread": {},
        "bars": [{key: each[key] for key in ("name", "value", "limit", "holds")} for each in bars],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
