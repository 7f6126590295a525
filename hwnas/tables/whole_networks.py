"""A table from latencies of whole networks that others measured: nobody timed an op alone.

A row is a sum of non-negative terms for what is known of an op without measuring it (MACs, bytes,
how many kernels of each kind it runs, squeeze-excite apart), plus a deviation of its own. Rows
of known tables of other targets may be more of these terms (`hwnas.tables.like`). Every network
also has one fixed cost, whatever its resolution. Estimators, cross-validation and validation are
those of measured tables (`hwnas.tables.estimators`); held-out networks choose nothing. Energies are
fitted as those of windows are (`hwnas.tables.energy`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hwnas.networks.ops import Op
from hwnas.networks.primitives import Primitive
from hwnas.networks.slots import distinct_ops
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.tables import energy, estimators, fit, like, validation
from hwnas.tables.estimators import Estimate, Estimator, Evidence
from hwnas.tables.imported import Costs, Rows, imported_energy, imported_table
from hwnas.tables.table import CostTable
from profilers.errors import ConfigError
from profilers.schema import Target

HELDOUT_SHARE, FEWEST_HELDOUT = 0.2, 5
KINDS = ("conv", "depthwise", "pointwise", "linear", "pool", "elementwise", "other", "squeeze")
WORK = ("macs", "depthwise_macs", "bytes", "weights")
_FEW = ("MACs + bytes + kernels", ("macs", "bytes", "kernels", "squeeze"))
_BY_KIND = ("MACs + bytes + kernels by kind", ("macs", "bytes", *KINDS))
_ALL = ("work + kernels by kind", (*WORK, *KINDS))
CANDIDATES = tuple(
    Estimator(name, views, freedom)
    for name, views in (_FEW, _BY_KIND, _ALL)
    for freedom in (0.0, 1.0, 10.0)
)
LIKE_FREEDOM = 100.0  # of rows from those of known tables
SIZE = Estimator("usual size of a row", ("macs", "bytes", "kernels"))
FEWEST = 20  # networks that are fitted: fewer leave coefficients to chance ...
FEWEST_LIKE = 10  # ... but where known tables say what ops cost: off by as much as 20 alone


class Timed(NamedTuple):
    """A network and what was measured of it, each time: ms, and mJ where anybody knows."""

    arch: Architecture
    ms: tuple[float, ...]
    mj: tuple[float, ...] = ()


class Sources(NamedTuple):
    """What a table is made from besides the networks.

    Attributes:
        files: sha256 of each file that the networks are of, by name.
        like: known tables of the space, of other targets or of another time.
    """

    files: Mapping[str, str]
    like: Sequence[CostTable] = ()


def fit_networks(
    space: SearchSpace,
    target: Target,
    networks: Sequence[Timed],
    sources: Sources,
    seed: int = 0,
) -> CostTable:
    """The table, marked `imported`, that whole networks give.

    Args:
        space: whose networks they are; the table has the resolutions that were measured.
        target: what they were measured on.
        networks: each once.
        sources: files and known tables.
        seed: of the split, cross-validation and bootstrap.

    Raises:
        ConfigError: too few networks, or a known table of another batch.
        TableError, MissingOpError: a known table does not fit the space.
    """
    fitted, heldout = split(networks, seed, FEWEST_LIKE if sources.like else FEWEST)
    space = space.restricted({one.arch.resolution for one in networks})
    like.check(sources.like, space, target, len(fitted))
    ops = [placed.op for placed in distinct_ops(space).values()]
    rows = like.views(sources.like, ops)
    views, counts = {**kernel_views(ops), **rows}, counts_of(ops, fitted)
    known = evidence(views, counts, means(fitted), tuple(rows))
    protocol = protocol_of(networks) | like.described(sources.like)
    table = table_of(
        imported_table(space, target, Costs({}, {}, protocol), sources.files),
        Known(ops, known, Held.of(ops, heldout), candidates(tuple(rows))),
        seed,
    )
    return _with_energy(table, fitted, heldout)


def split(
    networks: Sequence[Timed], seed: int, fewest: int = FEWEST, fitted: Collection[str] = ()
) -> tuple[list[Timed], list[Timed]]:
    """The networks to fit and those to hold out. If enough networks were measured more than once,
    the held-out ones are of these: they show how far repeated measurements differ.

    Args:
        networks: each once.
        seed: of the choice.
        fewest: networks that must be left to fit.
        fitted: ids of networks that are not held out.

    Raises:
        ConfigError: too few networks.
    """
    n = max(FEWEST_HELDOUT, round(HELDOUT_SHARE * len(networks)))
    if len(networks) < fewest + n:
        raise ConfigError(
            f"{len(networks)} different networks, {fewest + FEWEST_HELDOUT} at least are needed "
            f"({fewest} to fit, the others to say how good that is); measure more of them"
        )
    free = [i for i, one in enumerate(networks) if one.arch.id not in fitted]
    several = [i for i in free if len(networks[i].ms) > 1]
    pool = several if len(several) >= n else free
    drawn = set(np.random.default_rng(seed).permutation(np.array(pool, int))[:n].tolist())
    return (
        [one for i, one in enumerate(networks) if i not in drawn],
        [one for i, one in enumerate(networks) if i in drawn],
    )


def candidates(rows: tuple[str, ...]) -> Sequence[Estimator]:
    """The estimators to choose from.

    Args:
        rows: views that are rows of known tables; empty: there are none.
    """
    if not rows:
        return CANDIDATES
    return [
        Estimator(" + ".join(("known tables", *name)), (*rows, *views), LIKE_FREEDOM)
        for *name, views in (((),), _FEW, _ALL)
    ]


# ---- what is known of an op ---------------------------------------------------------------------


def kernel_views(ops: Sequence[Op]) -> dict[str, np.ndarray]:
    """(K,) arrays by name: MACs, bytes and how many kernels of each of KINDS an op runs, as they
    are exported.
    """
    columns: dict[str, list[float]] = {name: [] for name in (*WORK, "kernels", *KINDS)}
    for op in ops:
        kinds = [kind_of(op, p) for p in op.exported]
        seen = Counter(kinds)
        numbers = sum(math.prod(s) for p in op.exported for s in (*p.shapes, p.shape))
        deep = sum(
            p.macs for p, kind in zip(op.exported, kinds, strict=True) if kind == "depthwise"
        )
        given = {"macs": op.macs, "depthwise_macs": deep, "weights": op.weight_bytes}
        given |= {"bytes": 4 * numbers + op.weight_bytes, "kernels": len(kinds) - seen["squeeze"]}
        for name, column in columns.items():
            column.append(float(given.get(name, seen[name])))
    return {name: np.array(column) for name, column in columns.items()}


def kind_of(op: Op, p: Primitive) -> str:
    """What kind of kernel a primitive of an op is, of KINDS."""
    pooled = [math.prod(shape[1:]) == 1 for shape in (*p.shapes, p.shape)]
    if math.prod(op.shape[1:]) > 1 and any(pooled):
        return "squeeze"
    if p.kind == "conv":
        if p.args["groups"] > 1:
            return "depthwise"
        return "pointwise" if math.prod(p.args["kernel"]) == 1 else "conv"
    if p.kind in ("linear", "product", "matmul", "attention"):
        return "linear"
    if p.kind in ("mean", "max_pool", "avg_pool"):
        return "pool"
    return "elementwise" if math.prod(p.shape) == math.prod(p.shapes[0]) else "other"


def counts_of(ops: Sequence[Op], networks: Sequence[Timed]) -> np.ndarray:
    """(N, K) how often each op occurs in each network."""
    column = {op.key: k for k, op in enumerate(ops)}
    out = np.zeros((len(networks), len(ops)))
    for n, one in enumerate(networks):
        for placed in one.arch.ops:
            out[n, column[placed.op.key]] += 1
    return out


def means(networks: Sequence[Timed]) -> np.ndarray:
    """(N,) ms, of all measurements of each network."""
    return np.array([np.mean(one.ms) for one in networks])


def evidence(
    views: Mapping[str, np.ndarray],
    counts: np.ndarray,
    ms: np.ndarray,
    rows: tuple[str, ...] = (),
) -> Evidence:
    """What rows are estimated from. The usual size of a row is what a plain fit gives; a cost of
    the network is the same at every resolution, as a launch is.

    Args:
        views: (K,) arrays by name.
        counts: (N, K) how often each op occurs in each network.
        ms: (N,) of the networks.
        rows: views that are rows of known tables.
    """
    anywhere = np.zeros(len(ms), dtype=int)
    first = estimators.gather({**views, "alone": np.ones(counts.shape[1])}, counts, anywhere, ms)
    size = replace(SIZE, views=(*SIZE.views, *rows))
    size_ms = np.maximum(estimators.estimate(size, first).rows_ms, 1e-9)
    return estimators.gather({**views, "alone": size_ms}, counts, anywhere, ms)


# ---- what comes of it ---------------------------------------------------------------------------


class Held(NamedTuple):
    """Networks that choose nothing.

    Attributes:
        ids: (H,) of the architectures.
        counts: (H, K) how often each op occurs.
        macs: (H,) multiply-accumulates.
        a, b: (H,) ms of two halves of the measurements; the mean of all, twice, if not repeated.
        repeated: whether every network was measured more than once.
        group: (H,) whose intercept a network has; None: all have the same.
        scale: (H,) of its measurements over the table's, or 1.
    """

    ids: tuple[str, ...]
    counts: np.ndarray
    macs: np.ndarray
    a: np.ndarray
    b: np.ndarray
    repeated: bool
    group: np.ndarray | None = None
    scale: np.ndarray | float = 1.0

    @staticmethod
    def of(ops: Sequence[Op], networks: Sequence[Timed]) -> Held:
        """Networks of one file."""
        counts, a = counts_of(ops, networks), means(networks)
        repeated, b = all(len(one.ms) > 1 for one in networks), a
        if repeated:
            halves = [[np.mean(one.ms[start::2]) for one in networks] for start in (0, 1)]
            a, b = np.array(halves[0]), np.array(halves[1])
        macs = counts @ np.array([float(op.macs) for op in ops])
        return Held(tuple(one.arch.id for one in networks), counts, macs, a, b, repeated)

    def predict(self, found: Estimate) -> np.ndarray:
        """(H,) ms, as those who measured would have them."""
        group = np.zeros(len(self.ids), dtype=int) if self.group is None else self.group
        return np.asarray(self.scale * found.predict(self.counts, group))

    def error(self, found: Estimate) -> float:
        """Mean distance of predictions from the measurements, a share."""
        return float(validation.relative_error(self.predict(found), self.a, self.b).mean())

    def validate(self, found: Estimate, seed: int) -> dict[str, Any]:
        """The `validation` of a table; two sessions are the halves of a network's measurements."""
        given = (self.ids, self.predict(found), self.a, self.b, self.macs, self.repeated)
        return validation.validate(validation.Heldout(*given), [], seed)


