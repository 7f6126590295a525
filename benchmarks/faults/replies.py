"""What a worker and a board say, damaged: one line of a conversation at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mutants import edited

from faults.documents import Document, Invariant, is_count, is_finite, is_positive
from hwnas.boards import replies
from hwnas.measuring import client
from hwnas.settings import fakes
from hwnas.settings.errors import LostDeviceError
from profilers.environment import describe
from profilers.schema import SURVEY_FORMAT, Target, canonical_json
from profilers.survey import survey

ROLES = {"a": "heldout", "b": "anchor", "c": "micro"}
OUTPUTS = np.arange(6, dtype="<f4").reshape(2, 3)


class Recorded:
    """A connection on which a worker says what was recorded, and then no more."""

    sent_bytes = received_bytes = 0
    crashed = False

    def __init__(self, data: bytes) -> None:
        self._lines = data.splitlines(keepends=True)

    def send(self, data: bytes) -> None:
        """Nobody listens."""

    def receive(self) -> bytes:
        """The next line."""
        if not self._lines:
            raise LostDeviceError("the worker ended")
        return self._lines.pop(0)


Ask = Callable[[client.RemoteWorker], Any]


def _worker(data: bytes) -> client.RemoteWorker:
    worker = client.RemoteWorker(Recorded(data))  # type: ignore[arg-type]
    worker._roles = dict(ROLES)
    return worker


def _said(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "seq": 5, "re": 1, **fields}


def _conversation(
    name: str, ask: Ask, replies: list[Any], invariants: tuple[Invariant, ...]
) -> Document:
    """What a worker says to one request, of which one line is damaged or edited."""
    lines = [canonical_json(reply).encode() + b"\n" for reply in replies]
    held = {"data": b"".join(lines)}

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        at = int(rng.integers(len(replies)))
        line = edited(replies[at], rng).encode("utf-8", "replace") + b"\n"
        return b"".join((*lines[:at], line, *lines[at + 1 :])), True

    return Document(
        f"reply to {name}",
        held["data"],
        True,
        lambda data: held.update(data=data),
        lambda: ask(_worker(held["data"])),
        invariants,
        edit,
        lambda data: True,
    )


def conversations(folder: Path) -> list[Document]:
    """Replies to each request."""
    sample = {"role": "heldout", "t_s": 1.0, "warm": 1, "loops": 3, "ms": 1.0}
    records = [
        {"item": "a", "order": 0, **sample},
        {"item": "b", "order": 1, **sample, "role": "anchor"},
        {"item": "a", "order": 2, "role": "heldout", "t_s": 2.0, "loops": 1},
    ]
    records[2]["profile"] = [["s", 1.0]]
    window = {"item": "a", "role": "heldout", "order": 0, "t_s": 1.0, "loops": 9, "window_s": 2.0}
    window |= {"run_ms": 1.0, "energy_mj": 3.0, "net_energy_mj": None, "power_w": 1.5}
    window |= dict.fromkeys(("idle_w", "idle_before_w", "idle_after_w"))
    window |= {"rails": {"x": 3.0}, "samples": 9, "period_s": 0.1}
    seconds = {"open_s": 0.1, "sample_s": 0.2, "profile_s": 0.0}
    piece = {"offset": 0, "data": base64.b64encode(OUTPUTS.tobytes()).decode()}
    progress = _said("progress", item="a", opened=1, of=2)
    cold = {"load_ms": 1.0, "first_run_ms": 2.0, "wait_ms": None}
    cold |= {"engine_bytes": 1, "resident_bytes": 2}
    fakes.provide()
    environment = describe(Target("host", "fake"))
    heard = [_said("record", record=record) for record in records]
    return [
        _conversation(
            "measure",
            lambda w: w.measure("s", ["a", "b", "c"], {}, ["a"]),
            [progress, *heard, _said("done", left=["c"], failed={}, **seconds)],
            MEASURED,
        ),
        _conversation(
            "energy",
            lambda w: w.energy(["a"], {"least_s": 2.0, "periods": 50}),
            [_said("record", record=window), _said("done", energy_s=3.0)],
            METERED,
        ),
        _conversation(
            "cold", lambda w: w.cold("a"), [_said("done", **cold, input_shape=[1, 3, 8, 8])], COLD
        ),
        _conversation(
            "run",
            lambda w: w.run(b"m", OUTPUTS),
            [
                _said("done", have=1),
                {**_said("done", have=OUTPUTS.nbytes), "re": 2},
                {**_said("record", record=piece), "re": 3},
                {**_said("done", shape=[2, 3]), "re": 3},
            ],
            (("they are of the inputs, and numbers", lambda f, g: f.shape == (2, 3)),),
        ),
        _conversation(
            "clean",
            lambda w: w.clean(),
            [_said("done", folder="/x", freed_bytes=7)],
            (("it is text and a size", lambda f, g: isinstance(f[0], str) and is_count(f[1])),),
        ),
        _conversation(
            "probe", lambda w: w.probe(), [_said("done", environment=environment)], ENVIRONMENT
        ),
    ]


MEASURED: tuple[Invariant, ...] = (
    (
        "samples are those that were asked for",
        lambda f, g: (
            [r["item"] for r in f.records if "ms" in r]
            == [name for name in ROLES if name not in {*f.left, *f.failed}]
        ),
    ),
    ("each has its role", lambda f, g: all(r["role"] == ROLES[r["item"]] for r in f.records)),
    ("none has an id of its own", lambda f, g: not any("id" in r for r in f.records)),
    ("times are above 0", lambda f, g: all(is_positive(r.get("ms", 1)) for r in f.records)),
    ("loops are counts", lambda f, g: all(is_count(r["loops"]) and r["loops"] for r in f.records)),
    (
        "seconds are",
        lambda f, g: all(is_finite(s) and s >= 0 for s in (f.open_s, f.sample_s, f.profile_s)),
    ),
    ("it can be shown", lambda f, g: canonical_json([f.records, dict(f.failed)]).isprintable()),
)
METERED: tuple[Invariant, ...] = (
    ("the window is of what was asked for", lambda f, g: [r["item"] for r in f[0]] == ["a"]),
    ("it has no id of its own", lambda f, g: "id" not in f[0][0]),
    (
        "energy, power and length are above 0",
        lambda f, g: all(is_positive(f[0][0][n]) for n in ("energy_mj", "power_w", "window_s")),
    ),
)
COLD: tuple[Invariant, ...] = (
    ("times are numbers", lambda f, g: is_finite(f["load_ms"]) and is_positive(f["first_run_ms"])),
    (
        "sizes are counts",
        lambda f, g: is_count(f["engine_bytes"]) and is_count(f["resident_bytes"]),
    ),
)
ENVIRONMENT: tuple[Invariant, ...] = (
    ("it has a fingerprint", lambda f, g: len(f["fingerprint"]) == 64),
    ("it can be written", lambda f, g: canonical_json(f).isprintable()),
)


# ---- boards ------------------------------------------------------------------------------------


def surveys(folder: Path) -> list[Document]:
    """What a board says that it is."""
    told = survey(Path("/"), str(folder), ["onnxruntime"])
    value = json.loads(canonical_json({**told, "format": SURVEY_FORMAT}))
    held = {"data": canonical_json(value).encode()}

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        return edited(value, rng).encode("utf-8", "replace"), True

    return [
        Document(
            "survey of a board",
            held["data"],
            True,
            lambda data: held.update(data=data),
            lambda: replies.survey(held["data"], "board"),
            (("it can be shown", lambda f, g: canonical_json(f).isprintable()),),
            edit,
            lambda data: True,
        )
    ]


KINDS = (conversations, surveys)
