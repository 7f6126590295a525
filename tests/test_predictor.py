import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from search_cases import (
    DEPTHS,
    TINY,
    EntangledError,
    enumerate_space,
    error_terms,
    of_family,
    problem,
)

from hwnas.networks import spaces
from hwnas.predictors import predictor
from hwnas.predictors.fit import fit_predictor, fit_ridge
from hwnas.search import searchers
from hwnas.settings.config import SearchConfig
from hwnas.tables.validation import kendall_tau
from profilers.errors import ConfigError, FileFormatError, TableError

SPACES = [*map(spaces.load, spaces.names()), DEPTHS]
SHA256 = "ab" * 32


def measured(space, n=150, noise=0.005, seed=0, error=None):
    """Rows of random networks: what the stage `evaluate` measures."""
    rng = np.random.default_rng(seed)
    genome = space.sample(n, rng)
    error = (error or error_terms(space, rng)).evaluate(genome) + noise * rng.normal(size=n)
    return list(zip(space.architectures(genome), np.clip(1 - error, 0, 1).tolist(), strict=True))


@pytest.fixture(scope="module")
def fitted():
    return fit_predictor(TINY, measured(TINY), 0, SHA256)


# ---- encoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_encoding_is_one_hot_of_live_choices_and_zero_elsewhere(space):
    genome = space.sample(100, np.random.default_rng(0))
    encoded = predictor.encode(space, genome)
    names = predictor.feature_names(space)
    assert encoded.shape == (100, len(names))
    for row, values in zip(encoded, space.canonical(genome), strict=True):
        live = {
            f"{choice.name}={value}"
            for choice, value in zip(space.choices, values.tolist(), strict=True)
            if value
        }
        assert {name for name, there in zip(names, row, strict=True) if there} == live


def test_the_encoding_tells_all_networks_apart():
    for space in (TINY, DEPTHS):
        encoded = predictor.encode(space, enumerate_space(space))
        assert len(np.unique(encoded, axis=0)) == space.size


def test_the_public_space_has_the_columns_that_its_paper_needs():
    space = spaces.load("ofa-mbv3-w10")
    assert len(predictor.feature_names(space)) == 60 + 60 + 15 + len(space.resolutions)


# ---- fit ----------------------------------------------------------------------------------------


def test_ridge_is_that_of_scikit_learn_and_leave_one_out_is_that_of_refitting():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    features, target = rng.integers(0, 2, (25, 6)).astype(float), rng.normal(size=25)
    ours = fit_ridge(features, target)
    oracle = linear_model.Ridge(alpha=ours.alpha).fit(features, target)
    assert np.allclose(ours.weights, oracle.coef_)
    assert ours.intercept == pytest.approx(oracle.intercept_)
    for row in range(25):
        rest = np.arange(25) != row
        without = linear_model.Ridge(alpha=ours.alpha).fit(features[rest], target[rest])
        assert ours.loo[row] == pytest.approx(without.predict(features[[row]])[0], abs=1e-9)


def test_the_ridge_is_the_same_where_lapack_finds_no_singular_values(monkeypatch):
    """It gave up on 498 networks of a search on ofa-mbv3-w10."""
    space = spaces.load("tiny")
    features = predictor.encode(space, space.sample(60, np.random.default_rng(0)))
    target = np.random.default_rng(1).normal(size=60)
    usual = fit_ridge(features, target)

    def gives_up(*_args, **_kwargs):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", gives_up)
    other = fit_ridge(features, target)
    assert other.alpha == usual.alpha
    assert np.allclose(other.weights, usual.weights, atol=1e-9)
    assert np.allclose(other.loo, usual.loo, atol=1e-9)


@pytest.mark.parametrize("space", [TINY, DEPTHS, SPACES[1]], ids=lambda space: space.name)
def test_the_terms_give_the_linear_model_through_its_link(space):
    model = fit_predictor(space, measured(space), 0, SHA256)
    genome = space.sample(300, np.random.default_rng(1))
    score = predictor.encode(space, genome) @ model.weights + model.intercept
    assert np.allclose(model.predict(genome), model.link(score), atol=1e-9)


