"""The results of a run as one document that may be published: packages, gates, hashes, versions.

Made from the files of the run folder, so `hwnas accept` and `run --ci` say the same. It names no
host, user, address or path. Format: docs/formats.md, "Result".
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwnas.run import gates, package, results
from hwnas.run.accuracy import Z
from hwnas.run.context import Context
from hwnas.run.devices import device_name, devices
from hwnas.run.public import public_settings
from hwnas.run.result_shape import RESULT_FORMAT
from hwnas.settings import versions
from hwnas.tables.difference import IDENTITY
from hwnas.tables.table import CostTable, load_table
from profilers.errors import HwnasError
from profilers.schema import canonical_json, sha256_file, sha256_text

FORMAT = RESULT_FORMAT
_Told = tuple[dict[str, Any], list[dict[str, Any]]]
MADE_WITH = ("torch", "onnx", versions.ENGINE, "numpy", "scikit-learn")


def result(
    context: Context, targets: Sequence[str], made: Sequence[str] | None = None
) -> dict[str, Any]:
    """The document of a run folder, without what failed.

    Args:
        context: of the run.
        targets: their names; a target that nothing is known of is left out.
        made: those whose packages are of this run; None: all.
    """
    run = context.run
    files = {"supernet": run.supernet, "predictor": run.predictor}
    hashes = {name: sha256_file(path) for name, path in files.items() if path.exists()}
    with contextlib.suppress(HwnasError):
        hashes["data"] = context.data["fingerprint"]
    settings = sha256_text(canonical_json(public_settings(context.config.model_dump(mode="json"))))
    found = {
        name: target
        for name in (targets if made is None else made)
        for target in [_target(context, name)]
        if target
    }
    best, per_device = _best(context, found), context.config.export.per == "device"
    shared = {n: {"targets": mine, "reason": ""} for n, mine in devices(targets).items()}
    return {
        "format": FORMAT,
        "hashes": {"settings": settings, **hashes},
        "versions": versions.of(*MADE_WITH),
        "targets": {name: about for name, (about, _) in found.items()},
        "packages": [
            _package(context, manifest, about["noise"], any(manifest is each for each in best))
            for about, manifests in found.values()
            for manifest in manifests
        ],
        **({"devices": shared} if per_device else {}),
    }


def _best(context: Context, found: Mapping[str, _Told]) -> list[dict[str, Any]]:
    """The most accurate package of each target, or of each device that packages are made for."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, (_, manifests) in found.items():
        per_device = context.config.export.per == "device"
        key = device_name(name) if per_device else name
        groups.setdefault(key, []).extend(manifests)
    return [
        min(each, key=lambda m: gates.measured_values(m).get("error", math.inf))
        for each in groups.values()
    ]


def _target(context: Context, name: str) -> _Told | None:
    """A target's entry in result.json, and its manifests; None if one of its files is missing."""
    try:
        table, manifests = load_table(context.table(name)), _manifests(context, name)
        made_by = next(m["measured"]["made_by"] for m in manifests if m["measured"])
    except (HwnasError, StopIteration, KeyError):
        return None
    target, shares = context.target(name), noise_of(table, manifests)
    about = {
        "device": ", ".join(
            str(table.environment[key]) for key in IDENTITY if table.environment.get(key)
        ),
        "engine": target.runtime,
        "engine_version": made_by.get(target.runtime),
        "precision": target.precision,
        "batch": target.batch,
        "threads": target.threads,
        "clocks": made_by.get("clocks"),
        "environment": made_by.get("environment"),
        "table": table.sha256,
        "verdict": table.verdict,
        "noise": shares,
    }
    return about, manifests


def _manifests(context: Context, target: str) -> list[dict[str, Any]]:
    """Manifests of a target's packages, with the sizes of their models."""
    folders = sorted(path.parent for path in context.run.packages(target).glob("*/manifest.json"))
    return [
        {**m, "size_bytes": (f / m["model"]).stat().st_size}
        for f, m in zip(folders, map(package.read_manifest, folders), strict=True)
    ]


def noise_of(table: CostTable, manifests: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Noise of measured metrics of a target, shares: that of its table or, if that is more, the
    difference of two fresh workers on its packages.
    """
    told = [(m["measured"] or {}).get("repeat") for m in manifests]
    repeats = [share for share in told if share is not None]
    latency = max(table.noise, sum(repeats) / len(repeats) if repeats else 0.0)
    energy = ((table.energy.get("validation") or {}).get("noise") or {}).get("value")
    found = {"latency_ms": latency, "sustained_ms": latency}
    return found if energy is None else {**found, "energy_mj": float(energy)}


def _package(
    context: Context, manifest: Mapping[str, Any], shares: Mapping[str, float], best: bool
) -> dict[str, Any]:
    target, check = manifest["target"]["name"], context.config.check
    margins = results.margins(context, target)
    return {
        "target": target,
        "package": manifest["name"],
        "id": manifest["id"],
        "resolution": manifest["input"]["size"],
        "metrics": _metrics(manifest, shares),
        "predicted": manifest["predicted"],
        "gates": [gate.to_json() for gate in gates.gates(manifest, check, margins, best)],
        "accepted": manifest["accepted"],
        "model": manifest["model"],
        "files": {**manifest["files"]},
    }


def _metrics(manifest: Mapping[str, Any], shares: Mapping[str, float]) -> dict[str, Any]:
    """Value, noise in its unit, and doubt of every metric that was measured; all are better when
    they are smaller.
    """
    measured = manifest["measured"] or {}
    found = {}
    for name, value in gates.measured_values(manifest).items():
        noise = value * shares.get(name, 0.0)
        if name == "error":
            low, high = measured.get("test_interval") or (0.0, 0.0)
            noise = (high - low) / 2 / Z
        if name == "memory_bytes":  # pages of the system, and of whatever else the worker did
            continue
        found[name] = {"value": value, "noise": noise, "doubt": gates.doubt(manifest, name)}
    return found
