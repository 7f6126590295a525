"""Files of networks that others measured, in the spellings of their tools: one row a measurement.

CSV with a header. The architecture is one column: once-for-all's or DyNAS-T's dictionary (Python or
JSON), or ours (JSON with `choices`); or a column for each choice of the space, empty or 0 where its
block is absent. Which other columns there are, and what they hold, is the caller's affair, but for
those that say of what space and in which way a row is: MACs and parameters, batch and precision.
Also read: once-for-all's `<px>.dict`, a JSON map from the dictionary as text to a number.

Source: `get_csv_header` of dynast/supernetwork/supernetwork_registry.py in IntelLabs/DyNAS-T, and
    ofa/nas/accuracy_predictor/acc_dataset.py of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import ast
import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.ofa.dictionaries import from_dictionary
from profilers.errors import ConfigError, FileFormatError
from profilers.json_text import parse_json

MAX_BYTES = 256 << 20
SHOWN = 3  # names of a column that a message gives
ARCH = ("arch", "architecture", "sub network", "subnet", "config", "net config")
COUNTS = {  # columns that say what space a network is of
    "macs": ("macs", "macs m", "flops"),
    "params": ("model parameters", "params", "parameters", "params m"),
}
# How far counts may be off: of MACs, counters add normalisation (6 % of the smallest networks) and
# activations; of parameters, those of kernel transforms. Width 1.2 has 1.35 times those of 1.0.
MOST_OFF = {"macs": 0.15, "params": 0.05}
MILLIONS = 1e5  # counts of a column that are all below this are millions
DICT_SUFFIX = ".dict"

Names = Mapping[str, Sequence[str]]  # of columns, by what they are called here


class Row(NamedTuple):
    """A measurement: its line, its network, and the cells of the columns that were asked for."""

    line: int
    arch: Architecture
    cells: dict[str, str]


class Sheet(NamedTuple):
    """The rows of a file, and what it calls each column that was asked for and is there."""

    path: Path
    headers: dict[str, str]
    rows: list[Row]

    def where(self, row: Row) -> str:
        """A row, in words."""
        return f"{self.path}: line {row.line}"

    def number(self, row: Row, name: str) -> float:
        """A cell as a number, finite and 0 or more.

        Raises:
            ConfigError: it is none.
        """
        text = row.cells[name]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise ConfigError(
                f"{self.where(row)}: {self.headers[name]} is {text[:40]!r}, expected a number of 0 "
                "or more; mend or remove the row"
            )
        return number


def read_sheet(
    path: Path, space: SearchSpace, columns: Names, needed: str, resolution: int = 0
) -> Sheet:
    """The measurements of a file.

    Args:
        path: CSV, or a `.dict` of once-for-all.
        space: whose networks they are.
        columns: to be read, each with the headers that it may have: small letters, words and `%`
            separated by single spaces.
        needed: of the columns, the one that must be there; it is what a `.dict` holds.
        resolution: input size, px, of architectures that do not say theirs; 0: they all must.

    Raises:
        FileFormatError: missing, empty, cut, or without the columns that are needed.
        ConfigError: a row cannot be used, or is of another space; names its line.
    """
    text = _text(path)
    read = _of_dict if path.suffix == DICT_SUFFIX else _of_csv
    headers, found = read(path, text, space, {**columns, **COUNTS}, needed)
    rows = [
        Row(line, _architecture(f"{path}: line {line}", spelled, space, resolution), cells)
        for line, spelled, cells in found
    ]
    if not rows:
        raise FileFormatError(f"{path} holds no measured network")
    sheet = Sheet(path, headers, rows)
    _check_counts(sheet)
    return sheet


def _check_counts(sheet: Sheet) -> None:
    """Refuse networks whose MACs or parameters are not those of the space."""
    for name in COUNTS.keys() & sheet.headers.keys():
        counts = [sheet.number(row, name) if row.cells[name] else 0.0 for row in sheet.rows]
        unit = 1e6 if max(counts) < MILLIONS else 1
        for row, count in zip(sheet.rows, counts, strict=True):
            given, ours = unit * count, exact_costs(row.arch)[name]
            if given and abs(given / ours - 1) > MOST_OFF[name]:
                raise ConfigError(
                    f"{sheet.where(row)}: {name} {given:.6g}, the network of "
                    f"{row.arch.space.name} has {ours:.6g}; counters differ by "
                    f"{MOST_OFF[name]:.0%} at most: name the space that was measured"
                )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"{path} is larger than 256 MiB; cut it into several files")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist; name a CSV of measured networks") from None
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not text ({error.reason}); expected CSV") from None


# ---- rows ---------------------------------------------------------------------------------------

Spelled = str | list[str]  # an architecture as text, or the cells of its choices
Found = tuple[dict[str, str], list[tuple[int, Spelled, dict[str, str]]]]


def _of_csv(path: Path, text: str, space: SearchSpace, columns: Names, needed: str) -> Found:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    rows = []
    try:
        header = [name.strip() for name in next(reader, [])]
        at = {name: _column(path, header, names) for name, names in columns.items()}
        _need(path, header, at[needed], columns[needed][:SHOWN])
        arch_at = _arch_columns(path, header, space)
        here = {name: place for name, place in at.items() if place >= 0}
        for row in filter(None, reader):
            if len(row) != len(header):
                raise ConfigError(
                    f"{path}: line {reader.line_num}: {len(row)} values, the header names "
                    f"{len(header)} columns"
                )
            spelled = row[arch_at] if isinstance(arch_at, int) else [row[c] for c in arch_at]
            cells = {name: row[place].strip() for name, place in here.items()}
            rows.append((reader.line_num, spelled, cells))
    except csv.Error as error:
        raise FileFormatError(f"{path}: line {reader.line_num}: {error}; expected CSV") from None
    check_end(path, text)
    return {name: header[place] for name, place in here.items()}, rows


def plain(header: str) -> str:
    """A header in small letters, its words separated by single spaces; micro is u."""
    text = unicodedata.normalize("NFKD", header.lower()).replace("%", " % ")
    return re.sub(r"[^a-z0-9%\u03bc]+", " ", text).strip().replace("\u03bc", "u")


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    """The one column that has one of the names; -1 where none has."""
    found = [i for i, name in enumerate(header) if plain(name) in names]
    if len(found) > 1:
        raise FileFormatError(
            f"{path} has several columns of one thing, {' and '.join(header[i] for i in found)}; "
            "keep one"
        )
    return found[0] if found else -1


def _need(path: Path, header: Sequence[str], place: int, names: Sequence[str]) -> None:
    if place < 0:
        raise FileFormatError(
            f"{path} has no column named {' or '.join(names)}; its header: "
            f"{', '.join(header)[:200]}"
        )


def _arch_columns(path: Path, header: Sequence[str], space: SearchSpace) -> int | list[int]:
    """Where the architecture stands: its column, or those of all choices."""
    place, named = _column(path, header, ARCH), [choice.name for choice in space.choices]
    if place < 0 and set(named) <= set(header):
        return [header.index(name) for name in named]
    _need(path, header, place, (*ARCH, f"the choices of {space.name}, {named[0]} and so on"))
    return place


def _of_dict(path: Path, text: str, space: SearchSpace, columns: Names, needed: str) -> Found:
    """Rows of a JSON map; lines are counted as once-for-all writes them, one a subnet."""
    try:
        found = parse_json(text)
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON ({error}); it is cut short or damaged") from None
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} must hold keys and values, as a JSON object")
    rows: Iterator[tuple[int, Spelled, dict[str, str]]] = (
        (line, spelled, {needed: str(value)})
        for line, (spelled, value) in enumerate(found.items(), start=2)
    )
    return {needed: DICT_SUFFIX}, list(rows)


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


# ---- architectures ------------------------------------------------------------------------------


def _architecture(
    where: str, spelled: Spelled, space: SearchSpace, resolution: int
) -> Architecture:
    """The architecture of a text in one of the spellings, or of the cells of its choices."""
    try:
        if not isinstance(spelled, str):
            return space.architecture(float(cell or 0) for cell in spelled)
        named = _mapping(spelled)
        if "choices" in named:
            return space.from_json(named)
        return from_dictionary(space, named, resolution or None)
    except (ConfigError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _mapping(text: str) -> Mapping[str, Any]:
    """The dictionary that a text spells: JSON, or Python's own writing of it (never evaluated)."""
    try:
        found = parse_json(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found = None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"{text[:60]!r} is not an architecture; expected a dictionary with ks, e, d and r or "
            "image_size, or JSON with choices"
        )
    return found
