"""Known tables as views of a fit: what ops cost on other targets, or at another time.

A device that is like a known one needs few networks: the weight of the known rows says how much
faster or slower it is, and deviations say where. Knows neither how tables are made nor how rows are
estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwnas.networks.ops import Op
from hwnas.networks.space import SearchSpace
from hwnas.settings.accept import TABLES
from hwnas.tables.table import CostTable, check_serves
from profilers.errors import ConfigError
from profilers.schema import Target


def check(like: Sequence[CostTable], space: SearchSpace, target: Target, fitted: int) -> None:
    """Refuse known tables that say nothing of a space's ops, or more of them than networks bear.
    Their own verdicts do not matter: held-out networks judge what comes of them.

    Args:
        like: known tables.
        space: restricted to the resolutions of the networks.
        target: that the networks were measured on.
        fitted: how many networks are fitted.

    Raises:
        ConfigError: a table of another batch or twice the same, or too few networks.
        TableError, MissingOpError: a table of another geometry, or without a resolution or an op.
    """
    for table in like:
        check_serves(table, space, TABLES)
        if table.target["batch"] != target.batch:
            raise ConfigError(
                f"table {table.target['name']} is for batches of {table.target['batch']}, the "
                f"networks were measured with {target.batch}; name tables of that batch"
            )
    if len({table.sha256 for table in like}) < len(like):
        raise ConfigError("a known table is named twice; name each once")
    if fitted < len(like) + 1:
        raise ConfigError(
            f"{len(like)} known tables and a fixed cost are {len(like) + 1} unknowns, {fitted} "
            "networks are fitted; name fewer tables, or measure more networks"
        )


def views(like: Sequence[CostTable], ops: Sequence[Op]) -> dict[str, np.ndarray]:
    """(K,) rows of each table, ms, by its target and hash."""
    return {
        f"{table.target['name']} {table.sha256[:12]}": np.array([table.row(op.key) for op in ops])
        for table in like
    }


def described(like: Sequence[CostTable]) -> dict[str, Any]:
    """What a table's `protocol` says of the known tables that it was fitted from."""
    told = [{"target": one.target["name"], "sha256": one.sha256} for one in like]
    return {"like": told} if told else {}
