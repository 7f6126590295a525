"""How long a package takes: the model, what the engine loads, its outputs there, its documents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.networks import bar
from hwnas.measuring import parity
from hwnas.networks import spaces
from hwnas.run import package
from hwnas.supernet.network import Subnet, folded_weights
from profilers.schema import Target

SPACES, LIMIT_S = ("mbv3-28", "ofa-mbv3-w10"), 3.0


def measure(engines: list[str], names: list[str], out: Path, quick: bool) -> dict[str, Any]:
    """The document of this part."""
    names = names or (["tiny"] if quick else list(SPACES))
    rows = [packaged(name, engine, out) for name in names for engine in engines]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    longest = max(row["seconds"] for row in rows)
    bars = [bar("longest_export_s", None if quick else longest, LIMIT_S)]
    return {"n": len(rows), "spread": None, "packages": rows, "bars": bars}


def packaged(name: str, engine: str, out: Path) -> dict[str, Any]:
    """A package of a network of a space at its largest resolution, with fresh weights."""
    arch = spaces.load(name).random(np.random.default_rng(5))
    subnet, folder = Subnet(arch).eval(), out / f"package-{name}-{engine}"
    folder.mkdir(parents=True, exist_ok=True)
    target, begun = Target("host", engine), time.monotonic()
    package.write_model(folder, arch, folded_weights(subnet), target.batch, {})
    file = folder / package.write_engine_file(folder, target)
    written_s = time.monotonic() - begun
    given = {"shape": arch.space.input_shape(arch.resolution)}
    outputs = parity.package_outputs(target, folder / package.MODEL, given, file)
    return {
        "space": name,
        "engine": engine,
        "resolution": arch.resolution,
        "written_s": round(written_s, 2),
        "seconds": round(time.monotonic() - begun, 2),
        "onnx_bytes": (folder / package.MODEL).stat().st_size,
        "bytes": file.stat().st_size,
        "difference": outputs["max_relative_difference"],
    }
