"""Few whole networks and known tables, against the same networks without them and with their ops.

A target is new, of others there are tables. Of the networks of its campaign n are drawn, and three
fits of them are judged on the campaign's held-out networks, beside that of the whole campaign:

- like: `hwnas import latencies --like`, from the n networks and the known tables;
- alone: `hwnas import latencies`, from the n networks;
- with ops: as `hwnas profile` fits, from the n networks and every op of the space timed alone,
  which are as many more models to measure as there are ops.

    python benchmarks/few_shot.py --campaigns FOLDER...   measured campaigns below these folders
    python benchmarks/few_shot.py                         modelled devices, 2 seeds
    python benchmarks/few_shot.py --quick                 modelled devices, one seed, seconds

Campaigns are `*.jsonl` files whose kit is below the folders too, as in run folders. One is new
beside others of the same ops: of other targets in one case, of its own at another time in the
other. Commands fit 20 networks at least, 10 with known tables; fewer are here to see why.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from estimators import World, simulate

from hwnas.measuring import kit as kits
from hwnas.measuring.records import read_log
from hwnas.networks import spaces
from hwnas.networks.ops import parse_key
from hwnas.settings.config import ProfileConfig
from hwnas.tables import estimators, fit, validation, whole_networks
from hwnas.tables.estimators import Estimate, Estimator, Evidence
from hwnas.tables.observations import Observations, observe
from profilers.errors import FileFormatError, UnstableMeasurementError

N, SEEDS = (5, 10, 20, 40), 2
FITS = ("like", "alone", "with ops")
OTHERS, AGAIN, MODELLED = "other targets", "another time", "modelled"


class Campaign(NamedTuple):
    """What was measured of a target, and what all of it says of rows, held-out error and noise."""

    target: str
    seen: Observations
    whole: Estimate
    error: float
    noise: float


class Case(NamedTuple):
    """A new target and known ones: the sort of case, its name, campaigns."""

    sort: str
    name: str
    new: Campaign
    known: Sequence[Campaign]


def main() -> None:
    parser = argparse.ArgumentParser(description="few networks and known tables")
    parser.add_argument("--campaigns", type=Path, nargs="*", default=[], help="measured ones")
    parser.add_argument("--quick", action="store_true", help="one seed, modelled devices")
    arguments = parser.parse_args()
    seeds = 1 if arguments.quick else SEEDS
    cases = list(measured(arguments.campaigns) if arguments.campaigns else modelled(seeds))
    rows = [judged(case, n, seed) for case in cases for n in N for seed in range(seeds)]
    show(rows)
    report(rows, len(cases), seeds)


# ---- campaigns ----------------------------------------------------------------------------------


def campaign(target: str, kit: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Campaign:
    """A campaign and its own fit."""
    seen = observe(kit, records, all_rounds=True)
    held, usable = seen.heldout, not seen.in_place_reason
    found = chosen(estimators.candidates(usable), fit.evidence(seen), 0)
    predicted = found.predict(held.counts, held.resolution)
    error = validation.relative_error(predicted, held.latency_ms, seen.again_ms)
    noise = validation.relative_noise(held.latency_ms, seen.again_ms)
    return Campaign(target, seen, found, float(error.mean()), float(noise.mean()))


def measured(folders: Sequence[Path]) -> Iterator[Case]:
    """Every campaign below some folders beside the others of its ops and batch."""
    known: dict[tuple[Any, ...], dict[str, list[Campaign]]] = {}
    made = {}
    for path in sorted(path for folder in folders for path in folder.rglob("kit.json")):
        info = kits.load_kit(path.parent)
        made[info.hash] = info.kit
    for path in sorted(path for folder in folders for path in folder.rglob("*.jsonl")):
        try:
            header, records, _ = read_log(path)
        except FileFormatError:  # lines of something else
            continue
        kit = made.get(header.get("kit"))
        if not kit:
            continue
        try:
            one = campaign(header["target"]["name"], kit, records)
        except UnstableMeasurementError as error:
            print(f"{path} is left out: {error}", file=sys.stderr)
            continue
        group = known.setdefault((kit["space"], kit["batch"], one.seen.keys), {})
        group.setdefault(one.target, []).append(one)
    for (space, *_), group in known.items():
        for target, mine in group.items():
            others = [found[-1] for name, found in group.items() if name != target]
            if others:
                yield Case(OTHERS, f"{space} {target}", mine[-1], others)
            if len(mine) > 1:
                yield Case(AGAIN, f"{space} {target}", mine[-1], mine[:1])


def modelled(seeds: int) -> Iterator[Case]:
    """Devices whose ops cost a common part, which follows no rule, and one of the device's own."""
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as folder:
        offered = spaces.load("tiny").restricted([8, 12, 16])
        kit = kits.make_kit(offered, Path(folder) / "kit", 1, ProfileConfig(heldout=60)).kit
    keys = sorted({op["key"] for item in kit["items"] for op in item["ops"]})
    usual = {key: 1e-5 * (parse_key(key).macs + 20 * parse_key(key).elements) for key in keys}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        common = rng.lognormal(0, 0.5, len(keys))
        devices = []
        for number, speed in enumerate((1.0, 2.5, 0.4)):
            own = speed * common * rng.lognormal(0, 0.05, len(keys))
            costs = {key: usual[key] * float(x) for key, x in zip(keys, own, strict=True)}
            records = simulate(kit, World(costs=costs), seed + 10 * number)[1]
            devices.append(campaign(f"device {number}", kit, records))
        yield Case(MODELLED, f"seed {seed}", devices[0], devices[1:])


