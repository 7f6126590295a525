"""Energies of ops: measured by replayed power of a modelled machine whose energies are known."""

from dataclasses import replace

import numpy as np
import pytest
from energy_campaigns import SETTINGS, SPACE, Campaign, silent, true_mj

from hwnas.fakes.runtimes import fake
from hwnas.measuring import energy as campaign
from hwnas.measuring.records import Log
from hwnas.measuring.windows import session_of
from hwnas.tables import about, energy, fit, table
from hwnas.tables.energy import Metered
from profilers.errors import TableFormatError
from profilers.schema import read_json, read_lines, write_json

IGNORED = ("emulated",)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("energy"))


def windows(log):
    return [record for record in log.records if "energy_mj" in record]


# ---- windows of a campaign ---------------------------------------------------------------------


def test_fifteen_networks_get_three_windows_each(done):
    found = windows(done.log())
    assert done.result == campaign.EnergyResult(45, 15, pytest.approx(217, rel=0.1), "")
    names = [record["id"][3] for record in found]
    assert {names.count(name) for name in names} == {3}
    assert {record["role"] for record in found} == {"calibration", "heldout"}
    assert all(record["window_s"] >= 2 for record in found)
    assert all(record["idle_w"] == pytest.approx(fake.IDLE_W) for record in found)


def test_one_window_of_each_comes_before_the_second_of_any(done):
    numbers = [record["id"][2] for record in windows(done.log())]
    assert numbers == sorted(numbers)


def test_a_finished_campaign_asks_no_worker(done):
    def connect(target, purpose):
        raise AssertionError("a worker was started")

    assert done.run(connect=connect).windows == 45


def test_a_campaign_that_was_cut_measures_what_is_missing_and_no_more(done, tmp_path):
    lines = done.path.read_text().splitlines(keepends=True)
    kept = [line for n, line in enumerate(lines) if "energy_mj" not in line or n % 11]
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(kept))
    missing = len(lines) - len(kept)
    assert missing > 2
    assert done.run(done.log(cut)).windows == 45
    assert len(cut.read_text().splitlines()) == len(lines)


