"""Measured subnets as a CSV file, for predictors of networks that were measured elsewhere.

Columns: `top1`, a fraction, and either `arch` (JSON, as in accuracy.jsonl) or one column for each
choice (empty or 0: a choice of an absent block). Other columns are not looked at. A network that
was measured several times has the mean of its accuracies.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hwnas.networks.space import Architecture, SearchSpace
from profilers.errors import ConfigError, FileFormatError
from profilers.json_text import parse_json
from profilers.schema import canonical_json, write_atomic

APART = 0.02  # two measurements of one network differ by more: other weights, or other images

Row = dict[str, str]


class Result(NamedTuple):
    """A measured network: where it stands in its file, its top-1 accuracy, a fraction, and how far
    the accuracies of its lines are apart.
    """

    lines: tuple[int, ...]
    arch: Architecture
    top1: float
    apart: float = 0.0


def read_results(
    path: Path, space: SearchSpace, say: Callable[[str], None] = lambda text: None
) -> dict[Architecture, float]:
    """Top-1 accuracy, a fraction, of each network of a file.

    Args:
        path: CSV.
        space: whose networks they are.
        say: is called with what was averaged, if anything was.

    Raises:
        FileFormatError: no CSV, a column is missing, or a line cannot be used; names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = list(reader.fieldnames or ())
        _check_columns(path, columns, space)
        rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; name a CSV of measured subnets") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path} cannot be read as CSV: {error}") from error
    check_end(path, text)
    found = averaged(
        path, [(n, _architecture(path, n, row, space), _accuracy(path, n, row)) for n, row in rows]
    )
    if told := repeats_text(found):
        say(f"{path}: {told}")
    return {result.arch: result.top1 for result in found}


def check_end(path: Path, text: str) -> None:
    """Refuse a CSV whose last line has no end: it may be cut inside its last number.

    Raises:
        FileFormatError: it has none.
    """
    if text and not text.endswith(("\n", "\r")):
        raise FileFormatError(
            f"{path} does not end with a whole line ({text.splitlines()[-1][-40:]!r}): it may have "
            "been cut short; restore the file, or end its last line if that is whole"
        )


def averaged(path: Path, rows: Iterable[tuple[int, Architecture, float]]) -> list[Result]:
    """The networks of a file in the order they came, each once.

    Args:
        path: of the file.
        rows: line, network and top-1, a fraction.

    Raises:
        FileFormatError: accuracies of one network are more than APART from each other.
    """
    found: dict[Architecture, list[tuple[int, float]]] = {}
    for line, arch, top1 in rows:
        found.setdefault(arch, []).append((line, top1))
    out = []
    for arch, measured in found.items():
        top1s = [top1 for _, top1 in measured]
        lines = tuple(line for line, _ in measured)
        mean = math.fsum(top1s) / len(top1s)
        out.append(Result(lines, arch, mean, max(top1s) - min(top1s)))
    strange = [result for result in out if result.apart > APART]
    if strange:
        raise FileFormatError(
            f"{path}: the same network with accuracies more than {APART:.0%} apart: "
            f"{_listed(strange)}; keep those of one supernet and one set of images"
        )
    return out


def repeats_text(results: Iterable[Result]) -> str:
    """Which networks were averaged; empty if none was."""
    several = [result for result in results if len(result.lines) > 1]
    if not several:
        return ""
    return f"{len(several)} networks were measured more than once and averaged: {_listed(several)}"


def _listed(results: Iterable[Result]) -> str:
    def told(result: Result) -> str:
        return f"lines {', '.join(map(str, result.lines))} ({result.apart:.2%} apart)"

    return "; ".join(map(told, results))


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
            return space.from_json(parse_json(row["arch"] or ""))
        return space.architecture(float(row[c.name] or 0) for c in space.choices)
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
