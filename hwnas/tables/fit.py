"""Measurements to a table: choose the estimator by cross-validation, fit it, say how good it is.

Held-out networks choose nothing; covering and calibration networks do. Not in the path of search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hwnas.measuring import coverage
from hwnas.space import SearchSpace
from hwnas.tables import estimators, validation
from hwnas.tables.estimators import Estimate, Estimator, Evidence
from hwnas.tables.observations import Observations, observe
from hwnas.tables.table import CostTable
from profilers.errors import TableError
from profilers.schema import canonical_json, sha256_text

FOLDS, REPEATS = 8, 3  # of cross-validation


def fit_table(
    space: SearchSpace,
    kit: Mapping[str, Any],
    header: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    seed: int,
    unstable: str = "",
) -> CostTable:
    """The table that one campaign gives.

    Args:
        space: that the kit was made for, or a restriction of it.
        kit: content of `kit.json`.
        header: first line of the measurements file.
        records: the other lines that could be read.
        seed: of the splits and of the bootstrap.
        unstable: why the campaign never settled; then every round counts, and the table is marked
            unreliable for this reason. Empty: it did settle.

    Raises:
        UnstableMeasurementError: a network or an op has too few undisturbed rounds.
        TableError: the measurements are of another kit, or the kit of another space.
    """
    kit_hash = sha256_text(canonical_json(kit))
    _check_same(space, kit, header, kit_hash)
    lines = list(records)
    observations = observe(kit, lines, all_rounds=bool(unstable))
    known = evidence(observations)
    choice = estimators.candidates(in_place=not observations.in_place_reason)
    scores = cross_validate(choice, known, seed)
    chosen = choice[int(np.argmin(scores))]
    found = estimators.estimate(chosen, known)
    checked = _validate(space, observations, found, seed)
    if unstable:
        checked |= {"verdict": "unreliable", "reason": f"measurements are unstable: {unstable}"}
    return CostTable(
        space=kit["space"],
        geometry=kit["geometry"],
        resolutions=tuple(sorted({item["resolution"] for item in kit["items"]})),
        target=dict(header["target"]),
        environment=dict(header["environment"]),
        protocol={**observations.protocol, "created": header.get("created")},
        kit=kit_hash,
        source=_source(header, lines),
        marks=marks(header),
        rows=_rows(observations, found),
        calibration=_calibration(observations, chosen, found),
        validation={**checked, **_contest(observations, known, choice, scores)},
    )
    return with_energy(table, campaigns[0].kit, campaigns[0].records, seed)


def evidence(observations: Observations) -> Evidence:
    """What costs are estimated from: covering and calibration networks, and views of every op."""
    fitted = observations.fitted
    views = {
        **estimators.fixed_views(observations.keys),
        "alone": observations.alone_ms,
        "in_place": estimators.pooled_in_place(observations.in_place_ms, observations.alone_ms),
    }
    return estimators.gather(views, fitted.counts, fitted.resolution, fitted.latency_ms)


def cross_validate(choice: Iterable[Estimator], known: Evidence, seed: int) -> list[float]:
    """Mean relative error of each estimator on networks it did not see, over repeated splits.

    The times that ops took inside a network stay when the network is left out: they are of runs of
    their own, and without them the ops of few networks would look worse than they are.
    """
    everything = np.arange(len(known.latency_ms))
    splits = [(np.setdiff1d(everything, test), test) for test in _splits(known.resolution, seed)]
    scores = []
    for estimator in choice:
        errors = []
        for train, test in splits:
            found, unseen = estimators.estimate(estimator, known.only(train)), known.only(test)
            gap = found.predict(unseen.n_ops, unseen.resolution) - unseen.latency_ms
            errors.append(np.abs(gap) / unseen.latency_ms)
        scores.append(float(np.concatenate(errors).mean()))
    return scores


def _splits(resolution: np.ndarray, seed: int) -> list[np.ndarray]:
    """Test sets of repeated folds; every resolution is dealt evenly to the folds."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(REPEATS):
        shuffled = rng.permutation(len(resolution))
        dealt = shuffled[np.argsort(resolution[shuffled], kind="stable")]
        out += [np.sort(dealt[fold::FOLDS]) for fold in range(FOLDS)]
    return out


def _check_same(
    space: SearchSpace, kit: Mapping[str, Any], header: Mapping[str, Any], kit_hash: str
) -> None:
    if kit["geometry"] != space.geometry:
        raise TableError(
            f"the kit is for space {kit['space']} of another geometry than {space.name}; "
            "make the kit again and measure it"
        )
    if header.get("kit") != kit_hash:
        raise TableError(
            f"the measurements are of kit {str(header.get('kit'))[:12]}, wanted: {kit_hash[:12]}; "
            "measure this kit"
        )


def _source(header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> str:
    """Hash of the measurements; that of their file, if every line of it could be read."""
    return sha256_text("".join(canonical_json(line) + "\n" for line in [header, *lines]))


def marks(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Modelled times (runtime `fake`) and those of an emulated processor are not measured ones."""
    emulated = header["environment"].get("emulated") or header["target"]["runtime"] == "fake"
    return ("emulated",) if emulated else ("measured",)


def _rows(observations: Observations, found: Estimate) -> dict[str, dict[str, Any]]:
    seen = (observations.fitted.counts > 0).sum(axis=0)
    columns = zip(observations.keys, found.rows_ms, observations.alone_spread_ms, seen, strict=True)
    return {
        key: {"latency_ms": float(ms), "spread_ms": float(spread), "seen": int(n)}
        for key, ms, spread, n in columns
    }


def _calibration(observations: Observations, chosen: Estimator, found: Estimate) -> dict[str, Any]:
    share = observations.unattributed
    return {
        "estimator": chosen.name,
        "freedom": chosen.freedom,
        "weights": found.weights,
        "intercept_ms": {str(size): ms for size, ms in sorted(found.intercept_ms.items())},
        "networks": len(observations.fitted.names),
        "in_place_unused": observations.in_place_reason,
        "unattributed": None if np.isnan(share) else share,
    }


def _validate(
    space: SearchSpace, observations: Observations, found: Estimate, seed: int
) -> dict[str, Any]:
    heldout = observations.heldout
    predicted = found.predict(heldout.counts, heldout.resolution)
    missing = [key for key in coverage.distinct_ops(space) if key not in observations.keys]
    return validation.validate(
        heldout.ids, predicted, heldout.latency_ms, observations.again_ms, missing, seed
    )


def _contest(
    observations: Observations, known: Evidence, choice: list[Estimator], scores: list[float]
) -> dict[str, Any]:
    """Scores of all estimators, and the held-out errors of all, of MACs and of the plain sum.

    The lowest score chose; the errors are told so that the choice can be judged.
    """
    heldout = observations.heldout

    def error(predicted: np.ndarray) -> float:
        measured = heldout.latency_ms, observations.again_ms
        return float(validation.relative_error(predicted, *measured).mean())

    def fitted_error(estimator: Estimator) -> float:
        found = estimators.estimate(estimator, known)
        return error(found.predict(heldout.counts, heldout.resolution))

    return {
        "estimators": [
            {
                "name": estimator.name,
                "freedom": estimator.freedom,
                "cross_validation": score,
                "error": fitted_error(estimator),
            }
            for estimator, score in zip(choice, scores, strict=True)
        ],
        "baselines": {
            "macs": fitted_error(estimators.BASELINE),
            "plain sum of ops alone": error(heldout.counts @ observations.alone_ms),
        },
    }
