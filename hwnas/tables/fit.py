"""Measurements to a table: choose the estimator by cross-validation, fit it, say how good it is.

Covering and calibration networks choose the estimator; held-out ones choose nothing. A search does
not load this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import coverage
from hwnas.measuring.kit import kit_recipe
from hwnas.measuring.kit_file import kit_hash
from hwnas.networks.space import SearchSpace
from hwnas.tables import estimators, validation
from hwnas.tables.difference import changed
from hwnas.tables.energy import with_energy
from hwnas.tables.estimators import Estimate, Estimator, Evidence
from hwnas.tables.observations import Observations, joined, observe
from hwnas.tables.table import CostTable
from profilers.errors import TableError
from profilers.schema import canonical_json, sha256_text

FOLDS, REPEATS = 8, 3  # of cross-validation
BEND_GAIN = 0.05  # share of the error that a bend must save: else a sum explains itself better


class Campaign(NamedTuple):
    """What was measured: content of `kit.json`, first line of the measurements, the other lines.

    Attributes:
        session: of the energy windows that count; empty: that of the meter that was used last.
    """

    kit: Mapping[str, Any]
    header: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    session: str = ""


def fit_table(
    space: SearchSpace,
    kit: Mapping[str, Any],
    header: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    seed: int,
    unstable: str = "",
) -> CostTable:
    """The table that one campaign gives; arguments and errors as those of `fit_campaigns`."""
    return fit_campaigns(space, [Campaign(kit, header, list(records))], seed, unstable)


def fit_campaigns(
    space: SearchSpace, campaigns: Sequence[Campaign], seed: int, unstable: str = ""
) -> CostTable:
    """The table that campaigns on one target give together.

    Args:
        space: that the kits were made for, or a restriction of it.
        campaigns: at least one; of the same or of other networks and resolutions.
        seed: of the splits and of the bootstrap.
        unstable: why a campaign never settled; then every round counts, and the table is marked
            unreliable for this reason. Empty: all did settle.

    Raises:
        UnstableMeasurementError: a network or an op has too few undisturbed rounds.
        TableError: measurements are of another kit, a kit of another space, or the campaigns of
            different targets or environments.
    """
    for campaign in campaigns:
        check_same(space, campaign)
    _check_together(campaigns)
    first, header = campaigns[0].kit, campaigns[0].header
    observations = joined([observe(c.kit, c.records, all_rounds=bool(unstable)) for c in campaigns])
    known = evidence(observations)
    choice = estimators.candidates(in_place=not observations.in_place_reason)
    scores = cross_validate(choice, known, seed)
    chosen = choose(choice, scores)
    found = estimators.estimate(chosen, known)
    error_ms, share = uncertainty(chosen, known, seed)
    checked = _validate(space, observations, found, seed)
    if unstable:
        checked |= {"verdict": "unreliable", "reason": f"measurements are unstable: {unstable}"}
    table = CostTable(
        space=first["space"],
        geometry=first["geometry"],
        resolutions=tuple(sorted({i["resolution"] for c in campaigns for i in c.kit["items"]})),
        target=dict(header["target"]),
        environment=dict(header["environment"]),
        protocol={
            **observations.protocol,
            "created": header.get("created"),
            "kits": [kit_recipe(c.kit) for c in campaigns],
        },
        kit=_one_hash([kit_hash(c.kit) for c in campaigns]),
        source=_one_hash([source(c.header, c.records) for c in campaigns]),
        marks=marks(header),
        rows=_rows(observations, found, np.where(found.held, known.size_ms, error_ms)),
        calibration={**_calibration(observations, chosen, found), "uncertainty": share},
        validation={**checked, **_contest(observations, known, choice, scores)},
    )
    if len(campaigns) > 1:
        return table  # energies are of one campaign: windows of several are not of one condition
    return with_energy(table, first, campaigns[0].records, seed, campaigns[0].session)


def _one_hash(hashes: Sequence[str]) -> str:
    """The hash itself; of several, that of their list."""
    return hashes[0] if len(hashes) == 1 else sha256_text(canonical_json(list(hashes)))


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

    If a network is left out, the times of its ops inside it stay: they come from other runs, and
    without them ops of few networks would look worse than they are.
    """
    splits = _splits(known.resolution, seed)
    return [
        float(np.abs(np.concatenate([gap for _, gap in _left_out(one, known, splits)])).mean())
        for one in choice
    ]


def choose(choice: Sequence[Estimator], scores: Sequence[float]) -> Estimator:
    """The estimator of the lowest score; a bent one only where it is clearly better."""
    costs = [
        score / (1 - BEND_GAIN) if one.bend else score
        for one, score in zip(choice, scores, strict=True)
    ]
    return choice[int(np.argmin(costs))]


def uncertainty(chosen: Estimator, known: Evidence, seed: int) -> tuple[np.ndarray, float]:
    """How uncertain an estimator's rows are, and its predictions of networks.

    Returns:
        (K,) standard error of each row, ms, by the delete-a-group jackknife over networks (Tukey
        1958; the views stay as they are); the share within which 68 % of the networks that were
        left out of a fit were predicted, their own noise included.
    """
    found = list(_left_out(chosen, known, _splits(known.resolution, seed)))
    rows = np.array([estimate.rows_ms for estimate, _ in found])
    error = np.sqrt((FOLDS - 1) * rows.var(axis=0))
    gaps = np.abs(np.concatenate([gap for _, gap in found]))
    return error, float(np.percentile(gaps, 68))


