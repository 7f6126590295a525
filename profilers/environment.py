"""What numbers are taken on: hardware, system, engine, and the state they were in.

Unknown is None, never invented. Nothing here names a host, a user, an address or a serial number,
because tables that carry it are shipped.
"""

from __future__ import annotations

import platform
from typing import Any, Dict

import numpy as np

from profilers import devices, precisions, runtimes
from profilers.schema import Target, canonical_json, sha256_text
from profilers.sysfs import is_emulated, system_release

GIB = 1 << 30
# What must not change between two campaigns whose numbers are compared. Kernel, Python and clocks
# are recorded but may change: a security update does not make every table stale.
FIXED = (
    *("device", "board", "cpu", "cpu_id", "cpu_features", "cores", "machine", "os"),
    *("engine", "engine_version"),
)


def describe(target: Target) -> Dict[str, Any]:
    """The environment of a target, with the fingerprint of its fixed part.

    Raises:
        ConfigError: no such device or runtime.
        RuntimeMissingError: the engine is not installed.
    """
    device = devices.load(target.hardware or target.device)
    runtime = runtimes.load(target.runtime)
    engine = runtimes.engine_of(runtime)
    facts = {
        "device": target.device,
        **device.hardware(),
        "os": system_release(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "engine": target.runtime,
        "engine_version": runtime.version(),
        "tf32": target.precision != "fp32" if engine.gpu else None,
        "emulated": is_emulated() or engine.modelled,
        **device.state(),
    }
    recipe = precisions.recipe(target.precision, facts, engine.recipe)
    return {**facts, **({"recipe": recipe} if recipe else {}), "fingerprint": fingerprint(facts)}


def fingerprint(facts: Dict[str, Any]) -> str:
    """Hex sha256 of what must not change; memory counts in whole GiB, kernels report it to the
    page.
    """
    fixed = {name: facts[name] for name in FIXED}
    if facts.get("power_mode") is not None:  # a Jetson in another mode is another device
        fixed["power_mode"] = facts["power_mode"]
    if facts.get("tf32") is not None:  # on a GPU: whether fp32 sums may be of products in TF32
        fixed["gpu"], fixed["tf32"] = facts.get("gpu"), facts["tf32"]
    memory = facts["memory_bytes"]
    fixed["memory_gib"] = None if memory is None else round(memory / GIB)
    return sha256_text(canonical_json(fixed))
