"""What host, worker and board say to each other and what is kept of it, declared as shapes.

Both ends check every message against this page; docs/formats.md, "Worker", "Measurements" and
"Kit", says in words what the fields mean. Times are ms or s, memory is bytes.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from profilers import errors
from profilers.json_text import parse_json
from profilers.schema import LINE_BYTES
from profilers.shape import (
    Shape,
    by_field,
    closed,
    either,
    fixed,
    flag,
    like,
    list_of,
    map_of,
    maybe,
    number,
    plain,
    text,
    whole,
)

MANY = 1_000_000  # entries of what grows with a space or a round; a line or a file bounds it too
LONGEST_MS = 3_600_000.0
POSITIVE = 1e-9  # nothing that was measured is nearer to 0
STATE_CHARS, TARGET_CHARS = 8 << 10, 64 << 10

WORD, NAME, PATH = text(), text(least=1), text(4096)
SHA256 = like(r"[0-9a-f]{64}", "a sha256 in hex")
BASE64 = like(r"[A-Za-z0-9+/]*={0,2}", "base64")
FILE = like(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.onnx", "a plain *.onnx name")
SIZE, COUNT, LOOPS = whole(0, 1 << 60), whole(0, 10**6), whole(1, 10**9)
SECONDS, TIME_MS = number(0, 1e12), number(POSITIVE, LONGEST_MS)
NODE_MS, QUANTITY = number(0, LONGEST_MS), number(-1e15, 1e15)
ENERGY_MJ, POWER_W = number(POSITIVE, 1e12), number(0, 1e9)
NAMES = list_of(NAME, MANY)
DIMENSIONS = list_of(whole(0, 1 << 40), 8)
TOLD = {"code": WORD, "text": text(2 * errors.MOST)}

# ---- what a device is and does -----------------------------------------------------------------

THROTTLED = closed(
    {"now": list_of(WORD), "since_boot": list_of(WORD), "events": map_of(SIZE)},
)
STATE: Dict[str, Shape] = {  # what changes; unknown is null
    **dict.fromkeys(("governor", "power_mode"), maybe(WORD)),
    **dict.fromkeys(("clock_mhz", "temperature_c", "gpu_clock_mhz"), maybe(QUANTITY)),
    "throttled": maybe(THROTTLED),
    "load_average": maybe(list_of(QUANTITY)),
    "memory_free_bytes": maybe(SIZE),
    "clocks_locked": maybe(flag),
}
HARDWARE: Dict[str, Shape] = {
    **dict.fromkeys(("board", "cpu", "cpu_id", "gpu", "gpu_driver"), maybe(WORD)),
    "machine": WORD,
    "cpu_features": list_of(WORD),
    "cores": SIZE,
    "cpus": WORD,
    "cpu_quota": maybe(number(0, 1e6)),
    "memory_bytes": maybe(SIZE),
    "virtual": maybe(flag),
}
SYSTEM: Dict[str, Shape] = {"os": maybe(WORD), "kernel": WORD, "python": WORD, "emulated": flag}
ENVIRONMENT = closed(
    {
        **dict.fromkeys(("device", "engine", "engine_version"), NAME),
        "numpy": WORD,
        "fingerprint": SHA256,
        "tf32": maybe(flag),
        **SYSTEM,
        **HARDWARE,
        **STATE,
    },
    {"recipe": NAME},
)
METER = closed({"name": WORD, "problem": maybe(WORD), "detail": WORD})
SURVEY = closed(
    {
        **dict.fromkeys(("format", "hardware", "system"), WORD),
        **dict.fromkeys(("l4t", "disk_problem"), maybe(WORD)),
        **dict.fromkeys(("environment", "managed", "pip"), flag),
        **dict.fromkeys(("bits", "disk_free_bytes"), SIZE),
        "big_cores": maybe(SIZE),
        "time_s": QUANTITY,
        "modules": map_of(flag),
        "meters": list_of(METER),
        **SYSTEM,
        **HARDWARE,
        **STATE,
    }
)
ENGINE = closed(
    {
        **dict.fromkeys(("format", "name"), WORD),
        "version": maybe(WORD),
        "providers": list_of(WORD),
        "problem": maybe(like(r"[\s\S]{0,20000}", "text")),  # cut and cleaned when it is read
    }
)

# ---- a kit -------------------------------------------------------------------------------------

OP = closed({"slot": NAME, "key": NAME})
ITEM: Dict[str, Shape] = {
    **dict.fromkeys(("name", "role"), NAME),
    "file": FILE,
    "sha256": SHA256,
    "ops": list_of(OP, MANY),
    "inputs": map_of(DIMENSIONS),
}
CAMPAIGN_ITEM = {"arch": maybe(map_of(plain(STATE_CHARS))), "resolution": COUNT}
WEIGHTS = closed(
    {
        "bytes": SIZE,
        "sha256": like(r"([0-9a-f]{64})?", "a sha256 in hex, or empty"),
        "tensors": map_of(list_of(fixed(SIZE, DIMENSIONS, number(0, 1e30)), MANY), MANY),
    }
)
KIT_FIELDS: Dict[str, Shape] = {"format": WORD, "seed": whole(0, 2**64 - 1), "weights": WEIGHTS}
CAMPAIGN: Dict[str, Shape] = {
    **dict.fromkeys(("space", "geometry", "precision"), NAME),
    "offered": map_of(plain(STATE_CHARS), MANY),
    "batch": whole(1, 4096),
}
KIT = closed(
    {**KIT_FIELDS, "items": list_of(closed(ITEM, CAMPAIGN_ITEM), MANY)},
    CAMPAIGN,
)
CAMPAIGN_KIT = closed(
    {**KIT_FIELDS, **CAMPAIGN, "items": list_of(closed({**ITEM, **CAMPAIGN_ITEM}), MANY)}
)

# ---- records -----------------------------------------------------------------------------------

PROBE = {"probe": closed({}, STATE)}
WAIT = {"wait_ms": number(0, 1e12)}  # of all threads
_OF = {"role": NAME, "order": COUNT, "t_s": SECONDS}
_SAMPLE: Dict[str, Shape] = {**_OF, "warm": SIZE, "loops": LOOPS, "ms": TIME_MS}
_PROFILE: Dict[str, Shape] = {
    **_OF,
    "loops": LOOPS,
    "profile": list_of(fixed(text(LINE_BYTES), NODE_MS), MANY),
}
_NO_PROFILE = {"reason": WORD}  # of an empty one
_WINDOW: Dict[str, Shape] = {
    **_OF,
    **{"loops": LOOPS, "window_s": number(POSITIVE, 1e9), "run_ms": TIME_MS},
    **{"energy_mj": ENERGY_MJ, "power_w": number(POSITIVE, 1e9), "samples": whole(1, 10**9)},
    "net_energy_mj": maybe(number(-1e12, 1e12)),
    "period_s": maybe(SECONDS),
    **dict.fromkeys(("idle_w", "idle_before_w", "idle_after_w"), maybe(POWER_W)),
    "rails": map_of(number(-1e12, 1e12)),
}
_FAILED: Dict[str, Shape] = {
    **{"role": either("failed"), "order": whole(0, 0), "loops": whole(0, 0)},
    "failed": closed(TOLD),
}
PIECE = closed({"offset": SIZE, "data": BASE64})

_SENT: Dict[str, Shape] = {"item": NAME}
RECORDS: Dict[str, Shape] = {  # by the request that they answer
    "measure": by_field(
        {"profile": closed({**_SENT, **_PROFILE}, _NO_PROFILE)},
        closed({**_SENT, **_SAMPLE}, {**PROBE, **WAIT}),
    ),
    "energy": closed({**_SENT, **_WINDOW}, PROBE),
    "run": PIECE,
    "built": PIECE,
}
_ID: Dict[str, Shape] = {"id": fixed(NAME, NAME, COUNT, NAME)}
KEPT = by_field(  # a line of a measurements file
    {
        "failed": closed({**_ID, **_FAILED}),
        "profile": closed({**_ID, **_PROFILE}, _NO_PROFILE),
        "energy_mj": closed({**_ID, **_WINDOW, "meter": NAME}, PROBE),
    },
    closed({**_ID, **_SAMPLE}, {**PROBE, **WAIT, "left": COUNT}),
)

# ---- messages ----------------------------------------------------------------------------------

TARGET = closed(
    {"device": NAME, "runtime": NAME},
    {
        **dict.fromkeys(("name", "precision", "optimisation", "meter", "hardware"), WORD),
        **dict.fromkeys(("batch", "threads"), LOOPS),
        "meter_options": map_of(plain(TARGET_CHARS)),
        "connection": map_of(plain(TARGET_CHARS)),
        "plugins": list_of(PATH),
        "spinning": flag,
    },
)
REQUESTS: Dict[str, Dict[str, Shape]] = {  # host to worker
    "hello": {"protocol": WORD, "target": TARGET, "purpose": text(1000), "exclusive": flag},
    "probe": {},
    "put": {"sha256": SHA256, "offset": SIZE, "size": SIZE, "data": BASE64},
    "kit": {"hash": SHA256},
    "measure": {
        "session": NAME,
        "items": NAMES,
        "loops": map_of(LOOPS, MANY),
        "profile": NAMES,
        "opening": NAMES,
        "memory_bytes": SIZE,
        "alone": flag,
    },
    "energy": {
        "items": NAMES,
        "window": closed({"least_s": SECONDS, "periods": number(0, 1e6)}),
    },
    "cold": {"item": NAME},
    "run": {"model": SHA256, "data": SHA256, "shape": DIMENSIONS},
    "built": {"item": NAME},
    "clean": {},
    "bye": {},
}
ANSWERS: Dict[str, Dict[str, Shape]] = {  # the last message that answers a request
    "hello": {},
    "probe": {"environment": ENVIRONMENT},
    "put": {"have": SIZE},
    "kit": {"missing": list_of(SHA256, MANY)},
    "measure": {
        "left": NAMES,
        "failed": map_of(closed(TOLD), MANY),
        **dict.fromkeys(("open_s", "sample_s", "profile_s"), number(0, 1e9)),
    },
    "energy": {"energy_s": number(0, 1e9)},
    "cold": {
        "load_ms": NODE_MS,
        "first_run_ms": TIME_MS,
        "wait_ms": maybe(WAIT["wait_ms"]),
        "engine_bytes": SIZE,
        "resident_bytes": SIZE,
        "input_shape": maybe(DIMENSIONS),
    },
    "run": {"shape": DIMENSIONS},
    "built": {"sizes": list_of(SIZE)},
    "clean": {"folder": PATH, "freed_bytes": SIZE},
    "bye": {},
}
BETWEEN: Dict[str, Dict[str, Shape]] = {  # worker to host, before the answer or in its place
    "progress": {"item": WORD, "opened": COUNT, "of": COUNT},
    "record": {},
    "error": TOLD,
    "heartbeat": {},
}
BOARD = closed(  # the first line of the bootstrap
    {"type": either("board"), "seq": COUNT, "missing": flag, "time_s": SECONDS}
)
REFUSAL = closed({"type": either("error"), "seq": COUNT, "re": COUNT, **TOLD})


def parse(line: bytes) -> Any:
    """The value of a line of JSON, its texts clean; None where it is none, or holds what cannot be
    written again.
    """
    try:
        decoded = line.decode("utf-8")
        value = parse_json(decoded)
    except ValueError:
        return None
    return value if decoded.strip().isprintable() and "\\" not in decoded else _clean(value)


def _clean(value: Any) -> Any:
    """A JSON value with every text in one line that a terminal can show."""
    if isinstance(value, str):
        return errors.clean(value)
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    if isinstance(value, dict):
        return {errors.clean(name): _clean(entry) for name, entry in value.items()}
    return value


def wrong_request(message: Any) -> str:
    """What is wrong with a message to a worker, in words; empty for nothing."""
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind not in REQUESTS:
        return f"unknown message type {str(kind)[:80]!r} (known: {', '.join(REQUESTS)})"
    wrong = _REQUESTS[kind](message)
    return f"message {kind}{wrong}" if wrong else ""


def wrong_reply(reply: Any, request: str, seq: int) -> str:
    """What is wrong with what a worker says while it is asked something, in words; empty for
    nothing.

    Args:
        reply: its message.
        request, seq: type and number of what it is asked.
    """
    kind = reply.get("type") if isinstance(reply, dict) else None
    shape: Optional[Shape] = _REPLIES[request].get(kind) if isinstance(kind, str) else None
    if shape is None:
        return f"{kind!r}, which is not an answer to {request}"
    wrong = shape(reply)
    if wrong:
        return f"{kind}{wrong}"
    if kind not in ("error", "heartbeat") and reply["re"] != seq:
        return f"an answer to request {reply['re']}, not {seq}"
    return ""


def _envelope(kind: str, fields: Dict[str, Shape]) -> Shape:
    return closed({"type": either(kind), "seq": SIZE, **fields})


def _replies(request: str) -> Dict[str, Shape]:
    """The shape of each type of message that may come while a request is answered."""
    last = "ready" if request == "hello" else "done"
    found = {last: _envelope(last, {"re": SIZE, **ANSWERS[request]})}
    for kind, fields in BETWEEN.items():
        answers = {} if kind == "heartbeat" else {"re": SIZE}
        found[kind] = _envelope(kind, {**answers, **fields})
    found["record"] = _envelope("record", {"re": SIZE, "record": RECORDS.get(request, _nothing)})
    return found


def _nothing(value: Any) -> str:
    """No value: requests that no record answers."""
    return " comes where none was asked for"


_REQUESTS = {kind: _envelope(kind, fields) for kind, fields in REQUESTS.items()}
_REPLIES = {kind: _replies(kind) for kind in REQUESTS}
