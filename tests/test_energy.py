"""Energies of ops: measured by replayed power of a modelled machine whose energies are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas import cli, onnx_graph, spaces
from hwnas.config import Config, ProfileConfig, SearchConfig
from hwnas.measuring import energy as campaign
from hwnas.measuring import kit as kits
from hwnas.measuring import remote
from hwnas.measuring.records import Log, open_log
from hwnas.search import problem
from hwnas.search.cost import sum_terms
from hwnas.stages import energy as stage
from hwnas.stages.picking import misses_energy
from hwnas.tables import energy, fit, table
from hwnas.tables.energy import Metered
from profilers.errors import ConfigError, MeterError, TableError, TableFormatError
from profilers.runtimes import fake
from profilers.schema import Target, read_json, read_lines, write_json

SPACE = spaces.load("tiny").restricted([8])
SETTINGS = ProfileConfig(budget_s=30, heldout=10, rounds=10)
IGNORED = ("emulated",)


def silent(text, share):
    assert 0 <= share <= 1


def metered_target(folder):
    """A modelled machine whose power is recorded, and replayed as its meter."""
    log = str(folder / "power.csv")
    connection = {"kind": "local", "power_log": log}
    return Target(
        "fake", "fake", meter="replay", meter_options={"path": log}, connection=connection
    )


def true_mj(key):
    """Energy of an op on the modelled machine."""
    return fake.op_mj(key) + (fake.IDLE_W + fake.RUN_W) * fake.op_ms(key)


class Campaign:
    """A profiled space: kit, measurements with energy, table."""

    def __init__(self, folder):
        self.folder, self.target = folder, metered_target(folder)
        self.info = kits.make_kit(SPACE, folder / "kit", 1, SETTINGS)
        self.path = folder / "m.jsonl"
        found = remote.run_campaign(self.target, self.info.folder, self.path, SETTINGS, silent)
        self.environment = found.environment
        self.result = self.run()
        self.table = self.fitted()

    def log(self, path=None):
        return open_log(path or self.path, self.target, self.environment, self.info.hash)

    def run(self, log=None, settings=SETTINGS, **options):
        files = {i["sha256"]: self.info.folder / i["file"] for i in self.info.kit["items"]}
        log = self.log() if log is None else log
        return campaign.run_energy(
            self.target, self.info.kit, files, log, settings, silent, **options
        )

    def fitted(self, records=None):
        header, *lines = read_lines(self.path)[0]
        return fit.fit_table(SPACE, self.info.kit, header, records or lines, 0)


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
    fitted = done.fitted(read_lines(copy)[0][1:])
    assert fitted.energy["windows"] == found.windows


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
    about, checked = done.table.energy, done.table.energy["validation"]
    assert about["estimator"] == "time + macs + weights"
    assert about["meter"] == "replay"
    assert about["marks"] == ["emulated"]
    assert about["rails"] == ["machine"]
    assert about["windows"] == 45
    assert about["idle_w"] == pytest.approx(fake.IDLE_W)
    assert checked["n"] == 5
    assert checked["error"]["value"] < 0.02
    assert checked["noise"]["value"] < 0.02
    assert checked["verdict"] == "usable"
    told = table.describe(done.table)
    assert told["energy_error"] == checked["error"]["value"]
    assert "energy_mj" in table.op_rows(done.table)[0]


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


# ---- energy as an objective --------------------------------------------------------------------


def metric(found):
    row_mj, intercept_mj = energy.prices(found)
    return sum_terms(SPACE, lambda spec: row_mj(spec.key), intercept_mj)


def test_the_energy_of_a_network_is_the_sum_of_its_rows(done):
    rng = np.random.default_rng(3)
    archs = [SPACE.random(rng) for _ in range(20)]
    priced = metric(done.table).evaluate(SPACE.genome(archs))
    for arch, mj in zip(archs, priced, strict=True):
        expected = (fake.IDLE_W + fake.RUN_W) * fake.RUN_MS + sum(
            true_mj(op.spec.key) for op in arch.ops
        )
        assert mj == pytest.approx(expected, rel=0.02)


def test_energy_may_be_an_objective_and_a_budget(done):
    metrics = problem.metrics_of(SPACE) | {"energy_mj": metric(done.table)}
    largest = metrics["energy_mj"].evaluate(SPACE.genome([SPACE.largest]))[0]
    settings = SearchConfig(objectives=("macs", "energy_mj"), budgets={"energy_mj": "60%"})
    stated = problem.make_problem(SPACE, settings, metrics)
    assert stated.budgets["energy_mj"] == pytest.approx(0.6 * largest)
    assert stated.additive


def test_energy_that_nobody_measured_is_refused_with_what_to_do():
    with pytest.raises(
        ConfigError, match="energy_mj is not known here: it needs a table with energ"
    ):
        problem.make_problem(
            SPACE, SearchConfig(objectives=("macs", "energy_mj")), problem.metrics_of(SPACE)
        )


def test_energies_are_refused_by_name(done):
    plain = replace(done.table, energy={}, target={**done.table.target, "meter": "none"})
    assert energy.refusal(plain) == (
        "table fake.fake.fp32.b1.t1 holds no energy: its meter is none; name a meter in "
        "targets/fake.fake.fp32.b1.t1.yaml"
    )
    with pytest.raises(TableError, match="holds no energy"):
        energy.prices(plain)
    assert "are emulated; --accept emulated" in energy.refusal(done.table)
    assert energy.refusal(done.table, IGNORED) == ""
    bad = {**done.table.energy["validation"], "verdict": "unreliable", "reason": "off by 20 %"}
    doubtful = replace(done.table, energy={**done.table.energy, "validation": bad})
    assert "are unreliable: off by 20 %" in energy.refusal(doubtful, IGNORED)


def test_a_budget_of_energy_is_missed_beyond_the_noise_only():
    assert misses_energy(1.2, {"energy_mj": 1.0}, 0.1)
    assert not misses_energy(1.05, {"energy_mj": 1.0}, 0.1)
    assert not misses_energy(None, {"energy_mj": 1.0}, 0.1)
    assert not misses_energy(9.0, {"latency_ms": 1.0}, 0.1)


def test_a_search_for_energy_needs_a_meter_that_works():
    wanted = {"objectives": ["error", "energy_mj"]}
    assert stage.is_wanted(Config(search=wanted))
    assert not stage.is_wanted(Config())
    assert stage.is_wanted(Config(search={"budgets": {"energy_mj": 3.0}}))


# ---- the whole job -----------------------------------------------------------------------------

RUN = """
run: run
data: {kind: digits}
space: {name: tiny, resolutions: [8]}
train: {epochs: 2, threads: 1}
accuracy: {measure: 16, bn_images: 128}
targets: [fake.fake.fp32.b1.t1]
profile: {budget_s: 5, heldout: 10, rounds: 10, energy_budget_s: 120}
search: {population: 20, generations: 5, objectives: [error, energy_mj]}
pick:
  - {rule: best}
  - {budget: {energy_mj: 60%}}