# ---- fits ---------------------------------------------------------------------------------------


def chosen(choice: Sequence[Estimator], known: Evidence, seed: int) -> Estimate:
    """What the estimator gives that cross-validation takes."""
    best = fit.choose(choice, fit.cross_validate(choice, known, seed))
    return estimators.estimate(best, known)


def judged(case: Case, n: int, seed: int) -> dict[str, Any]:
    """Held-out errors of the fits of n networks of the new target, and of the whole campaign."""
    seen, held = case.new.seen, case.new.seen.heldout
    drawn = np.random.default_rng([seed, n]).permutation(len(seen.fitted.ids))[:n]

    def error(found: Estimate, resolution: np.ndarray) -> float:
        predicted = found.predict(held.counts, resolution)
        return float(validation.relative_error(predicted, held.latency_ms, seen.again_ms).mean())

    anywhere = np.zeros(len(held.ids), dtype=int)
    fits = {
        "like": error(few(seen, drawn, seed, [one.whole.rows_ms for one in case.known]), anywhere),
        "alone": error(few(seen, drawn, seed, []), anywhere),
        "with ops": error(with_ops(seen, drawn, seed), anywhere),
    }
    about = {"sort": case.sort, "case": case.name, "known": len(case.known), "n": len(drawn)}
    return {**about, "of": n, "whole": case.new.error, "noise": case.new.noise, **fits}


def few(seen: Observations, drawn: np.ndarray, seed: int, known: Sequence[np.ndarray]) -> Estimate:
    """What the command fits, from some networks and (K,) rows of known tables."""
    rows = {f"known {number}": row for number, row in enumerate(known)}
    views = {**whole_networks.kernel_views([parse_key(key) for key in seen.keys]), **rows}
    counts, ms = seen.fitted.counts[drawn], seen.fitted.latency_ms[drawn]
    evidence = whole_networks.evidence(views, counts, ms, tuple(rows))
    return chosen(whole_networks.candidates(tuple(rows)), evidence, seed)


def with_ops(seen: Observations, drawn: np.ndarray, seed: int) -> Estimate:
    """What a profile of some networks fits; ops were timed in place in these networks alone."""
    fitted = replace(
        seen.fitted,
        counts=seen.fitted.counts[drawn],
        resolution=np.zeros(len(drawn), dtype=int),
        latency_ms=seen.fitted.latency_ms[drawn],
    )
    less = replace(seen, fitted=fitted, in_place_ms=seen.in_place_ms[drawn])
    return chosen(estimators.candidates(not seen.in_place_reason), fit.evidence(less), seed)


# ---- words and bars -----------------------------------------------------------------------------


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """One line for each number of networks of each sort of case."""
    print("| known tables | cases | networks | like | alone | with ops | whole | noise |")
    print("|---|---|---|---|---|---|---|---|")
    for sort, n in dict.fromkeys((row["sort"], row["of"]) for row in rows):
        mine = [row for row in rows if (row["sort"], row["of"]) == (sort, n)]
        means = [f"{mean(mine, name):.2%}" for name in (*FITS, "whole", "noise")]
        cases = len({row["case"] for row in mine})
        print(f"| {sort} | {cases} | {n} | {' | '.join(means)} |")


def mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Of a column."""
    return statistics.mean(row[name] for row in rows)


def report(rows: Sequence[Mapping[str, Any]], cases: int, seeds: int) -> None:
    """The bars, and as last line everything as one JSON document."""
    bars = []
    for sort, n in dict.fromkeys((row["sort"], row["of"]) for row in rows):
        mine = [row for row in rows if (row["sort"], row["of"]) == (sort, n)]
        like, limit = mean(mine, "like"), mean(mine, "alone")
        name = f"{sort}, {n} networks: error with known tables, at most that without"
        bars.append({"name": name, "value": like, "limit": limit, "holds": like <= limit})
    for bar in bars:
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['name']}: {bar['value']:.4f}")
    setting = {"networks": N, "seeds": seeds}
    spread = {name: statistics.pstdev(row[name] for row in rows) for name in FITS}
    print(
        json.dumps({"setting": setting, "n": cases, "spread": spread, "rows": rows, "bars": bars})
    )


if __name__ == "__main__":
    main()