def _left_out(
    estimator: Estimator, known: Evidence, splits: Sequence[np.ndarray]
) -> Iterator[tuple[Estimate, np.ndarray]]:
    """For each set of networks, the estimate without them, and by which signed share it predicts
    them too slow.
    """
    everything = np.arange(len(known.latency_ms))
    for test in splits:
        found = estimators.estimate(estimator, known.only(np.setdiff1d(everything, test)))
        unseen = known.only(test)
        yield found, found.predict(unseen.n_ops, unseen.resolution) / unseen.latency_ms - 1


def _splits(resolution: np.ndarray, seed: int) -> list[np.ndarray]:
    """Test sets of repeated folds; every resolution is dealt evenly to the folds."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(REPEATS):
        shuffled = rng.permutation(len(resolution))
        dealt = shuffled[np.argsort(resolution[shuffled], kind="stable")]
        out += [np.sort(dealt[fold::FOLDS]) for fold in range(FOLDS)]
    return out


def check_same(space: SearchSpace, campaign: Campaign) -> None:
    """Refuse a campaign of another space than this one, or of another kit than it names.

    Raises:
        TableError: it is.
    """
    kit, wanted = campaign.kit, kit_hash(campaign.kit)
    if kit["geometry"] != space.geometry:
        raise TableError(
            f"the kit is for space {kit['space']} of another geometry than {space.name}; "
            "make the kit again and measure it"
        )
    if campaign.header.get("kit") != wanted:
        raise TableError(
            f"the measurements are of kit {str(campaign.header.get('kit'))[:12]}, wanted: "
            f"{wanted[:12]}; measure this kit"
        )


def _check_together(campaigns: Sequence[Campaign]) -> None:
    """Numbers of different targets or environments are never mixed."""
    first = campaigns[0].header
    for other in (campaign.header for campaign in campaigns[1:]):
        names = [header["target"]["name"] for header in (first, other)]
        if names[0] != names[1]:
            raise TableError(
                f"measurements of {names[0]} and of {names[1]} cannot be one table; fit each alone"
            )
        then, now = first["environment"], other["environment"]
        if then.get("fingerprint") != now.get("fingerprint"):
            facts = ", ".join(f"{n}: {a} and {b}" for n, a, b in changed(then, now)[:3])
            raise TableError(
                f"measurements of {names[0]} were taken in different environments ({facts}); fit "
                "each alone, or measure again"
            )


def source(header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> str:
    """Hash of the measurements; that of their file, if every line of it could be read."""
    return sha256_text("".join(canonical_json(line) + "\n" for line in [header, *lines]))


def marks(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Modelled times and those of an emulated processor are not measured ones."""
    return ("emulated",) if header["environment"].get("emulated") else ("measured",)


def _rows(
    observations: Observations, found: Estimate, error_ms: np.ndarray
) -> dict[str, dict[str, Any]]:
    seen = (observations.fitted.counts > 0).sum(axis=0)
    columns = zip(
        observations.keys,
        found.rows_ms,
        observations.alone_spread_ms,
        error_ms,
        seen,
        strict=True,
    )
    return {
        key: {
            "latency_ms": float(ms),
            "spread_ms": float(spread),
            "uncertainty_ms": float(error),
            "seen": int(n),
        }
        for key, ms, spread, error, n in columns
    }


def weighed(chosen: Estimator, found: Estimate) -> dict[str, Any]:
    """What a table's calibration says of its estimator."""
    return {
        "estimator": chosen.name,
        "freedom": chosen.freedom,
        "bend": found.bend.share,
        "reference_ms": found.bend.reference_ms,
        "weights": found.weights,
        "held": int(found.held.sum()),
    }


def _calibration(observations: Observations, chosen: Estimator, found: Estimate) -> dict[str, Any]:
    share = observations.unattributed
    return {
        **weighed(chosen, found),
        "intercept_ms": {str(size): ms for size, ms in sorted(found.intercept_ms.items())},
        "networks": len(observations.fitted.names),
        "in_place_unused": observations.in_place_reason,
        "unattributed": None if np.isnan(share) else share,
    }


def _validate(
    space: SearchSpace, observations: Observations, found: Estimate, seed: int
) -> dict[str, Any]:
    heldout = observations.heldout
    macs = estimators.fixed_views(observations.keys)["macs"]
    measured = validation.Heldout(
        heldout.ids,
        found.predict(heldout.counts, heldout.resolution),
        heldout.latency_ms,
        observations.again_ms,
        heldout.counts @ macs,
    )
    missing = [key for key in coverage.distinct_ops(space) if key not in observations.keys]
    return validation.validate(measured, missing, seed)


def _contest(
    observations: Observations, known: Evidence, choice: list[Estimator], scores: list[float]
) -> dict[str, Any]:
    """Scores of all estimators, and the held-out errors of all, of MACs and of plain sums.

    The scores chose; the errors let a reader judge the choice.
    """
    heldout, fitted = observations.heldout, observations.fitted
    plain = heldout.counts @ observations.alone_ms
    factor = float(np.median(fitted.latency_ms / (fitted.counts @ observations.alone_ms)))

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
                "bend": estimator.bend,
                "cross_validation": score,
                "error": fitted_error(estimator),
            }
            for estimator, score in zip(choice, scores, strict=True)
        ],
        "baselines": {
            "macs": fitted_error(estimators.BASELINE),
            "plain sum of ops alone": error(plain),
            "plain sum times one factor": error(factor * plain),
        },
    }
