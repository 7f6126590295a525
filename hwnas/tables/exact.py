"""Tables of exact counts: MACs, parameters, weight bytes and activation memory of a space's ops.

The same file as a table of latencies, so that whoever reads one reads the other; nothing was
measured and nothing can be wrong but the space. A search needs no such table: it has the counts as
objectives by itself. Rules: profilers/counts.py; over a network the first three are summed, of
activation memory the largest counts.
"""

from __future__ import annotations

from hwnas.measuring import coverage
from hwnas.networks.counts import MAXIMA, SUMS
from hwnas.networks.space import SearchSpace
from hwnas.tables.table import CostTable
from hwnas.tables.validation import EXACT
from profilers.schema import parse_key

RULES = {**SUMS, **MAXIMA}
UNKNOWN = ("noise", "error", "ratio", "worst", "within_5", "within_10", "kendall_tau")


def count_table(space: SearchSpace) -> CostTable:
    """The exact counts of every op of a space, fp32, one image."""
    specs = {key: parse_key(key) for key in coverage.distinct_ops(space)}
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
            key: {name: rule(spec) for name, rule in RULES.items()} for key, spec in specs.items()
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
