"""Every metric of networks on a target: exact counts, those of its table, a predictor's error."""

from __future__ import annotations

from collections.abc import Collection

from hwnas.networks.counts import share_of_fp32
from hwnas.networks.space import SearchSpace
from hwnas.pricing.terms import Terms, op_terms
from hwnas.search.problem import Metric, metrics_of
from hwnas.tables import energy
from hwnas.tables.table import CostTable


def priced(
    space: SearchSpace, costs: CostTable, error: Metric | None = None, accept: Collection[str] = ()
) -> dict[str, Metric]:
    """Every metric of a space's networks by name; bytes in the precision of the table's target,
    energy where the table may be used for it.

    Args:
        space: whose networks.
        costs: a table that serves it.
        error: what prices the error; None: it is not known.
        accept: refusals of the table's energies to override.
    """
    found = metrics_of(space, lambda op: costs.row(op.key), costs.intercept, error, costs.link)
    for name in ("weight_bytes", "peak_activation_bytes"):
        counted, share = found[name], share_of_fp32(name, costs.target["precision"])
        if isinstance(counted, Terms) and share != 1:
            found[name] = counted.times(share)
    if not energy.refusal(costs, accept):
        row_mj, network_mj = energy.prices(costs)
        found["energy_mj"] = op_terms(space, lambda op: row_mj(op.key), network_mj)
    return found
