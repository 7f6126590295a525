"""How far predictions of latency tables are from measurements, and from repeating a measurement.

For each setting three campaigns on this machine, each with a kit of its own (another seed) and 60
held-out networks, which chose nothing. Held-out networks of all campaigns are pooled; intervals are
bootstrapped over them. Beside the table, from the same samples: the plain sum of ops timed alone
(once-for-all's way), the same times one factor, and a regression on MACs. Settings take turns, so
that the campaigns of one are spread over the run. Device time is all that the target was busy for:
opening, warming up, rounds, repeated rounds, profiles, both sessions.

    python benchmarks/table_accuracy.py --out runs/tables          everything, about 30 minutes
    python benchmarks/table_accuracy.py --out runs/tables --settings ofa-224,mbv3-28
    python benchmarks/table_accuracy.py --out runs/tables --tables latency_tables
    python benchmarks/table_accuracy.py --quick                    seconds

What is in --out is not measured again, but for what did not settle: a run may be split (--settings,
--campaigns) and resumed.
--measure-only leaves the fitting, which needs no quiet machine, to a later call. --tables FOLDER
writes tables to ship, of each setting's campaign with the least noise, resolutions together:
FOLDER/<space>/<target>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accuracy.campaigns import QUICK, SETTINGS, Place, evaluated, measured
from accuracy.pooling import pool, priced, ratio_floors, ship

CAMPAIGNS = 3
MAX_DEVICE_S, MAX_ALL_S, MAX_MEMORY = 90.0, 240.0, 500e6
MAX_LOAD_S, MAX_PRICE_S, LEAST_GAIN = 0.05, 0.2, 5.0
MAX_RATIO, MAX_ERROR, MAX_WORST, MAX_TAU_GAP, MAX_RATIO_OTHER = 1.25, 0.006, 0.03, 0.01, 1.5
OFA = [name for name, one in SETTINGS.items() if name.startswith("ofa") and one.bars == "full"]


def main() -> None:
    arguments = parse()
    with scratch(arguments.out) as out:
        places = plan(arguments, out)
        for place in places:
            measured(place)
        if arguments.measure_only:
            return
        results = {place: evaluated(place) for place in places}
        if arguments.tables:
            ship(results, arguments.tables)
        rows = [pool(name, results) for name in dict.fromkeys(place.name for place in places)]
        speed = priced(results)
    for row in rows:
        show(row)
    report(rows, speed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="error of latency tables against repeat noise")
    parser.add_argument("--quick", action="store_true", help="tiny at one resolution, seconds")
    parser.add_argument("--settings", help=f"with commas, of {', '.join(SETTINGS)}; default: all")
    parser.add_argument("--campaigns", default=CAMPAIGNS, type=int, help="of each setting")
    parser.add_argument("--out", type=Path, help="folder that keeps kits, measurements, tables")
    parser.add_argument("--tables", type=Path, help="folder for tables to ship")
    parser.add_argument("--measure-only", action="store_true", help="fit another time; needs --out")
    return parser.parse_args()


@contextlib.contextmanager
def scratch(out: Path | None) -> Iterator[Path]:
    """The folder that was named, or one that is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as folder:
        yield Path(folder)


def plan(arguments: argparse.Namespace, out: Path) -> list[Place]:
    """The campaigns that are asked for, settings in turns."""
    known = QUICK if arguments.quick else SETTINGS
    names = arguments.settings.split(",") if arguments.settings else list(known)
    strange = [name for name in names if name not in known]
    if strange:
        raise SystemExit(f"setting {strange[0]!r} is not one of {', '.join(known)}")
    return [
        Place(name, known[name], seed, out / name / str(seed))
        for seed in range(arguments.campaigns)
        for name in names
        if not seed or known[name].bars  # one is enough where no bar is judged
    ]


# ---- words and bars ----------------------------------------------------------------------------

SHARES = (
    "noise",
    "error",
    "worst",
    "bias",
    "bias_fast",
    "bias_front",
    "drift",
    "within_5",
    "within_10",
)


