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

from hwnas.report.answers import answers, warnings
from hwnas.report.compact import compact
from hwnas.report.devices import wins_table
from hwnas.report.packages import ship
from hwnas.report.pieces import (
    LARGER,
    METRICS,
    html_table,
    number,
    percent,
    prose,
    shown,
    size,
)

Data = Mapping[str, Any]

_SCRIPTS = ("charts", "fronts", "steer", "report")  # in one function, in this order
_EMBEDDED = ("name", "table", "energy", "packages", "baselines")  # what report.js reads of a target


def render(data: Data, following: str = "") -> str:
    """The HTML of a report.

    Args:
        data: as `collect` returns it.
        following: where the page is served, the state of the run folder that it shows: it asks for
            another one and draws itself anew; empty: it asks for nothing, ever.
    """
    scripts = (*_SCRIPTS, "follow") if following else _SCRIPTS
    parts = {
        "connect": "'self'" if following else "'none'",
        "state": f'<p class="state" data-state="{escape(following)}">Follows the run folder.</p>'
        if following
        else "",
        "title": escape(data["title"]),
        "answers": answers(data),
        "warnings": warnings(data),
        "fronts": _fronts(data["targets"], data["devices"]),
        "packages": _packages(data["targets"]),
        "trust": _trust(data["targets"]),
        "training": _training(data),
        "facts": _definitions(data["facts"]),
        "settings": _settings(data),
        "footer": escape(f"Made by hwnas {data['version']}."),
        "data": embedded(_for_script(data)),
        "style": _resource("style.css"),
        "script": "\n\n".join(_resource(f"{name}.js") for name in scripts),
    }
    # One pass, so that a name like "{{data}}" is not taken for a place in the template.
    return re.sub(r"{{(\w+)}}", lambda match: parts[match.group(1)], _resource("template.html"))


def _for_script(data: Data) -> Data:
    """What report.js draws from; points of a device by target and place in its front."""
    targets = data["targets"]
    places = {
        (target["name"], point["id"]): [n, place]
        for n, target in enumerate(targets)
        if target["front"]
        for place, point in enumerate(target["front"]["points"])
    }
    return {
        "metrics": {name: shown._asdict() for name, shown in METRICS.items()},
        "larger": LARGER,
        "targets": [
            {
                **{key: target[key] for key in _EMBEDDED},
                "front": compact(target["front"]),
                "ship": _shipped([target]),
            }
            for target in targets
        ],
        "devices": [
            {
                "name": device["name"],
                "costs": device["front"]["costs"],
                "points": [places[p["target"], p["id"]] for p in device["front"]["points"]],
                "ship": _shipped(t for t in targets if t["name"] in device["targets"]),
            }
            for device in data["devices"]
        ],
        "training": data["training"],
    }


def _shipped(targets: Iterable[Data]) -> Data | None:
    """Network and target of the package to ship, of these targets; None where there is none."""
    packages = [{**p, "target": target["name"]} for target in targets for p in target["packages"]]
    chosen = ship(packages)[0] if packages else None
    return chosen and {key: chosen[key] for key in ("id", "target")}


