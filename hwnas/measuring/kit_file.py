"""`kit.json` as the host reads it back: whole, or refused. Loads no graph library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profilers.errors import FileFormatError
from profilers.schema import KIT_FORMAT, parse_key, read_json

KIT_FILE = "kit.json"
FIELDS = {"space": str, "geometry": str, "batch": int, "items": list, "weights": dict, "seed": int}
ITEM = {"name": str, "file": str, "sha256": str, "role": str, "resolution": int, "ops": list}


def read_kit_file(folder: Path) -> dict[str, Any]:
    """The content of a folder's kit.json.

    Raises:
        FileFormatError: missing, truncated, of another format, or a field of it is not what it
            should be.
    """
    path = Path(folder) / KIT_FILE
    kit: dict[str, Any] = read_json(path, KIT_FORMAT)
    wrong = _wrong_in(kit, FIELDS) or next(filter(None, map(_wrong_item, kit["items"])), "")
    if not wrong and len({item["name"] for item in kit["items"]}) < len(kit["items"]):
        wrong = "two items have one name"
    if wrong:
        raise FileFormatError(f"{path}: {wrong}; make the kit again")
    return kit


def _wrong_in(value: Any, fields: Mapping[str, type]) -> str:
    """What a value lacks; empty for nothing."""
    if not isinstance(value, dict):
        return f"{str(value)[:40]!r} is no object"
    for name, kind in fields.items():
        if type(value.get(name)) is not kind:
            return f"it lacks {name!r}, or it is no {kind.__name__}"
    return ""


def _wrong_item(item: Any) -> str:
    """What is wrong with an item; empty for nothing."""
    wrong = _wrong_in(item, ITEM)
    if wrong:
        return wrong
    if not isinstance(item.get("arch"), (dict, type(None))) or not item["ops"]:
        return f"item {item['name']!r} has no ops, or an arch that is none"
    for op in item["ops"]:
        wrong = _wrong_in(op, {"slot": str, "key": str})
        if wrong:
            return wrong
        parse_key(op["key"])
    return ""
