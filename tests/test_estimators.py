from dataclasses import replace

import numpy as np
import pytest

from hwnas.measuring import coverage
from hwnas.networks import onnx_graph, spaces
from hwnas.tables import estimators, fit
from hwnas.tables.estimators import Estimator

SPACE = spaces.load("tiny").restricted([12, 16])
KEYS = tuple(sorted(coverage.distinct_ops(SPACE)))


def _evidence(n=40, seed=0, noise=0.0, own=0.0):
    """Networks whose true rows are 0.8 x alone + 0.002, with intercepts 0.05 and 0.07 ms."""
    rng = np.random.default_rng(seed)
    archs = SPACE.architectures(SPACE.sample(n, rng))
    n_ops = np.array([[sum(o.op.key == k for o in a.ops) for k in KEYS] for a in archs], float)
    resolution = np.array([arch.resolution for arch in archs])
    alone = rng.uniform(0.005, 0.05, len(KEYS))
    rows = (0.8 * alone + 0.002) * (1 + own * rng.normal(size=len(KEYS)))
    latency = np.where(resolution == 12, 0.05, 0.07) + n_ops @ rows
    latency *= 1 + noise * rng.normal(size=n)
    views = {**estimators.fixed_views(KEYS), "alone": alone, "in_place": 0.5 * rows}
    return estimators.gather(views, n_ops, resolution, latency), rows


def test_exact_rules_are_found_exactly():
    known, rows = _evidence()
    found = estimators.estimate(Estimator("x", ("alone", "per_op")), known)
    assert found.predict(known.n_ops, known.resolution) == pytest.approx(known.latency_ms, rel=1e-6)
    assert found.weights["alone"] == pytest.approx(0.8, rel=1e-4)
    assert found.rows_ms == pytest.approx(rows, rel=1e-2)


def test_weighted_least_squares_is_what_remains_without_freedom_and_outliers(monkeypatch):
    known, _ = _evidence(noise=0.01)
    monkeypatch.setattr(estimators, "HUBER", 1e9)
    found = estimators.estimate(Estimator("x", ("alone", "per_op")), known)
    one_hot = (known.resolution[:, None] == [12, 16]).astype(float)
    sums = known.n_ops @ np.stack([known.views["alone"], known.views["per_op"]], axis=1)
    design = np.hstack([sums, one_hot]) / known.latency_ms[:, None]
    weights = np.linalg.lstsq(design, np.ones(len(design)), rcond=None)[0]
    assert list(found.weights.values()) == pytest.approx(weights[:2], rel=1e-5)
    assert list(found.intercept_ms.values()) == pytest.approx(weights[2:], rel=1e-5)


def test_the_dual_form_solves_the_ridge_problem_it_stands_for():
    rng = np.random.default_rng(0)
    n, n_common, n_own, freedom = 12, 2, 30, 3.0
    design, random = rng.normal(size=(n, n_common)), rng.normal(size=(n, n_own))
    huber = rng.uniform(0.5, 1, n)
    observed = rng.uniform(0.5, 1, n)
    common, pull = estimators.mixed_model(design, freedom * random @ random.T, huber, observed)
    rows = np.hstack([design, random]) * np.sqrt(huber)[:, None]
    prior = np.hstack([np.zeros((n_own, n_common)), np.eye(n_own) / np.sqrt(freedom)])
    target = np.concatenate([np.sqrt(huber) * observed, np.zeros(n_own)])
    direct = np.linalg.lstsq(np.vstack([rows, prior]), target, rcond=None)[0]
    assert common == pytest.approx(direct[:n_common])
    assert freedom * random.T @ pull == pytest.approx(direct[n_common:])


def test_freedom_recovers_ops_that_leave_the_common_rule():
    known, _ = _evidence(n=120, own=0.2)
    train, test = np.arange(100), np.arange(100, 120)

    def error(freedom):
        found = estimators.estimate(Estimator("x", ("alone", "per_op"), freedom), known.only(train))
        unseen = known.only(test)
        predicted = found.predict(unseen.n_ops, unseen.resolution)
        return np.abs(predicted / unseen.latency_ms - 1).mean()

    assert error(1000.0) < 0.1 * error(0.0)


def test_one_wild_network_hardly_matters():
    known, _ = _evidence(n=60, noise=0.002)
    known.latency_ms[7] *= 3
    found = estimators.estimate(Estimator("x", ("alone", "per_op")), known)
    gap = np.abs(found.predict(known.n_ops, known.resolution) / known.latency_ms - 1)
    assert np.median(gap) < 0.005
    assert gap[7] > 0.5
    others = known.only(np.delete(np.arange(60), 7))
    without = estimators.estimate(Estimator("x", ("alone", "per_op")), others)
    given, best = (e.predict(others.n_ops, others.resolution) for e in (found, without))
    assert np.abs(given / best - 1).max() < 0.002


def test_the_only_view_of_an_estimator_stays_whatever_its_weight():
    known, _ = _evidence(noise=0.01)
    known.latency_ms[:] = 10 - known.n_ops @ known.views["alone"]
    found = estimators.estimate(Estimator("x", ("alone",)), known)
    assert set(found.weights) == {"alone"}


def _in_all(noise, ends=-3e-6, seed=0):
    """Networks with an op each of them has, dear alone and of large tensors, and an estimator whose
    weight of `ends` is negative; how large it is in truth.
    """
    known, rows = _evidence(60, seed, noise=noise)
    stem = int(np.argmax((known.n_ops > 0).all(axis=0)))
    known.views["ends"][stem] = 40_000.0
    rows = 0.8 * known.views["alone"] + ends * known.views["ends"] + 0.003
    rows[stem] = 0.8 * known.views["alone"][stem]
    known.latency_ms[:] = (0.1 + known.n_ops @ rows) * (1 + noise * _rng(seed).normal(size=60))
    found = estimators.gather(known.views, known.n_ops, known.resolution, known.latency_ms)
    return found, stem, rows


