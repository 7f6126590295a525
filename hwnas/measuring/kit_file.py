"""`kit.json` as the host reads it back: whole, or refused. Loads no graph library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.networks.ops import parse_key
from profilers import protocol
from profilers.errors import FileFormatError
from profilers.schema import KIT_FORMAT, canonical_json, read_json, sha256_text

KIT_FILE = "kit.json"


def read_kit_file(folder: Path) -> dict[str, Any]:
    """The content of a folder's kit.json.

    Raises:
        FileFormatError: missing, truncated, of another format, or a field of it is not what it
            should be.
    """
    path = Path(folder) / KIT_FILE
    kit: dict[str, Any] = read_json(path, KIT_FORMAT)
    wrong = protocol.CAMPAIGN_KIT(kit)
    if not wrong and not all(item["ops"] for item in kit["items"]):
        wrong = " has an item without ops"
    if not wrong and len({item["name"] for item in kit["items"]}) < len(kit["items"]):
        wrong = " has two items of one name"
    if wrong:
        raise FileFormatError(f"{path}{wrong}; make the kit again")
    for item in kit["items"]:
        for op in item["ops"]:
            parse_key(op["key"])
    return kit


def kit_hash(kit: Mapping[str, Any]) -> str:
    """The hash that measurements and tables name a kit by."""
    return sha256_text(canonical_json(kit))
