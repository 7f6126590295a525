"""What the fields of a table's file must be, and how they go together (docs/formats.md, "Table").

Knows neither how tables are made nor what they are used for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.networks.ops import parse_key
from hwnas.tables import bend, energy_section, validation
from hwnas.tables.validation import EXACT, UNVALIDATED
from profilers.protocol import COUNT, SIZE
from profilers.schema import target_from_json
from profilers.shape import (
    Shape,
    closed,
    either,
    fixed,
    flag,
    list_of,
    map_of,
    maybe,
    number,
    plain,
    text,
)

MARKS = ("measured", "imported", "estimated", "emulated", EXACT)
VERDICTS = ("good", "usable", "unreliable", UNVALIDATED, EXACT)

MANY = 1_000_000
WORDS, TOLD = text(4000), plain(1 << 20)
COST, ANY = number(0, 1e15), number(-1e15, 1e15)
BOUNDS = maybe(fixed(ANY, ANY))
TRUST = closed({"value": COST}, {"interval": BOUNDS})
ROW = closed(
    {"latency_ms": COST, "seen": SIZE},
    {"spread_ms": maybe(COST), "uncertainty_ms": maybe(COST), "energy_mj": COST},
)
COUNTS = map_of(SIZE)
IMPORTED_PART = closed(
    {"networks": COUNT, "scale": number(1e-15, 1e15), "apart": flag} | {"errors": map_of(COST)}
)
CALIBRATION = closed(
    {"estimator": WORDS, "intercept_ms": map_of(ANY)},
    {
        **{"freedom": COST, "bend": number(0, bend.MOST), "reference_ms": COST},
        **{"weights": map_of(ANY), "networks": COUNT, "in_place_unused": WORDS, "held": COUNT},
        **{"uncertainty": maybe(COST), "unattributed": maybe(number(0, 1))},
        "imported": IMPORTED_PART,
    },
)
VALIDATION = closed(
    {
        **{"n": COUNT, "noise": maybe(TRUST), "error": maybe(TRUST)},
        **{"missing": list_of(WORDS, MANY), "points": list_of(fixed(text(), ANY, ANY, ANY), MANY)},
        **{"verdict": either(*VERDICTS), "reason": WORDS},
    },
    {
        **dict.fromkeys(sorted(set(validation.STATISTICS) - {"noise", "error"}), maybe(ANY)),
        **{"intervals": map_of(BOUNDS), "estimators": list_of(TOLD, MANY)},
        "baselines": map_of(COST),
    },
)
FIELDS: dict[str, Shape] = {
    **dict.fromkeys(("format", "space", "geometry", "kit", "source"), text()),
    "resolutions": list_of(number(1, 1 << 14), least=1),
    "marks": list_of(either(*MARKS), least=1),
    **dict.fromkeys(("target", "environment", "protocol"), map_of(TOLD)),
    "rows": map_of(plain(4000), MANY, WORDS),
    "calibration": CALIBRATION,
    "validation": VALIDATION,
}
TABLE = closed(FIELDS, {"energy": TOLD})


def check(content: Mapping[str, Any]) -> None:
    """Refuse what is no content of a table's file, without its hash.

    Raises:
        HwnasError, KeyError, TypeError, ValueError: a field is missing, unknown or of another kind,
            or two of them do not match.
    """
    wrong = TABLE(content)
    if wrong:
        raise ValueError(wrong.lstrip(". "))
    sizes, marks, told = (content[name] for name in ("resolutions", "marks", "validation"))
    if sizes != sorted(set(sizes)) or not all(type(size) is int for size in sizes):
        raise ValueError(f"resolutions {sizes} are not whole numbers in order")
    if told["verdict"] == UNVALIDATED and "imported" not in marks:
        raise ValueError(f"{told['verdict']!r} does not go with the marks {marks}")
    if (told["verdict"] == EXACT) != (marks == [EXACT]):
        raise ValueError(f"{told['verdict']!r} does not go with the marks {marks}")
    validation.check(told)
    if "created" not in content["protocol"]:
        raise KeyError("protocol.created")
    row = COUNTS if EXACT in marks else ROW
    for key, values in content["rows"].items():
        parse_key(key)
        if row(values):
            raise ValueError(f"op {key}{row(values)}")
    if EXACT not in marks:
        _check_costs(content)


def _check_costs(content: Mapping[str, Any]) -> None:
    """Refuse a table of costs whose parts are not of one target and its resolutions."""
    target, known = content["target"], content["calibration"]
    name = target_from_json(dict(target)).name
    if target.get("name") != name:
        raise ValueError(f"the target is called {target.get('name')!r}, its parts are {name!r}")
    missing = [size for size in content["resolutions"] if str(size) not in known["intercept_ms"]]
    if missing:
        raise ValueError(f"it was not measured at {missing[0]} px: there is no intercept")
    if known.get("bend") and not known.get("reference_ms"):
        raise ValueError("a bend needs a reference_ms above 0")
    free = [key for key, row in content["rows"].items() if row["latency_ms"] == 0]
    if "held" in known and free:  # older tables are told of, and serve
        raise ValueError(f"op {free[0]} has latency_ms 0")
    section = content.get("energy", {})
    energy_section.check(section, content["resolutions"])
    if "intercept_mj" not in section and any("energy_mj" in r for r in content["rows"].values()):
        raise ValueError("rows have energies, and nothing says what they rest on")
