import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwnas.tables import validation


def heldout(ids, predicted, a, b, macs=None):
    return validation.Heldout(tuple(ids), predicted, a, b, a if macs is None else macs)


def test_noise_and_error_follow_their_definitions():
    a, b = np.array([10.0, 22.0]), np.array([10.4, 20.0])
    assert validation.relative_noise(a, b) == pytest.approx([0.4 / 10.2, 2.0 / 21.0])
    predicted = np.array([10.2, 23.1])
    assert validation.relative_error(predicted, a, b) == pytest.approx([0.0, 0.1])


@pytest.mark.parametrize("ties", [False, True])
def test_kendalls_tau_agrees_with_scipy(ties):
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.normal(size=(2, 25))
        if ties:
            x, y = np.round(x), np.round(y + x)
        assert validation.kendall_tau(x, y) == pytest.approx(kendalltau(x, y).statistic)
    assert validation.kendall_tau(np.ones(3), np.arange(3)) == 0.0


def test_the_interval_holds_the_mean_and_narrows_with_more_networks():
    rng = np.random.default_rng(0)
    few, many = rng.exponential(size=20), rng.exponential(size=2000)
    (low, high), (low_many, high_many) = (validation.interval(v, rng) for v in (few, many))
    assert low < few.mean() < high
    assert high_many - low_many < 0.3 * (high - low)
    hits = 0
    for _ in range(200):
        low, high = validation.interval(rng.normal(1, 0.1, 40), rng)
        hits += low <= 1 <= high
    assert 0.88 < hits / 200 < 0.99


@pytest.mark.parametrize(
    ("noise", "error", "missing", "word"),
    [
        (0.005, 0.00625, (), "good"),
        (0.001, 0.006, (), "good"),
        (0.005, 0.0063, (), "usable"),
        (0.005, 0.02, (), "usable"),
        (0.005, 0.0201, (), "unreliable"),
        (0.03, 0.0599, (), "usable"),
        (0.03, 0.061, (), "unreliable"),
        (0.04, 0.01, (), "good"),
        (0.041, 0.01, (), "unreliable"),
        (0.001, 0.001, ("key",), "unreliable"),
    ],
)
def test_verdicts_follow_their_limits(noise, error, missing, word):
    found, reason = validation.verdict(noise, error, missing)
    assert found == word
    assert reason


def test_a_validation_holds_what_its_points_say():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    b = a * [1.01, 0.99, 1.01, 0.99]
    predicted = a * [1.0, 1.07, 1.0, 1.2]
    out = validation.validate(heldout("wxyz", predicted, a, b), [], 0)
    mean = (a + b) / 2
    errors = np.abs(predicted - mean) / mean
    assert out["points"] == [
        [n, *v] for n, *v in zip("wxyz", predicted.tolist(), a.tolist(), b.tolist(), strict=True)
    ]
    assert out["error"]["value"] == pytest.approx(errors.mean())
    assert out["worst"] == pytest.approx(errors.max())
    assert (out["within_5"], out["within_10"], out["kendall_tau"]) == (0.5, 0.75, 1.0)
    assert out["ratio"] == pytest.approx(out["error"]["value"] / out["noise"]["value"])
    assert out == validation.validate(heldout("wxyz", predicted, a, b), [], 0)


@pytest.mark.parametrize("time", [0.0, -1.0, np.inf, np.nan, True, "1", None])
@pytest.mark.parametrize("column", [1, 2, 3])
def test_held_out_times_that_cannot_be_are_refused(time, column):
    known = heldout("abc", *np.array([[1.0, 2, 3], [1.1, 2.0, 2.9], [1.0, 2.1, 3.0]]))
    told = validation.validate(known, (), 0)
    validation.check(told)
    told["points"][1][column] = time
    with pytest.raises(ValueError, match="three times, all above 0"):
        validation.check(told)


@pytest.mark.parametrize(
    "change",
    [{"n": 2}, {"worst": 0.5}, {"verdict": "good"}, {"kendall_tau": True}, {"worst": None}],
)
def test_statistics_other_than_those_of_the_points_are_refused(change):
    known = heldout("abc", *np.array([[1.0, 2, 3], [1.1, 2.0, 2.9], [1.0, 2.1, 3.0]]))
    with pytest.raises(ValueError, match=f"{next(iter(change))} is|networks|verdict"):
        validation.check({**validation.validate(known, (), 0), **change})


