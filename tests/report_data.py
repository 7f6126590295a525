"""Data of a report with every part, as `hwnas.report.collect` returns it; for tests."""

import math
from html.parser import HTMLParser

from hwnas.report.devices import wins

HOSTILE = "</script><img src=x onerror=alert(1)>&{{data}}<!--"


def point(n, latency_ms, error, measured=None):
    return {
        "id": f"{n:012x}",
        "options": {
            "resolution": 8 + 8 * (n % 2),
            "stage1.block1.kernel_size": 3 + 2 * (n % 3 == 1),
            **({"stage1.block2.kernel_size": 3 + 2 * (n % 5 == 0)} if n % 4 else {}),
        },
        "predicted": {"error": error, "latency_ms": latency_ms, "macs": 1000 * n + 1000},
        "measured": measured,
        "stages": [["fixed", latency_ms / 4], ["stage1", latency_ms / 2], ["head", latency_ms / 4]],
    }


def package(of, name, target, test_error, latency_ms):
    return {
        "id": of["id"],
        "name": name,
        "file": f"packages/{target}/{name}/model.onnx",
        "href": f"packages/{target}/{name}/model.onnx",
        "input": "16 px",
        "batch": 8 if ".b8." in target else 1,
        "predicted": of["predicted"],
        "measured": {"latency_ms": latency_ms, "median_ms": latency_ms * 1.01, "p95_ms": None},
        "gap": latency_ms / of["predicted"]["latency_ms"] - 1,
        "test_error": test_error,
        "interval": [1 - test_error - 0.03, 1 - test_error + 0.02],
        "tested_on": "359 test images on the target, 95 % interval 91.6 to 96.6 %",
        "budgets": {},
        "alike": [name],
        "size_bytes": 48_211,
        "parity": 2.4e-6,
        "against": [],
        "warnings": [],
    }


def table(verdict="good", reason="predictions are off by 0.50%", scale=0.1, noise=0.005):
    heldout = []
    for n in range(30):
        latency_ms = scale * (1 + n / 10)
        wave = noise * math.sin(3 * n + 1)
        heldout.append([f"{n:012x}", latency_ms * (1 + wave), latency_ms, latency_ms * (1 - wave)])
    return {
        "verdict": verdict,
        "reason": reason,
        "marks": [],
        "error": {"value": noise, "low": noise * 0.8, "high": noise * 1.3},
        "noise": {"value": noise * 0.9, "low": noise * 0.7, "high": noise * 1.1},
        "ratio": 1.11,
        "worst": 3 * noise,
        "within_5": 1.0,
        "kendall_tau": 0.987,
        "estimator": "in place + alone + per op",
        "heldout": heldout,
        "origin": {},
    }


def baseline(name, latency_ms):
    return {
        "name": name,
        "latency_ms": latency_ms,
        "median_ms": 1.02 * latency_ms,
        "p95_ms": 1.2 * latency_ms,
        "sustained_ms": None,
        "doubts": [],
        "size_bytes": 20_000,
        "resident_bytes": 60_000_000,
    }


def target(name, n_points=20, **given):
    points = [
        point(n, 0.05 + 0.004 * n, 0.02 + 0.1 * math.exp(-4 * n / n_points))
        for n in range(n_points)
    ]
    return {
        "name": name,
        "where": "Example CPU, 2 cores, ort-cpu 1.31.1; fp32, batch 1, 1 thread",
        "table": table(),
        "energy": None,
        "front": {
            "costs": ["latency_ms"],
            "choices": {
                "resolution": [8, 16],
                "stage1.block1.kernel_size": [3, 5],
                "stage1.block2.kernel_size": [3, 5],
            },
            "unit": "px",
            "only": {},
            "uncertain": {"error": 0.012, "latency_ms": 0.02},
            "noise": {"latency_ms": 0.005},
            "points": points,
            "search": "500 networks were priced.",
        },
        "packages": [
            package(points[7], "knee", name, 0.0541, points[7]["predicted"]["latency_ms"])
        ],
        "baselines": [],
        "warnings": [],
        "missing": [],
        **given,
    }


