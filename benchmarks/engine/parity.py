"""Outputs of random networks of every space, in each engine, against ONNX Runtime's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.networks import bar, opened, write
from hwnas.measuring.parity import difference
from hwnas.networks import spaces
from hwnas.settings.targets import REFERENCE

NETWORKS, LIMIT = 100, 1e-5
FILE = "parity.jsonl"


def measure(engines: list[str], names: list[str], out: Path, quick: bool) -> dict[str, Any]:
    """The document of this part; networks that are in the file are not run again."""
    names, count = names or (["tiny"] if quick else spaces.names()), 3 if quick else NETWORKS
    done = kept(out / FILE, engines, names, count, compared)
    found = {
        engine: {name: [done[name, seed][engine] for seed in range(count)] for name in names}
        for engine in engines
    }
    for engine, gaps in found.items():
        for name, each in gaps.items():
            print(f"{engine}, {name}: n {len(each)}, median {np.median(each):.1e}, "
                  f"largest {max(each):.1e}", flush=True)  # fmt: skip
    worst = {e: max(max(gaps) for gaps in of.values()) for e, of in found.items()}
    return {
        "n": count * len(names) * len(engines),
        "spread": None,
        "largest": {e: {name: max(gaps) for name, gaps in of.items()} for e, of in found.items()},
        "bars": [bar(f"{engine}_largest_difference", gap, LIMIT) for engine, gap in worst.items()],
    }


Row = dict[str, Any]  # of one network: space, seed, and what is told of each engine


def kept(
    path: Path,
    engines: list[str],
    names: list[str],
    count: int,
    compare: Callable[[str, int, list[str], Path], Row],
) -> dict[tuple[str, int], Row]:
    """Rows of random networks by space and seed: those in a file, and the others, compared now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {(row["space"], row["seed"]): row for row in map(json.loads, lines)}
    for name in names:
        for seed in range(count):
            if not set(engines) <= set(done.get((name, seed), {})):
                done[name, seed] = compare(name, seed, engines, path.parent)
                with open(path, "a", encoding="utf-8") as handle:
                    handle.write(json.dumps(done[name, seed]) + "\n")
    return done


def compared(name: str, seed: int, engines: list[str], out: Path) -> Row:
    """Differences of one random network, a share of its largest output."""
    begun, space = time.monotonic(), spaces.load(name)
    arch = space.random(np.random.default_rng([seed, 7]))
    path = write(arch.ops, out / "network.onnx", seed)
    shape = (1, *space.input_shape(arch.resolution))
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    outputs = {}
    for engine in (REFERENCE, *engines):
        session = opened(engine, path)
        outputs[engine] = session.run(image)
        session.close()
    expected = outputs.pop(REFERENCE)
    gaps = {engine: difference(expected, given) for engine, given in outputs.items()}
    return {"space": name, "seed": seed, **gaps, "seconds": round(time.monotonic() - begun, 2)}