def embedded(value: Any) -> str:
    """JSON text that cannot end its <script> element or open a comment in it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")


def _definitions(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)


def _chip(target: Data) -> str:
    word = target["table"]["verdict"] if target["table"] else "no table"
    return f'<span class="verdict {escape(word)}">{escape(word)}</span>'


# ---- fronts -------------------------------------------------------------------------------------


def _fronts(targets: Sequence[Data], devices: Sequence[Data]) -> str:
    """A panel for each device that is driven in several ways and for each target; one is shown."""
    panels = [_device_panel(f"d{n}", device) for n, device in enumerate(devices)]
    return "\n".join([*panels, *(_panel(f"t{n}", target) for n, target in enumerate(targets))])


def _device_panel(key: str, device: Data) -> str:
    n = len(device["targets"])
    words = f"The best of {n} targets: for each budget an engine with its precision and threads"
    more = f"<details><summary>Which target is best where</summary>{wins_table(device)}</details>"
    name = escape(device["name"])
    return (
        f'<article class="panel" data-panel="{key}" data-name="{name}"><h2>{name}</h2>'
        f'<p class="where">{words}, and a network.</p>{_PLACES}{more}</article>'
    )


_PLACES = (  # filled by report.js
    '<div class="split"><div class="plot"></div><div class="pick" aria-live="polite"></div></div>'
)


def _panel(key: str, target: Data) -> str:
    front = target["front"]
    if front is None or not front["points"]:
        absent = "; ".join(target["missing"]) or "no front"
        body = f'<p class="note">{prose(absent)}</p>'
    else:
        words = f"All {len(front['points'])} networks of this front"
        body = (
            f"{_PLACES}<details class=all><summary>{words}</summary>"
            f'<p class="where">{escape(front["search"])}</p></details>'
        )
    body += _baseline_table(target["baselines"])
    name = escape(target["name"])
    return (
        f'<article class="panel" data-panel="{key}" data-name="{name}"><h2>{name}{_chip(target)}'
        f'</h2><p class="where">{escape(target["where"])}</p>{body}</article>'
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
            size(model["size_bytes"]),
            f"{number(model['resident_bytes'] / 1e6)}\u00a0MB",
        ]
        for model in baselines
    ]
    words = "Measured by <code>hwnas measure --save</code>; dashed lines in the chart."
    return f'{html_table(heads, rows, first_number=1)}<p class="caption">{words}</p>'


# ---- packages -----------------------------------------------------------------------------------

_HEADS = (
    "package",
    "test accuracy",
    "predicted",
    "measured",
    "gap",
    "median / p95",
    "size",
    "parity",
)


def _packages(targets: Sequence[Data]) -> str:
    """A table of the packages of all targets, grouped by target."""
    groups = [target for target in targets if target["packages"]]
    if not groups:
        return f'<p class="note">{prose("No package yet; `hwnas export` makes them.")}</p>'
    head = "".join(f"<th scope=col{' class=n' * (n > 0)}>{h}</th>" for n, h in enumerate(_HEADS))
    return (
        f'<table class="cards"><thead><tr>{head}</tr></thead>'
        f'{"".join(map(_package_group, groups))}</table><p class="caption">Test accuracy is that '
        "of the exported file, on images that neither training nor search saw, with its 95 % "
        "interval. Latency is the 10th percentile over rounds; the gap is measured to predicted. "
        "Parity is the largest difference of outputs to those of the trained network, as a share "
        f"of the largest.{_tested_on(groups)}</p>"
    )


def _tested_on(groups: Iterable[Data]) -> str:
    """On what the accuracies were taken, without their intervals."""
    told = dict.fromkeys(p["tested_on"].partition(", 95")[0] for g in groups for p in g["packages"])
    return escape(f" Accuracy: {'; '.join(told)}.")


def _package_group(target: Data) -> str:
    batch = target["packages"][0]["batch"]
    per = f", latency per batch of {batch}" if batch > 1 else ""
    chip = _chip(target) if (target["table"] or {}).get("verdict") == "unreliable" else ""
    rows = "\n".join(map(_package_row, target["packages"]))
    name = f'<th scope="rowgroup" colspan="{len(_HEADS)}">{escape(target["name"])}{per}{chip}</th>'
    return f'<tbody><tr class="group">{name}</tr>\n{rows}</tbody>\n'


def _package_row(package: Data) -> str:
    """One package; every cell carries its head for narrow screens."""
    predicted, measured = package["predicted"], package["measured"] or {}
    spread = [measured.get(name) for name in ("median_ms", "p95_ms")]
    error, gap = package["test_error"], package["gap"]
    link = f'<a href="{escape(package["href"])}">{escape(package["name"])}</a>'
    cells = [
        f"{link}, {escape(package['input'])}" + "".join(map(_warning, package["warnings"])),
        "–" if error is None else f"{percent(1 - error)}{_interval(package)}",
        _optional("latency_ms", predicted.get("latency_ms")),
        _optional("latency_ms", measured.get("latency_ms")),
        "–" if gap is None else _signed(gap),
        " / ".join("–" if value is None else number(value) for value in spread) + " ms",
        size(package["size_bytes"]),
        "–" if package["parity"] is None else f"{package['parity']:.1e}",
    ]
    first, *others = (
        f' data-label="{head}">{cell}' for head, cell in zip(_HEADS, cells, strict=True)
    )
    numbers = "".join(f'<td class="n"{cell}</td>' for cell in others)
    return f'<tr><th scope="row"{first}</th>{numbers}</tr>'


def _interval(package: Data) -> str:
    if package["interval"] is None:
        return ""
    low, high = package["interval"]
    return f" <small>{100 * low:.1f} to {100 * high:.1f}</small>"


def _optional(metric: str, value: float | None) -> str:
    return "–" if value is None else shown(metric, value)


def _warning(line: str) -> str:
    return f'<br><span class="bad">{prose(line)}</span>'


# ---- trust --------------------------------------------------------------------------------------


def _trust(targets: Sequence[Data]) -> str:
    """Places for the charts of held-out networks, each with its numbers in words."""
    cells = [
        f"<article><h3>{escape(target['name'])}{_chip(target)}</h3>"
        f'<div class="chart" id="heldout-{index}"></div>'
        f'<p class="caption">{escape(_trust_words(target["table"]))}</p></article>'
        for index, target in enumerate(targets)
        if target["table"] and target["table"]["heldout"]
    ]
    cells += [
        f"<article><h3>Energy, {escape(target['name'])}</h3>"
        f'<div class="chart" id="energy-{index}"></div>'
        f'<p class="caption">{escape(target["energy"]["words"])}</p></article>'
        for index, target in enumerate(targets)
        if target["energy"]
    ]
    if not cells:
        return f'<p class="note">{prose("No table; `hwnas profile` measures them.")}</p>'
    return (
        f'<div class="chart" id="errors"></div><div class="grid">{"".join(cells)}</div>'
        '<p class="caption">Held-out networks were measured twice, and never used to fit or choose '
        "anything. Error is the mean gap of prediction to measurement; the noise floor is the mean "
        "gap of the two measurements, drawn as a line. Shaded: within 5%.</p>"
    )


def _trust_words(table: Data) -> str:
    """The verdict's reason and what else is known of a table."""
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
    told = " · ".join(say(table[key]) for key, say in said.items() if table.get(key) is not None)
    return f"{table['reason'][:1].upper()}{table['reason'][1:].rstrip('.')}. {told}"


def _signed(share: float) -> str:
    """A share with its sign."""
    return f"{'−' if share < 0 else '+'}{percent(abs(share))}"


# ---- training and settings ----------------------------------------------------------------------


def _training(data: Data) -> str:
    words = f'<p class="caption">{escape(data["predictor"])}</p>' if data["predictor"] else ""
    if not data["training"]:
        origin = f"The supernet was {data['supernet']}." if data["supernet"] else ""
        return f'<p class="note">{escape(origin or "No training log in this run.")}</p>{words}'
    return (
        '<div class="chart" id="curve"></div><p class="caption">Cross entropy with the labels of '
        f"each step's training images, of all networks alike.</p>{words}"
    )


def _settings(data: Data) -> str:
    blocks = [
        f"<details><summary>{escape(name)}</summary>"
        f'<pre tabindex="0">{escape(text)}</pre></details>'
        for name, text in data["settings"]
    ]
    return "\n".join(blocks) or '<p class="note">No settings in this run.</p>'