check: {max_gap: 50%}
"""


def hwnas(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def described(folder, **changes):
    """A project with a target of its own."""
    target = metered_target(folder).to_json() | changes
    (folder / "targets").mkdir(exist_ok=True)
    (folder / "targets" / f"{target.pop('name')}.yaml").write_text(json.dumps(target))
    (folder / "hwnas.yaml").write_text(RUN)


@pytest.mark.slow
def test_a_run_searches_for_energy_and_measures_it(tmp_path, capsys):
    described(tmp_path)
    config = tmp_path / "hwnas.yaml"
    assert hwnas("run", config, "--accept", "emulated") == 0
    run = tmp_path / "run"
    found = read_json(run / "fronts" / "fake.fake.fp32.b1.t1.json")
    assert [o["name"] for o in found["objectives"]] == ["error", "energy_mj"]
    manifests = [read_json(p) for p in sorted(run.glob("packages/*/*/manifest.json"))]
    assert len(manifests) == 2
    for manifest in manifests:
        measured = manifest["measured"]
        assert measured["energy_mj"] == pytest.approx(manifest["predicted"]["energy_mj"], rel=0.05)
        assert 0 < measured["energy"]["net_energy_mj"] < measured["energy_mj"]
        assert manifest["target"]["meter_options"] == {}
    budget = next(m["budgets"]["energy_mj"] for m in manifests if m["budgets"])
    assert any(m["measured"]["energy_mj"] <= 1.01 * budget for m in manifests)
    assert "| energy, mJ" in (sorted(run.glob("packages/*/*/MODEL_CARD.md"))[0]).read_text()
    capsys.readouterr()
    assert hwnas("run", config, "--accept", "emulated", "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"] == ["report"]


@pytest.mark.slow
def test_a_meter_that_fails_stops_a_run_for_energy_and_no_other(tmp_path, capsys):
    described(tmp_path, meter_options={"path": str(tmp_path / "none.csv")})
    config = tmp_path / "hwnas.yaml"
    assert hwnas("profile", config, "--accept", "emulated") == 4
    assert "none.csv: No such file" in capsys.readouterr().err
    latency = ("--set", "search.objectives=[error, latency_ms]")
    assert hwnas("profile", config, "--accept", "emulated", *latency) == 0
    assert "none.csv: No such file" in capsys.readouterr().err
    found = table.load_table(tmp_path / "run" / "tables" / "fake.fake.fp32.b1.t1.json")
    assert "none.csv" in found.energy["reason"]


def test_models_of_the_user_show_their_energy(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x" * 100_000)
    found = remote.told_energies(metered_target(tmp_path), [path], SETTINGS)[0]
    expected = (fake.IDLE_W + fake.RUN_W) * (fake.RUN_MS + 100_000 * fake.MS_PER_BYTE)
    assert found["energy_mj"] == pytest.approx(expected, rel=0.03)
    assert found["energy"]["windows"] == 3
    plain = replace(metered_target(tmp_path), meter="none")
    assert remote.told_energies(plain, [path], SETTINGS) == [{}]


def test_a_real_counter_is_read_while_a_real_engine_runs(tmp_path):
    """The clock since the machine was started as a counter of joules: one watt, whatever runs."""
    if not Path("/proc/uptime").is_file():
        pytest.skip("no /proc/uptime here")
    path = tmp_path / "model.onnx"
    ops = SPACE.largest.ops
    rng = np.random.default_rng(0)
    values = {w.name: rng.normal(0, 0.2, w.shape) for w in onnx_graph.weights_of(ops)}
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values, 1)))
    options = {"command": "cut -d' ' -f1 /proc/uptime", "unit": "J", "period_s": "0.02"}
    target = Target("host", "ort-cpu", meter="command", meter_options=options)
    short = SETTINGS.model_copy(update={"energy_budget_s": 0.1, "energy_window_s": 0.5})
    found = remote.measure_energies(target, [path], short)[0]
    assert found["windows"] == 1
    assert found["power_w"] == pytest.approx(1.0, rel=0.2)
    assert found["idle_w"] == pytest.approx(1.0, rel=0.2)
    assert found["samples"] > 5


def test_measure_prints_energy_beside_latency(tmp_path, monkeypatch, capsys):
    described(tmp_path)
    monkeypatch.chdir(tmp_path)
    ops = SPACE.largest.ops
    values = {w.name: np.zeros(w.shape) for w in onnx_graph.weights_of(ops)}
    Path("model.onnx").write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values, 1)))
    target = "fake.fake.fp32.b1.t1"
    assert hwnas("measure", "model.onnx", "--target", target, "--energy-budget", "60") == 0
    assert "energy mJ" in capsys.readouterr().out
    assert hwnas("measure", "model.onnx", "--target", target, "--json") == 0
    found = json.loads(capsys.readouterr().out)["models"][0]
    assert found["energy"]["power_w"] == pytest.approx(fake.IDLE_W + fake.RUN_W, rel=0.03)
    assert hwnas("measure", "model.onnx", "--target", target, "--energy-budget", "0") == 0
    assert "energy mJ" not in capsys.readouterr().out


def test_an_unknown_meter_is_refused_before_anything_is_measured():
    with pytest.raises(ConfigError, match="unknown meter 'rappl'; did you mean 'rapl'"):
        remote.probe(Target("fake", "fake", meter="rappl"))


def test_the_energy_of_one_model_that_stays_unknown_is_an_error(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x" * 1000)
    broken = replace(metered_target(tmp_path), meter_options={"path": str(tmp_path / "no.csv")})
    with pytest.raises(MeterError, match=r"no\.csv: No such file"):
        remote.measure_energies(broken, [path], SETTINGS)
    assert remote.told_energies(broken, [path], SETTINGS)[0]["energy_mj"] is None
