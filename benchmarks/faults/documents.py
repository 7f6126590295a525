"""A document that is damaged: how it is written, edited and read, and what must hold of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from mutants import edited, signed

from profilers.json_text import parse_json
from profilers.schema import canonical_json, target_from_json

Invariant = tuple[str, Callable[[Any, Any], bool]]
Edit = Callable[[np.random.Generator], tuple[bytes, Any]]


class Document(NamedTuple):
    """A valid document.

    Attributes:
        name: of its kind.
        data: of its file.
        value: what the file says.
        write: puts bytes where `read` finds them.
        read: what the product makes of the file.
        invariants: by name, of what was read and what the file says (None: nothing that can be
            read).
        edit: makes a mutant that is no accident, and what it says; None: there are none.
        parse: what bytes say.
        accidents: share of the mutants that are accidents.
    """

    name: str
    data: bytes
    value: Any
    write: Callable[[bytes], object]
    read: Callable[[], Any]
    invariants: tuple[Invariant, ...]
    edit: Edit | None
    parse: Callable[[bytes], Any]
    accidents: float = 0.25


def of_json(
    name: str,
    path: Path,
    read: Callable[[], Any],
    invariants: tuple[Invariant, ...],
    is_signed: bool = False,
) -> Document:
    """A JSON file that is there; `is_signed`: it carries the hash of its content."""
    value = json.loads(path.read_bytes())

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        text = edited(value, rng)
        data = (signed(text) if is_signed else text).encode("utf-8", "replace")
        return data, from_json(data)

    return Document(
        name, path.read_bytes(), value, path.write_bytes, read, invariants, edit, from_json
    )


def of_lines(
    name: str, path: Path, read: Callable[[], Any], invariants: tuple[Invariant, ...]
) -> Document:
    """A JSON Lines file that is there, of which one line is edited."""
    lines = path.read_bytes().splitlines(keepends=True)

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        at = int(rng.integers(len(lines))) if rng.random() < 0.8 else 0
        line = edited(json.loads(lines[at]), rng).encode("utf-8", "replace") + b"\n"
        data = b"".join((*lines[:at], line, *lines[at + 1 :]))
        return data, data

    data = path.read_bytes()
    return Document(name, data, data, path.write_bytes, read, invariants, edit, lambda data: data)


def of_yaml(
    name: str, path: Path, read: Callable[[], Any], invariants: tuple[Invariant, ...]
) -> Document:
    """A YAML file that is there; an edited one is written as JSON, which is YAML too."""
    value = yaml.safe_load(path.read_bytes())

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        data = edited(value, rng).encode("utf-8", "replace")
        return data, from_yaml(data)

    return Document(
        name, path.read_bytes(), value, path.write_bytes, read, invariants, edit, from_yaml
    )


def of_arrays(
    name: str, path: Path, read: Callable[[], Any], invariants: tuple[Invariant, ...]
) -> Document:
    """An .npz file that is there, of which one array is edited."""
    with np.load(path) as archive:
        arrays = dict(archive)

    def edit(rng: np.random.Generator) -> tuple[bytes, Any]:
        changed = edited_arrays(arrays, rng)
        np.savez(path, **changed)
        return path.read_bytes(), changed

    data = path.read_bytes()
    same = data
    return Document(
        name,
        data,
        arrays,
        path.write_bytes,
        read,
        invariants,
        edit,
        lambda data: arrays if data == same else None,
    )


def edited_arrays(arrays: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Arrays of which one is gone, renamed, of another kind, shape or unit, or holds NaN."""
    changed = dict(arrays)
    name = list(arrays)[int(rng.integers(len(arrays)))]
    array = np.array(changed.pop(name))
    kind = int(rng.integers(9))
    if kind == 0:
        return changed
    if kind == 1:
        return {**changed, f"{name}_": array}
    if kind == 2:
        return {**changed, name: array.reshape(-1)[: array.size // 2]}
    if kind == 3:
        return {**changed, name: array[None]}
    if kind == 4:
        return {**changed, name: np.array("x") if array.dtype.kind == "f" else np.array(1.5)}
    if array.dtype.kind in "fi":
        factor = float(rng.choice([0, -1, 1e-3, 100, 1e30]))
        with np.errstate(invalid="ignore"):
            array = (array * factor).astype(array.dtype) if kind < 8 else array
        if kind == 8 and array.dtype.kind == "f":
            array = array.copy()
            array.reshape(-1)[int(rng.integers(array.size))] = rng.choice([np.nan, np.inf, -np.inf])
        return {**changed, name: array}
    return {**changed, name: np.array([f"{text}~" for text in array.reshape(-1).tolist()])}


# ---- what files say ----------------------------------------------------------------------------


def from_json(data: bytes) -> Any:
    """The value of JSON; None where it is none."""
    try:
        return parse_json(data.decode("utf-8"))
    except ValueError:
        return None


def from_yaml(data: bytes) -> Any:
    """The value of YAML; None where it is none."""
    try:
        return yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


# ---- what must hold ----------------------------------------------------------------------------


def is_finite(value: Any) -> bool:
    """A number, and no infinity."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def is_positive(value: Any) -> bool:
    """A finite number above 0."""
    return is_finite(value) and value > 0


def is_share(value: Any) -> bool:
    """A number in [0, 1]."""
    return is_finite(value) and 0 <= value <= 1


def is_count(value: Any) -> bool:
    """A whole number, 0 or more."""
    return type(value) is int and value >= 0


def is_interval(about: Mapping[str, Any]) -> bool:
    """A value that is 0 or more, and two finite bounds in order."""
    low, high = about["interval"]
    return is_finite(about["value"]) and about["value"] >= 0 and is_finite(low) and low <= high


def names_itself(target: Mapping[str, Any]) -> bool:
    """A target's name is made of its parts."""
    return bool(target_from_json(dict(target)).name == target["name"])


def same(found: Any, given: Any) -> bool:
    """Two values are the same JSON."""
    return canonical_json(found) == canonical_json(given)
