"""Tables of numbers that others measured: how they are made, and refusing what cannot be right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hwnas.networks.counts import exact_costs
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.tables.energy_section import CHECKED, IMPORTED, RESTS_ON
from hwnas.tables.table import CostTable, network_latency
from hwnas.tables.validation import STATISTICS, UNVALIDATED
from profilers.errors import FileFormatError
from profilers.schema import Target, canonical_json, sha256_file, sha256_text

# MACs a ms, batch and threads included: from a microcontroller (0.05 GMAC/s) to more than the
# fastest accelerators reach at any batch (1 PMAC/s).
SLOWEST, FASTEST = 5e4, 1e12
LEAST_W, MOST_W = 1e-4, 1e4  # power: energy over latency
REASON = "it was imported without whole networks, so nothing says how good it is"

Rows = dict[str, dict[str, Any]]


class Costs(NamedTuple):
    """A table made of imported numbers: its rows, and their description.

    Attributes:
        rows: by op key.
        calibration: `estimator`, `intercept_ms` and so on (docs/formats.md, "Table").
        protocol: besides the files, at least `statistic`.
    """

    rows: Rows
    calibration: dict[str, Any]
    protocol: dict[str, Any]


def imported_table(
    space: SearchSpace, target: Target, costs: Costs, files: Mapping[str, str]
) -> CostTable:
    """A table marked `imported` that nothing validates.

    Args:
        space: restricted to the resolutions of the table.
        target: what was measured on.
        costs: the table's.
        files: sha256 of each file that was read, by name.
    """
    return CostTable(
        space=space.name,
        geometry=space.geometry,
        resolutions=space.resolutions,
        target=target.to_json(),
        environment={},
        protocol={"created": None, "files": dict(files), **costs.protocol},
        kit="",
        source=sha256_text(canonical_json(list(files.values()))),
        marks=(IMPORTED,),
        rows=costs.rows,
        calibration=costs.calibration,
        validation=no_validation(),
    )


def hashes(*paths: Path) -> dict[str, str]:
    """sha256 of files, by name."""
    return {path.name: sha256_file(path) for path in paths}


def no_validation() -> dict[str, Any]:
    """The `validation` of a table without held-out networks."""
    return {
        "n": 0,
        **dict.fromkeys(STATISTICS),
        "missing": [],
        "points": [],
        "verdict": UNVALIDATED,
        "reason": REASON,
    }


def imported_energy(
    intercept_mj: Mapping[str, float], estimator: str, reason: str, **more: Any
) -> dict[str, Any]:
    """The `energy` of a table whose rows have energies that others measured.

    Args:
        intercept_mj: of a network beside its ops, by resolution.
        estimator: what the energies are made of.
        reason: of the verdict `unvalidated`.
        more: further fields.
    """
    checked: dict[str, Any] = dict.fromkeys(CHECKED) | {"n": 0, "noise": None, "error": None}
    checked |= {"points": [], "verdict": UNVALIDATED, "reason": reason}
    about = {**dict.fromkeys(RESTS_ON), "marks": [IMPORTED], "estimator": estimator, "reason": ""}
    return {**about, "intercept_mj": dict(intercept_mj), "validation": checked, **more}


def check_rate(where: str, arch: Architecture, ms: float, batch: int) -> None:
    """Refuse a latency that no device has.

    Args:
        where: of the number, in words.
        arch: that was measured.
        ms: of one inference of `batch` inputs.
        batch: inputs.

    Raises:
        FileFormatError: it is too short or too long for the network's MACs.
    """
    rate = batch * exact_costs(arch)["macs"] / ms if ms else float("inf")
    if not SLOWEST <= rate <= FASTEST:
        raise FileFormatError(
            f"{where}: {ms:.4g} ms for {exact_costs(arch)['macs'] / 1e6:.4g} M MACs would be "
            f"{rate / 1e6:.4g} GMAC/s; devices do {SLOWEST / 1e6:g} to {FASTEST / 1e6:g}: are "
            "these times ms?"
        )


def check_plausible(where: str, table: CostTable, largest: Architecture) -> None:
    """Refuse rows that no device has, alone or together.

    Args:
        where: they come from, in words.
        table: made of them.
        largest: network of a resolution of it.

    Raises:
        FileFormatError: the largest network is too fast or too slow, or one op slower than it.
    """
    total_ms = network_latency(table, largest)
    check_rate(f"{where}: the max network", largest, total_ms, int(table.target["batch"]))
    slow = [key for key, row in table.rows.items() if row["latency_ms"] > total_ms]
    if slow:
        raise FileFormatError(
            f"{where}: {slow[0]} takes {table.rows[slow[0]]['latency_ms']:.4g} ms alone, the whole "
            f"max network {total_ms:.4g} ms; the file is damaged"
        )


def check_power(where: str, mj: float, ms: float) -> None:
    """Refuse an energy that no device takes in that time.

    Raises:
        FileFormatError: the power would be too small or too large.
    """
    if not LEAST_W <= mj / ms <= MOST_W:
        raise FileFormatError(
            f"{where}: {mj:.4g} mJ in {ms:.4g} ms would be {mj / ms:.4g} W; devices draw "
            f"{LEAST_W:g} to {MOST_W:g}: are these energies mJ?"
        )
