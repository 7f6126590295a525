"""The report as one HTML file, from plain data: no file is read but the template beside this one.

The page needs no network: style, script and data are embedded, and its content security policy
allows nothing else. Text is escaped here, and enters the page as text only in charts.js.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from hwnas.report.devices import device_article
from hwnas.report.pieces import (
    METRICS,
    code,
    html_table,
    label,
    number,
    percent,
    prose,
    shown,
)

Data = Mapping[str, Any]

_EMBEDDED = (
    "name",
    "table",
    "energy",
    "front",
    "packages",
    "baselines",
)  # what report.js reads of a target


def render(data: Data) -> str:
    """The HTML of a report.

    Args:
        data: as `collect` returns it.
    """
    targets = data["targets"]
    parts = {
        "title": escape(data["title"]),
        "facts": _definitions(data["facts"]),
        "verdicts": "\n".join(_verdict_item(target) for target in targets),
        "missing": _missing(data["missing"]),
        "fronts": _fronts(targets, data["devices"]),
        "packages": _packages(targets),
        "trust": _trust(targets),
        "training": _training(data),
        "settings": _settings(data),
        "footer": escape(f"Made by hwnas {data['version']}."),
        "data": embedded(
            {
                "metrics": {name: shown._asdict() for name, shown in METRICS.items()},
                "targets": [{key: target[key] for key in _EMBEDDED} for target in targets],
                "devices": data["devices"],
                "training": data["training"],
            }
        ),
        "style": _resource("style.css"),
        "charts": _resource("charts.js"),
        "report": _resource("report.js"),
    }
    # One pass, so that a name like "{{data}}" is not taken for a place in the template.
    return re.sub(r"{{(\w+)}}", lambda match: parts[match.group(1)], _resource("template.html"))


def embedded(value: Any) -> str:
    """JSON text that cannot end its <script> element or open a comment in it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")


# ---- head ---------------------------------------------------------------------------------------


def _definitions(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)


def _missing(lines: Sequence[str]) -> str:
    return "\n".join(f'<p class="note">Not in this report: {prose(line)}</p>' for line in lines)


def _chip(target: Data) -> str:
    word = target["table"]["verdict"] if target["table"] else "no table"
    return f'<span class="verdict {escape(word)}">{escape(word)}</span>'


def _verdict_item(target: Data) -> str:
    """One line of the summary: verdict, name, and what stands behind the verdict."""
    table = target["table"]
    word = escape(table["verdict"] if table else "none")
    return (
        f'<li class="{word}">{_chip(target)}<span class="mono">{escape(target["name"])}</span>'
        f"<span>{prose(verdict_words(target))}</span></li>"
    )


def verdict_words(target: Data) -> str:
    """How far the table of a target can be trusted, and what came of it, in words."""
    table = target["table"]
    if table is None:
        return "; ".join(target["missing"])
    words = [f"{_sentence(table['reason'])}."] if table["reason"] else []
    if table["heldout"]:
        worst = f", worst {percent(table['worst'])}" if table["worst"] is not None else ""
        words.append(f"{len(table['heldout'])} held-out networks{worst}.")
    if table["marks"]:
        words.append(f"Marked {', '.join(table['marks'])}.")
    words += [f"{line.rstrip('.')}." for line in target["warnings"]]
    return " ".join(words)


def _sentence(text: str) -> str:
    """Text with a capital first letter and no full stop."""
    return text[:1].upper() + text[1:].rstrip(".")


# ---- fronts -------------------------------------------------------------------------------------


def _fronts(targets: Sequence[Data], devices: Sequence[Data]) -> str:
    """Each device that is driven in several ways with its targets, then the other targets."""
    places = {target["name"]: n for n, target in enumerate(targets)}
    articles = []
    for n, device in enumerate(devices):
        articles.append(device_article(n, device))
        mine = [name for name in device["targets"] if name in places]
        articles += [_front(places[name], targets[places.pop(name)]) for name in mine]
    return "\n".join([*articles, *(_front(n, targets[n]) for n in places.values())])


