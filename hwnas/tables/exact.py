"""Tables of exact counts: MACs, parameters, weight bytes and activation memory of a space's ops.

The file has the form of a latency table, so that one reader reads both. Nothing was measured, so
only the space can be wrong. A search needs no such table: it counts by itself. Rules:
hwnas/networks/primitives.py; over a network the first three are summed; of activation memory the
largest value counts.
"""

from __future__ import annotations

from hwnas.networks.counts import MAXIMA, SUMS
from hwnas.networks.slots import distinct_ops
from hwnas.networks.space import SearchSpace
from hwnas.tables.table import CostTable
from hwnas.tables.validation import EXACT

COUNTS = (*SUMS, *MAXIMA)
UNKNOWN = ("noise", "error", "ratio", "worst", "within_5", "within_10", "kendall_tau")


def count_table(space: SearchSpace) -> CostTable:
    """The exact counts of every op of a space, fp32, one image."""
    return CostTable(
        space=space.name,
        geometry=space.geometry,
        resolutions=tuple(space.resolutions),
        target={"name": "counts", "precision": "fp32", "batch": 1},
        environment={},
        protocol={"statistic": "exact fold over the ops of a network", "created": None},
        kit="",
        source="",
        marks=(EXACT,),
        rows={
            key: {name: getattr(placed.op, name) for name in COUNTS}
            for key, placed in distinct_ops(space).items()
        },
        calibration={"estimator": "none", "intercept_ms": {}},
        validation={
            "n": 0,
            **dict.fromkeys(UNKNOWN),
            "missing": [],
            "points": [],
            "verdict": EXACT,
            "reason": "counts are exact; they hold no latency",
        },
    )
