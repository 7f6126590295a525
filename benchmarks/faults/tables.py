"""Tables that are damaged: a measured one, one with energies, one that was imported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faults import documents
from faults.documents import Document, Invariant, is_count, is_finite, is_positive, same
from hwnas.networks import spaces
from hwnas.settings import accept
from hwnas.settings.errors import HwnasError
from hwnas.tables import about, energy_section, table, validation
from hwnas.tables.table import CostTable

SHIPPED = Path(__file__).parents[2] / "latency_tables" / "tiny" / "host.ort-cpu.fp32.b1.t1.json"
TINY = spaces.load("tiny")


def tables(folder: Path) -> list[Document]:
    """A measured table, one with energies, one that was imported."""
    measured = table.load_table(SHIPPED)
    none = {"n": 0, **dict.fromkeys(("noise", "error", "ratio")), "points": [], "missing": []}
    words = {"verdict": "unvalidated", "reason": "it was imported"}
    imported = replace(measured, marks=("imported",), validation={**none, **words})
    held = replace(measured, calibration={**measured.calibration, "held": 0})
    made = {"table": held, "table with energies": _with_energies(held)}
    made["imported table"] = imported
    return [_table(folder / f"{n}.json", *item) for n, item in enumerate(made.items())]


def _table(path: Path, name: str, made: CostTable) -> Document:
    table.save(made, path)
    return documents.of_json(name, path, lambda: table.load_table(path), TABLE, is_signed=True)


def _with_energies(made: CostTable) -> CostTable:
    """The table with energies of ten times its latencies, which are off as its latencies are."""
    rows = {key: {**row, "energy_mj": 10 * row["latency_ms"]} for key, row in made.rows.items()}
    points = [[name, 10 * p, 5 * (a + b), 0.01] for name, p, a, b in made.validation["points"]]
    error = float(np.mean([abs(p / m - 1) for _, p, m, _ in points]))
    word, reason = energy_section.verdict(0.01, error)
    section = {
        "reason": "",
        **{"meter": "rapl", "rails": ["package-0"], "windows": 45, "window_s": 2.0},
        **{"period_s": 0.05, "idle_w": 2.0, "power_w": [5.0, 9.0], "marks": ["measured"]},
        **{"estimator": "time", "weights": {"time": 10.0}, "networks": 10},
        "intercept_mj": {str(size): 0.0 for size in made.resolutions},
        "validation": {
            "n": len(points),
            "noise": {"value": 0.01, "interval": [0.008, 0.012]},
            "error": {"value": error, "interval": [error, error]},
            **{"worst": 0.1, "bias": 0.0, "kendall_tau": 0.9, "kendall_tau_latency": 0.99},
            **{"points": points, "verdict": word, "reason": reason},
        },
    }
    return replace(made, rows=rows, energy=section)


def _content(found: CostTable) -> dict[str, Any]:
    return {**table._content(found), "sha256": found.sha256}


def _row_is_sane(row: dict[str, Any]) -> bool:
    maybe = [row[name] for name in ("spread_ms", "uncertainty_ms", "energy_mj") if name in row]
    numbers = all(number is None or (is_finite(number) and number >= 0) for number in maybe)
    time = is_finite(row["latency_ms"]) and row["latency_ms"] >= 0
    return time and numbers and is_count(row["seen"])


def _costs(found: CostTable) -> bool:
    """Whether every op of a table that holds rows above 0 takes time."""
    free = not all(is_positive(row["latency_ms"]) for row in found.rows.values())
    return not (free and "held" in found.calibration)


def _is_validated(found: CostTable) -> bool:
    """Whether error, noise and verdict are those of the held-out networks."""
    told = found.validation
    if not told["points"]:
        return found.marks == ("imported",) and told["error"] is None and told["noise"] is None
    predicted, a, b = np.array([point[1:] for point in told["points"]]).T
    noise, error = (
        (np.abs(a - b) / ((a + b) / 2)).mean(),
        np.abs(2 * predicted / (a + b) - 1).mean(),
    )
    numbers = np.isclose([noise, error], [told["noise"]["value"], told["error"]["value"]]).all()
    words = validation.verdict(float(noise), float(error), told["missing"])[0] == told["verdict"]
    bounds = documents.is_interval(told["noise"]) and documents.is_interval(told["error"])
    return bool(numbers) and words and bounds and told["n"] == len(told["points"])


def _energy_is_validated(found: CostTable) -> bool:
    if "intercept_mj" not in found.energy:
        return not any("energy_mj" in row for row in found.rows.values())
    told, marks = found.energy["validation"], found.energy["marks"]
    if marks == ["imported"]:
        return told["verdict"] == "unvalidated" and told["error"] is None
    error = np.mean([abs(p / m - 1) for _, p, m, _ in told["points"]])
    noise = (told["noise"] or {}).get("value")
    words = energy_section.verdict(noise, float(error))[0] == told["verdict"]
    return words and bool(np.isclose(error, told["error"]["value"]))


def _serves(found: CostTable) -> bool:
    """Whether the table, where it serves the space, gives every network a time."""
    space = TINY.restricted(found.resolutions)
    try:
        table.check_serves(found, space, accept.TABLES)
    except HwnasError:
        return True
    archs = (space.largest, space.smallest)
    return all(is_positive(table.network_latency(found, arch)) for arch in archs)


TABLE: tuple[Invariant, ...] = (
    ("it holds what the file says, no key more or less", lambda f, g: same(_content(f), g)),
    ("every row is finite", lambda f, g: all(map(_row_is_sane, f.rows.values()))),
    ("rows that are held are above 0", lambda f, g: _costs(f)),
    ("the validation is that of its points", lambda f, g: _is_validated(f)),
    ("so is that of its energies", lambda f, g: _energy_is_validated(f)),
    ("the target's name is made of its parts", lambda f, g: documents.names_itself(f.target)),
    (
        "resolutions are sorted and positive",
        lambda f, g: list(f.resolutions) == sorted(set(f.resolutions)) and min(f.resolutions) > 0,
    ),
    ("networks have a time", lambda f, g: _serves(f) if f.geometry == TINY.geometry else True),
    ("there is a row", lambda f, g: len(f.rows) > 0),
    ("it can be shown", lambda f, g: bool(about.describe(f)) and bool(about.op_rows(f))),
)


KINDS = (tables,)