@pytest.mark.parametrize("tangled", [False, True], ids=["additive", "entangled"])
def test_unseen_networks_are_ranked_far_better_than_by_macs(tangled):
    rng = np.random.default_rng(3)
    error = EntangledError(TINY, rng) if tangled else error_terms(TINY, rng)
    model = fit_predictor(TINY, measured(TINY, error=error), 0, SHA256)
    genome = enumerate_space(TINY)
    tau = kendall_tau(model.predict(genome[::7]), error.evaluate(genome[::7]))
    assert tau > 0.93
    assert model.scores["kendall_tau"] > 0.85 > 0.7 > model.scores["macs_kendall_tau"]
    assert model.scores["rmse"] < model.scores["macs_rmse"] / 2
    assert model.residual_spread == pytest.approx(0.005, rel=0.8)
    assert model.scores["n"] == len({arch for arch, _ in measured(TINY, error=error)})


def test_predicted_errors_are_positive_and_better_scores_stay_apart():
    rows = [(arch, 1 - (1 - top1) / 40) for arch, top1 in measured(TINY)]  # errors near 0
    model = fit_predictor(TINY, rows, 0, SHA256)
    predicted = model.predict(enumerate_space(TINY))
    assert predicted.min() > 0
    assert (np.diff(model.link.value) > 0).all()


@pytest.mark.parametrize("top1", [0.0, 0.5, 1.0])
def test_equal_accuracies_predict_themselves(top1):
    rows = [(arch, top1) for arch, _ in measured(TINY, 30)]
    model = fit_predictor(TINY, rows, 0, SHA256)
    assert np.allclose(model.predict(enumerate_space(TINY)), 1 - top1, atol=1e-5)
    assert model.scores["kendall_tau"] == 0


def test_accuracies_without_a_pattern_are_scored_as_such():
    rng = np.random.default_rng(0)
    rows = [
        (arch, float(top1)) for (arch, _), top1 in zip(measured(TINY), rng.random(150), strict=True)
    ]
    assert abs(fit_predictor(TINY, rows, 0, SHA256).scores["kendall_tau"]) < 0.25


def test_order_and_repetition_of_rows_change_nothing(fitted):
    rows = measured(TINY)
    again = fit_predictor(TINY, rows[::-1] + rows, 0, SHA256)
    assert np.allclose(again.weights, fitted.weights)
    assert again.scores == pytest.approx(fitted.scores)


def test_too_few_subnets_and_impossible_accuracies_are_refused():
    with pytest.raises(ConfigError, match="needs 8 different subnets, 7"):
        fit_predictor(TINY, measured(TINY)[:7] * 3, 0, SHA256)
    with pytest.raises(ConfigError, match="not in"):
        fit_predictor(TINY, [(TINY.largest, 98.0)], 0, SHA256)


# ---- which space --------------------------------------------------------------------------------


def test_another_geometry_is_refused_with_the_reason(fitted, tmp_path):
    predictor.save(fitted, tmp_path / "p.npz")
    for other in (TINY.for_data(3, 10), spaces.load("mbv3-28")):
        with pytest.raises(TableError, match="geometry"):
            fitted.metric(other)
        with pytest.raises(TableError, match="hwnas evaluate"):
            predictor.load(tmp_path / "p.npz", other)


def test_a_restricted_space_is_served_and_predicts_the_same(fitted, tmp_path):
    predictor.save(fitted, tmp_path / "p.npz")
    few = TINY.restricted([8, 12])
    model = predictor.load(tmp_path / "p.npz", few)
    archs = few.architectures(few.sample(50, np.random.default_rng(0)))
    same = [TINY.architecture(arch.values) for arch in archs]
    assert np.array_equal(model.predict(few.genome(archs)), fitted.predict(TINY.genome(same)))