def _front(index: int, target: Data) -> str:
    front = target["front"]
    if front is None or not front["points"]:
        absent = "; ".join(target["missing"]) or "no front"
        body = f'<p class="note">{prose(absent)}</p>'
    else:
        body = (
            '<div class="split"><div class="plot"></div>'
            '<div class="pick" aria-live="polite"></div></div>' + _front_table(front)
        )
    body += _baseline_table(target["baselines"])
    if _unreliable(target):
        words = "This table is unreliable: the predicted latencies below are not to be trusted."
        body = f'<p class="bad">{words}</p>{body}'
    return (
        f'<article data-target="{index}"><h3>{escape(target["name"])}{_chip(target)}</h3>'
        f'<p class="where">{escape(target["where"])}</p>{body}</article>'
    )


def _baseline_table(baselines: Sequence[Data]) -> str:
    """Models of the user's own that were measured on the target, if there are any."""
    if not baselines:
        return ""
    heads = ("baseline", "latency", "median / p95", "without rest", "size", "memory")
    rows = [
        [
            escape(model["name"]) + "".join(map(_warning, model["doubts"])),
            shown("latency_ms", model["latency_ms"]),
            f"{number(model['median_ms'])} / {number(model['p95_ms'])}\u00a0ms",
            _optional("latency_ms", model["sustained_ms"]),
            f"{number(model['size_bytes'] / 1000)}\u00a0kB",
            f"{number(model['resident_bytes'] / 1e6)}\u00a0MB",
        ]
        for model in baselines
    ]
    words = "Measured by <code>hwnas measure --save</code>; dashed lines in the chart."
    return f'<p class="where">{words}</p>{html_table(heads, rows, first_number=1)}'


def _unreliable(target: Data) -> bool:
    return target["table"] is not None and target["table"]["verdict"] == "unreliable"


def _front_table(front: Data) -> str:
    """All points of a front as a table, for those who cannot or do not want to see the chart."""
    points = front["points"]
    metrics = [name for name in points[0]["predicted"] if name != "error"]
    heads = ["network", "input", "predicted error", *(label(name) for name in metrics)]
    rows = [
        [
            code(point["id"]),
            point["input"],
            shown("error", point["predicted"]["error"]),
            *(_both(point, name) for name in metrics),
        ]
        for point in points
    ]
    caption = f"All {len(points)} networks of this front"
    return (
        f"<details><summary>{caption}</summary>{html_table(heads, rows, first_number=1)}"
        f'<p class="where">{escape(front["search"])}</p></details>'
    )


def _both(point: Data, metric: str) -> str:
    """Predicted value, and the measured one below it where there is one."""
    measured = (point["measured"] or {}).get(metric)
    more = "" if measured is None else f"<br><small>measured {shown(metric, measured)}</small>"
    return shown(metric, point["predicted"][metric]) + more


# ---- packages -----------------------------------------------------------------------------------

_PACKAGE_COLUMNS = (  # head, whether it holds numbers
    ("package", False),
    ("test accuracy", True),
    ("predicted", True),
    ("measured", True),
    ("gap", True),
    ("median / p95", True),
    ("size", True),
    ("parity", True),
    ("file", False),
)


