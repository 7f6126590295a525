"""Outputs of random int8 networks in each engine, against the same file computed as ONNX says.

Ranges are those of four random inputs of the network. `rounding` is what an engine's outputs hold
of the file's rounding (`parity.rounding`), and what it would be if it ignored the file's pairs.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from precision import INT8, own_ranges

from engine.networks import bar, write
from engine.parity import Row, kept
from hwnas.measuring import parity
from hwnas.networks import spaces
from hwnas.settings.targets import REFERENCE
from profilers import precisions, runtimes
from profilers.devices import host
from profilers.schema import Target

NETWORKS, SPACES, FILE, IMAGES = 100, ("tiny", "mbv3-28-int8"), "int8.jsonl", 16
PART = precisions.load("int8")
PLAIN = "plain"  # ending of the engine that is given the file without its pairs


def measure(engines: list[str], names: list[str], out: Path, quick: bool) -> dict[str, Any]:
    """The document of this part; networks that are in the file are not run again."""
    names, count = names or (["tiny"] if quick else list(SPACES)), 2 if quick else NETWORKS
    engines = [REFERENCE, *engines]
    done = kept(out / FILE, engines, names, count, compared)
    rows = [
        summary(name, engine, [done[name, seed][engine] for seed in range(count)])
        for name in names
        for engine in engines
    ]
    gap, held = (max(r["largest"] for r in rows), min(r["least_rounding"] for r in rows))
    bars = [
        bar("largest_difference", gap, PART.PRECISION.tolerance),
        bar("rounding_lacking", 1 - held, 1 - parity.LEAST_ROUNDING),
    ]
    return {"n": count * len(rows), "spread": None, "rows": rows, "bars": bars}


def summary(name: str, engine: str, told: list[dict[str, float | None]]) -> dict[str, Any]:
    """Of all networks of a space in an engine; printed."""

    def all_of(key: str) -> list[float]:
        return [value for each in told if (value := each[key]) is not None]

    row = {
        **{"space": name, "engine": engine, "n": len(told)},
        **{"median": float(np.median(all_of("gap"))), "largest": max(all_of("gap"))},
        **{"least_rounding": min(all_of("rounding")), "without_pairs": max(all_of(PLAIN))},
    }
    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def compared(name: str, seed: int, engines: list[str], out: Path) -> Row:
    """One random network at the smallest resolution: in each engine, its distance from what the
    file says, and its rounding.
    """
    begun, space = time.monotonic(), spaces.load(name)
    space = space.restricted([min(space.resolutions)])
    arch = space.random(np.random.default_rng([seed, 7]))
    path, shape = out / "network.onnx", (IMAGES, *space.input_shape(arch.resolution))
    images = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    model = write(arch.ops, path, seed).read_bytes()
    ranges, row = own_ranges(model, images[:4]), {}
    for engine in engines:
        recipe = precisions.recipe("int8", host.hardware(), runtimes.engine(engine).recipe)
        made = PART.calibrated(model, recipe, ranges)
        unrounded, as_said = PART.unrounded(made), replace(INT8, optimisation="disable")
        meant, plain = outputs(as_said, made, path, images), outputs(INT8, unrounded, path, images)
        target = replace(INT8, runtime=engine)
        found, ignored = (outputs(target, data, path, images) for data in (made, unrounded))
        row[engine] = {
            "gap": parity.difference(meant, found),
            "rounding": parity.rounding(meant, plain, found),
            PLAIN: parity.rounding(meant, plain, ignored),
        }
    return {"space": name, "seed": seed, **row, "seconds": round(time.monotonic() - begun, 2)}


def outputs(target: Target, data: bytes, path: Path, images: np.ndarray) -> np.ndarray:
    """Of a file, one image at a time."""
    path.write_bytes(data)
    session = runtimes.load(target.runtime).load(path, target)
    found = np.concatenate([session.run(images[i : i + 1]) for i in range(len(images))])
    session.close()
    return found
