"""What may be published of settings and messages: no host name, user, address or path."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

_ADDRESS = re.compile(
    r"(?:ssh|tcp|tls)://\S+|[\w.+-]+@[\w.-]+|\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?"
)
_PATH = re.compile(r"(?<![\w./:])~?/(?:[^\s/:;,'\"()`]+/)*([^\s/:;,'\"()`]*)")


def public_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, as JSON, without paths and addresses."""
    found = {name: value for name, value in config.items() if name not in ("run", "cluster")}
    places = (
        ("data", "root"),
        ("accuracy", "results"),
        ("accuracy", "cluster"),
        ("space", "weights"),
    )
    for part, place in places:
        if part in found:
            found[part] = {key: value for key, value in found[part].items() if key != place}
    if found.get("space", {}).get("model"):
        found["space"].pop("name", None)  # no space of that name is used
    return found


def addresses(connection: Mapping[str, Any]) -> list[str]:
    """All parts of a connection that say where a device is."""
    told = [value for name, value in connection.items() if name != "kind"]
    flat = [v for each in told for v in (each.values() if isinstance(each, dict) else [each])]
    words = [str(value) for value in flat if value]
    hosts = [re.sub(r"^\w+://|:\d+$", "", word.rpartition("@")[2]) for word in words]
    return [*words, *hosts]


def public_text(text: str, secrets: Iterable[str] = ()) -> str:
    """A message without addresses and this host's name; of absolute paths only the last part stays.

    Args:
        text: of an error or warning.
        secrets: more words to leave out, as addresses of boards.
    """
    for word in sorted({socket.gethostname(), *secrets} - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", "(host)", text)
    return _PATH.sub(r"\1", _ADDRESS.sub("(address)", text))