def test_an_option_that_was_not_fitted_is_refused(tmp_path):
    few = TINY.restricted([8, 12])
    predictor.save(fit_predictor(few, measured(few), 0, SHA256), tmp_path / "p.npz")
    with pytest.raises(TableError, match="fitted without resolution=10"):
        predictor.load(tmp_path / "p.npz", TINY)


def test_a_fitted_predictor_can_be_searched_exactly(fitted):
    case = problem(error=fitted)
    assert not case.why_not_exact
    front = searchers.search(case, SearchConfig(algorithm="dp")).front
    assert np.array_equal(fitted.predict(front.genome), front.costs[:, 0])


# ---- file ---------------------------------------------------------------------------------------


def test_a_file_reads_back_and_equal_predictors_are_equal_bytes(fitted, tmp_path):
    predictor.save(fitted, tmp_path / "a.npz")
    model = predictor.load(tmp_path / "a.npz", TINY)
    predictor.save(model, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    genome = TINY.sample(50, np.random.default_rng(0))
    assert np.array_equal(model.predict(genome), fitted.predict(genome))
    assert (model.scores, model.supernet_sha256) == (fitted.scores, SHA256)
    assert not any(
        b"numpy" in name.encode() for name in zipfile.ZipFile(tmp_path / "a.npz").namelist()
    )


def test_truncated_and_edited_files_are_named(fitted, tmp_path):
    path = tmp_path / "p.npz"
    predictor.save(fitted, path)
    whole = path.read_bytes()
    for length in (0, 1, 10, 200, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"p\.npz"):
            predictor.load(path, TINY)
    for place in range(0, len(whole), 29):
        edited = bytearray(whole)
        edited[place] ^= 0x55
        path.write_bytes(bytes(edited))
        try:
            model = predictor.load(path, TINY)
        except (FileFormatError, TableError):
            continue
        assert np.array_equal(model.weights, fitted.weights)  # a byte of no meaning


def test_files_of_another_kind_are_refused(fitted, tmp_path):
    path = tmp_path / "p.npz"
    with pytest.raises(FileFormatError, match="does not exist"):
        predictor.load(path, TINY)
    path.write_text("{}")
    with pytest.raises(FileFormatError, match="cannot be read"):
        predictor.load(path, TINY)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(FileFormatError, match="has format None"):
        predictor.load(path, TINY)
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    path.write_bytes(single.getvalue())
    with pytest.raises(FileFormatError):
        predictor.load(path, TINY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": None}, "lacks weights"),
        ({"weights": np.array([{}])}, "cannot be read"),  # pickled
        ({"weights": np.zeros(3)}, "differ in number"),
        ({"weights": np.array(["a"])}, "holds"),
        ({"intercept": np.array(np.nan)}, "not finite"),
        ({"intercept": np.zeros(2)}, "shape"),
        ({"link_value": np.array([0.5, 0.1]), "link_score": np.array([0.0, 1.0])}, "monotone"),
        ({"link_score": np.array([1.0, 1.0]), "link_value": np.array([0.1, 0.5])}, "monotone"),
        ({"link_score": np.zeros(0), "link_value": np.zeros(0)}, "knots"),
        ({"score_names": np.array(["n"])}, "score names"),
        ({"encoding": np.array("plain")}, "encoding"),
        ({"format": np.array("hwnas-predictor-9")}, "format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_content_is_refused_with_what_is_wrong(fitted, tmp_path, change, reason):
    path = tmp_path / "p.npz"
    predictor.save(fitted, path)
    with np.load(path) as archive:
        arrays = {**dict(archive), **change}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(FileFormatError, match=reason):
        predictor.load(path, TINY)


def test_a_space_of_the_same_name_but_other_geometry_is_another_space(fitted):
    wider = of_family(TINY, head=replace(TINY.family.head, width=128))
    with pytest.raises(TableError, match="geometry"):
        fitted.metric(wider)