def _rng(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("freedom", [0.0, 10.0])
def test_an_op_of_every_network_does_not_come_out_free(freedom, monkeypatch):
    known, stem, rows = _in_all(0.01)
    way = Estimator("x", ("alone", "per_op", "ends"), freedom)
    found = estimators.estimate(way, known)
    assert (found.rows_ms > 0).all()
    assert found.held[stem]
    assert found.rows_ms[stem] == pytest.approx(estimators.NEAR * known.size_ms[stem])
    monkeypatch.setattr(estimators, "NEAR", estimators.SMALLEST)
    free = estimators.estimate(way, known)
    assert free.rows_ms[stem] == pytest.approx(estimators.SMALLEST * known.size_ms[stem])
    assert estimators._gap(found, known) < 1.1 * estimators._gap(free, known)
    others = np.arange(len(rows)) != stem
    off = [np.abs(each.rows_ms - rows)[others].mean() for each in (found, free)]
    assert off[0] < 1.1 * off[1]


def test_no_row_is_negative_and_no_measured_view_counts_against_an_op():
    known, _ = _evidence()
    known.views["in_place"] = 0.06 - known.views["alone"]
    found = estimators.estimate(Estimator("x", ("in_place", "alone", "per_op")), known)
    assert all(found.weights.get(view, 0) >= 0 for view in estimators.MEASURED_VIEWS)
    cheap, _ = _evidence()
    cheap.latency_ms[:] = 1.0 + 0.001 * cheap.n_ops[:, 0]
    for estimator in estimators.candidates(in_place=True):
        found = estimators.estimate(estimator, cheap)
        assert (found.rows_ms > 0).all()
        assert found.predict(cheap.n_ops, cheap.resolution) == pytest.approx(1.0, rel=0.05)


def test_no_intercept_is_negative():
    known, _ = _evidence(noise=0.003)
    sums = known.n_ops @ known.views["alone"]
    below = estimators.gather(known.views, known.n_ops, known.resolution, sums - 0.1 * sums.min())
    free = np.linalg.lstsq(np.column_stack([sums, np.ones(len(sums))]), below.latency_ms)[0]
    assert free[1] < 0
    for estimator in estimators.candidates(in_place=True):
        found = estimators.estimate(estimator, below)
        assert min(found.intercept_ms.values()) >= 0
        gap = found.predict(known.n_ops, known.resolution) / below.latency_ms - 1
        assert np.abs(gap).mean() < 0.05


def test_networks_of_equal_depth_and_one_resolution_can_be_fitted():
    known, _ = _evidence()
    n_ops = known.n_ops[known.n_ops.sum(axis=1) == known.n_ops.sum(axis=1)[0]]
    latency = n_ops @ known.views["alone"]
    same = estimators.gather(known.views, n_ops, np.full(len(n_ops), 12), latency)
    found = estimators.estimate(Estimator("x", ("alone", "per_op")), same)
    assert found.predict(n_ops, same.resolution) == pytest.approx(same.latency_ms, rel=1e-4)


def test_views_without_a_measurement_are_those_of_the_ops_graph():
    """Elements at both ends and bytes of weights, as a file with only that op has them."""
    views = estimators.fixed_views(KEYS)
    for number, (key, op) in enumerate(sorted(coverage.distinct_ops(SPACE).items())):
        zeros = {w.name: np.zeros(w.shape, np.float32) for w in onnx_graph.weights_of([op])}
        graph = onnx_graph.build([op], zeros).graph
        ends = [*graph.input, *graph.output]
        shapes = [[d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends]
        assert views["ends"][number] == sum(int(np.prod(shape)) for shape in shapes), key
        assert views["weights"][number] == sum(4 * value.size for value in zeros.values())
        assert views["per_op"][number] == 1


def test_ops_in_place_are_pooled_and_the_unseen_get_the_usual_ratio():
    alone = np.array([1.0, 2.0, 4.0])
    in_place = np.array([[0.5, 1.0, np.nan], [0.7, np.nan, np.nan], [0.6, np.nan, np.nan]])
    pooled = estimators.pooled_in_place(in_place, alone)
    assert pooled == pytest.approx([0.6, 1.0, 4.0 * 0.55])
    assert np.isnan(estimators.pooled_in_place(np.full((2, 3), np.nan), alone)).all()


def test_candidates_are_named_apart_and_leave_out_the_engines_clock_where_told():
    names = [estimator.label for estimator in estimators.candidates(in_place=True)]
    assert len(set(names)) == len(names)
    alone = estimators.candidates(in_place=False)
    assert alone
    assert not any("in_place" in estimator.views for estimator in alone)


def test_rows_and_networks_are_as_uncertain_as_they_differ_between_measurements():
    exact, _ = _evidence(n=60)
    chosen, noise = Estimator("x", ("alone", "per_op")), 0.01
    rng = np.random.default_rng(1)

    def measured_again():
        factor = 1 + noise * rng.normal(size=len(exact.latency_ms))
        return replace(exact, latency_ms=exact.latency_ms * factor)

    told = [fit.uncertainty(chosen, measured_again(), seed) for seed in range(5)]
    rows = [estimators.estimate(chosen, measured_again()).rows_ms for _ in range(100)]
    ratio = np.mean([error_ms for error_ms, _ in told], axis=0) / np.std(rows, axis=0)
    assert 0.7 < np.median(ratio) < 1.5
    assert np.mean([share for _, share in told]) == pytest.approx(noise, rel=0.25)
