"""The training-free score: its identities, and what it must not depend on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from search_cases import TINY, error_terms
from test_predictor import SHA256, measured

from hwnas import cli
from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.predictors.fit import Prior, fit_predictor
from hwnas.predictors.predictor import encode
from hwnas.settings.config import DataConfig
from hwnas.supernet import activation_score as das
from hwnas.supernet import forward, training_free
from hwnas.supernet.activation_score import ActivationScore
from hwnas.tables.validation import kendall_tau

SMALL = TINY.restricted([8, 12])


def signs(n_images=16, units=(40, 300), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random((n_images, n)) < 0.5 for n in units]


@pytest.fixture(scope="module")
def digits():
    return tensors.load(DataConfig())


# ---- kernel -------------------------------------------------------------------------------------


def test_the_two_parts_give_naswot_exactly():
    layers = signs()
    x = np.concatenate(layers, axis=1).astype(float)
    kernel = x @ x.T + (1 - x) @ (1 - x).T  # Mellor et al. 2021
    found = das.score_of(layers)
    assert found.naswot == pytest.approx(np.linalg.slogdet(kernel)[1], abs=1e-3)
    ratio = kernel / found.n_units
    exact = np.linalg.slogdet(ratio + das.RIDGE * np.eye(16))[1]
    assert found.distinguishing == pytest.approx(exact, abs=1e-6)
    without = 16 * np.log(found.n_units) + np.linalg.slogdet(ratio)[1]
    assert without == pytest.approx(np.linalg.slogdet(kernel)[1], abs=1e-6)


def test_the_kernel_counts_the_units_that_agree():
    layers = signs()
    code = np.concatenate(layers, axis=1)
    hamming = (code[:, None] != code[None]).sum(axis=2)
    agreement = sum(das._agreement(layer) for layer in layers)
    assert np.array_equal(agreement, code.shape[1] - hamming)


def test_units_twice_double_the_size_and_leave_the_ability():
    once = das.score_of(signs())
    twice = das.score_of(signs() * 2)
    assert twice.n_units == 2 * once.n_units
    assert twice.distinguishing == pytest.approx(once.distinguishing, abs=1e-9)
    assert once.distinguishing < 0


def test_two_equal_images_are_told_apart_by_nothing_but_the_ridge():
    layers = [layer[[0, 0, *range(2, 16)]] for layer in signs()]
    assert das.score_of(layers).distinguishing < das.score_of(signs()).distinguishing - 10


def test_independent_signs_have_the_value_of_the_yardstick():
    found = das.score_of(signs(8, (200_000,)))
    assert found.distinguishing == pytest.approx(np.log(9) - 8 * np.log(2), abs=0.02)


def test_nothing_to_compare_is_refused():
    for layers in (
        [],
        [np.zeros((1, 5))],
        [np.zeros((4, 0))],
        [np.zeros((4, 2)), np.zeros((3, 2))],
    ):
        with pytest.raises(ValueError, match="at least one unit"):
            das.score_of(layers)


# ---- networks -----------------------------------------------------------------------------------


def test_the_signs_are_those_before_the_activation_functions(digits, monkeypatch):
    arch, seen = SMALL.largest, []
    images, _ = training_free._batch(digits, np.arange(16), 12)
    for act in ("relu", "h_swish"):
        function = forward.FORWARD[act]

        def watched(p, x, w, function=function):
            if not p.name.startswith("se_"):  # it makes a gate
                seen.append((x[0] > 0).flatten(1).numpy())
            return function(p, x, w)

        monkeypatch.setitem(forward.FORWARD, act, watched)
    with torch.no_grad():
        das.fresh(arch, 0).train()(images)
    expected = das.score_of(seen)
    found = das.score(das.fresh(arch, 0), images)
    assert found.n_units == expected.n_units
    assert found.distinguishing == pytest.approx(expected.distinguishing, abs=1e-6)


def test_scores_are_repeatable_and_leave_the_weights_and_the_global_seed(digits):
    archs = SMALL.architectures(SMALL.sample(4, np.random.default_rng(0)))
    state = torch.get_rng_state()
    once = training_free.score_all(archs, digits, 0)
    assert training_free.score_all(archs, digits, 0) == once
    assert torch.equal(torch.get_rng_state(), state)
    assert training_free.score_all(archs, digits, 1) != once
    trained = training_free.score_all(archs, digits, 0, steps=3)
    assert {a: s.n_units for a, s in trained.items()} == {a: s.n_units for a, s in once.items()}
    assert trained != once


def test_the_short_training_learns(digits):
    network = das.fresh(SMALL.largest, 0)
    images, labels = training_free._batch(digits, np.arange(64), 12)

    def loss():
        network.train()
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(network(images), labels))

    before = loss()
    das.train_shortly(network, [(images, labels)] * 15)
    assert loss() < 0.7 * before


# ---- combinations -------------------------------------------------------------------------------


def test_naswot_adds_the_size_and_summed_ranks_have_no_scale():
    rng = np.random.default_rng(0)
    some = [
        ActivationScore(float(-d), int(n), 32)
        for d, n in zip(rng.uniform(5, 30, 20), rng.integers(1000, 9000, 20), strict=True)
    ]
    assert np.allclose(das.naswot(some), np.array([s.naswot for s in some]) / 32)
    assert np.array_equal(das.naswot(some, 0.0), [s.distinguishing / 32 for s in some])
    scaled = [ActivationScore(7 * s.distinguishing, 3 * s.n_units, 32) for s in some]
    assert np.array_equal(das.summed_ranks(some), das.summed_ranks(scaled))
    better = [ActivationScore(s.distinguishing + 1, s.n_units + 1, 32) for s in some]
    pairs = zip(some, better, strict=True)
    assert all(das.summed_ranks(pair).argmax() == 1 for pair in pairs)


def test_networks_are_ranked_within_their_resolution(digits):
    archs = list(dict.fromkeys(SMALL.architectures(SMALL.sample(12, np.random.default_rng(0)))))
    scores = training_free.score_all(archs, digits, 0)
    ranked = training_free.rank_scores(scores)
    for px in (8, 12):
        group = [arch for arch in archs if arch.resolution == px]
        value = das.summed_ranks([scores[arch] for arch in group])
        place = np.array([ranked[arch] for arch in group])
        assert np.array_equal(
            np.sign(np.subtract.outer(value, value)), np.sign(np.subtract.outer(place, place))
        )
        assert place.sum() == pytest.approx(len(group) / 2)
        assert min(place) >= 0


def test_option_scores_rank_networks_as_their_scores_do(digits):
    archs = list(dict.fromkeys(SMALL.architectures(SMALL.sample(40, np.random.default_rng(0)))))
    scores = training_free.score_all(archs, digits, 0)
    options = training_free.option_scores(SMALL, scores)
    at = [a for a in archs if a.resolution == 12]
    suggested = encode(SMALL, SMALL.genome(at)) @ options
    assert kendall_tau(suggested, das.naswot([scores[a] for a in at])) > 0.6


# ---- prior --------------------------------------------------------------------------------------


def test_a_good_prior_helps_few_measurements_and_a_bad_one_does_not_hurt():
    rng = np.random.default_rng(3)
    error = error_terms(TINY, rng)
    rows = measured(TINY, 16, error=error)
    genome = TINY.sample(400, rng)
    truth = error.evaluate(genome)
    full = fit_predictor(TINY, measured(TINY, 300, error=error), 0, SHA256)
    taus = {
        name: kendall_tau(fit_predictor(TINY, rows, 0, SHA256, prior).predict(genome), truth)
        for name, prior in (
            ("none", None),
            ("good", Prior(full.weights, full.weights)),
            ("bad", Prior(*2 * (rng.normal(size=full.weights.shape),))),
        )
    }
    print(taus)
    assert taus["good"] > max(0.85, taus["none"])
    assert taus["bad"] > taus["none"] - 0.1


# ---- command ------------------------------------------------------------------------------------


def test_the_command_ranks_before_any_training(tmp_path, capsys):
    settings = {
        "data": {"kind": "digits"},
        "space": {"name": "tiny", "resolutions": [8, 12]},
    }
    (tmp_path / "hwnas.yaml").write_text(json.dumps(settings))
    for flags in (["--json"], []):
        with pytest.raises(SystemExit) as ended:
            cli.main(["space", "rank", str(tmp_path / "hwnas.yaml"), "--n", "6", *flags])
        assert not ended.value.code
        out = capsys.readouterr().out
        if flags:
            rows = json.loads(out)
            assert {"id", "macs", "params", "rank_score", "naswot"} <= set(rows[0])
        else:
            assert "MACs" in out
            assert "parameters" in out
    assert list(tmp_path.iterdir()) == [tmp_path / "hwnas.yaml"]


def test_what_is_told_of_a_predictor_knows_nothing_of_the_subnets_it_is_judged_by():
    space, rng, told = spaces.load("mbv3-28"), np.random.default_rng(0), []
    for seed in range(3):
        archs = list(dict.fromkeys(space.architectures(space.sample(360, rng))))
        features = encode(space, space.genome(archs))
        error = 0.2 + features @ rng.normal(0, 0.005, features.shape[1])
        error += rng.normal(0, 0.006, len(archs))  # each subnet's own, in fp32 as in int8
        fp32 = list(zip(archs[:60], 1 - error[:60], strict=True))
        int8 = [(arch, top1 - 0.005 + rng.normal(0, 0.001)) for arch, top1 in fp32[:30]]
        whole, others = (
            fit_predictor(space, rows, seed, SHA256).weights for rows in (fp32, fp32[30:])
        )
        leaking = fit_predictor(space, int8, seed, SHA256, Prior(whole, whole))
        apart = fit_predictor(space, int8, seed, SHA256, Prior(whole, others))
        new = np.abs(apart.predict(space.genome(archs[60:])) - (error[60:] + 0.005)).mean()
        told.append((leaking.scores["mae"] / new, apart.scores["mae"] / new))
    by_all, by_others = np.mean(told, axis=0)
    assert by_all < 0.75
    assert by_others > 0.9