def test_a_file_may_leave_statistics_out_but_not_noise_and_error():
    known = heldout("abc", *np.array([[1.0, 2, 3], [1.1, 2.0, 2.9], [1.0, 2.1, 3.0]]))
    told = validation.validate(known, (), 0)
    few = {name: told[name] for name in ("points", "n", "noise", "error", "verdict", "missing")}
    validation.check(few)
    for name in ("noise", "error"):
        with pytest.raises(KeyError, match=name):
            validation.check({key: value for key, value in few.items() if key != name})


def test_measurements_without_any_noise_have_no_ratio():
    a = np.array([1.0, 2.0])
    assert validation.validate(heldout("xy", a, a, a), [], 0)["ratio"] is None


def test_ranks_of_similar_networks_are_those_of_pairs_within_a_tenth():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, 2, (2, 25))
    signs = [
        np.sign((x[i] - x[j]) * (y[i] - y[j]))
        for i, j in itertools.combinations(range(25), 2)
        if abs(x[i] - x[j]) <= 0.1 * min(x[i], x[j])
    ]
    assert 30 < len(signs) < 200
    assert validation.near_tau(x, y, x) == pytest.approx(np.mean(signs))
    assert validation.near_tau(x[:2], y[:2], np.array([1.0, 2.0])) is None


def test_limits_of_similar_and_of_near_belong_to_them():
    x = np.array([1.0, 2.0])
    assert validation.near_tau(x, x, np.array([10.0, 11.0])) == 1.0
    assert validation.near_tau(x, x, np.array([10.0, 11.1])) is None
    true = np.array([20.0, 20.0, 20.0, 20.0])
    found = validation.validate(
        heldout("wxyz", np.array([21.0, 21.1, 22, 22.1]), true, true), [], 0
    )
    assert (found["within_5"], found["within_10"]) == (0.25, 0.75)


@pytest.mark.parametrize("share", [0.001, 0.02])
def test_a_perfect_predictor_has_ratio_0_5_and_measuring_once_more_0_87(share):
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 10, 100_000)
    a, b, again = truth * (1 + share * rng.normal(size=(3, len(truth))))
    noise = validation.relative_noise(a, b).mean()
    for predicted, ratio in ((truth, 1 / 2), (again, np.sqrt(3) / 2)):
        error = validation.relative_error(predicted, a, b).mean()
        assert error / noise == pytest.approx(ratio, rel=0.01)


def test_the_front_is_what_no_other_network_beats():
    cost, gain = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 5.0, 4.0, 2.0])
    assert validation.on_front(cost, gain).tolist() == [True, True, False, False]
    assert validation.on_front(np.ones(2), np.ones(2)).all()


def test_bias_is_told_for_the_fast_end_and_for_what_a_search_would_keep():
    a = np.linspace(1, 8, 40)
    fast = np.arange(40) < 10
    out = validation.validate(
        heldout(map(str, range(40)), a * np.where(fast, 1.1, 1.0), a, a), [], 0
    )
    assert out["bias_fast"] == pytest.approx(0.1)
    assert out["bias"] == pytest.approx(0.025)
    lucky = np.arange(40) % 4 == 0
    predicted = a * np.where(lucky, 0.8, 1.0)
    out = validation.validate(heldout(map(str, range(40)), predicted, a, a, macs=a), [], 0)
    assert out["bias_front"] < 2 * out["bias"] < 0


def test_every_statistic_has_an_interval_that_holds_it():
    rng = np.random.default_rng(2)
    a = rng.uniform(1, 2, 60)
    b, predicted = a * (1 + 0.01 * rng.normal(size=(2, 60)))
    out = validation.validate(heldout(map(str, range(60)), predicted, a, b), [], 0)
    assert out["intervals"].pop("worst") is None  # a resample has no larger one than the sample
    for name in out["intervals"]:
        value = out[name]["value"] if name in ("noise", "error") else out[name]
        low, high = out["intervals"][name]
        assert low <= value <= high or name.startswith("kendall")
    assert out["intervals"]["error"] == out["error"]["interval"]
    assert out["kendall_tau_near"] < out["kendall_tau"]
