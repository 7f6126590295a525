"""Mutants: small changes of the code that decides numbers, each of which some test must notice.

    nice python benchmarks/mutation.py      320 mutants; goes on where it stopped
    python benchmarks/mutation.py --most 500 --seed 7 --jobs 2
    python benchmarks/mutation.py --quick   a handful, seconds

Drawn by a seed from the syntax trees of the modules in mutation/areas.py, evenly over the areas. A
mutant that no mapped test notices has survived; where it computes the same, mutation/justified.json
says why. Outcomes are appended to --results; only mutants of changed modules, and survivors whose
tests changed, run again.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
os.environ.pop("CI", None)  # what is not installed is skipped

from mutation import drawing, running
from mutation.areas import AREAS, tests_of
from mutation.drawing import Mutant
from mutation.running import ROOT, Slot

LEAST = 300
JUSTIFIED = Path(__file__).parent / "mutation" / "justified.json"
QUICK_FILE, QUICK_MOST = "hwnas/pricing/pareto.py", 4


class Known(NamedTuple):
    """Outcomes of earlier runs, by mutant and hash of its module, and their file."""

    path: Path
    by_key: dict[tuple[str, str], dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Known:
        """From a file that may end in half a line."""
        found = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found[record["id"], record["source"]] = record
        return cls(path, found)

    def of(self, mutant: Mutant) -> dict[str, Any] | None:
        """The outcome that still holds: nothing changed that could change it."""
        record = self.by_key.get((mutant.id, source_hash(mutant.file)))
        stale = record and record["outcome"] == "survived" and record["tests"] != tests_hash(mutant)
        return None if stale else record

    def add(self, mutant: Mutant, outcome: str, by: str, seconds: float) -> dict[str, Any]:
        """Append an outcome."""
        source = source_hash(mutant.file)
        record = {"id": mutant.id, "source": source, "tests": tests_hash(mutant)}
        record |= {**mutant._asdict(), "outcome": outcome, "by": by, "seconds": round(seconds, 2)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        self.by_key[mutant.id, source] = record
        return record


@functools.cache
def source_hash(*files: str) -> str:
    text = b"".join((ROOT / file).read_bytes() for file in files)
    return hashlib.sha256(text).hexdigest()[:16]


def tests_hash(mutant: Mutant) -> str:
    return source_hash(*tests_of(ROOT, mutant.file))


def drawn(seed: int, most: int, only: list[str]) -> list[Mutant]:
    """Mutants, one of each area in turn; what is drawn of a module depends on its text alone."""

    def place(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed} {mutant.id}".encode()).hexdigest()

    pools = []
    for modules in AREAS.values():
        files = [file for file in modules if not only or file in only]
        pools.append(sorted((m for f in files for m in drawing.mutants(ROOT, f)), key=place))
    out: list[Mutant] = []
    for turn in range(max(map(len, pools))):
        out += [pool[turn] for pool in pools if turn < len(pool)]
    return out[:most]


class Baselines:
    """What test files take, unchanged: seconds of each test; each file is run once, when needed."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, float]] = {}

    def of(self, slot: Slot, test: str) -> dict[str, float]:
        """Seconds of each test of a file; the slot has compiled what they need.

        Raises:
            SystemExit: they fail without any mutant.
        """
        if test not in self._known:
            slot.start(test, {}, 3600.0)
            while (found := slot.outcome()) is None:
                time.sleep(0.02)
            if found.code != running.PASSED:
                sys.exit(f"{test} fails unchanged: {found}\n{slot.said()[-2000:]}")
            self._known[test] = slot.times()
        return self._known[test]


Result = tuple[str, str, float]  # outcome, the test that failed, seconds


def run_all(todo: list[Mutant], known: Known, folder: Path, jobs: int) -> None:
    """Outcomes of mutants, appended as they come."""
    slots = [Slot(folder / str(i)) for i in range(jobs)]
    for name in running.HEAVY if len(todo) > QUICK_MOST else ():
        importlib.import_module(name)
    baselines = Baselines()
    busy: dict[int, tuple[Mutant, Generator[None, None, Result]]] = {}
    left = list(todo)
    while left or busy:
        for number, slot in enumerate(slots):
            if number not in busy and left:
                mutant = left.pop(0)
                busy[number] = mutant, trial(slot, mutant, baselines)
            if number in busy:
                mutant, under_way = busy[number]
                try:
                    next(under_way)
                except StopIteration as ended:
                    tell(known.add(mutant, *ended.value))
                    del busy[number]
        time.sleep(0.02)


