"""The first screen of the report: what to ship on each device or target, and all warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hwnas.report.packages import ship, told_apart
from hwnas.report.pieces import number, percent, prose, shown, size

Data = Mapping[str, Any]


def answers(data: Data) -> str:
    """A sentence for each device that is driven in several ways, then for each other target."""
    targets = {target["name"]: target for target in data["targets"]}
    keys = {name: f"t{n}" for n, name in enumerate(targets)}
    items = []
    for n, device in enumerate(data["devices"]):
        mine = [targets.pop(name) for name in device["targets"] if name in targets]
        packages = [{**p, "target": each["name"]} for each in mine for p in each["packages"]]
        ways = "".join(_tab(keys[each["name"]], _way(each["name"])) for each in mine)
        words = _sentence(packages, "")
        items.append(_item(f"d{n}", device["name"], f'{words}<span class="ways">{ways}</span>'))
    for name, target in targets.items():
        items.append(_item(keys[name], name, _sentence(target["packages"], _why_none(target))))
    return "\n".join(items)


def _item(key: str, name: str, words: str) -> str:
    return f"<li>{_tab(key, name)}<p>{words}</p></li>"


def _tab(key: str, name: str) -> str:
    """The button that shows a front."""
    return f'<button type="button" class="tab" data-panel="{key}">{escape(name)}</button>'


def _way(target: str) -> str:
    """How a target drives its device: its name without the device's."""
    return target.partition(".")[2] or target


def _why_none(target: Data) -> str:
    return "; ".join(target["missing"])


def _sentence(packages: Sequence[dict[str, Any]], why_none: str) -> str:
    """What to ship, how good it is, and what else there is."""
    if not packages:
        return prose(why_none or "no package yet: `hwnas export`")
    chosen, other = ship(packages)
    words = f"Ship {_link(chosen)}: {_numbers(chosen)}; {_budgets(chosen, packages)}."
    if other is None:
        return words
    alike = "" if told_apart(other, chosen) else " (the test images do not tell them apart)"
    return f"{words} Next best {_link(other)}: {_numbers(other)}{alike}."


def _link(package: Data) -> str:
    way = f" on {escape(_way(package['target']))}" if package.get("target") else ""
    return f'<a href="{escape(package["href"])}">{escape(package["name"])}</a>{way}'


def _numbers(package: Data) -> str:
    """Accuracy, latency and size, each with what it is."""
    error = package["test_error"]
    if error is None:
        told = f"predicted error {percent(package['predicted'].get('error', 1.0))}"
    else:
        told = f"<b>{number(100 * (1 - error), 1)}{_margin(package)}\u00a0%</b>"
    times = package["measured"] or package["predicted"]
    how = "measured" if package["measured"] else "predicted"
    per = f" per batch of {package['batch']}" if package["batch"] > 1 else ""
    timed = f"<b>{shown('latency_ms', times['latency_ms'])}</b> {how}{per}"
    return f"{told}, {timed}, {size(package['size_bytes'])}"


def _margin(package: Data) -> str:
    """The farther end of its 95 % interval."""
    if package["interval"] is None:
        return ""
    low, high = package["interval"]
    top1 = 1 - package["test_error"]
    return f" ± {number(100 * max(top1 - low, high - top1), 1)}"


def _budgets(package: Data, packages: Sequence[Data]) -> str:
    """What speaks against a package, or whether it keeps a budget."""
    if package["against"]:
        return f'<span class="bad">{prose("; ".join(package["against"]))}</span>'
    if not any(each["budgets"] for each in packages):
        return "no budget is set"
    if not package["budgets"]:
        return '<span class="bad">no package keeps its budget</span>'
    told = " and ".join(shown(name, value) for name, value in package["budgets"].items())
    return f"within your budget of {told}"


# ---- warnings -----------------------------------------------------------------------------------


def warnings(data: Data) -> str:
    """All that is not as it should be, in one line that unfolds; empty where nothing is."""
    found = [*(f"Not in this report: {line}" for line in data["missing"]), *data["warnings"]]
    for target in data["targets"]:
        found += [f"{target['name']}: {words}" for words in _of_target(target)]
    if not found:
        return ""
    n = "1 warning" if len(found) == 1 else f"{len(found)} warnings"
    lines = "".join(f"<li>{prose(words)}</li>" for words in found)
    return (
        f'<details class="warn"><summary><b>{n}</b> {prose("; ".join(found))}</summary>'
        f"<ul>{lines}</ul></details>"
    )


def _of_target(target: Data) -> Iterable[str]:
    table = target["table"]
    if table and table["verdict"] == "unreliable":
        yield f"its table is unreliable, so its latencies are not to be trusted: {table['reason']}"
    elif table and table["verdict"] != "good":
        yield f"its table is {table['verdict']}: {table['reason']}"
    if table and table["marks"]:
        yield f"its table is {', '.join(table['marks'])}"
    yield from target["warnings"]
    if target["packages"]:
        yield from target["missing"]
    for package in target["packages"]:
        yield from (f"{package['name']}: {words}" for words in package["warnings"])