class Known(NamedTuple):
    """All that a table is made of: ops, fitted networks, held-out ones, and ways to estimate."""

    ops: Sequence[Op]
    evidence: Evidence
    held: Held
    choice: Sequence[Estimator]


def table_of(empty: CostTable, known: Known, seed: int) -> CostTable:
    """The table with its rows, calibration and validation, by the estimator that cross-validation
    chooses.

    Args:
        empty: the table without them.
        known: group 0 of the networks gives the intercept.
        seed: of cross-validation and bootstrap.
    """
    scores = fit.cross_validate(known.choice, known.evidence, seed)
    chosen = fit.choose(known.choice, scores)
    found = estimators.estimate(chosen, known.evidence)
    error_ms, share = fit.uncertainty(chosen, known.evidence, seed)
    error_ms = np.where(found.held, known.evidence.size_ms, error_ms)
    return replace(
        empty,
        rows=_rows(known, found, error_ms),
        calibration={
            **fit.weighed(chosen, found),
            "intercept_ms": {str(px): found.intercept_ms[0] for px in empty.resolutions},
            "uncertainty": share,
            "networks": len(known.evidence.latency_ms),
        },
        validation={**known.held.validate(found, seed), **_contest(known, scores)},
    )


def _rows(known: Known, found: Estimate, error_ms: np.ndarray) -> Rows:
    seen = (known.evidence.n_ops > 0).sum(axis=0)
    columns = zip(known.ops, found.rows_ms, error_ms, seen, strict=True)
    return {
        op.key: {
            "latency_ms": float(ms),
            "spread_ms": None,
            "uncertainty_ms": float(error),
            "seen": int(n),
        }
        for op, ms, error, n in columns
    }