def show(row: Mapping[str, Any]) -> None:
    """One setting for people."""
    sizes = ", ".join(str(size) for size in row["setting"]["resolutions"])
    seconds = ", ".join(f"{value:.0f}" for value in row["device_s"])
    print(f"\n{row['name']}: {row['setting']['space']} at {sizes} px on {row['setting']['target']}")
    print(
        f"  {row['campaigns']} campaigns of {seconds} s device time, {row['n']} held-out networks"
    )
    print(f"  most memory of a worker {row['memory_bytes'] / 1e6:.0f} MB")
    for reason in row["unstable"]:
        print(f"  unstable, not pooled: {reason}")
    if not row["n"]:
        return
    print(f"  verdicts {', '.join(row['verdicts'])}; estimators {'; '.join(row['used'])}")
    print(f"  rounds {row['rounds']}, disturbed {row['disturbed_rounds']}")
    for name, value in row["values"].items():
        form = "{:.2%}" if name in SHARES else "{:.3f}"
        told = "unknown" if value is None else f"{form.format(value):>9}"
        if value is not None and (interval := row["intervals"][name]):
            told += f"  ({form.format(interval[0])} to {form.format(interval[1])})"
        print(f"  {name.replace('_', ' '):26}{told}")
    print(f"  {'what would have been off by':46}{'held out':>10}{'cross-validated':>17}")
    for name, error in row["others"].items():
        print(f"  {name:46}{error:10.2%}")
    for entry in row["estimators"]:
        print(f"  {entry['name']:46}{entry['error']:10.2%}{entry['cross_validation']:17.2%}")


def bar(name: str, value: float | None, limit: float, at_least: bool = False) -> dict[str, Any]:
    """A bar; one without a value does not hold."""
    holds = value is not None and (value >= limit if at_least else value <= limit)
    return {"name": name, "value": value, "limit": limit, "holds": bool(holds)}


def bars_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bars that a setting is judged by."""
    name, kind = row["name"], row["setting"]["bars"]
    values = row.get("values", {})
    error, noise = values.get("error"), values.get("noise") or 0.0
    if kind == "ratio":
        return [bar(f"{name}: error / noise", values.get("ratio"), MAX_RATIO_OTHER)]
    if kind != "full":
        return []
    taus = [values.get(key) for key in ("kendall_tau_repeat", "kendall_tau")]
    gap = None if None in taus else float(taus[0]) - float(taus[1])
    gain = row["others"]["plain sum"] / error if error else None
    return [
        bar(f"{name}: error, to 1.25 x noise or 0.6 %", error, max(MAX_RATIO * noise, MAX_ERROR)),
        bar(f"{name}: worst network", values.get("worst"), MAX_WORST),
        bar(f"{name}: Kendall's tau of repeating less that of the table", gap, MAX_TAU_GAP),
        bar(f"{name}: error of the plain sum over ours", gain, LEAST_GAIN, at_least=True),
    ]


def cost_bars(
    rows: Mapping[str, Mapping[str, Any]], speed: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Bars on device time, memory and the speed of tables, of what was measured."""
    mean_s = {name: statistics.fmean(row["device_s"]) for name, row in rows.items()}
    out = []
    if "ofa-224" in rows:
        out.append(bar("ofa-224: device time, s", mean_s["ofa-224"], MAX_DEVICE_S))
    for name in OFA:
        if name in rows:
            memory = float(rows[name]["memory_bytes"])
            out.append(bar(f"{name}: memory of the worker, bytes", memory, MAX_MEMORY))
    if all(name in rows for name in OFA):
        out.append(
            bar("ofa, four resolutions: device time, s", sum(mean_s[n] for n in OFA), MAX_ALL_S)
        )
    if speed:
        out += [
            bar("a table is loaded, s", speed["load_s"], MAX_LOAD_S),
            bar("100,000 architectures are priced, s", speed["price_s"], MAX_PRICE_S),
        ]
    return out


def report(rows: list[dict[str, Any]], speed: dict[str, float]) -> None:
    """The bars, and as last line everything as one JSON document."""
    bars = [entry for row in rows for entry in bars_of(row)]
    bars += cost_bars({row["name"]: row for row in rows}, speed)
    print()
    for entry in bars:
        value = "none" if entry["value"] is None else f"{entry['value']:.4g}"
        word = "holds " if entry["holds"] else "MISSED"
        print(f"{word} {entry['name']}: {value} (limit {entry['limit']:.4g})")
    floors = ratio_floors()
    told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in floors.items())
    print(f"error / noise where noise is all there is (simulated): {told}")
    errors = [row["values"]["error"] for row in rows if row["n"]]
    document = {
        "setting": rows,
        "n": sum(row["n"] for row in rows),
        "spread": statistics.pstdev(errors) if errors else None,
        "speed": speed,
        "ratio_floors": floors,
        "bars": bars,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