def test_windows_of_another_meter_or_with_other_options_do_not_count(done, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(done.path.read_bytes())
    options = {**done.target.meter_options, "rails": "machine"}
    other = replace(done.target, meter_options=options)
    files = {i["sha256"]: done.info.folder / i["file"] for i in done.info.kit["items"]}
    short = SETTINGS.model_copy(update={"energy_budget_s": 20})
    found = campaign.run_energy(other, done.info.kit, files, done.log(copy), short, silent)
    assert 0 < found.windows < 45
    header, *records = read_lines(copy)[0]
    for session in ("", session_of(other)):
        told = energy.with_energy(done.table, done.info.kit, records, 0, session)
        assert told.energy["windows"] == found.windows  # of the meter that was used last
    silent_one = session_of(replace(other, meter="rapl"))
    assert energy.with_energy(done.table, done.info.kit, records, 0, silent_one) is done.table
    again = fit.Campaign(done.info.kit, header, records, session_of(done.target))
    assert fit.fit_campaigns(SPACE, [again], 0).energy["windows"] == 45


def test_a_small_budget_measures_fewer_networks_and_says_so(done):
    log = Log(done.info.hash)
    found = done.run(log, SETTINGS.model_copy(update={"energy_budget_s": 20}))
    assert found.networks == campaign.FEWEST
    assert found.windows < 3 * campaign.FEWEST
    assert found.reason == "the energy budget of 20 s is spent"


def test_any_first_networks_are_small_to_large_and_some_are_held_out(done):
    names = campaign.metered(done.info.kit)
    roles = {item["name"]: item["role"] for item in done.info.kit["items"]}
    assert [roles[name] == "heldout" for name in names[:6]] == [False, False, True] * 2
    macs = {item["name"]: campaign._macs(item) for item in done.info.kit["items"]}
    fitted = [macs[name] for name in names if roles[name] == "calibration"]
    assert fitted[:2] == [min(fitted), max(fitted)]


def test_a_meter_that_gives_nothing_ends_with_its_reason(done):
    broken = replace(done.target, meter_options={"path": str(done.folder / "none.csv")})
    files = {i["sha256"]: done.info.folder / i["file"] for i in done.info.kit["items"]}
    log = Log(done.info.hash)
    found = campaign.run_energy(broken, done.info.kit, files, log, SETTINGS, silent)
    assert found.windows == 0
    assert "none.csv: No such file or directory" in found.reason


# ---- the fit -----------------------------------------------------------------------------------


def test_energies_of_ops_are_those_of_the_modelled_machine(done):
    row_mj, intercept_mj = energy.prices(done.table)
    for key in done.table.rows:
        assert row_mj(key) == pytest.approx(true_mj(key), rel=0.03, abs=0.003)
    assert intercept_mj(8) == pytest.approx((fake.IDLE_W + fake.RUN_W) * fake.RUN_MS, abs=0.01)


def test_the_table_says_what_its_energies_rest_on(done):
    section, checked = done.table.energy, done.table.energy["validation"]
    assert section["estimator"] == "time + macs + weights"
    assert section["meter"] == "replay"
    assert section["marks"] == ["emulated"]
    assert section["rails"] == ["machine"]
    assert section["windows"] == 45
    assert section["idle_w"] == pytest.approx(fake.IDLE_W)
    assert checked["n"] == 5
    assert checked["error"]["value"] < 0.02
    assert checked["noise"]["value"] < 0.02
    assert checked["verdict"] == "usable"
    told = about.describe(done.table)
    assert told["energy_error"] == checked["error"]["value"]
    assert "energy_mj" in about.op_rows(done.table)[0]


def test_energies_of_a_real_meter_are_measured_where_the_table_is(done):
    records = read_lines(done.path)[0][1:]
    real = [{**r, "meter": "rapl"} if "energy_mj" in r else r for r in records]
    for marks, expected in ((("measured",), "measured"), (("emulated",), "emulated")):
        plain = replace(done.table, marks=marks)
        assert energy.with_energy(plain, done.info.kit, real, 0).energy["marks"] == [expected]
        replayed = energy.with_energy(plain, done.info.kit, records, 0)
        assert replayed.energy["marks"] == ["emulated"]


def test_a_table_keeps_its_energies_in_its_file(done, tmp_path):
    path = tmp_path / "table.json"
    table.save(done.table, path)
    assert table.load_table(path) == done.table
    content = {k: v for k, v in read_json(path).items() if k != "sha256"}
    key = next(iter(content["rows"]))
    content["rows"][key]["energy_mj"] = -1.0
    write_json(path, {**content, "sha256": table.sha256_text(table.canonical_json(content))})
    with pytest.raises(TableFormatError, match=r"-1\.0"):
        table.load_table(path)


@pytest.mark.parametrize(
    "change",
    [
        {"intercept_mj": {}},
        {"intercept_mj": {"8": "much"}},
        {"reason": None},
        {"validation": {"verdict": "good"}},
        {"marks": ["guessed"]},
        {"rails": None, "idle_w": None, "estimator": 3},
    ],
)
def test_a_table_whose_energies_are_not_whole_is_refused(done, tmp_path, change):
    path = tmp_path / "table.json"
    table.save(replace(done.table, energy={**done.table.energy, **change}), path)
    with pytest.raises(TableFormatError, match="is not complete"):
        table.load_table(path)


FALSE = {"n": 0, "noise": None, "error": {"value": 0.0}, "points": [], "verdict": "usable"}


@pytest.mark.parametrize(
    "change",
    [
        {"error": {"value": 0.0}},
        {"verdict": "unreliable"},
        {"n": 15},
        {"points": []},
        {"noise": {"value": -0.1}},
        {"noise": {"value": 0.2}},
        FALSE,
        {**FALSE, "error": None},
        {**FALSE, "error": None, "verdict": "unvalidated"},
    ],
)
def test_energies_whose_validation_is_not_what_their_points_give_are_refused(
    done, tmp_path, change
):
    path = tmp_path / "table.json"
    about = done.table.energy
    checked = {**about["validation"], **change}
    table.save(replace(done.table, energy={**about, "validation": checked}), path)
    with pytest.raises(TableFormatError, match="is not complete"):
        table.load_table(path)


def test_imported_energies_are_kept_as_what_they_are_unvalidated(done, tmp_path):
    path = tmp_path / "table.json"
    checked = {**done.table.energy["validation"], **FALSE, "error": None, "verdict": "unvalidated"}
    checked["reason"] = "they were imported without whole networks"
    nothing = dict.fromkeys(("meter", "windows", "window_s", "period_s", "idle_w", "power_w"))
    section = {**done.table.energy, **nothing, "marks": ["imported"], "validation": checked}
    table.save(replace(done.table, energy=section), path)
    found = table.load_table(path)
    assert about.describe(found)["energy"].startswith("unvalidated: they were imported")
    assert not energy.refusal(found)
    for false in (FALSE, {**FALSE, "error": None}, {"verdict": "usable"}, {"n": 2}):
        wrong = {**section, "validation": {**checked, **false}}
        table.save(replace(done.table, energy=wrong), path)
        with pytest.raises(TableFormatError, match="is not complete"):
            table.load_table(path)


def test_lines_that_are_no_windows_are_left_out(done):
    lines = read_lines(done.path)[0][1:]
    broken = []
    for record in windows(done.log())[:3]:
        broken += [{**record, "energy_mj": "much"}, {**record, "id": ["x", "e-1", 0, "y"]}]
        broken += [{**record, "rails": None}, {**record, "profile": []}, {"energy_mj": 1.0}]
    assert done.fitted(lines + broken).energy == done.table.energy


def test_a_table_without_energy_is_the_file_it_was_before_energies_came(done, tmp_path):
    lines = read_lines(done.path)[0][1:]
    plain = done.fitted([line for line in lines if "energy_mj" not in line])
    table.save(plain, tmp_path / "table.json")
    content = read_json(tmp_path / "table.json")
    assert "energy" not in content
    assert not any("energy_mj" in row for row in content["rows"].values())
    assert {k: r["latency_ms"] for k, r in plain.rows.items()} == {
        k: r["latency_ms"] for k, r in done.table.rows.items()
    }


def test_measurements_do_not_say_where_the_meter_is(done):
    assert str(done.folder) not in done.path.read_text()


def test_too_few_networks_give_no_energies_and_the_reason(done):
    lines = read_lines(done.path)[0][1:]
    few = {record["id"][3] for record in windows(done.log())[:4]}
    found = done.fitted([r for r in lines if "energy_mj" not in r or r["id"][3] in few])
    assert "raise profile.energy_budget_s" in found.energy["reason"]
    assert "holds no energy: energy was measured of" in energy.refusal(found, IGNORED)


def known(rng, weights, n=12, noise=0.0):
    views = {name: rng.uniform(1, 5, n) for name in ("time", *energy.EXTRA)}
    views["once"] = np.ones(n)
    mj = sum(weight * views[name] for name, weight in weights.items())
    mj = mj * (1 + noise * rng.normal(size=n))
    return Metered(tuple(str(k) for k in range(n)), views, mj, tuple((v, v) for v in mj))


@pytest.mark.parametrize(
    "weights", [{"time": 3.0}, {"time": 3.0, "ends": 0.5}, {"macs": 2.0, "once": 4.0}]
)
def test_weights_of_known_energies_are_found_again(weights):
    found = energy.solve(
        ("time", *energy.EXTRA[:2], "once"), known(np.random.default_rng(0), weights)
    )
    assert {name: value for name, value in found.items() if value > 1e-9} == {
        name: pytest.approx(value) for name, value in weights.items()
    }


def test_noise_is_what_two_windows_of_a_network_differ_by():
    """As a share of their median: 1, 2 and 3 of 10 mJ; nothing is known of a single window."""
    exact = known(np.random.default_rng(0), {"time": 3.0}, 3)
    windows = exact._replace(windows_mj=((9.0, 10.0, 12.0), (10.0,), (20.0, 20.0)))
    found = energy.validate(windows, windows, {"time": 3.0}, 0)
    assert [noise for *_, noise in found["points"]] == pytest.approx([0.2, 0.0, 0.0])
    assert found["noise"]["value"] == pytest.approx(0.1)
    assert found["error"]["value"] == found["worst"] == pytest.approx(0, abs=1e-12)


def test_no_weight_is_negative_whatever_the_energies_are():
    rng = np.random.default_rng(1)
    for _ in range(20):
        found = energy.solve(("time", "macs", "weights"), known(rng, {"time": 1.0}, 6, noise=0.3))
        assert found
        assert all(value >= 0 for value in found.values())


def test_the_true_estimator_predicts_networks_that_were_left_out_best():
    data = known(np.random.default_rng(2), {"time": 3.0, "weights": 2.0}, noise=0.01)
    scores = {names: energy.leave_one_out(names, data) for names in energy.candidates()}
    assert scores["time", "weights"] < 0.02
    assert scores["time", "weights"] < scores["time",] / 3


@pytest.mark.parametrize(
    ("noise", "error", "word"),
    [
        (0.01, 0.03, "usable"),
        (0.01, 0.06, "unreliable"),
        (0.2, 0.0, "unreliable"),
        (None, 0, "unreliable"),
    ],
)
def test_the_verdict_goes_by_noise_and_error(noise, error, word):
    assert energy.verdict(noise, error)[0] == word
