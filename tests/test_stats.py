import numpy as np
import pytest

from profilers import stats


def _anchor(session, number, ms, order=0):
    return {
        "id": ["kit", session, number, "anchor-000"],
        "role": "anchor",
        "order": order,
        "ms": ms,
    }


def test_the_latency_is_the_tenth_percentile_with_linear_interpolation():
    assert stats.low_quantile([4.0]) == 4.0
    assert stats.low_quantile(list(range(11))) == 1.0
    assert stats.low_quantile([0.0, 10.0]) == 1.0


def test_a_summary_holds_every_statistic_and_how_many_rounds_it_is_of():
    samples = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert stats.summarise(samples) == {
        "latency_ms": pytest.approx(1.4),
        "median_ms": 3.0,
        "p95_ms": pytest.approx(4.8),
        "spread": pytest.approx(1.4826 / 3),
        "rounds": 5,
    }


def test_a_summary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        stats.summarise([])


def test_the_robust_spread_is_the_standard_deviation_of_normal_samples():
    samples = np.random.default_rng(0).normal(5, 2, 20_000)
    assert stats.robust_spread(samples) == pytest.approx(2, rel=0.03)
    samples[:2_000] = 1e9
    assert stats.robust_spread(samples) == pytest.approx(2, rel=0.2)


def test_a_round_whose_anchor_is_slow_is_disturbed_in_its_own_session_only():
    records = [_anchor("a", i, 10.0 + 0.05 * (i % 3)) for i in range(10)]
    records += [_anchor("b", i, 20.0 + 0.05 * (i % 3)) for i in range(10)]
    assert stats.disturbed_rounds(records) == set()
    assert stats.disturbed_rounds([*records, _anchor("a", 10, 11.5)]) == {("a", 10)}
    assert stats.disturbed_rounds([*records, _anchor("b", 10, 22.5)]) == {("b", 10)}


def test_five_spreads_are_disturbed_on_a_quiet_device_and_ten_percent_on_any():
    quiet = [_anchor("a", i, 10.0 + 0.05 * (i % 3)) for i in range(20)]
    assert stats.disturbed_rounds([*quiet, _anchor("a", 20, 10.6)]) == {("a", 20)}
    restless = [_anchor("a", i, 10.0 + 0.045 * i) for i in range(20)]
    assert stats.disturbed_rounds([*restless, _anchor("a", 20, 10.9)]) == set()
    assert stats.disturbed_rounds([*restless, _anchor("a", 20, 11.2)]) == {("a", 20)}


def test_rounds_that_hardly_differ_are_all_good():
    records = [_anchor("a", i, 10.0) for i in range(10)] + [_anchor("a", 10, 10.05)]
    assert stats.disturbed_rounds(records) == set()


def test_several_anchors_of_a_round_count_by_their_median():
    records = [_anchor("a", i, 10.0 + 0.05 * (i % 3)) for i in range(10)]
    one_slow = [_anchor("a", 10, ms, order) for order, ms in enumerate((10.0, 30.0, 10.1))]
    two_slow = [_anchor("a", 11, ms, order) for order, ms in enumerate((10.0, 30.0, 30.0))]
    assert stats.disturbed_rounds(records + one_slow) == set()
    assert stats.disturbed_rounds(records + two_slow) == {("a", 11)}


def test_other_roles_and_records_without_a_time_say_nothing_about_a_round():
    other = {"id": ["kit", "a", 0, "micro-000"], "role": "micro", "order": 0, "ms": 99.0}
    energy = {"id": ["kit", "a", 0, "anchor-000"], "role": "anchor", "order": 1, "energy_mj": 4.0}
    assert stats.disturbed_rounds([other, energy]) == set()
    assert stats.disturbed_rounds([]) == set()


# ---- windows: groups of models, measured one after the other ---------------------------------


def _round(number, anchor_ms, item):
    sampled = {"id": ["kit", "a", number, item], "role": "micro", "order": 1, "ms": 1.0}
    return [_anchor("a", number, anchor_ms), sampled]


def _group(first, anchor_ms, item, n=5):
    return [r for i in range(n) for r in _round(first + i, anchor_ms + 0.02 * (i % 3), item)]


def test_a_device_that_drifts_between_groups_of_models_disturbs_none_of_them():
    drifting = _group(0, 10.0, "x") + _group(5, 11.5, "y") + _group(10, 12.5, "z")
    assert stats.disturbed_rounds(drifting) == set()
    together = [{**r, "id": [*r["id"][:3], "x" if r["role"] == "micro" else "anchor"]}
                for r in drifting]  # fmt: skip
    assert len(stats.disturbed_rounds(together)) == 10  # one window: the same models stayed open


def test_a_slow_round_of_a_group_is_disturbed_by_the_group_s_own_anchor():
    records = _group(0, 10.0, "x") + _group(5, 11.5, "y") + _round(10, 12.4, "y")
    assert stats.disturbed_rounds(records) == {("a", 10)}
    assert stats.disturbed_rounds([*records, *_round(11, 12.4, "z")]) == {("a", 10)}


def test_a_group_that_was_slow_as_a_whole_is_disturbed():
    records = _group(0, 10.0, "x") + _group(5, 10.2, "y") + _group(10, 13.0, "z")
    assert stats.disturbed_rounds(records) == {("a", number) for number in range(10, 15)}


@pytest.mark.parametrize("slow", [1.3, 1.6, 4.0])
@pytest.mark.parametrize("first", [True, False])
def test_of_two_groups_the_slow_one_is_disturbed(slow, first):
    levels = (10.0 * slow, 10.0) if first else (10.0, 10.0 * slow)
    records = _group(0, levels[0], "x") + _group(5, levels[1], "y")
    numbers = range(5) if first else range(5, 10)
    assert stats.disturbed_rounds(records) == {("a", number) for number in numbers}
    undisturbed = stats.window_levels(records, stats.disturbed_rounds(records))
    assert undisturbed == {"a": [pytest.approx(10.0, rel=0.01)]}
