"""Latencies that are a bent sum: the function, its fit, and everything that reads it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import DEPTHS, TINY, enumerate_space, error_terms, random_price
from test_elimination import RESNET as ELASTIC
from test_estimators import _evidence
from test_table import SPACE, make

from hwnas.pricing import elimination, pareto
from hwnas.pricing.terms import op_terms
from hwnas.report.collect import stage_times
from hwnas.search import joint, searchers
from hwnas.search.problem import make_problem, metrics_of
from hwnas.settings.config import SearchConfig
from hwnas.settings.errors import TableFormatError
from hwnas.tables import about, estimators, fit, table
from hwnas.tables.bend import MOST, Bend
from profilers.schema import canonical_json, sha256_text

BENT = make(calibration={**make().calibration, "bend": 0.3, "reference_ms": 0.2})


# ---- the function -------------------------------------------------------------------------------


@given(st.floats(0, MOST), st.floats(1e-3, 1e3), st.floats(0, 1e4), st.floats(1e-6, 10))
def test_a_bend_grows_and_its_inverse_takes_it_back(share, reference, total, step):
    bend = Bend(share, reference)
    low, high = bend(np.array([total, total + step]))
    assert low < high or step < 1e-9 * total
    assert bend.sums(np.array(low)) == pytest.approx(total, rel=1e-6, abs=1e-9 * reference)
    assert bend(np.array(reference)) == pytest.approx(reference)


def test_without_a_share_the_latency_is_the_sum_and_no_sum_gives_less_than_nothing():
    sums = np.array([-0.1, 0.0, 2.0])
    assert np.array_equal(Bend()(sums), sums)
    assert np.array_equal(Bend().sums(sums), sums)
    assert Bend(0.3, 1.0)(sums).tolist() == pytest.approx([0.0, 0.0, 2 * 1.3])


# ---- its fit ------------------------------------------------------------------------------------


def _bent_evidence(share):
    known, rows = _evidence(n=60, noise=0.004)
    reference = float(np.median(known.latency_ms))
    bent = Bend(share, reference)(known.latency_ms)
    return estimators.gather(known.views, known.n_ops, known.resolution, bent), rows


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_cross_validation_finds_a_bend_where_there_is_one_and_none_where_there_is_none(share):
    known, rows = _bent_evidence(share)
    choice = estimators.candidates(in_place=False)
    chosen = fit.choose(choice, fit.cross_validate(choice, known, seed=0))
    assert chosen.bend == pytest.approx(share, abs=0.11)
    found = estimators.estimate(chosen, known)
    gap = np.abs(found.predict(known.n_ops, known.resolution) / known.latency_ms - 1)
    assert gap.mean() < 0.005
    if not share:
        assert found.rows_ms == pytest.approx(rows, rel=0.3)


def test_a_bend_that_saves_little_is_not_chosen():
    choice = [estimators.Estimator("x", ("alone",)), estimators.Estimator("x", ("alone",), 0, 0.2)]
    assert fit.choose(choice, [0.0100, 0.0097]).bend == 0
    assert fit.choose(choice, [0.0100, 0.0090]).bend == 0.2


def test_folds_share_the_reference_of_all_networks():
    known, _ = _bent_evidence(0.3)
    part = known.only(np.arange(30))
    assert part.reference_ms == known.reference_ms
    found = estimators.estimate(estimators.Estimator("x", ("alone", "per_op"), 0, 0.3), part)
    assert found.bend.reference_ms == known.reference_ms
    assert found.predict(known.n_ops, known.resolution) == pytest.approx(known.latency_ms, rel=0.03)


# ---- readers ------------------------------------------------------------------------------------


def test_a_table_bends_the_sum_and_search_prices_networks_as_the_table_does():
    metrics = metrics_of(SPACE, lambda op: BENT.row(op.key), BENT.intercept, link=BENT.link)
    genome = SPACE.sample(100, np.random.default_rng(0))
    priced = metrics["latency_ms"].evaluate(genome)
    for arch, ms in zip(SPACE.architectures(genome), priced, strict=True):
        total = table.network_latency(make(), arch)
        assert table.network_latency(BENT, arch) == pytest.approx(total * (0.7 + 1.5 * total))
        assert ms == pytest.approx(table.network_latency(BENT, arch), rel=1e-9)
    assert make().link is None


def test_the_exact_front_of_bent_latencies_is_that_of_enumeration():
    error = error_terms(DEPTHS, np.random.default_rng(3))
    metrics = metrics_of(DEPTHS, random_price(0), lambda px: px * 1e-4, error, Bend(0.4, 0.05))
    every = enumerate_space(DEPTHS)
    for budgets in ({}, {"latency_ms": "50%"}):
        stated = make_problem(DEPTHS, SearchConfig(budgets=budgets), metrics)
        costs = stated.evaluate(every[stated.violation(every) == 0])
        true = np.unique(costs[pareto.non_dominated(costs)], axis=0)
        found = searchers.search(stated, SearchConfig(algorithm="dp", budgets=budgets))
        assert np.unique(found.front.costs, axis=0) == pytest.approx(true)


def test_the_smallest_latency_is_bent_too():
    bend = Bend(0.4, 0.05)
    for space, price in ((TINY, random_price(0)), (ELASTIC, random_price(1))):
        straight, bent = op_terms(space, price), op_terms(space, price, link=bend)
        genome = space.sample(50, np.random.default_rng(0))
        assert bent.evaluate(genome) == pytest.approx(bend(straight.evaluate(genome)))
        least = elimination.least(straight)
        assert elimination.least(bent) == pytest.approx(float(bend(np.array(least))))


def test_a_mean_over_targets_with_bent_latencies_is_the_mean_of_their_shares():
    latency = {
        "board1": op_terms(DEPTHS, random_price(1)),
        "board2": replace(op_terms(DEPTHS, random_price(2)), link=Bend(0.4, 0.05)),
    }
    shared = metrics_of(DEPTHS, error=error_terms(DEPTHS, np.random.default_rng(0)))
    stated = joint.joint_problem(DEPTHS, shared, latency, "mean", {"board2": 3.0})
    every, largest = enumerate_space(DEPTHS), DEPTHS.genome([DEPTHS.largest])
    shares = [term.evaluate(every) / term.evaluate(largest) for term in latency.values()]
    found = stated.metrics[joint.SHARE].evaluate(every)
    assert found == pytest.approx((shares[0] + 3 * shares[1]) / 4)


def test_stage_times_of_a_bent_table_add_up_to_its_latency():
    parts = stage_times(SPACE.largest, BENT)
    total = sum(ms for _, ms in parts)
    assert total == pytest.approx(table.network_latency(BENT, SPACE.largest), abs=1e-5)


# ---- files --------------------------------------------------------------------------------------


def test_a_bend_is_kept_in_the_file_and_told(tmp_path):
    table.save(BENT, tmp_path / "t.json")
    found = table.load_table(tmp_path / "t.json")
    assert (found.bend, about.describe(found)["bend"]) == (Bend(0.3, 0.2), 0.3)


def _rewritten(path, change):
    data = json.loads(path.read_text())
    del data["sha256"]
    change(data)
    path.write_text(canonical_json({**data, "sha256": sha256_text(canonical_json(data))}))


@pytest.mark.parametrize(
    ("share", "reference"), [(0.6, 1.0), (-0.1, 1.0), ("0.2", 1.0), (0.2, 0.0), (0.2, None)]
)
def test_a_bend_that_is_none_is_refused(tmp_path, share, reference):
    table.save(make(), tmp_path / "t.json")
    told = {"bend": share, "reference_ms": reference}
    _rewritten(tmp_path / "t.json", lambda data: data["calibration"].update(told))
    with pytest.raises(TableFormatError, match="bend"):
        table.load_table(tmp_path / "t.json")
