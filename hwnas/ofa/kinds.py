"""What a file of once-for-all is, by its content: which `hwnas import` reads it.

Asked only where an import was refused; the importers themselves decide what they read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.ofa import latencies, measured, net_config, op_costs, results
from profilers.errors import FileFormatError
from profilers.json_text import parse_json

WORDS = {  # by subcommand
    "supernet": "a supernet",
    "predictor": "an accuracy predictor",
    "results": "a file of measured subnets",
    "architecture": "an architecture",
    "table": "a latency table",
    "latencies": "a file of measured latencies",
}
HEAD = 1 << 16  # characters that tell what a text is
PREDICTOR = re.compile(r"(layers\.\d(\.0)?|\d)\.(weight|bias)")
TABLE = re.compile(r"^['\"]?\w+-input:\d", re.M)


def subcommands_of(path: Path) -> list[str]:
    """The subcommands of `hwnas import` that read a file, of WORDS; empty: none is known to."""
    try:
        if path.is_dir():
            return ["architecture"] if (path / net_config.NET).is_file() else []
        with path.open("rb") as handle:
            start = handle.read(HEAD)
        if start[:1] == b"\x80" or start[:2] == b"PK":
            return list(filter(None, [_of_tensors(path)]))
        text = start.decode(errors="replace")
        if text.lstrip()[:1] == "{":
            return list(filter(None, [_of_json(parse_json(path.read_text(encoding="utf-8")))]))
    except (OSError, ValueError, FileFormatError):
        return []
    cells = {measured.plain(cell) for cell in text.partition("\n")[0].split(",")}
    found = {"results": results.TOP1, "latencies": latencies.COLUMNS["ms"]}
    if cells & set(measured.ARCH):
        return [name for name, columns in found.items() if cells & set(columns)]
    is_table = TABLE.search(text) or set(op_costs.COLUMNS[:2]) <= cells
    return ["table"] if is_table else []


def _of_tensors(path: Path) -> str:
    from hwnas.supernet.pickles import read_tensors  # loads torch

    names = set(read_tensors(path)) - {"base_acc"}
    if not names:
        return ""
    return "predictor" if all(map(PREDICTOR.fullmatch, names)) else "supernet"


def _of_json(found: Any) -> str:
    if not isinstance(found, Mapping):
        return ""
    if "blocks" in found:
        return "architecture"
    if found and all(isinstance(value, Mapping) and "ms" in value for value in found.values()):
        return "table"
    numbers = all(isinstance(value, (int, float)) for value in found.values())
    return "results" if found and numbers else ""
