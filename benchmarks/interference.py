"""What another job on the machine does to a table: it is right, or says that it is not.

A shortened campaign runs undisturbed, then again and again with a busy process on every core
during 30 % of it, at another moment in each trial. A trial is good when its table prices networks
within 3 % of what the undisturbed one says, or when the table is marked unreliable or the campaign
ends as unstable. A table that is shifted and says nothing is the failure that this counts.

    python benchmarks/interference.py            20 trials, about 8 minutes
    python benchmarks/interference.py --quick    1 trial of seconds

How far two undisturbed tables differ on this machine is printed beside it: `--references` campaigns
are run undisturbed, spread over the trials, and each trial is compared with the median of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import kit, remote
from hwnas.measuring.kit import KitInfo
from hwnas.measuring.records import read_log
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.settings.errors import UnstableMeasurementError
from hwnas.tables import fit, table
from profilers.schema import target_from_name

TARGET = target_from_name("host.ort-cpu.fp32.b1.t1")
SPACE = spaces.load("tiny").restricted([16])
BUSY_SHARE, MAX_SHIFT = 0.3, 0.03
MOST_ROUNDS = 1000  # never reached: the budget ends a campaign, so that all take equally long
N_PRICED = 200  # networks whose prices are compared


def main() -> None:
    arguments = parse()
    settings = ProfileConfig(
        heldout=arguments.heldout, rounds=MOST_ROUNDS, budget_s=arguments.budget, seed=0
    )
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as scratch:
        folder = Path(scratch)
        info = kit.make_kit(SPACE, folder / "kit", TARGET.batch, settings)
        undisturbed, trials = play(arguments, info, settings, folder)
    judge(arguments, undisturbed, trials)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="tables made while another job is busy")
    parser.add_argument("--quick", action="store_true", help="one short trial")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--references", type=int, default=4, help="undisturbed campaigns")
    parser.add_argument("--budget", type=float, default=15, help="device seconds of a campaign")
    parser.add_argument("--heldout", type=int, default=30, help="networks that validate")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.references = 1, 1
        arguments.budget, arguments.heldout = 1.5, 5
    return arguments


def play(
    arguments: argparse.Namespace, info: KitInfo, settings: ProfileConfig, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The undisturbed campaigns and the disturbed ones, in turns."""
    undisturbed: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    every = max(1, arguments.trials // arguments.references)
    rng = np.random.default_rng(0)
    for number in range(arguments.trials):
        if number % every == 0 and len(undisturbed) < arguments.references:
            undisturbed.append(campaign(info, settings, folder / f"quiet-{number}.jsonl"))
            tell("undisturbed", undisturbed[-1])
        start = float(rng.uniform(0, 1 - BUSY_SHARE))
        busy = Busy(start * undisturbed[0]["wall_s"], BUSY_SHARE * undisturbed[0]["wall_s"])
        trials.append(campaign(info, settings, folder / f"busy-{number}.jsonl", busy))
        tell(f"busy from {start:.0%}", trials[-1])
    return undisturbed, trials


class Busy(NamedTuple):
    """When every core is busy with something else: from when on and for how long, seconds."""

    start_s: float
    duration_s: float


def campaign(
    info: KitInfo, settings: ProfileConfig, log: Path, busy: Busy | None = None
) -> dict[str, Any]:
    """One campaign: how long it took, verdict and reason of its table, and the prices by it, ms;
    no prices where it is unstable.
    """
    done = threading.Event()
    bully = threading.Thread(target=disturb, args=(busy, done))
    begun = time.monotonic()
    bully.start()
    try:
        result = remote.run_campaign(TARGET, info.folder, log, settings, lambda text, share: None)
    finally:
        done.set()
        bully.join()
    wall_s = time.monotonic() - begun
    return {"wall_s": wall_s, **outcome(info, settings, log, result)}


def outcome(
    info: KitInfo, settings: ProfileConfig, log: Path, result: remote.CampaignResult
) -> dict[str, Any]:
    """What a campaign's table says, or why there is none."""
    if not result.stable:
        return {"verdict": "unstable", "reason": result.reason, "prices": None}
    header, records, _ = read_log(log)
    try:
        found = fit.fit_table(SPACE, info.kit, header, records, settings.seed)
    except UnstableMeasurementError as error:
        return {"verdict": "unstable", "reason": str(error), "prices": None}
    rng = np.random.default_rng(1)
    prices = [table.network_latency(found, SPACE.random(rng)) for _ in range(N_PRICED)]
    return {
        "verdict": found.verdict,
        "reason": found.validation["reason"],
        "prices": prices,
        "rounds": found.protocol["rounds"],
        "disturbed_rounds": found.protocol["disturbed_rounds"],
    }


def disturb(busy: Busy | None, done: threading.Event) -> None:
    """Keep every core busy for a part of a campaign, or until it is done."""
    if busy is None or done.wait(busy.start_s):
        return
    context = multiprocessing.get_context("spawn")
    until = time.time() + busy.duration_s
    processes = [context.Process(target=spin, args=(until,)) for _ in range(os.cpu_count() or 1)]
    for process in processes:
        process.start()
    done.wait(busy.duration_s)
    for process in processes:
        process.terminate()
        process.join()


def spin(until: float) -> None:
    """Multiply matrices that do not fit into a cache, until a time of the clock."""
    values = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)
    while time.time() < until:
        values = np.tanh(values @ values)


def shift(trial: dict[str, Any], reference: np.ndarray | None) -> float | None:
    """Median change of prices against the reference, a share with its sign; None without one of
    the two.
    """
    if trial["prices"] is None or reference is None:
        return None
    return float(np.median(np.asarray(trial["prices"]) / reference - 1))


def tell(what: str, found: dict[str, Any]) -> None:
    print(f"{what:18}{found['verdict']:12}{found['reason'][:90]}", flush=True)


def judge(
    arguments: argparse.Namespace, undisturbed: list[dict[str, Any]], trials: list[dict[str, Any]]
) -> None:
    """The table for people, and as last line everything as one JSON document."""
    known = [found["prices"] for found in undisturbed if found["prices"] is not None]
    if not known:
        print("no undisturbed campaign settled: the machine is busy", file=sys.stderr)
    reference = np.median(known, axis=0) if known else None
    own = [shift(found, reference) for found in undisturbed]
    shifts = [shift(trial, reference) for trial in trials]
    said = [trial["verdict"] in ("unstable", "unreliable") for trial in trials]
    silent = sum(
        not marked and not (moved is not None and abs(moved) <= MAX_SHIFT)
        for marked, moved in zip(said, shifts, strict=True)
    )
    print(f"\n{'trial':>6}{'shift':>10}  verdict")
    for number, (trial, moved) in enumerate(zip(trials, shifts, strict=True)):
        told = "-" if moved is None else f"{moved:+.2%}"
        print(f"{number:>6}{told:>10}  {trial['verdict']}")
    print(f"undisturbed campaigns differ from their median by {own}")
    print(
        f"marked unreliable or unstable: {sum(said)} of {len(trials)}; silently shifted: {silent}"
    )
    moved_by = [value for value in shifts if value is not None]
    brief = [{k: v for k, v in found.items() if k != "prices"} for found in trials]
    document = {
        "setting": {**vars(arguments), "space": SPACE.name, "target": TARGET.name},
        "n": len(trials),
        "spread": statistics.pstdev(moved_by) if moved_by else None,
        "shifts": shifts,
        "undisturbed": own,
        "trials": brief,
        "bars": [
            {"name": "silently shifted tables", "value": silent, "limit": 0, "holds": not silent}
        ],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
