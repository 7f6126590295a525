"""Faults that users, files, boards and machines bring: what must not happen, counted.

    python benchmarks/faults.py                    every part
    python benchmarks/faults.py mutated            one of them
    python benchmarks/faults.py --quick            small versions, seconds; no demo but by name

Parts are files of `benchmarks/faults/` with `bars(quick) -> list of bars`:

    mutated     1,000 damaged and edited files and replies: none ends in a traceback, and none is
                read as something that it cannot be (the invariants are beside each kind of file)
    hostile     workers and SSH settings that mean harm: nothing outside the tool's own folders
    busy        `measure` on a machine in use: within 5 % of quiet, or marked
    demo        the demo with a core in use, against its quiet time
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import hwnas  # noqa: F401 -- it lets an installed environment find `profilers`

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PARTS = [
    name
    for name in ("mutated", "hostile", "busy", "demo")
    if importlib.util.find_spec(f"faults.{name}")
]


def main() -> None:
    parser = argparse.ArgumentParser(description="faults of files, boards and machines")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="few of each, seconds")
    arguments = parser.parse_args()
    strange = sorted(set(arguments.parts) - set(PARTS))
    if strange:
        parser.error(f"unknown part {strange[0]!r}; known: {', '.join(PARTS)}")
    every = [part for part in PARTS if part != "demo"] if arguments.quick else PARTS
    parts = arguments.parts or every
    bars = [bar for part in parts for bar in _bars(part, arguments.quick)]
    print(f"{'bar':<66}{'value':>9}{'limit':>9}  {'n':>5}  holds")
    for bar in bars:
        holds = "yes" if bar["holds"] else "NO"
        n = bar.get("n", "")
        print(f"{bar['name']:<66}{bar['value']!s:>9}{bar['limit']!s:>9}  {n!s:>5}  {holds}")
    document = {
        "setting": {"quick": arguments.quick, "parts": parts, "cores": os.cpu_count()},
        "n": {bar["name"]: bar.get("n") for bar in bars},
        "spread": {bar["name"]: bar.get("spread", "") for bar in bars},
        "bars": [{key: bar[key] for key in ("name", "value", "limit", "holds")} for bar in bars],
    }
    print(json.dumps(document))


def _bars(part: str, quick: bool) -> list[dict[str, Any]]:
    return list(importlib.import_module(f"faults.{part}").bars(quick))


if __name__ == "__main__":
    main()
