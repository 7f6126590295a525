"""Imported latencies of whole networks, fitted together with our own campaign of the same target.

Both sets share the rows. Cross-validation decides whether the imported latencies get a factor of
their own (another unit, clock or power mode) or a fixed cost of their own (another way to measure):
only if that explains the fitted networks clearly better. The table predicts what we would measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring.kit import kit_recipe
from hwnas.measuring.kit_file import kit_hash
from hwnas.networks.ops import Op
from hwnas.networks.slots import distinct_ops
from hwnas.networks.space import SearchSpace
from hwnas.tables import estimators, fit, validation
from hwnas.tables.estimators import Estimator, Evidence
from hwnas.tables.fit import Campaign
from hwnas.tables.imported import Costs, imported_table
from hwnas.tables.observations import Observations, observe
from hwnas.tables.table import CostTable
from hwnas.tables.whole_networks import (
    CANDIDATES,
    FEWEST_HELDOUT,
    Held,
    Known,
    Timed,
    counts_of,
    evidence,
    kernel_views,
    means,
    protocol_of,
    split,
    table_of,
)
from profilers.errors import ConfigError
from profilers.schema import canonical_json, sha256_text, target_from_json

FEWEST = 5  # imported networks that are fitted: the campaign holds every op
GAIN, SLACK = 0.05, 0.001  # share of the error, beside some, that a factor or cost must save
NOTICED = 0.02  # share by which a factor is another than 1: statistics of a latency differ too
JUDGE = Estimator("work + kernels by kind", CANDIDATES[-1].views, freedom=1.0)


class Link(NamedTuple):
    """How imported latencies go with measured ones: imported = scale (fixed cost + sum of rows).

    Attributes:
        scale: 1: the same.
        apart: whether their fixed cost is their own.
    """

    scale: float = 1.0
    apart: bool = False

    @property
    def parameters(self) -> int:
        """How many numbers of its own it has."""
        return int(self.scale != 1) + int(self.apart)


class _Both(NamedTuple):
    """Fitted networks of both: views of ops, counts, ms as measured, which are imported."""

    views: Mapping[str, np.ndarray]
    counts: np.ndarray
    ms: np.ndarray
    theirs: np.ndarray

    def linked(self, link: Link) -> Evidence:
        """The evidence, with imported latencies brought to the measured ones by a link."""
        ms = self.ms / np.where(self.theirs, link.scale, 1.0)
        group = (self.theirs & link.apart).astype(int)
        if "alone" in self.views:
            return estimators.gather(self.views, self.counts, group, ms)
        return replace(evidence(self.views, self.counts, ms), resolution=group)


def fit_together(
    space: SearchSpace,
    networks: Sequence[Timed],
    campaign: Campaign,
    files: dict[str, str],
    seed: int = 0,
) -> CostTable:
    """The table, marked `measured` and `imported`, that both give together, without energies.

    Args:
        space: whose networks they are; the table has the resolutions of both.
        networks: imported, each once, of the campaign's target.
        campaign: ours.
        files: sha256 of each imported file, by name.
        seed: of the split, cross-validation and bootstrap.

    Raises:
        ConfigError: too few networks, or too few that the campaign did not measure.
        TableError: the campaign is of another space.
        UnstableMeasurementError: too few rounds of it were undisturbed.
    """
    fit.check_same(space, campaign)
    ours = observe(campaign.kit, campaign.records)
    fitted, heldout = _parts(networks, ours, seed)
    sizes = {item["resolution"] for item in campaign.kit["items"]}
    space = space.restricted(sizes | {one.arch.resolution for one in networks})
    ops = [placed.op for placed in distinct_ops(space).values()]
    views, choice = _views(ops, ours)
    counts = np.concatenate([_spread(ours, ops, ours.fitted.counts), counts_of(ops, fitted)])
    theirs = np.arange(len(counts)) >= len(ours.fitted.ids)
    both = _Both(views, counts, np.append(ours.fitted.latency_ms, means(fitted)), theirs)
    link = _link(both, seed)
    held = _held(ops, ours, heldout, link)
    known = Known(ops, both.linked(link), held, choice)
    table = table_of(_empty(space, campaign, networks, files), known, seed)
    return _judged(table, len(heldout), {"networks": int(theirs.sum()), **link._asdict()})


def words(table: CostTable) -> list[str]:
    """What to say of the imported part of a table of both."""
    told = table.calibration["imported"]
    measured, imported = (f"{told['errors'][name]:.2%}" for name in ("measured", "imported"))
    parts = [f"error on held-out networks: measured ones {measured}, imported ones {imported}"]
    if told["scale"] != 1:
        parts.append(
            f"imported latencies are {told['scale']:.4g} times the measured ones, and were fitted "
            "with this factor: are they of another unit, clock or power mode?"
        )
    if told["apart"]:
        parts.append("imported latencies have another fixed cost, and were fitted with their own")
    return parts


def _parts(
    networks: Sequence[Timed], ours: Observations, seed: int
) -> tuple[list[Timed], list[Timed]]:
    """Imported networks to fit and to hold out; none is in the campaign's other part.

    Raises:
        ConfigError: too few of one kind.
    """
    fitted, heldout = split(networks, seed, FEWEST, ours.fitted.ids)
    fitted = [one for one in fitted if one.arch.id not in ours.heldout.ids]
    if len(fitted) < FEWEST or len(heldout) < FEWEST_HELDOUT:
        raise ConfigError(
            f"of {len(networks)} networks {len(fitted)} can be fitted and {len(heldout)} held out, "
            f"{FEWEST} and {FEWEST_HELDOUT} are needed: the campaign measured the same networks; "
            "import others too"
        )
    return fitted, heldout


def _spread(ours: Observations, ops: Sequence[Op], columns: np.ndarray) -> np.ndarray:
    """(N, K) columns of a campaign's ops at their places among all; 0 for the others."""
    out = np.zeros((len(columns), len(ops)))
    at = {op.key: k for k, op in enumerate(ops)}
    out[:, [at[key] for key in ours.keys]] = columns
    return out


