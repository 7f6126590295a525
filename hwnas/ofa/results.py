"""Files of already measured subnets, in the spellings of other tools, to architectures and top-1.

CSV with a header, one row a subnet. The architecture is one column: once-for-all's or DyNAS-T's
dictionary (Python or JSON), or ours (JSON with `choices`). Accuracy is one column, a fraction or,
where the header says so or all values are above 1, percent. MACs and parameters, where they are
there, say whether the networks are of the space. Also read: once-for-all's `<px>.dict`, a JSON map
from the dictionary as text to top-1 in percent.

Source: `get_csv_header` of dynast/supernetwork/supernetwork_registry.py in IntelLabs/DyNAS-T, and
    ofa/nas/accuracy_predictor/acc_dataset.py of github.com/mit-han-lab/once-for-all.
"""

from __future__ import annotations

import ast
import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.ofa.dictionaries import from_dictionary
from hwnas.predictors.results import Result, averaged, check_end
from profilers.errors import ConfigError, FileFormatError
from profilers.json_text import parse_json
from profilers.schema import canonical_json, sha256_file, write_atomic

MAX_BYTES = 256 << 20
ARCH_COLUMNS = ("arch", "architecture", "sub-network", "subnet", "config", "net_config")
TOP1_COLUMNS = ("top1", "top-1 acc (%)", "accuracy_top1", "acc", "accuracy", "top1 (%)")
COUNTS = {  # columns that say what space a network is of
    "macs": ("macs", "macs (m)", "flops"),
    "params": ("model parameters", "params", "parameters", "params (m)"),
}
# How far counts may be off: of MACs, counters add normalisation (6 % of the smallest networks) and
# activations; of parameters, those of kernel transforms. Width 1.2 has 1.35 times those of 1.0.
MOST_OFF = {"macs": 0.15, "params": 0.05}
MILLIONS = 1e5  # counts of a column that are all below this are millions
DICT_SUFFIX = ".dict"


class _Row(NamedTuple):
    """A row as it stands: line, architecture as text, accuracy, what says that it is percent, and
    the counts that it holds.
    """

    line: int
    spelled: str
    top1: float
    percent: str
    counts: dict[str, float]


def read_results(path: Path, space: SearchSpace, resolution: int = 0) -> list[Result]:
    """The measured subnets of a file.

    Args:
        path: CSV, or a `.dict` of once-for-all.
        space: whose subnets they are.
        resolution: input size, px, of architectures that do not say theirs; 0: they all must.

    Raises:
        FileFormatError: missing, empty, cut, without the two columns, or with accuracies of one
            network that are far apart.
        ConfigError: a row cannot be used: not of the space, or no accuracy; names its line.
    """
    text = _text(path)
    rows = list(_dict_rows(path, text) if path.suffix == DICT_SUFFIX else _csv_rows(path, text))
    if not rows:
        raise FileFormatError(f"{path} holds no measured subnet")
    scale = 100 if _in_percent(path, rows) else 1
    widest = space.restricted(space.every_resolution)
    archs = [_architecture(f"{path}: line {r.line}", r.spelled, widest, resolution) for r in rows]
    _check_counts(path, rows, archs)
    found = [(row.line, arch, row.top1 / scale) for row, arch in zip(rows, archs, strict=True)]
    return averaged(path, found)


def _in_percent(path: Path, rows: Sequence[_Row]) -> bool:
    """Whether accuracies are percent: the file says so, or all are above 1."""
    small = [row for row in rows if row.top1 <= 1]
    large = [row for row in rows if row.top1 > 1]
    if small and rows[0].percent:
        row = small[0]
        raise ConfigError(
            f"{path}: line {row.line}: accuracy {row.top1:g} of {len(small)} rows at most 1, where "
            f"{row.percent} says percent: correct or remove them; fractions go under 'top1'"
        )
    if small and large:
        raise ConfigError(
            f"{path}: accuracy {small[0].top1:g} in line {small[0].line}, {large[0].top1:g} in "
            f"line {large[0].line}: fraction or percent? Name the column 'top1 (%)' if all are "
            "percent"
        )
    return bool(large)


def _check_counts(path: Path, rows: Sequence[_Row], archs: Sequence[Architecture]) -> None:
    """Refuse networks whose MACs or parameters are not those of the space."""
    for name in {name for row in rows for name in row.counts}:
        unit = 1e6 if max(row.counts.get(name, 0) for row in rows) < MILLIONS else 1
        for row, arch in zip(rows, archs, strict=True):
            given, ours = unit * row.counts.get(name, 0), exact_costs(arch)[name]
            if given and abs(given / ours - 1) > MOST_OFF[name]:
                raise ConfigError(
                    f"{path}: line {row.line}: {name} {given:.6g}, the network of "
                    f"{arch.space.name} has {ours:.6g}; counters differ by {MOST_OFF[name]:.0%} at "
                    "most: name the space that was measured"
                )


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
        percent = f"the column {header[top1_at]!r}" if "%" in header[top1_at] else ""
        counted = {name: _counted(path, header, names) for name, names in COUNTS.items()}
        for row in reader:
            if row:
                where = f"{path}: line {reader.line_num}"
                if len(row) != len(header):
                    raise ConfigError(
                        f"{where}: {len(row)} values, the header names {len(header)} columns"
                    )
                top1 = _accuracy(where, row[top1_at])
                counts = {n: _count(where, n, row[at]) for n, at in counted.items() if at >= 0}
                yield _Row(reader.line_num, row[arch_at], top1, percent, counts)
    except csv.Error as error:
        raise FileFormatError(f"{path}: line {reader.line_num}: {error}; expected CSV") from None
    check_end(path, text)


def _counted(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    """Where a count stands; -1 if nowhere."""
    return _column(path, header, names) if set(names) & set(header) else -1


def _count(where: str, name: str, text: str) -> float:
    """A count; 0 where the file does not know it, which DyNAS-T writes as 0."""
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigError(f"{where}: {name} {text[:40]!r} is no number; remove the row")
    return number


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
        found = parse_json(text)
    except ValueError as error:
        raise FileFormatError(f"{path} is no JSON ({error}); it is cut short or damaged") from None
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} holds a {type(found).__name__}, expected keys and values")
    for line, (spelled, top1) in enumerate(found.items(), start=2):
        yield _Row(line, spelled, _accuracy(f"{path}: line {line}", top1), DICT_SUFFIX, {})


def _accuracy(where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{where}: accuracy {str(value)[:40]!r} is no number; remove the row")
    if not 0 <= number <= 100:
        raise ConfigError(f"{where}: accuracy {number:g} is not in 0 to 100 %")
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
        found = parse_json(text)
    except ValueError:
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
