"""What the fields of a result and of a lock must be, and how they go together: docs/formats.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.run.gates import FAILED, MUTED, PASSED, UNKNOWN
from hwnas.settings.accept import WORDS
from profilers.protocol import COUNT, MANY, NAME, SHA256, STATE_CHARS
from profilers.shape import Shape, closed, either, list_of, map_of, maybe, number, plain, text

LOCK_FORMAT, RESULT_FORMAT = "hwnas-lock-1", "hwnas-result-1"
WORDING = text(10_000)  # of errors and reasons
VALUE = number(0, 1e300)
TARGET = closed(
    {
        **{"device": text(3000), "engine": NAME, "precision": NAME, "verdict": NAME},
        **dict.fromkeys(("engine_version", "clocks", "environment"), maybe(text())),
        **{"batch": COUNT, "threads": COUNT, "table": SHA256, "noise": map_of(VALUE)},
    }
)
METRIC = closed({"value": VALUE, "noise": VALUE, "doubt": WORDING})
ACCEPTED = {"target": NAME, "package": NAME, "id": NAME, "metrics": map_of(METRIC)}
GATE = closed(
    {
        **{"gate": NAME, "metric": NAME, "value": maybe(VALUE), "limit": VALUE, "margin": VALUE},
        **{"verdict": either(PASSED, FAILED, MUTED, UNKNOWN), "reason": WORDING},
    }
)
PACKAGE = {
    **{"resolution": COUNT, "model": NAME, "predicted": map_of(plain(STATE_CHARS))},
    **{"gates": list_of(GATE), "accepted": list_of(either(*WORDS)), "files": map_of(SHA256)},
}
DEVICE = closed({"targets": list_of(NAME, MANY), "reason": WORDING})
FAILURE = closed({"work": NAME, "exit_code": COUNT, "error": WORDING})


def _document(package: Mapping[str, Shape], more: Mapping[str, Shape]) -> Shape:
    return closed(
        {
            **{"format": NAME, "hashes": map_of(text()), "versions": map_of(text())},
            **{"targets": map_of(TARGET, MANY), **more},
            "packages": list_of(closed({**ACCEPTED, **package}), MANY),
        },
        {"moved": list_of(text(), MANY), "devices": map_of(DEVICE, MANY)} if more else {},
    )


SHAPES = {
    LOCK_FORMAT: _document({}, {}),
    RESULT_FORMAT: _document(PACKAGE, {"failures": list_of(FAILURE, MANY), "exit_code": COUNT}),
}


def wrong(content: Mapping[str, Any]) -> str:
    """What is missing, double or malformed in a result or a lock; empty if nothing is."""
    if told := SHAPES[content["format"]](content):
        return told.lstrip(". ")
    keys = [(package["target"], package["package"]) for package in content["packages"]]
    if len(set(keys)) < len(keys):
        return "a package appears twice"
    strange = sorted({target for target, _ in keys} - set(content["targets"]))
    if strange:
        return f"a package is of the target {strange[0]}, which is not there"
    bare = [package["package"] for package in content["packages"] if not package["metrics"]]
    return f"the package {bare[0]} has no metrics" if bare else ""
