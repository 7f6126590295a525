"""Cost tables: what each op costs on one target, how it was measured and how far to trust it.

A file is refused when it is truncated, was edited or is of another kind; a table is refused for a
space it was not measured for. Numpy only: search loads this. Format: docs/formats.md,
"Table".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import coverage
from hwnas.networks.ops import Op, parse_key
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.settings.accept import TABLES, WORDS
from hwnas.tables import table_shape
from hwnas.tables.bend import STRAIGHT, Bend
from hwnas.tables.validation import EXACT, UNVALIDATED
from profilers.errors import (
    FileFormatError,
    MissingOpError,
    TableError,
    TableFormatError,
)
from profilers.plugins import select
from profilers.schema import canonical_json, read_json, sha256_text, write_json

FORMAT = "hwnas-table-1"


@dataclass(frozen=True)
class CostTable:
    """Costs of one target. Latency of an architecture = intercept(resolution) + sum of its rows, or
    a bend of this sum.

    Attributes:
        space, geometry: name and geometry hash of the space that was measured.
        resolutions: measured, px, ascending.
        target: how the device was driven, as `Target.to_json` gives it.
        environment: of the measurements, as the worker gave it.
        protocol: statistic, rounds, disturbed rounds, when.
        kit, source: hashes of the kit and of the measurements.
        marks: where the values come from, of MARKS.
        rows: by op key: latency_ms, spread_ms (of the op alone, over rounds), uncertainty_ms (of
            latency_ms), seen (networks). An imported row may have spread None and no uncertainty.
        calibration: intercept_ms by resolution, bend and reference_ms, estimator, coefficients.
        validation: noise, error, verdict and the points they come from (docs/formats.md).
        energy: what `energy_mj` of the rows rests on (docs/formats.md); empty: nothing is known.
    """

    space: str
    geometry: str
    resolutions: tuple[int, ...]
    target: dict[str, Any]
    environment: dict[str, Any]
    protocol: dict[str, Any]
    kit: str
    source: str
    marks: tuple[str, ...]
    rows: dict[str, dict[str, Any]]
    calibration: dict[str, Any]
    validation: dict[str, Any]
    energy: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """One of `table_shape.VERDICTS`."""
        return str(self.validation["verdict"])

    @property
    def noise(self) -> float:
        """Share by which two measurements of a network differ; 0 where nobody repeated any."""
        known = self.validation["noise"]
        return float(known["value"]) if known else 0.0

    @property
    def sha256(self) -> str:
        """Hash of the table's content, as its file holds it."""
        return sha256_text(canonical_json(_content(self)))

    @property
    def bend(self) -> Bend:
        """From the sum of intercept and rows to the latency."""
        share = self.calibration.get("bend", 0.0)
        return Bend(share, self.calibration["reference_ms"]) if share else STRAIGHT

    @property
    def link(self) -> Bend | None:
        """The bend, where there is one."""
        return self.bend if self.bend.share else None

    def latency(self, resolution: int, keys: Iterable[str]) -> float:
        """Predicted latency, ms, of a network of a resolution (px) and its ops.

        Raises:
            TableError: the resolution, or MissingOpError: an op, was not measured.
        """
        total = self.intercept(resolution) + sum(self.row(key) for key in keys)
        return float(self.bend(np.array(total)))

    def intercept(self, resolution: int) -> float:
        """What a network costs beside its ops, ms.

        Raises:
            TableError: the resolution was not measured, or the table holds counts.
        """
        _refuse_counts(self)
        found = self.calibration["intercept_ms"].get(str(resolution))
        if found is None:
            raise TableError(_unmeasured(self, [resolution]))
        return float(found)

    def row(self, key: str) -> float:
        """Latency of an op in a network, ms.

        Raises:
            MissingOpError: the op was not measured; the message names the nearest that were.
            TableError: the table holds counts.
        """
        _refuse_counts(self)
        found = self.rows.get(key)
        if found is None:
            raise MissingOpError(
                f"table {self.target['name']} has no op {key}; nearest: "
                f"{', '.join(nearest(self, key))}; profile the space again"
            )
        return float(found["latency_ms"])


def _refuse_counts(table: CostTable) -> None:
    if EXACT in table.marks:
        raise TableError(
            f"table {table.target['name']} of {table.space} holds exact counts and no latency; "
            "search has macs, params, weight_bytes and peak_activation_bytes without a table"
        )


def network_latency(table: CostTable, arch: Architecture) -> float:
    """Predicted latency of an architecture, ms.

    Raises:
        TableError: its resolution, or MissingOpError: one of its ops, was not measured.
    """
    return table.latency(arch.resolution, [placed.op.key for placed in arch.ops])


def nearest(table: CostTable, key: str, n: int = 3) -> list[str]:
    """The n measured keys most like an op: same kind first, then the nearest sizes."""
    wanted = parse_key(key)
    return sorted(table.rows, key=lambda other: (_distance(wanted, parse_key(other)), other))[:n]


def _distance(a: Op, b: Op) -> float:
    """Sum over shapes and parameters: 1 for each octave between two numbers, 10 for another kind,
    another word, or another count of parameters.
    """
    if a.kind != b.kind or list(map(len, a.inputs)) != list(map(len, b.inputs)):
        return 10.0 * (len(a.args) + 1) + abs(math.log2((a.macs + 1) / (b.macs + 1)))
    total = 0.0
    for one, other in zip(_values(a), _values(b), strict=True):
        if isinstance(one, str) or isinstance(other, str):
            total += 10 * (one != other)
        else:
            total += abs(math.log2((one + 1) / (other + 1)))
    return total


