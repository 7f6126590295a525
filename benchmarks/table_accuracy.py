"""How far predictions of latency tables are from measurements, and from repeating a measurement.

For each setting one campaign on this machine, one table, and its held-out networks, which chose
nothing: the error of the table against the mean of two sessions, the noise (difference of the two
sessions), and what other ways to predict would have been off by. Device time is all that the target
was busy for: opening, warming up, rounds, repeated rounds, profiles, both sessions.

    python benchmarks/table_accuracy.py                 three spaces, about 5 minutes
    python benchmarks/table_accuracy.py --quick         tiny at one resolution, seconds
    python benchmarks/table_accuracy.py --space ofa-mbv3-w10 --resolutions 160,224 --heldout 40

The bar is for ofa-mbv3-w10 at 224 px, one thread, batch 1, 40 held-out networks or more; without
that setting there is none. A machine that does other work at the same time says so by its noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from hwnas import spaces
from hwnas.config import ProfileConfig
from hwnas.errors import UnstableMeasurementError
from hwnas.measuring import kit, remote
from hwnas.tables import fit, table
from profilers.schema import read_lines, target_from_name

TARGET = "host.ort-cpu.fp32.b1.t1"
BAR = ("ofa-mbv3-w10", (224,), TARGET)
BAR_HELDOUT = 40
BAR_RATIO, BAR_ERROR = 1.5, 0.01  # error at most this times the noise, or this share


class Setting(NamedTuple):
    """One campaign: what is measured and for how long."""

    space: str
    resolutions: tuple[int, ...]
    target: str
    profile: ProfileConfig


def main() -> None:
    arguments = parse()
    results = []
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as scratch:
        for number, setting in enumerate(settings(arguments)):
            folder = (arguments.out or Path(scratch)) / f"campaign-{number}"
            try:
                results.append(measure(setting, folder))
            except UnstableMeasurementError as error:
                print(f"{setting.space} on {setting.target}: {error}", file=sys.stderr)
                results.append({"setting": describe(setting), "unstable": str(error)})
                continue
            show(results[-1])
    report(results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="error of latency tables against repeat noise")
    parser.add_argument("--quick", action="store_true", help="tiny at one resolution, seconds")
    parser.add_argument("--space", help="one space instead of the three")
    parser.add_argument("--resolutions", help="px, with commas; default: the largest")
    parser.add_argument("--target", default=TARGET, help="local target, by name")
    parser.add_argument("--heldout", type=int, default=40, help="networks that validate")
    parser.add_argument("--rounds", type=int, default=20, help="undisturbed rounds wanted")
    parser.add_argument("--budget", type=float, default=120, help="seconds a resolution, at most")
    parser.add_argument("--seed", type=int, default=0, help="of kit, orders and splits")
    parser.add_argument("--out", type=Path, help="folder that keeps kits and measurements")
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> list[Setting]:
    """The campaigns that the command line asks for."""
    if arguments.quick:
        quick = ProfileConfig(heldout=8, rounds=5, budget_s=4, seed=arguments.seed)
        return [Setting("tiny", (16,), arguments.target, quick)]
    profile = ProfileConfig(
        heldout=arguments.heldout,
        rounds=arguments.rounds,
        budget_s=arguments.budget,
        seed=arguments.seed,
    )
    names = [arguments.space] if arguments.space else ["tiny", "mbv3-28", "ofa-mbv3-w10"]
    asked = tuple(int(size) for size in (arguments.resolutions or "").split(",") if size)
    return [
        Setting(name, asked or spaces.load(name).resolutions[-1:], arguments.target, profile)
        for name in names
    ]


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """The figures of one campaign."""
    space = spaces.load(setting.space).restricted(setting.resolutions)
    target = target_from_name(setting.target)
    info = kit.make_kit(space, folder / "kit", target.batch, setting.profile)
    log = folder / "measurements.jsonl"
    begun = time.monotonic()
    campaign = remote.run_campaign(target, info.folder, log, setting.profile, progress)
    wall_s = time.monotonic() - begun
    records, _ = read_lines(log)
    begun = time.monotonic()
    found = fit.fit_table(space, info.kit, records[0], records[1:], setting.profile.seed)
    fit_s = time.monotonic() - begun
    table.save(found, folder / "table.json")
    validation = found.validation
    return {
        "setting": describe(setting),
        "items": info.counts(),
        "ops": len(found.rows),
        "rounds": found.protocol["rounds"],
        "disturbed_rounds": found.protocol["disturbed_rounds"],
        "stable": campaign.stable,
        "device_s": campaign.device_s,
        "wall_s": wall_s,
        "fit_s": fit_s,
        "estimator": found.calibration["estimator"],
        "freedom": found.calibration["freedom"],
        "unattributed": found.calibration["unattributed"],
        "environment": found.environment,
        "plain_sum": validation["baselines"]["plain sum of ops alone"],
        "macs": validation["baselines"]["macs"],
        **{name: validation[name] for name in KEPT},
    }


KEPT = (
    "n", "noise", "error", "ratio", "worst", "bias", "drift", "within_5", "within_10",
    "kendall_tau", "verdict", "reason", "estimators", "points",
)  # fmt: skip


def describe(setting: Setting) -> dict[str, Any]:
    """A setting in plain values."""
    return {
        "space": setting.space,
        "resolutions": list(setting.resolutions),
        "target": setting.target,
        "profile": setting.profile.model_dump(mode="json"),
    }


def progress(text: str, share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{share:6.0%} {text:70}", end="", file=sys.stderr, flush=True)


def show(result: dict[str, Any]) -> None:
    """One campaign for people."""
    setting, noise, error = result["setting"], result["noise"], result["error"]
    sizes = ", ".join(str(size) for size in setting["resolutions"])
    low, high = error["interval"]
    print(f"\n{setting['space']} at {sizes} px on {setting['target']}: {result['verdict']}")
    print(f"  {result['reason']}")
    rows = {
        "held-out networks": f"{result['n']}",
        "noise (two sessions)": f"{noise['value']:.2%}",
        "error": f"{error['value']:.2%}  (95 % interval {low:.2%} to {high:.2%})",
        "error / noise": "-" if result["ratio"] is None else f"{result['ratio']:.2f}",
        "worst": f"{result['worst']:.2%}",
        "Kendall's tau": f"{result['kendall_tau']:.3f}",
        "estimator": f"{result['estimator']}, freedom {result['freedom']:g}",
        "rounds, disturbed": f"{result['rounds']}, {result['disturbed_rounds']}",
        "device time": f"{result['device_s']:.0f} s (wall {result['wall_s']:.0f} s)",
    }
    for name, value in rows.items():
        print(f"  {name:24}{value}")
    print(f"  {'what would have been off by':46}{'held out':>10}{'cross-validated':>17}")
    print(f"  {'plain sum of ops timed alone':46}{result['plain_sum']:10.2%}")
    print(f"  {'regression on MACs':46}{result['macs']:10.2%}")
    for entry in sorted(result["estimators"], key=lambda entry: entry["cross_validation"]):
        name = f"{entry['name']}, freedom {entry['freedom']:g}"
        print(f"  {name:46}{entry['error']:10.2%}{entry['cross_validation']:17.2%}")


def bars(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bar of this benchmark, if its setting was measured."""
    out = []
    for result in results:
        setting = result["setting"]
        at = setting["space"], tuple(setting["resolutions"]), setting["target"]
        if "unstable" in result or at != BAR or result["n"] < BAR_HELDOUT:
            continue
        limit = max(BAR_RATIO * result["noise"]["value"], BAR_ERROR)
        value = result["error"]["value"]
        name = "table error, ofa-mbv3-w10 at 224 px, one thread"
        out.append({"name": name, "value": value, "limit": limit, "holds": value <= limit})
    return out


def report(results: list[dict[str, Any]]) -> None:
    """The last line: everything as one JSON document."""
    good = [result for result in results if "unstable" not in result]
    errors = [result["error"]["value"] for result in good]
    document = {
        "setting": results,
        "n": sum(result["n"] for result in good),
        "spread": statistics.pstdev(errors) if errors else None,
        "bars": bars(results),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
