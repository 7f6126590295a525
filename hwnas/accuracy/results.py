"""Measured subnets as a CSV file, for predictors of networks that were measured elsewhere.

Columns: `top1`, a fraction, and either `arch` (JSON, as in accuracy.jsonl) or one column for each
choice (empty or 0: a choice of an absent block). Other columns are not looked at.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from hwnas.space import Architecture, SearchSpace
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import canonical_json, write_atomic

Row = dict[str, str]


def read_results(path: Path, space: SearchSpace) -> dict[Architecture, float]:
    """Top-1 accuracy, a fraction, of each network of a file.

    Raises:
        FileFormatError: no CSV, a column is missing, or a line cannot be used; names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            _check_columns(path, columns, space)
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; name a CSV of measured subnets") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path} cannot be read as CSV: {error}") from error
    found: dict[Architecture, tuple[float, int]] = {}
    for line, row in rows:
        arch = _architecture(path, line, row, space)
        if arch in found:
            raise FileFormatError(
                f"{path}, line {line}: network {arch.id} is in line {found[arch][1]} already; "
                "keep one of them, or their mean"
            )
        found[arch] = _accuracy(path, line, row), line
    return {arch: top1 for arch, (top1, _) in found.items()}


def write_candidates(path: Path, archs: Sequence[Architecture]) -> None:
    """Write networks that are to be measured as a CSV with an empty column `top1`, atomically."""
    lines = ['"id","top1","arch"\n']
    for arch in archs:
        text = canonical_json(arch.to_json()).replace('"', '""')
        lines.append(f'"{arch.id}","","{text}"\n')
    write_atomic(path, "".join(lines).encode("utf-8"))


def _check_columns(path: Path, columns: Iterable[str], space: SearchSpace) -> None:
    given = list(columns)
    needed = ["top1"] if "arch" in given else ["top1", *(c.name for c in space.choices)]
    missing = [name for name in needed if name not in given]
    if missing:
        raise FileFormatError(
            f"{path} lacks column {missing[0]!r} ({len(missing)} are missing); it needs 'top1' and "
            f"either 'arch' or every choice of space {space.name}"
        )
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise FileFormatError(f"{path} has two columns {twice[0]!r}; keep one")


def _architecture(path: Path, line: int, row: Row, space: SearchSpace) -> Architecture:
    try:
        if "arch" in row:
            return space.from_json(json.loads(row["arch"] or ""))
        return space.architecture(int(float(row[c.name] or 0)) for c in space.choices)
    except (ConfigError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"{path}, line {line}: no network can be read: {error}") from error


def _accuracy(path: Path, line: int, row: Row) -> float:
    text = row["top1"] or ""
    try:
        top1 = float(text)
    except ValueError:
        top1 = math.nan
    if not 0 <= top1 <= 1:
        hint = "; percent are divided by 100 first" if 1 < top1 <= 100 else ""
        raise FileFormatError(
            f"{path}, line {line}: top1 is {text!r}, expected a fraction in [0, 1]{hint}"
        )
    return top1