def _values(op: Op) -> list[Any]:
    return [n for shape in op.inputs for n in shape] + [value for _, value in op.args]


def costless(table: CostTable) -> list[str]:
    """Keys of the ops to which a table gives 0 ms, which cannot be. Imported tables may have
    some, and those that were fitted before rows were held above 0 (`calibration.held`).
    """
    return [key for key, row in table.rows.items() if row.get("latency_ms") == 0]


# ---- may this table be used? -------------------------------------------------------------------


def check_serves(table: CostTable, space: SearchSpace, accept: Iterable[str] = ()) -> list[str]:
    """What to warn of when the table is used for a space.

    Args:
        table: measured for this geometry.
        space: what will be searched, maybe restricted.
        accept: refusals to override, of `hwnas.settings.accept.WORDS`; those of gates change
            nothing here.

    Raises:
        TableError: another geometry, a resolution that was not measured, an unreliable table, or
            values that were not measured and are not accepted.
        MissingOpError: an op was not measured.
        ConfigError: `accept` holds an unknown word.
    """
    accepted = {select(word, WORDS, "refusal to accept") for word in accept}
    _refuse_counts(table)
    name = table.target["name"]
    if table.geometry != space.geometry:
        raise TableError(
            f"table {name} is for space {table.space} with geometry {table.geometry[:12]}, wanted: "
            f"{space.name} with {space.geometry[:12]}; profile this space, or, without images, set "
            "data.channels and data.classes"
        )
    strange = [size for size in space.resolutions if size not in table.resolutions]
    if strange:
        raise TableError(_unmeasured(table, strange))
    _check_ops(table, space)
    return _check_trust(table, accepted)


def _unmeasured(table: CostTable, sizes: list[int]) -> str:
    return (
        f"table {table.target['name']} was not measured at {_px(sizes)} px, only at "
        f"{_px(table.resolutions)} px; profile it there, or search the measured ones"
    )


def _px(sizes: Iterable[int]) -> str:
    return ", ".join(str(size) for size in sizes)


def _check_ops(table: CostTable, space: SearchSpace) -> None:
    wanted = coverage.distinct_ops(space)
    missing = [key for key in wanted if key not in table.rows]
    if missing:
        raise MissingOpError(
            f"table {table.target['name']} lacks {len(missing)} of {len(wanted)} ops of space "
            f"{space.name}, such as {missing[0]}; nearest: {nearest(table, missing[0], 1)[0]}; "
            "profile the space again"
        )


def _check_trust(table: CostTable, accepted: set[str]) -> list[str]:
    name, reason = table.target["name"], table.validation["reason"]
    warnings = []
    free = costless(table)
    if free:
        warnings.append(
            f"table {name} has {len(free)} of {len(table.rows)} ops at 0 ms, such as {free[0]}: "
            "whole networks may be right, these rows are not; fit its measurements again "
            "(`hwnas table fit`) or profile again"
        )
    if "imported" in table.marks:
        known = "nothing says" if table.verdict == UNVALIDATED else "held-out rows of its file say"
        told = "fitted to imported latencies too" if len(table.marks) > 1 else "imported"
        others = [one["target"] for one in table.protocol.get("like", ())]
        told += f" and fitted from tables of {', '.join(others)}" if others else ""
        warnings.append(f"table {name} was {told}: {known} how good it is")
    if table.verdict == "usable":
        warnings.append(f"table {name} is only usable: {reason}")
    doubts = {mark: f"its values are {mark}, not measured" for mark in table.marks}
    doubts["unreliable"] = reason
    for word in TABLES:
        if word != table.verdict and word not in table.marks:
            continue
        if word not in accepted:
            raise TableError(
                f"table {name} is {word}: {doubts[word]}; "
                f"profile again, or use it anyway with --accept {word}"
            )
        warnings.append(f"table {name} is {word} and was accepted: {doubts[word]}")
    return warnings


# ---- files -------------------------------------------------------------------------------------


def save(table: CostTable, path: Path) -> None:
    """Write a table as canonical JSON that carries its own hash."""
    write_json(path, {**_content(table), "sha256": table.sha256})


def load_table(path: Path) -> CostTable:
    """The table of a file.

    Raises:
        TableFormatError: missing, truncated, edited (its hash differs) or of another kind.
    """
    try:
        data = read_json(path, FORMAT)
    except FileFormatError as error:
        raise TableFormatError(f"table {error}") from None
    content = {key: value for key, value in data.items() if key != "sha256"}
    try:
        if data.get("sha256") != sha256_text(canonical_json(content)):
            raise TableFormatError(
                f"table {path} does not have the hash it carries: it was edited or damaged; "
                "restore the file or profile again"
            )
        return _from_content(content)
    except TableFormatError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, TableError) as error:
        raise TableFormatError(f"table {path} is not complete: {error!r}; profile again") from None


def _content(table: CostTable) -> dict[str, Any]:
    fields = {name: getattr(table, name) for name in table.__dataclass_fields__}
    if not table.energy:
        del fields["energy"]
    lists = {"resolutions": list(table.resolutions), "marks": list(table.marks)}
    return {"format": FORMAT, **fields, **lists}


def _from_content(content: Mapping[str, Any]) -> CostTable:
    """The table of a file's fields; errors are those that Python raises for a wrong field."""
    table_shape.check(content)
    fields = {name: content[name] for name in CostTable.__dataclass_fields__ if name in content}
    lists = {name: tuple(fields[name]) for name in ("resolutions", "marks")}
    return CostTable(**{**fields, **lists})