def device(name, target, other):
    """A device whose front is that of a target, half of it taken by another one."""
    points = [
        {**point, "target": (other if n % 8 < 4 else target)["name"]}
        for n, point in enumerate(target["front"]["points"])
    ]
    return {
        "name": name,
        "targets": [target["name"], other["name"]],
        "front": {"costs": ["latency_ms"], "points": points},
        "wins": wins(points, "latency_ms"),
        "missing": [],
    }


def report_data():
    """Four targets: a good one, one with two costs and an unreliable table, one without table, and
    another way to drive the device of the first.
    """
    first = target("host.ort-cpu.fp32.b1.t1")
    first["baselines"] = [baseline("mine: one.onnx", 0.09), baseline("mine: huge.onnx", 70.0)]
    first["energy"] = {"words": "Energies are usable.", "heldout": table(scale=3.0)["heldout"][:8]}
    second = target("host.ort-cpu.fp32.b8.t1", 40)
    second["energy"] = {"words": "unknown: no meter answered", "heldout": []}
    second["table"] = table("unreliable", "noise is 6.1 %, above 4 %", 0.8, 0.06)
    second["front"]["costs"] = ["latency_ms", "macs"]
    second["front"]["points"][3]["measured"] = {"latency_ms": 0.06}
    second["packages"] = []
    third = target("rpi4.ort-cpu.fp32.b1.t4", table=None, front=None, packages=[])
    third["missing"] = ["it was not profiled: `hwnas profile`"]
    way = target("host.ort-cpu.fp32.b1.t2")
    steps = range(20, 1001, 20)
    return {
        "title": "runs/digits",
        "version": "0.1.0",
        "facts": [["data", "digits: 1,222 training images"], ["space", "tiny"]],
        "missing": [],
        "warnings": [],
        "targets": [first, second, third, way],
        "devices": [device("host.b1", first, way)],
        "training": {
            "series": [
                {"label": "max network", "points": [[s, 2 / s**0.2] for s in steps]},
                {"label": "min network", "points": [[s, 3 / s**0.2] for s in steps if s > 500]},
            ],
            "subnets_from": 520,
        },
        "predictor": "150 subnets were measured.",
        "supernet": "",
        "settings": [["Settings of this run", "run: runs/digits"]],
    }


def hostile_data():
    """The same with a name that would break out of markup, script or template in every text."""
    data = report_data()
    data["title"] = data["predictor"] = HOSTILE
    data["facts"] = [[HOSTILE, HOSTILE]]
    data["missing"] = [HOSTILE]
    data["settings"] = [[HOSTILE, HOSTILE]]
    data["training"]["series"][0]["label"] = HOSTILE
    first = data["targets"][0]
    first.update(name=HOSTILE, where=HOSTILE, warnings=[HOSTILE])
    first["baselines"][0]["name"] = HOSTILE
    first["table"].update(reason=HOSTILE, estimator=HOSTILE, marks=[HOSTILE])
    first["energy"]["words"] = HOSTILE
    first["energy"]["heldout"][0][0] = HOSTILE
    first["front"]["search"] = HOSTILE
    first["front"]["points"][0]["id"] = HOSTILE
    first["front"]["points"][0]["stages"] = [[HOSTILE, 1.0]]
    for key in ("id", "name", "file", "href"):
        first["packages"][0][key] = HOSTILE
    first["packages"][0]["warnings"] = [HOSTILE]
    data["warnings"] = [HOSTILE]
    first["front"]["choices"][HOSTILE] = [1, 2]
    data["targets"][3]["name"] = HOSTILE + "2"
    data["targets"][3]["front"]["points"][0]["id"] = HOSTILE
    shared = device(HOSTILE, first, data["targets"][3])
    data["devices"] = [{**shared, "missing": [HOSTILE]}]
    data["targets"][2]["missing"] = [HOSTILE]
    return data


class Page(HTMLParser):
    """What a browser would make of the text: tags with attributes, scripts, and shown text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self._open = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open == "script":
            self.scripts.append(data)
        elif self._open != "style":
            self.text += data
