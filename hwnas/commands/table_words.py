"""Tables in words, for people: what one is, how good, what a check found, what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.commands.options import end_with

if TYPE_CHECKING:
    from hwnas.tables.table import CostTable

SHARES = (  # of what a table tells of itself
    "noise",
    "error",
    "worst",
    "within_5",
    "within_10",
    "bias",
    "bias_fast",
    "bias_front",
    "drift",
    "anchor_spread_of_groups",
    "uncertainty",
    "energy_error",
)

TRUSTED = {  # the three numbers that say most
    "error": "prediction error, mean over networks left out of the fit",
    "noise": "measured again, the same networks differ by this",
    "kendall_tau": "how well predictions rank them (Kendall's tau; 1: no mistake)",
    "energy_error": "prediction error of energies",
}
HEADS = {"ratio": "ratio (a perfect table: 0.5, measuring once more: 0.87)"}


def print_trust(path: Path, table: CostTable) -> None:
    """The verdict of a table and the three numbers behind it."""
    from hwnas.tables.about import describe

    about = describe(table)
    intervals = {"error": about["error_interval"], **(about["intervals"] or {})}
    reason = f": {about['reason']}" if about["reason"] else ""
    print(f"{path}: {about['target']}, {about['space']}, {about['ops']} ops")
    print(f"verdict: {about['verdict']}{reason}")
    for name, meaning in TRUSTED.items():
        if about.get(name) is not None:
            print(f"{with_interval(name, about[name], intervals.get(name)):>24}  {meaning}")
    print()


def print_made(out: Path, table: CostTable, as_json: bool) -> None:
    """Print what a table that was written is, and how good."""
    from hwnas.tables.about import describe

    if as_json:
        print(json.dumps(describe(table), indent=2))
    else:
        print_about(f"wrote {out}", table)


def print_about(title: str, table: CostTable) -> None:
    """Everything that a table says of itself."""
    from hwnas.commands import console
    from hwnas.tables.about import describe

    about = describe(table)
    intervals = about.pop("intervals") or {}
    del about["error_interval"]
    lines = [
        (
            HEADS.get(name) or name.replace("_", " "),
            with_interval(name, value, intervals.get(name)),
        )
        for name, value in about.items()
    ]
    console.print_table(title, ("", "value"), lines)


def print_contest(rows: list[dict[str, Any]]) -> None:
    """Errors of each estimator on the held-out networks; nothing where none was tried."""
    from hwnas.commands import console

    if not rows:
        return
    lines = [
        (
            row["name"],
            *(with_interval("error", row[k], None) for k in ("error", "cross_validation")),
        )
        for row in rows
    ]
    console.print_table("error", ("", "held out", "cross-validated"), lines)
    print()


def with_interval(name: str, value: Any, interval: list[float] | None) -> str:
    """A value for people, a share in percent, with its 95 % interval where it has one."""
    if not isinstance(value, float):
        return _text(value)
    form = "{:.2%}" if name in SHARES else "{:.4g}"
    low, high = interval or (None, None)
    between = "" if low is None else f" ({form.format(low)} to {form.format(high)})"
    return form.format(value) + between


def print_difference(found: dict[str, Any]) -> None:
    """What differs between two tables."""
    from hwnas.commands import console

    for title in ("about", "environment"):
        if found[title]:
            lines = [tuple(map(_text, entry)) for entry in found[title]]
            console.print_table(title, ("", "A", "B"), lines)
        else:
            print(f"{title}: equal")
        print()
    rows = [(name.replace("_", " "), _text(value)) for name, value in found["rows"].items()]
    console.print_table("rows, ratios B over A", ("", "value"), rows)
    print()
    ops = [(op["key"], _ms(op["a_ms"]), _ms(op["b_ms"]), _text(op["ratio"])) for op in found["ops"]]
    console.print_table("ops that differ most", ("op", "A ms", "B ms", "B over A"), ops)


def print_check(result: dict[str, Any]) -> None:
    """The environment first, then every network, then the answer."""
    from hwnas.commands import console

    if result["environment"]:
        print("the environment has changed since the table was made:")
        for name, then, now in result["environment"]:
            print(f"  {name}: {_text(then)} then, {_text(now)} now")
    lines = [
        (p["item"], _ms(p["then_ms"]), _ms(p["now_ms"]), f"{p['now_ms'] / p['then_ms'] - 1:+.1%}")
        for p in result["probes"]
    ]
    for anchor in result["anchors"]:
        gap = anchor["now_ms"] / anchor["predicted_ms"] - 1
        times = (_ms(anchor["predicted_ms"]), _ms(anchor["now_ms"]), f"{gap:+.1%}")
        lines.append(("anchor, predicted", *times))
    console.print_table("networks", ("", "then ms", "now ms", "change"), lines)
    if result["holds"]:
        print(f"the table holds: networks differ by {_shares(result)}")


def _shares(result: dict[str, Any]) -> str:
    return (
        f"{result['gap']:.1%} on average ({result['limit']:.1%} allowed), "
        f"the median by {result['shift']:+.1%}"
    )


def refuse_stale(path: Path, result: dict[str, Any]) -> None:
    """End with what a check found wrong, if anything."""
    from profilers.errors import TableError, UnstableMeasurementError

    if result["table"]["verdict"] == "unreliable":
        reason = (
            f"{path} is unreliable ({result['table']['reason']}) by itself: "
            f"networks differ by {_shares(result)}; profile again on a quiet machine"
        )
        end_with(TableError(reason))
    measured = result["measured"]
    if not result["holds"] and measured["verdict"] == "disturbed":
        reason = (
            f"{path} cannot be judged: networks differ by {_shares(result)}, and the "
            f"measurement was disturbed ({measured['reason']}); stop other work on the device and "
            "check again"
        )
        end_with(UnstableMeasurementError(reason))
    if not result["holds"]:
        reason = (
            f"{path} is stale: networks differ by {_shares(result)}; stop other work on the device "
            "and check again, or profile again"
        )
        end_with(TableError(reason))


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.5f}"


def cell(name: str, value: Any) -> str:
    """A value of a row."""
    return _ms(value) if name.endswith("_ms") else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
