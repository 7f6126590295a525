from dataclasses import replace

import numpy as np
import pytest
from campaigns import World, simulate, true_costs
from search_cases import of_family

from hwnas.measuring import kit as kits
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.settings.errors import TableError
from hwnas.tables import estimators, fit, table
from profilers import schema

SPACE_ALL = spaces.load("tiny")
SPACE = SPACE_ALL.restricted([16])
WORLD = World(scale_ms=1e-5)


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit") / "kit"
    return kits.make_kit(SPACE, folder, 1, ProfileConfig(heldout=30)).kit


@pytest.fixture(scope="module")
def campaign(kit):
    return simulate(kit, WORLD)


@pytest.fixture(scope="module")
def fitted(kit, campaign):
    return fit.fit_table(SPACE, kit, *campaign, seed=0)


WITHOUT_PROFILE = replace(WORLD, unattributed=None)


def _refit(kit, world, seed=0):
    return fit.fit_table(SPACE, kit, *simulate(kit, world, seed), seed=0)


@pytest.fixture(scope="module")
def without_profile(kit):
    return _refit(kit, WITHOUT_PROFILE)


def test_held_out_networks_are_predicted_to_the_noise_of_the_device(kit, fitted, without_profile):
    for one, world, most in ((fitted, WORLD, 1.2), (without_profile, WITHOUT_PROFILE, 1.3)):
        found = [one, *(_refit(kit, world, seed) for seed in (1, 2))]
        assert np.mean([each.validation["ratio"] for each in found]) < most


def test_a_table_is_better_than_the_usual_ones(fitted):
    found = fitted.validation
    assert found["verdict"] == "good"
    assert found["error"]["value"] < 0.5 * found["baselines"]["macs"]
    assert found["error"]["value"] < 0.1 * found["baselines"]["plain sum of ops alone"]


def test_points_are_the_predictions_of_the_table_for_the_held_out_networks(kit, fitted):
    archs = {
        arch.id: arch
        for arch in (SPACE.from_json(i["arch"]) for i in kit["items"] if i["role"] == "heldout")
    }
    points = fitted.validation["points"]
    assert {name for name, *_ in points} == set(archs)
    for name, predicted, a, b in points:
        assert table.network_latency(fitted, archs[name]) == pytest.approx(predicted, rel=1e-9)
        assert predicted == pytest.approx((a + b) / 2, rel=0.05)


def test_rows_come_near_the_true_costs(kit):
    exact = _refit(kit, replace(WORLD, noise=0, burst=0, own=0.05, alone=0, in_place=0))
    truth = true_costs(sorted(exact.rows), replace(WORLD, own=0.05), np.random.default_rng(0))
    rows = [exact.rows[key]["latency_ms"] for key in truth]
    assert np.corrcoef(rows, list(truth.values()))[0, 1] > 0.99
    assert exact.validation["error"]["value"] < 0.002


def test_an_op_of_every_network_that_looks_free_is_held_above_0_and_said_to_be_uncertain(kit):
    stem = next(op["key"] for op in kit["items"][0]["ops"] if op["slot"] == "stem")
    world = replace(WORLD, noise=0.01, unattributed=None, costs={stem: 1e-9})
    found = fit.fit_table(SPACE, kit, *simulate(kit, world), seed=0)
    assert found.calibration["held"] >= 1
    assert table.costless(found) == []
    row = found.rows[stem]
    assert row["latency_ms"] > 0
    assert row["uncertainty_ms"] >= row["latency_ms"]
    assert found.validation["ratio"] < 1.3


def test_the_estimator_with_the_least_cross_validation_error_is_taken(fitted):
    contest = fitted.validation["estimators"]
    best = min(contest, key=lambda entry: entry["cross_validation"])
    assert (best["name"], best["freedom"]) == (
        fitted.calibration["estimator"],
        fitted.calibration["freedom"],
    )
    assert len(contest) == len(estimators.CANDIDATES)


def test_held_out_times_choose_nothing(kit, campaign, fitted):
    header, records = campaign
    rng = np.random.default_rng(0)
    changed = [
        {**r, "ms": r["ms"] * rng.uniform(0.5, 2)} if r["role"] == "heldout" else r for r in records
    ]
    other = fit.fit_table(SPACE, kit, header, changed, seed=0)
    assert other.rows == fitted.rows
    assert other.calibration == fitted.calibration
    assert other.verdict == "unreliable"


def test_the_same_measurements_give_the_same_table_in_any_order(kit, campaign, fitted):
    header, records = campaign
    turned = fit.fit_table(SPACE, kit, header, records[::-1], seed=0)
    assert replace(turned, source=fitted.source) == fitted