def trial(slot: Slot, mutant: Mutant, baselines: Baselines) -> Generator[None, None, Result]:
    """Run the test files of a mutant, one after another until one fails; yields meanwhile.

    Raises:
        SystemExit: pytest itself did not work, or tests fail without the mutant.
    """
    seconds = 0.0
    for test in tests_of(ROOT, mutant.file):
        times = baselines.of(slot, test)
        slot.change(mutant.file, drawing.mutated(ROOT, mutant))
        limit_s = running.TIME_FACTOR * sum(times.values()) + running.TIME_EXTRA_S
        slot.start(test, times, limit_s)
        while (found := slot.outcome()) is None:
            yield
        slot.restore(mutant.file)
        seconds += found.seconds
        if found.code is not None and found.code > running.INTERRUPTED:
            sys.exit(f"pytest ended with {found.code}:\n{slot.said()[-2000:]}")
        if found.code != running.PASSED:
            return "killed", found.by, seconds
    return "survived", "", seconds


def tell(record: dict[str, Any]) -> None:
    print(
        f"{record['outcome']:8} {record['seconds']:6.1f} s  {record['file']}:{record['line']}  "
        f"{record['operator']}  {record['by']}",
        flush=True,
    )


def content(mutant: Mutant) -> tuple[str, ...]:
    return mutant.file, mutant.function, mutant.before, mutant.after


def justified() -> set[tuple[str, ...]]:
    """`content` of the mutants that compute the same; they are not run."""
    entries = json.loads(JUSTIFIED.read_text(encoding="utf-8"))
    return {(e["file"], e["function"], e["before"], e["after"]) for e in entries}


def summary(chosen: list[Mutant], known: Known) -> dict[str, Any]:
    """The document of bars; prints the table and the survivors."""
    equal, unexplained = justified(), 0
    records = {m: known.of(m) for m in chosen if content(m) not in equal}
    print(f"\n{'area':15} {'mutants':>8} {'killed':>8} {'justified':>10} {'unexplained':>12}")
    for area, modules in AREAS.items():
        mine = [m for m in chosen if m.file in modules]
        ran = [m for m in mine if m in records]
        bad = [m for m in ran if records[m]["outcome"] == "survived"]
        unexplained += len(bad)
        same = len(mine) - len(ran)
        print(f"{area:15} {len(mine):8} {len(ran) - len(bad):8} {same:10} {len(bad):12}")
        for m in bad:
            print(f"  {m.file}:{m.line}  {m.function}\n    - {m.before}\n    + {m.after}")
    seconds = [record["seconds"] for record in records.values()] or [0.0]
    bars = [{"name": "mutants drawn", "value": len(chosen), "limit": LEAST}]
    bars[0]["holds"] = len(chosen) >= LEAST
    bars += [{"name": "unexplained survivors", "value": unexplained, "limit": 0}]
    bars[1]["holds"] = unexplained == 0
    return {
        "n": len(chosen),
        "spread": {"median_s": statistics.median(seconds), "worst_s": max(seconds)},
        "bars": bars,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a handful of one module")
    parser.add_argument("--most", type=int, default=320, help="mutants (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="at the same time (default 1)")
    parser.add_argument("--only", default="", help="files, separated by commas")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "mutation.jsonl")
    given = parser.parse_args()
    only = [QUICK_FILE] if given.quick else [file for file in given.only.split(",") if file]
    chosen = drawn(given.seed, QUICK_MOST if given.quick else given.most, only)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        path = Path(folder) / "results.jsonl" if given.quick else given.results
        known = Known.read(path)
        equal = justified()
        todo = [m for m in chosen if known.of(m) is None and content(m) not in equal]
        print(f"{len(chosen)} mutants, {len(todo)} of them to run", flush=True)
        run_all(todo, known, Path(folder), given.jobs)
    setting = {"seed": given.seed, "most": given.most, "only": only, "quick": given.quick}
    print(json.dumps({"setting": setting, **summary(chosen, known)}))


if __name__ == "__main__":
    main()