def _packages(targets: Sequence[Data]) -> str:
    rows = [(target, package) for target in targets for package in target["packages"]]
    if not rows:
        return f'<p class="note">{prose("No package yet; `hwnas export` makes them.")}</p>'
    head = "".join(
        f"<th{' class=n' if numeric else ''}>{name}</th>" for name, numeric in _PACKAGE_COLUMNS
    )
    body = "\n".join(_package_row(target, package) for target, package in rows)
    return (
        '<p class="lead">Test accuracy is that of the exported file, on images that neither '
        "training nor search saw. Latency is the 10th percentile over rounds; the gap is measured "
        "to predicted. Parity is the largest difference of its outputs to the trained network's, "
        "as a share of the largest."
        f'</p><div class="scroll"><table class="cards"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _package_row(target: Data, package: Data) -> str:
    """One package; every cell carries its head for narrow screens."""
    predicted, measured = package["predicted"], package["measured"] or {}
    spread = (measured.get("median_ms"), measured.get("p95_ms"))
    error, gap = package["test_error"], package["gap"]
    tested = f" <small>of {escape(package['tested_on'])}</small>"
    cells = [
        f"{escape(package['name'])}, {package['input']}<br><small>{escape(target['name'])}</small>"
        + (f"<br>{_chip(target)}" if _unreliable(target) else ""),
        "–" if error is None else percent(1 - error) + tested,
        _optional("latency_ms", predicted.get("latency_ms")),
        _optional("latency_ms", measured.get("latency_ms")),
        "–" if gap is None else _signed(gap),
        " / ".join("–" if value is None else number(value) for value in spread) + " ms",
        "–" if package["size_bytes"] is None else f"{number(package['size_bytes'] / 1000)} kB",
        "–" if package["parity"] is None else f"{package['parity']:.1e}",
        _link(package) + "".join(_warning(line) for line in package["warnings"]),
    ]
    return "<tr>" + "".join(map(_package_cell, _PACKAGE_COLUMNS, cells)) + "</tr>"


def _link(package: Data) -> str:
    return f'<a href="{escape(package["href"])}">{code(package["file"])}</a>'


def _package_cell(column: tuple[str, bool], cell: str) -> str:
    name, numeric = column
    style = "n" if numeric else "wide"
    return f'<td class="{style}" data-label="{name}">{cell}</td>'


def _optional(metric: str, value: float | None) -> str:
    return "–" if value is None else shown(metric, value)


def _warning(line: str) -> str:
    return f'<br><span class="bad">{prose(line)}</span>'


# ---- trust --------------------------------------------------------------------------------------


def _trust(targets: Sequence[Data]) -> str:
    """Places for the charts of held-out networks, each with its numbers in words."""
    cells = [
        f"<article><h3>{escape(target['name'])}</h3>"
        f'<p class="where">{escape(_trust_words(target["table"]))}</p>'
        f'<div class="chart" id="heldout-{index}"></div></article>'
        for index, target in enumerate(targets)
        if target["table"] and target["table"]["heldout"]
    ]
    cells += [
        f"<article><h3>Energy, {escape(target['name'])}</h3>"
        f'<p class="where">{escape(target["energy"]["words"])}</p>'
        f'<div class="chart" id="energy-{index}"></div></article>'
        for index, target in enumerate(targets)
        if target["energy"]
    ]
    if not cells:
        return f'<p class="note">{prose("No table; `hwnas profile` measures them.")}</p>'
    key = (
        '<p class="where">Shaded: within 5%. Lower panel: gap of each prediction, with the '
        "distance of its two measurements as a line.</p>"
    )
    return f'{key}<div class="grid">{"".join(cells)}</div>'


def _trust_words(table: Data) -> str:
    said: dict[str, Callable[[Any], str]] = {
        "worst": lambda value: f"worst {percent(value)}",
        "within_5": lambda value: f"{percent(value)} within ±5%",
        "kendall_tau": lambda value: f"Kendall's tau {value:.3f}",
        "kendall_tau_repeat": lambda value: f"of repeating {value:.3f}",
        "kendall_tau_near": lambda value: f"among similar networks {value:.3f}",
        "bias_fast": lambda value: f"bias of the fastest quarter {_signed(value)}",
        "bias_front": lambda value: f"of what a search keeps {_signed(value)}",
        "ratio": lambda value: f"error is {value:.2f} × noise",
        "estimator": lambda value: f"estimator {value}",
    }
    return " · ".join(say(table[key]) for key, say in said.items() if table.get(key) is not None)


def _signed(share: float) -> str:
    """A share with its sign."""
    return f"{'−' if share < 0 else '+'}{percent(abs(share))}"


# ---- training and settings ----------------------------------------------------------------------


def _training(data: Data) -> str:
    words = f'<p class="lead">{escape(data["predictor"])}</p>' if data["predictor"] else ""
    if not data["training"]:
        origin = f"The supernet was {data['supernet']}." if data["supernet"] else ""
        return f'{words}<p class="note">{escape(origin or "No training log in this run.")}</p>'
    return words + '<div class="chart" id="curve"></div>'


def _settings(data: Data) -> str:
    blocks = [
        f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
        for name, text in data["settings"]
    ]
    return "\n".join(blocks) or '<p class="note">No settings in this run.</p>'