def _views(ops: Sequence[Op], ours: Observations) -> tuple[dict[str, np.ndarray], list[Estimator]]:
    """Views of the ops and the estimators that weigh them; times of single ops where the campaign
    has them for all.
    """
    views, choice = kernel_views(ops), list(CANDIDATES)
    keys = tuple(op.key for op in ops)
    if set(keys) <= set(ours.keys):
        in_place = estimators.pooled_in_place(ours.in_place_ms, ours.alone_ms)
        views |= estimators.fixed_views(keys)
        for name, column in (("alone", ours.alone_ms), ("in_place", in_place)):
            views[name] = _spread(ours, ops, column[None])[0]
        choice += estimators.candidates(in_place=not ours.in_place_reason)
    return views, choice


def _link(both: _Both, seed: int) -> Link:
    """How the imported latencies go with the measured ones, by cross-validation; of ways that are
    about as good, the one with the fewest numbers of its own.
    """
    alone = both.linked(Link())
    found = estimators.estimate(JUDGE, alone.only(np.flatnonzero(~both.theirs)))
    sums, ms = both.counts[both.theirs] @ found.rows_ms, both.ms[both.theirs]
    scale = float(np.median(ms / (found.intercept_ms[0] + sums)))
    slope = float(np.linalg.lstsq(np.stack([1 / ms, sums / ms], 1), np.ones(len(ms)))[0][1])
    slope = slope if slope > 0 else 1.0
    offered = [Link(), Link(apart=True), Link(scale), Link(slope, apart=True)]
    links = [one for one in offered if one.scale == 1 or abs(one.scale - 1) > NOTICED]

    def cost(link: Link) -> float:
        (error,) = fit.cross_validate([JUDGE], both.linked(link), seed)
        return float((error + SLACK) / (1 - GAIN) ** link.parameters)

    return min(links, key=cost)


def _held(ops: Sequence[Op], ours: Observations, heldout: Sequence[Timed], link: Link) -> Held:
    """Held-out networks of both, ours first; measured twice only if the imported ones were too."""
    theirs, mine = Held.of(ops, heldout), ours.heldout
    counts = np.concatenate([_spread(ours, ops, mine.counts), theirs.counts])
    a, b = mine.latency_ms, ours.again_ms
    if not theirs.repeated:
        a = b = (a + b) / 2
    is_theirs = np.arange(len(counts)) >= len(mine.ids)
    return Held(
        mine.ids + theirs.ids,
        counts,
        counts @ np.array([float(op.macs) for op in ops]),
        np.append(a, theirs.a),
        np.append(b, theirs.b),
        theirs.repeated,
        (is_theirs & link.apart).astype(int),
        np.where(is_theirs, link.scale, 1.0),
    )


def _judged(table: CostTable, n: int, told: dict[str, Any]) -> CostTable:
    """The table with the error of each part; unreliable if one of the two parts is.

    Args:
        table: the last n of its held-out networks are imported ones.
        n: how many these are.
        told: of the imported part.
    """
    checked = table.validation
    points = np.array([point[1:] for point in checked["points"]])
    errors = validation.relative_error(*points.T)
    parts = {"measured": float(errors[:-n].mean()), "imported": float(errors[-n:].mean())}
    calibration = {**table.calibration, "imported": {**told, "errors": parts}}
    for name, error in parts.items():
        word, reason = validation.verdict(checked["noise"] and table.noise, error, [])
        if word == "unreliable" and table.verdict != word:
            checked = {**checked, "verdict": word, "reason": f"{name} networks: {reason}"}
    return replace(table, calibration=calibration, validation=checked)


def _empty(
    space: SearchSpace,
    campaign: Campaign,
    networks: Sequence[Timed],
    files: dict[str, str],
) -> CostTable:
    """The table before its numbers: what it is of."""
    header = campaign.header
    protocol = protocol_of(networks) | {
        "created": header.get("created"),
        "kits": [kit_recipe(campaign.kit)],
    }
    ours = fit.source(header, campaign.records)
    return replace(
        imported_table(
            space, target_from_json(dict(header["target"])), Costs({}, {}, protocol), files
        ),
        environment=dict(header["environment"]),
        kit=kit_hash(campaign.kit),
        source=sha256_text(canonical_json([ours, *files.values()])),
        marks=(*fit.marks(header), "imported"),
    )
