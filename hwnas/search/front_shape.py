"""What the fields of a front's file must be, and how they go together: docs/formats.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hwnas.pricing.terms import UNITS
from hwnas.settings.accept import WORDS
from hwnas.settings.config import SearchConfig
from profilers.protocol import NAME, SIZE, STATE_CHARS
from profilers.shape import closed, either, list_of, map_of, maybe, number, plain, text, whole

MANY = 1_000_000
METRICS = map_of(number(0, 1e300))
POINT = closed(
    {
        **{"id": NAME, "arch": map_of(plain(STATE_CHARS))},
        **{"predicted": METRICS, "measured": maybe(METRICS)},
    }
)
FRONT = closed(
    {
        **dict.fromkeys(("format", "target", "space", "geometry"), NAME),
        "objectives": list_of(closed({"name": NAME, "unit": text()}), least=1),
        "reference_point": list_of(number(math.ulp(0.0), 1e300)),
        "hypervolume": number(0, 1e300),
        "max_network": METRICS,
        "settings": map_of(plain(STATE_CHARS)),
        "seeds": map_of(whole(0, 1 << 63)),
        "hashes": map_of(text()),
        "accepted": list_of(either(*WORDS)),
        "evaluations": SIZE,
        "points": list_of(POINT, MANY, least=1),
    }
)


def check(content: Mapping[str, Any]) -> None:
    """Refuse what is no content of a front's file, without its hash.

    Raises:
        ValueError: a field is missing, unknown or of another kind, or two do not match.
    """
    wrong = FRONT(content)
    if wrong:
        raise ValueError(wrong.lstrip(". "))
    names = [objective["name"] for objective in content["objectives"]]
    units = [objective["unit"] for objective in content["objectives"]]
    if len(set(names)) < len(names) or units != [UNITS.get(name, "") for name in names]:
        raise ValueError(f"objectives are {names} in {units}")
    if len(content["reference_point"]) != len(names):
        raise ValueError(f"the reference point has {len(content['reference_point'])} numbers")
    settings = content["settings"]  # objectives and budgets may have names of the user's own
    SearchConfig(**{k: v for k, v in settings.items() if k not in ("objectives", "budgets")})
    known = [content["max_network"], *(point["predicted"] for point in content["points"])]
    for metrics in known:
        if not set(names) <= set(metrics):
            raise ValueError(f"a network lacks one of {', '.join(names)}")
    known += [point["measured"] for point in content["points"] if point["measured"]]
    strange = [metrics["error"] for metrics in known if metrics.get("error", 0) > 1]
    if strange:
        raise ValueError(f"an error is {strange[0]:g}, no fraction")
    free = [name for name, value in content["max_network"].items() if value <= 0]
    if set(free) - {"error"}:
        raise ValueError(f"the max network costs no {free[0]}")
    ids = [point["id"] for point in content["points"]]
    if len(set(ids)) < len(ids):
        raise ValueError("a network appears twice")
