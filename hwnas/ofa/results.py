"""Files of already measured subnets, in the spellings of other tools, to architectures and top-1.

CSV with a header, one row a subnet. The architecture is one column: once-for-all's or DyNAS-T's
dictionary (Python or JSON), or ours (JSON with `choices`). Accuracy is one column, a fraction or,
where the header says so or all values are above 1, percent. Also read: once-for-all's `<px>.dict`,
a JSON map from the dictionary as text to top-1 in percent.

Source: `get_csv_header` of dynast/supernetwork/supernetwork_registry.py in IntelLabs/DyNAS-T, and
    ofa/nas/accuracy_predictor/acc_dataset.py of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwnas.ofa.dictionaries import from_dictionary
from hwnas.space import Architecture, SearchSpace
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import canonical_json, sha256_file, write_atomic

MAX_BYTES = 256 << 20
ARCH_COLUMNS = ("arch", "architecture", "sub-network", "subnet", "config", "net_config")
TOP1_COLUMNS = ("top1", "top-1 acc (%)", "accuracy_top1", "acc", "accuracy", "top1 (%)")
DICT_SUFFIX = ".dict"


class _Row(NamedTuple):
    """A row as it stands: line, architecture as text, accuracy, 100 where it is named percent."""

    line: int
    spelled: str
    top1: float
    scale: int


class Result(NamedTuple):
    """A measured subnet: where it stands in its file, and its top-1 accuracy, a fraction."""

    line: int
    arch: Architecture
    top1: float


def read_results(path: Path, space: SearchSpace, resolution: int = 0) -> list[Result]:
    """The measured subnets of a file.

    Args:
        path: CSV, or a `.dict` of once-for-all.
        space: whose subnets they are.
        resolution: input size, px, of architectures that do not say theirs; 0: they all must.

    Raises:
        FileFormatError: missing, empty, or without the two columns.
        ConfigError: a row cannot be used: not of the space, no accuracy, or the same architecture
            as another; names its line.
    """
    text = _text(path)
    rows = list(_dict_rows(path, text) if path.suffix == DICT_SUFFIX else _csv_rows(path, text))
    if not rows:
        raise FileFormatError(f"{path} holds no measured subnet")
    percent = _in_percent(path, rows)
    found: dict[Architecture, Result] = {}
    for line, spelled, top1, _ in rows:
        where = f"{path}: line {line}"
        arch = _architecture(where, spelled, space, resolution)
        top1 = top1 / 100 if percent else top1
        if not 0 <= top1 <= 1:
            raise ConfigError(
                f"{where}: accuracy {top1 * (100 if percent else 1):g} is not in "
                f"{'0 to 100 %' if percent else '0 to 1'}"
            )
        if arch in found:
            raise ConfigError(
                f"{where}: the same architecture as in line {found[arch].line} "
                f"({arch.id}); keep one of them"
            )
        found[arch] = Result(line, arch, top1)
    return list(found.values())


def _in_percent(path: Path, rows: Sequence[_Row]) -> bool:
    """Whether accuracies are percent: the file says so, or all are above 1."""
    if rows[0].scale == 100:
        return True
    above = [row.top1 > 1 for row in rows]
    if any(above) and not all(above):
        first, other = rows[above.index(False)], rows[above.index(True)]
        raise ConfigError(
            f"{path}: accuracy {first.top1:g} in line {first.line}, {other.top1:g} in line "
            f"{other.line}: fraction or percent? Name the column 'top1 (%)' if all are percent"
        )
    return all(above)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"{path} is larger than 256 MiB; cut it into several files")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is no text ({error.reason}); expected CSV") from None


# ---- rows ---------------------------------------------------------------------------------------


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        arch_at, top1_at = (_column(path, header, n) for n in (ARCH_COLUMNS, TOP1_COLUMNS))
        scale = 100 if "%" in header[top1_at] else 1
        for row in reader:
            if row:
                where = f"{path}: line {reader.line_num}"
                if len(row) != len(header):
                    raise ConfigError(
                        f"{where}: {len(row)} values, the header names {len(header)} columns"
                    )
                top1 = _accuracy(where, row[top1_at])
                yield _Row(reader.line_num, row[arch_at], top1, scale)
    except csv.Error as error:
        raise FileFormatError(f"{path}: line {reader.line_num}: {error}; expected CSV") from None


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    """The one column that has one of the names."""
    found = [i for i, name in enumerate(header) if name in names]
    if len(found) == 1:
        return found[0]
    problem = "several columns" if found else "no column"
    raise FileFormatError(
        f"{path} has {problem} named {' or '.join(names)}; its header: {', '.join(header)[:200]}"
    )


def _dict_rows(path: Path, text: str) -> Iterator[_Row]:
    """Rows of a JSON map; lines are counted as once-for-all writes them, one a subnet."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is no JSON ({error}); it is cut short or damaged") from None
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} holds a {type(found).__name__}, expected keys and values")
    for line, (spelled, top1) in enumerate(found.items(), start=2):
        yield _Row(line, spelled, _accuracy(f"{path}: line {line}", top1), 100)


def _accuracy(where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{where}: accuracy {str(value)[:40]!r} is no number; remove the row")
    return number


# ---- architectures ------------------------------------------------------------------------------


def _architecture(where: str, text: str, space: SearchSpace, resolution: int) -> Architecture:
    """The architecture of a text in one of the spellings."""
    spelled = _mapping(where, text)
    try:
        if "choices" in spelled:
            return space.from_json(spelled)
        return from_dictionary(space, spelled, resolution or None)
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _mapping(where: str, text: str) -> Mapping[str, Any]:
    """The dictionary that a text spells: JSON, or Python's own writing of it (never evaluated)."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found = None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"{where}: {text[:60]!r} is no architecture; expected a dictionary with ks, e, d and "
            "r or image_size, or JSON with choices"
        )
    return found


# ---- file of ours -------------------------------------------------------------------------------


def write_results(
    results: Sequence[Result], source: Path, path: Path, supernet_sha256: str
) -> None:
    """Write measured subnets; replaces a file.

    Args:
        results: of `read_results`.
        source: the file that was read.
        path: JSON Lines as `accuracy.jsonl`, marked as imported; or, where its name ends in .csv,
            the CSV that the setting accuracy.results names.
        supernet_sha256: file of the supernet that was measured; empty: not known.
    """
    if path.suffix == ".csv":
        text = _as_csv(results)
    else:
        imported = {"file": source.name, "sha256": sha256_file(source)}
        about = {
            "split": "imported",
            "n_images": None,
            "bn_images": None,
            "supernet_sha256": supernet_sha256,
            "imported": imported,
        }
        rows = [{"arch": r.arch.to_json(), "top1": r.top1, **about} for r in results]
        text = "".join(f"{canonical_json(row)}\n" for row in rows)
    write_atomic(path, text.encode("utf-8"))


def _as_csv(results: Sequence[Result]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("id", "top1", "arch"))
    writer.writerows((r.arch.id, r.top1, canonical_json(r.arch.to_json())) for r in results)
    return out.getvalue()
