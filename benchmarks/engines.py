"""OpenVINO and LiteRT beside ONNX Runtime: outputs, speed, tables, and how long an export takes.

    python benchmarks/engines.py parity --out runs/engines   100 random networks of every space
    python benchmarks/engines.py int8 --out runs/engines     the same of int8 files of two spaces
    python benchmarks/engines.py speed --out runs/engines    engines side by side, interleaved
    python benchmarks/engines.py tables --out runs/engines   tables of both engines, minutes each
    python benchmarks/engines.py export                      packages of both engines, seconds
    python benchmarks/engines.py --quick                     everything small, seconds

What is in --out is not measured again. Weights are drawn by the rule of kits, so outputs are of
order one. Times need a quiet machine; the processor and what it multiplies in are named.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from engine import export, int8, parity, speed, tables

from profilers.devices import host

PARTS = {part.__name__.rpartition(".")[2]: part for part in (parity, int8, speed, tables, export)}
INTEGER = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")  # of interest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("--engines", default="openvino,litert", help="with commas between")
    parser.add_argument("--spaces", default="", help="with commas between; default: all")
    parser.add_argument("--out", type=Path, help="folder that keeps what was measured")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    engines = args.engines.split(",")
    spaces = [name for name in args.spaces.split(",") if name]
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as scratch:
        out = args.out or Path(scratch)
        parts = [args.part] if args.part else list(PARTS)
        found = {name: PARTS[name].measure(engines, spaces, out, args.quick) for name in parts}
    print(json.dumps(document(found)))


def document(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The parts together, and what they were measured on."""
    hardware = host.hardware()
    features = sorted(set(INTEGER) & set(hardware["cpu_features"] or ()))
    print(f"{hardware['cpu']}, {hardware['cores']} cores, {', '.join(features)}", flush=True)
    return {
        "setting": f"{hardware['cpu']} ({', '.join(features)}), one thread, fp32",
        "n": sum(part["n"] for part in found.values()),
        "spread": {name: part["spread"] for name, part in found.items()},
        "parts": found,
        "bars": [bar for part in found.values() for bar in part["bars"]],
    }


if __name__ == "__main__":
    main()
