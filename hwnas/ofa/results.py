"""Files of accuracies that others measured (`hwnas.ofa.measured`) to top-1 of networks.

Accuracies are a fraction or, where the header says so or all values are above 1, percent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from hwnas.networks.space import SearchSpace
from hwnas.ofa.measured import Sheet, read_sheet
from hwnas.predictors.results import Result, averaged
from profilers.errors import ConfigError
from profilers.schema import canonical_json, sha256_file, write_atomic

TOP1 = tuple(
    f"{name}{unit}"
    for name in ("top1", "top 1", "top1 acc", "top 1 acc", "accuracy top1", "acc", "accuracy")
    for unit in ("", " %")
)


def read_results(path: Path, space: SearchSpace, resolution: int = 0) -> list[Result]:
    """The measured subnets of a file.

    Args:
        path, space, resolution: as of `read_sheet`.

    Raises:
        FileFormatError: as `read_sheet`, or with accuracies of one network that are far apart.
        ConfigError: as `read_sheet`, or a row has no accuracy; names its line.
    """
    sheet = read_sheet(path, space, {"top1": TOP1}, "top1", resolution)
    top1 = [sheet.number(row, "top1") for row in sheet.rows]
    scale = 100 if _in_percent(sheet, top1) else 1
    rows = zip(sheet.rows, top1, strict=True)
    return averaged(path, [(row.line, row.arch, value / scale) for row, value in rows])


def _in_percent(sheet: Sheet, top1: Sequence[float]) -> bool:
    """Whether accuracies are percent: the file says so, or all are above 1."""
    path, header = sheet.path, sheet.headers["top1"]
    lines = [row.line for row in sheet.rows]
    small = [n for n, value in enumerate(top1) if value <= 1]
    large = [n for n, value in enumerate(top1) if value > 1]
    if beyond := [n for n in large if top1[n] > 100]:
        raise ConfigError(
            f"{path}: line {lines[beyond[0]]}: accuracy {top1[beyond[0]]:g} is not in 0 to 100 %"
        )
    if small and ("%" in header or header.startswith(".")):
        raise ConfigError(
            f"{path}: line {lines[small[0]]}: accuracy {top1[small[0]]:g} of {len(small)} rows at "
            f"most 1, where {header!r} says percent: correct or remove them; fractions go under "
            "'top1'"
        )
    if small and large:
        raise ConfigError(
            f"{path}: accuracy {top1[small[0]]:g} in line {lines[small[0]]}, {top1[large[0]]:g} in "
            f"line {lines[large[0]]}: fraction or percent? Name the column 'top1 (%)' if all are "
            "percent"
        )
    return bool(large)


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
        rows = [{"arch": r.arch.to_json(), "accuracy": r.top1, **about} for r in results]
        text = "".join(f"{canonical_json(row)}\n" for row in rows)
    write_atomic(path, text.encode("utf-8"))


def _as_csv(results: Sequence[Result]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("id", "top1", "arch"))
    writer.writerows((r.arch.id, r.top1, canonical_json(r.arch.to_json())) for r in results)
    return out.getvalue()
