"""Damaged and edited documents: each is refused in one line, or is what it says and can be.

A mutant is made by seed: an accident of storage (bits, cuts, spans) or an edit (a field gone,
added, renamed or twice, of another kind, in another unit, NaN, infinite, huge, negative, deeply
nested). Files that carry their own hash get the one that they have now, so that no hash does the
work. A reader may raise the errors that the command line turns into one line and an exit code;
anything else, warnings too, is a traceback. What is read must keep every invariant of its kind.
"""

from __future__ import annotations

import json
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from mutants import damaged

from faults import files, imports, replies, tables
from faults.documents import Document
from hwnas.settings.errors import HwnasError
from profilers.json_text import parse_json

COUNT, QUICK = 1000, 100
LONGEST = 1100  # characters of a message
SHOWN = 5


def bars(quick: bool, count: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """Mutants that end in a traceback, and mutants that are read as what cannot be.

    Args:
        quick: few of them.
        count: how many; 0: as many as there should be.
        seed: of the mutants.
    """
    count = count or (QUICK if quick else COUNT)
    found: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        documents = [
            document
            for number, make in enumerate(
                (*tables.KINDS, *files.KINDS, *imports.KINDS, *replies.KINDS)
            )
            for document in make(Path(folder) / f"{number}")
        ]
        told = [
            f"{document.name}: {outcome}"
            for document in documents
            if (outcome := _outcome(document, document.data, document.value)) != "read"
        ]
        if told:
            raise SystemExit(f"a document that is whole is not read: {told[0]}")
        for number in range(count):
            document = documents[number % len(documents)]
            outcome = _mutated(document, np.random.default_rng([seed, number]))
            kind = outcome.partition(": ")[0]
            found[document.name, kind] += 1
            if kind in ("traceback", "wrong"):
                print(f"{document.name} {number}: {outcome}"[:400])
    _show(found, documents)
    return [
        _bar(f"{count} mutated files and replies: {words}", found, kind, count)
        for kind, words in (("traceback", "tracebacks"), ("wrong", "wrong acceptances"))
    ]


def _bar(name: str, found: Counter[tuple[str, str]], kind: str, count: int) -> dict[str, Any]:
    value = sum(n for (_, outcome), n in found.items() if outcome == kind)
    refused = sum(n for (_, outcome), n in found.items() if outcome == "refused")
    spread = f"{refused} refused, {count - refused} read"
    return {
        "name": name,
        "value": value,
        "limit": 0,
        "holds": value == 0,
        "n": count,
        "spread": spread,
    }


def _show(found: Counter[tuple[str, str]], documents: list[Document]) -> None:
    outcomes = ("refused", "read", "traceback", "wrong")
    print(f"{'document':<32}" + "".join(f"{outcome:>12}" for outcome in outcomes))
    for document in documents:
        counts = "".join(f"{found[document.name, outcome]:>12}" for outcome in outcomes)
        print(f"{document.name:<32}{counts}")


def _mutated(document: Document, rng: np.random.Generator) -> str:
    """What comes of one mutant of a document."""
    if document.edit is None or rng.random() < document.accidents:
        data = damaged(document.data, rng)
        return _outcome(document, data, document.parse(data))
    data, value = document.edit(rng)
    return _outcome(document, data, value)


def _outcome(document: Document, data: bytes, value: Any) -> str:
    """`refused`, `read`, or `traceback` or `wrong` with what is the matter.

    Args:
        document: whose file it is.
        data: of the file.
        value: what it says; None: nothing that could be read.
    """
    document.write(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = document.read()
        except HwnasError as error:
            long = len(str(error)) > LONGEST
            return f"wrong: a message of {len(str(error))} characters" if long else "refused"
        except Exception:
            return f"traceback: {traceback.format_exc(limit=-3)[-300:]!r}"
        broken = [name for name, holds in document.invariants if not _holds(holds, found, value)]
    return f"wrong: {', '.join(broken[:SHOWN])}" if broken else "read"


def _holds(holds: Any, found: Any, value: Any) -> bool:
    try:
        return bool(holds(found, value))
    except Exception:  # what cannot even be looked at is not what it should be
        return False


def parsed(data: bytes) -> Any:
    """The value of a JSON file; None where it is none."""
    try:
        return parse_json(data.decode("utf-8"))
    except (ValueError, json.JSONDecodeError):
        return None
