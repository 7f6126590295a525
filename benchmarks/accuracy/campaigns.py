"""Campaigns of the benchmark of tables: what is measured, kept in a folder each, and fitted."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import kit, remote
from hwnas.measuring.records import read_log
from hwnas.networks import spaces
from hwnas.networks.space import SearchSpace
from hwnas.settings.config import ProfileConfig
from hwnas.settings.errors import UnstableMeasurementError
from hwnas.tables import about, estimators, fit, observations, table
from profilers.schema import read_json, target_from_name, write_json

HELDOUT = 60
MOST_ROUNDS = 60
OTHERS = ("plain sum", "one factor", "MACs")


class Setting(NamedTuple):
    """What is measured, for how long, and by which bars it is judged (`full`, `ratio`, none)."""

    space: str
    resolutions: tuple[int, ...]
    target: str
    budget_s: float
    bars: str = ""
    heldout: int = HELDOUT
    rounds: int = MOST_ROUNDS
    memory_mb: int = 0


ONE, EIGHT, TWO = (f"host.ort-cpu.fp32.b{b}.t{t}" for b, t in ((1, 1), (8, 1), (1, 2)))
IN_GROUPS = 360  # MB of open models at a time; a worker takes 85 MB besides, a profile 35 MB
SETTINGS = {
    "ofa-224": Setting("ofa-mbv3-w10", (224,), ONE, 78, "full", memory_mb=IN_GROUPS),
    "ofa-192": Setting("ofa-mbv3-w10", (192,), ONE, 62, "full", memory_mb=IN_GROUPS),
    "ofa-160": Setting("ofa-mbv3-w10", (160,), ONE, 53, "full", memory_mb=IN_GROUPS),
    "ofa-128": Setting("ofa-mbv3-w10", (128,), ONE, 46, "full", memory_mb=IN_GROUPS),
    "mbv3-28": Setting("mbv3-28", (28,), ONE, 40, "full"),
    "mbv3-28-b8": Setting("mbv3-28", (28,), EIGHT, 60, "ratio"),
    "ofa-160-t2": Setting("ofa-mbv3-w10", (160,), TWO, 90, "ratio"),
    "tiny": Setting("tiny", (8, 12, 16), ONE, 12),
}
QUICK = {"quick": Setting("tiny", (16,), ONE, 3, "", heldout=8, rounds=5)}


class Place(NamedTuple):
    """One campaign: its setting, its number (the seed), and the folder that keeps it."""

    name: str
    setting: Setting
    seed: int
    folder: Path


def config_of(place: Place) -> ProfileConfig:
    """Settings of the campaign; its seed decides the kit."""
    setting = place.setting
    return ProfileConfig(
        heldout=setting.heldout,
        rounds=setting.rounds,
        budget_s=setting.budget_s,
        memory_mb=setting.memory_mb,
        seed=place.seed,
    )


def space_of(place: Place) -> SearchSpace:
    """The space at the resolutions that are measured."""
    return spaces.load(place.setting.space).restricted(place.setting.resolutions)


def measured(place: Place) -> None:
    """Measure the campaign unless that was done and settled, in a process of its own, whose
    children's peak memory is that of the workers. A campaign begins anew: its device time counts.
    """
    path = place.folder / "measured.json"
    if path.is_file() and cost(place)["stable"]:
        return
    for name in ("measured.json", "result.json", "measurements.jsonl"):
        (place.folder / name).unlink(missing_ok=True)
    print(f"measuring {place.name}, campaign {place.seed}", file=sys.stderr, flush=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool_of_one:
        write_json(path, pool_of_one.apply(measure, (place,)))


def cost(place: Place) -> dict[str, Any]:
    """What the campaign cost and whether it settled, as `measured.json` keeps it."""
    return dict(read_json(place.folder / "measured.json"))


def measure(place: Place) -> dict[str, Any]:
    """The content of `measured.json`; makes the kit and measures it."""
    target, config = target_from_name(place.setting.target), config_of(place)
    info = kit.make_kit(space_of(place), place.folder / "kit", target.batch, config)
    log = place.folder / "measurements.jsonl"
    begun = time.monotonic()
    campaign = remote.run_campaign(target, info.folder, log, config, progress)
    return {
        "device_s": campaign.device_s,
        "wall_s": time.monotonic() - begun,
        "memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "stable": campaign.stable,
        "reason": campaign.reason,
    }


def progress(text: str, share: float) -> None:
    """One line that is written over, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r{share:6.0%} {text:70}", end="", file=sys.stderr, flush=True)


def content(place: Place) -> fit.Campaign:
    """What the campaign measured."""
    header, records, _ = read_log(place.folder / "measurements.jsonl")
    return fit.Campaign(kit.load_kit(place.folder / "kit").kit, header, records)


def evaluated(place: Place) -> dict[str, Any]:
    """Held-out columns, estimators and costs of a campaign, as `result.json` keeps them."""
    path = place.folder / "result.json"
    if not path.is_file():
        print(f"fitting {place.name}, campaign {place.seed}", file=sys.stderr, flush=True)
        try:
            found = evaluate(place)
        except UnstableMeasurementError as error:
            found = {"unstable": str(error)}
        write_json(path, found)
    return {**cost(place), **read_json(path)}


def evaluate(place: Place) -> dict[str, Any]:
    """The content of `result.json`; writes the campaign's table beside it."""
    spent = cost(place)
    if not spent["stable"]:
        return {"unstable": spent["reason"]}
    campaign = content(place)
    begun = time.monotonic()
    found = fit.fit_campaigns(space_of(place), [campaign], place.seed)
    fit_s = time.monotonic() - begun
    table.save(found, place.folder / "table.json")
    seen = observations.observe(campaign.kit, campaign.records)
    names, predicted, a, b = zip(*found.validation["points"], strict=True)
    macs = seen.heldout.counts @ estimators.fixed_views(seen.keys)["macs"]
    columns = {"table": predicted, "a": a, "b": b, "macs": macs.tolist()}
    return {
        "fit_s": fit_s,
        "ids": names,
        "columns": {**columns, **predictions_of_others(seen)},
        "estimator": about.estimator_name(
            {**found.calibration, "name": found.calibration["estimator"]}
        ),
        "estimators": found.validation["estimators"],
        "protocol": found.protocol,
        "unattributed": found.calibration["unattributed"],
        "verdict": found.verdict,
        "noise": found.noise,
        "environment": found.environment,
    }


def predictions_of_others(seen: observations.Observations) -> dict[str, list[float]]:
    """Held-out latencies, ms, as other ways predict them from the same samples."""
    plain = seen.heldout.counts @ seen.alone_ms
    factor = np.median(seen.fitted.latency_ms / (seen.fitted.counts @ seen.alone_ms))
    macs = estimators.estimate(estimators.BASELINE, fit.evidence(seen))
    by_macs = macs.predict(seen.heldout.counts, seen.heldout.resolution)
    columns = zip(OTHERS, (plain, factor * plain, by_macs), strict=True)
    return {name: column.tolist() for name, column in columns}