def protocol_of(networks: Sequence[Timed]) -> dict[str, Any]:
    """The `protocol` of a table, of its networks that were imported."""
    return {
        "statistic": "mean of what the imported files give of a network",
        "networks": len(networks),
        "repeated": sum(len(one.ms) > 1 for one in networks),
    }


def _contest(known: Known, scores: Sequence[float]) -> dict[str, Any]:
    """What chose, and held-out errors of all estimators and of MACs alone."""

    def error(estimator: Estimator) -> float:
        return known.held.error(estimators.estimate(estimator, known.evidence))

    return {
        "estimators": [
            {
                "name": one.name,
                "freedom": one.freedom,
                "bend": one.bend,
                "cross_validation": score,
                "error": error(one),
            }
            for one, score in zip(known.choice, scores, strict=True)
        ],
        "baselines": {"macs": error(estimators.BASELINE)},
    }


def _with_energy(table: CostTable, fitted: Sequence[Timed], heldout: Sequence[Timed]) -> CostTable:
    """The table with the energies that were measured beside the latencies, if there are enough."""
    known, unseen = (energy.metered(table, _metered(some)) for some in (fitted, heldout))
    if len(known.ids) < FEWEST or not unseen.ids:
        return table
    choice = energy.candidates()
    chosen = min(choice, key=lambda names: energy.leave_one_out(names, known))
    weights = energy.solve(chosen, known)
    off = float(np.abs(energy.predict(weights, unseen) / unseen.energy_mj - 1).mean())
    fields = energy.fitted_fields(table, chosen, weights)
    reason = f"imported; off by {off:.1%} for {len(unseen.ids)} networks that were left out"
    section = imported_energy(
        fields["intercept_mj"],
        fields["estimator"],
        reason,
        weights=weights,
        networks=len(known.ids),
    )
    return replace(table, rows=energy.with_rows(table, weights), energy=section)


def _metered(networks: Sequence[Timed]) -> list[energy.Network]:
    return [
        energy.Network(
            one.arch.id, one.arch.resolution, tuple(p.op.key for p in one.arch.ops), one.mj
        )
        for one in networks
        if one.mj
    ]