def test_noise_drift_and_bad_fits_are_told_by_the_verdict(kit):
    noisy = _refit(kit, replace(WORLD, noise=0.06))
    assert noisy.verdict == "unreliable"
    assert "stop other work" in noisy.validation["reason"]
    drifted = _refit(kit, replace(WORLD, drift=0.2))
    assert drifted.verdict == "unreliable"
    assert drifted.validation["drift"] == pytest.approx(0.18, abs=0.02)
    not_additive = _refit(kit, replace(WORLD, noise=0.002, interplay=0.04))
    assert not_additive.verdict == "unreliable"
    assert "predictions are off by" in not_additive.validation["reason"]


def test_disturbed_rounds_do_not_harm_the_table(kit, fitted):
    disturbed = _refit(kit, replace(WORLD, slow_rounds=(0, 3, 4)))
    assert disturbed.verdict == "good"
    assert disturbed.protocol["disturbed_rounds"] == {"a": 3, "b": 0}


def test_an_engine_that_times_no_ops_gives_a_table_all_the_same(without_profile):
    found = without_profile
    assert "gives no times" in found.calibration["in_place_unused"]
    assert found.calibration["unattributed"] is None
    assert not any("in place" in e["name"] for e in found.validation["estimators"])


def test_several_resolutions_have_an_intercept_each(tmp_path):
    space = spaces.load("tiny").restricted([8, 16])
    kit = kits.make_kit(space, tmp_path / "kit", 1, ProfileConfig(heldout=20)).kit
    found = fit.fit_table(space, kit, *simulate(kit, WORLD), seed=0)
    assert found.resolutions == (8, 16)
    assert set(found.calibration["intercept_ms"]) == {"8", "16"}
    table.check_serves(found, space)


def test_what_was_measured_with_is_kept_in_the_table(kit, campaign, fitted, tmp_path):
    header, records = campaign
    assert fitted.environment == header["environment"]
    assert fitted.kit == header["kit"] == kits.kit_hash(kit)
    schema.append_lines(tmp_path / "m.jsonl", [header, *records])
    assert fitted.source == schema.sha256_file(tmp_path / "m.jsonl")
    table.save(fitted, tmp_path / "t.json")
    assert table.load_table(tmp_path / "t.json") == fitted


def test_times_that_the_worker_calls_emulated_are_marked(campaign):
    header = campaign[0]
    emulated = {**header, "environment": {**header["environment"], "emulated": True}}
    marks = [fit.marks(given) for given in (header, emulated)]
    assert marks == [("measured",), ("emulated",)]


def test_measurements_of_another_kit_or_space_are_refused(kit, campaign):
    header, records = campaign
    with pytest.raises(TableError, match="are of kit 111111111111, wanted"):
        fit.fit_table(SPACE, kit, {**header, "kit": "1" * 64}, records, 0)
    with pytest.raises(TableError, match="another geometry than mbv3-28"):
        fit.fit_table(spaces.load("mbv3-28"), kit, header, records, 0)


def test_ops_that_the_kit_does_not_hold_make_the_table_unreliable(kit, campaign):
    stages = (replace(SPACE.family.stages[0], kernel_sizes=(3, 5, 7)), SPACE.family.stages[1])
    wider = of_family(SPACE, stages=stages)
    found = fit.fit_table(wider, kit, *campaign, seed=0)
    assert found.verdict == "unreliable"
    assert "ops of the space were not measured" in found.validation["reason"]
    assert found.validation["missing"]


def test_campaigns_of_one_resolution_each_become_a_table_of_all(tmp_path):
    parts = []
    for size in (8, 16):
        made = kits.make_kit(
            SPACE_ALL.restricted([size]), tmp_path / str(size), 1, ProfileConfig(heldout=20)
        )
        parts.append(fit.Campaign(made.kit, *simulate(made.kit, WORLD)))
    both = SPACE_ALL.restricted([8, 16])
    found = fit.fit_campaigns(both, parts, seed=0)
    table.check_serves(found, both)
    assert found.resolutions == (8, 16)
    assert found.validation["n"] == 40
    assert found.verdict in ("good", "usable")
    assert [recipe["resolutions"] for recipe in found.protocol["kits"]] == [[8], [16]]
    alone = [
        fit.fit_campaigns(both.restricted([s]), [p], 0) for s, p in zip((8, 16), parts, strict=True)
    ]
    for one in alone:
        arch = both.restricted(one.resolutions).largest
        together = table.network_latency(found, arch)
        assert together == pytest.approx(table.network_latency(one, arch), rel=0.03)
