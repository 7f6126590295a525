"""Predictors fitted by scikit-learn are the same numbers by numpy, and are compared honestly."""

from __future__ import annotations

import numpy as np
import pytest
from search_cases import TINY, EntangledError, enumerate_space, problem
from test_predictor import SHA256, measured

from hwnas.predictors import choice, predictor
from hwnas.predictors.fit import Subnets, merged
from hwnas.predictors.kinds import boosting, svr
from hwnas.predictors.kinds.gaussian_process import fit as fit_gaussian_process
from hwnas.predictors.predictor import Predictor, encode
from hwnas.search import searchers
from hwnas.settings.config import SearchConfig
from hwnas.tables.validation import kendall_tau
from profilers.errors import ConfigError, FileFormatError, TableError

KINDS = choice.names()
NETWORKS = enumerate_space(TINY)[::17]


def subnets(n: int = 60) -> Subnets:
    archs, error = merged(measured(TINY, n))
    return Subnets(TINY, encode(TINY, TINY.genome(archs)), error, 0)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    return choice.fit(TINY, measured(TINY, 80), 0, SHA256, request.param)


def test_trees_predict_what_scikit_learn_predicts():
    from sklearn.ensemble import GradientBoostingRegressor

    data, features = subnets(), encode(TINY, NETWORKS)
    oracle = GradientBoostingRegressor(
        n_estimators=300, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=0
    ).fit(data.features, data.error)
    ours = boosting.fit(data)
    assert np.abs(ours(features) - oracle.predict(features)).max() <= 1e-6


def test_support_vectors_predict_what_scikit_learn_predicts(monkeypatch):
    from sklearn import model_selection

    data, features, found = subnets(), encode(TINY, NETWORKS), []

    class Watched(model_selection.GridSearchCV):
        def fit(self, x, y):
            found.append(super().fit(x, y))
            return self

    monkeypatch.setattr(model_selection, "GridSearchCV", Watched)
    ours = svr.fit(data)
    theirs = found[0].predict(features) * data.error.std() + data.error.mean()
    assert np.abs(ours(features) - theirs).max() <= 1e-6


def test_a_gaussian_process_predicts_what_scikit_learn_predicts(monkeypatch):
    from sklearn import gaussian_process

    data, features, found = subnets(), encode(TINY, NETWORKS), []

    class Watched(gaussian_process.GaussianProcessRegressor):
        def fit(self, x, y):
            found.append(super().fit(x, y))
            return self

    monkeypatch.setattr(gaussian_process, "GaussianProcessRegressor", Watched)
    ours = fit_gaussian_process(data)
    theirs = found[0].predict(features) * data.error.std() + data.error.mean()
    assert np.abs(ours(features) - theirs).max() <= 1e-6


def test_every_kind_ranks_unseen_networks(fitted):
    rng = np.random.default_rng(3)
    error = EntangledError(TINY, rng)
    model = choice.fit(TINY, measured(TINY, error=error), 0, SHA256, fitted.source)
    tau = kendall_tau(model.predict(NETWORKS), error.evaluate(NETWORKS))
    assert tau > 0.8
    assert model.scores["kendall_tau"] == pytest.approx(tau, abs=0.12)
    assert {"ridge_rmse", f"{fitted.source}_rmse", "macs_kendall_tau"} <= set(model.scores)


def test_a_file_reads_back_and_serves_a_restricted_space(fitted, tmp_path):
    predictor.save(fitted, tmp_path / "p.npz")
    again = predictor.load(tmp_path / "p.npz", TINY)
    assert np.array_equal(again.predict(NETWORKS), fitted.predict(NETWORKS))
    assert again.scores == fitted.scores
    few = TINY.restricted([8, 12])
    archs = few.architectures(few.sample(20, np.random.default_rng(0)))
    same = TINY.genome([TINY.architecture(arch.values) for arch in archs])
    assert np.allclose(again.metric(few).evaluate(few.genome(archs)), fitted.predict(same))
    with pytest.raises(TableError, match="geometry"):
        predictor.load(tmp_path / "p.npz", TINY.for_data(3, 10))


def test_edited_arrays_are_refused(fitted, tmp_path):
    arrays = dict(np.load(_saved(fitted, tmp_path)))
    name = "left" if "left" in arrays else "support"
    for broken in ({name: arrays[name][:-1]}, {"score_values": arrays["score_values"][:-1]}):
        np.savez(tmp_path / "b.npz", **{**arrays, **broken})
        with pytest.raises(FileFormatError, match=r"b\.npz"):
            predictor.load(tmp_path / "b.npz", TINY)


def test_a_tree_that_goes_round_in_circles_is_refused(tmp_path):
    model = choice.fit(TINY, measured(TINY, 30), 0, SHA256, "boosting")
    arrays = dict(np.load(_saved(model, tmp_path)))
    arrays["left"] = np.where(arrays["feature"] >= 0, 0, -1).astype("<i4")
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(FileFormatError, match="does not follow"):
        predictor.load(tmp_path / "b.npz", TINY)


def _saved(model, folder):
    predictor.save(model, folder / "p.npz")
    return folder / "p.npz"


def test_what_is_no_sum_is_searched_by_nsga2_and_refused_by_dp(fitted):
    case = problem(error=fitted.metric(TINY))
    config = SearchConfig(algorithm="nsga2", population=20, generations=5)
    front = searchers.search(case, config).front
    assert np.allclose(fitted.predict(front.genome), front.costs[:, 0], atol=1e-9)
    with pytest.raises(ConfigError, match="neither a sum nor a maximum"):
        searchers.search(case, SearchConfig(algorithm="dp"))


def test_auto_keeps_the_ridge_where_error_is_a_sum():
    model = choice.fit(TINY, measured(TINY, 80), 0, SHA256, "auto")
    assert isinstance(model, Predictor)
    assert {f"{kind}_rmse" for kind in (*KINDS, "ridge")} <= set(model.scores)


def test_an_unknown_kind_and_too_few_subnets_are_refused():
    with pytest.raises(ConfigError, match="did you mean"):
        choice.fit(TINY, measured(TINY, 20), 0, SHA256, "boostin")
    with pytest.raises(ConfigError, match="8 different subnets, 1 "):
        choice.fit(TINY, measured(TINY, 1), 0, SHA256, "svr")
    rows = [*measured(TINY, 20), (TINY.largest, float("nan"))]
    with pytest.raises(ConfigError, match="nan"):
        choice.fit(TINY, rows, 0, SHA256, "ridge")


def test_a_predictor_that_cannot_rank_is_said():
    scores = {"n": 40.0, "kendall_tau": 0.05, "macs_kendall_tau": 0.3}
    assert "can hardly rank" in choice.doubts(scores)
    assert "worse than MACs" in choice.doubts({**scores, "kendall_tau": 0.25})
    assert not choice.doubts({**scores, "kendall_tau": 0.8})
