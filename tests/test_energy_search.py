"""Energy as an objective and a budget, and the whole job with a replayed meter."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from energy_campaigns import SETTINGS, SPACE, Campaign, metered_target, true_mj
from test_predictor import measured

from hwnas import cli
from hwnas.fakes.runtimes import fake
from hwnas.measuring import here, remote
from hwnas.networks import onnx_graph
from hwnas.predictors import predictor
from hwnas.predictors.fit import fit_predictor
from hwnas.pricing.terms import op_terms
from hwnas.report.collect import collect
from hwnas.run import energy as stage
from hwnas.run.context import Context
from hwnas.run.folder import RunFolder
from hwnas.run.results import misses
from hwnas.run.search import make_problem
from hwnas.search import problem
from hwnas.search.problem import metrics_of
from hwnas.settings.config import Config, SearchConfig
from hwnas.tables import energy, table
from profilers.errors import ConfigError, MeterError, TableError
from profilers.schema import Target, read_json, write_json

IGNORED = ("emulated",)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("energy"))


# ---- energy as an objective --------------------------------------------------------------------


def test_the_report_tells_energies_of_a_table_and_draws_its_heldout_networks(done, tmp_path):
    search = {"algorithm": "nsga2", "objectives": ["error", "energy_mj"], "seed": 0}
    settings = {"run": str(tmp_path), "targets": [done.table.target["name"]], "search": search}
    settings |= {"data": {"kind": "digits"}}
    write_json(tmp_path / "config.json", settings)
    (target,) = settings["targets"]
    table.save(done.table, tmp_path / "tables" / f"{target}.json")
    told = collect(tmp_path, tmp_path / "report.html")["targets"][0]["energy"]
    checked = done.table.energy["validation"]
    assert checked["reason"] in told["words"]
    assert "Meter replay" in told["words"]
    for (name, predicted, a, b), point in zip(told["heldout"], checked["points"], strict=True):
        assert (name, predicted) == tuple(point[:2])
        assert (a + b) / 2 == pytest.approx(point[2])
        assert (b - a) / point[2] == pytest.approx(point[3], abs=1e-9)
    rows = {
        key: {name: value for name, value in row.items() if name != "energy_mj"}
        for key, row in done.table.rows.items()
    }
    unknown = replace(done.table, rows=rows, energy={"reason": "the meter did not answer"})
    table.save(unknown, tmp_path / "tables" / f"{target}.json")
    told = collect(tmp_path, tmp_path / "report.html")["targets"][0]["energy"]
    assert told == {"words": "unknown: the meter did not answer", "heldout": []}


def metric(found):
    row_mj, intercept_mj = energy.prices(found)
    return op_terms(SPACE, lambda op: row_mj(op.key), intercept_mj)


def test_the_energy_of_a_network_is_the_sum_of_its_rows(done):
    rng = np.random.default_rng(3)
    archs = [SPACE.random(rng) for _ in range(20)]
    priced = metric(done.table).evaluate(SPACE.genome(archs))
    for arch, mj in zip(archs, priced, strict=True):
        expected = (fake.IDLE_W + fake.RUN_W) * fake.RUN_MS + sum(
            true_mj(placed.op.key) for placed in arch.ops
        )
        assert mj == pytest.approx(expected, rel=0.02)


def test_energy_may_be_an_objective_and_a_budget(done):
    metrics = problem.metrics_of(SPACE) | {"energy_mj": metric(done.table)}
    largest = metrics["energy_mj"].evaluate(SPACE.genome([SPACE.largest]))[0]
    settings = SearchConfig(objectives=("macs", "energy_mj"), budgets={"energy_mj": "60%"})
    stated = problem.make_problem(SPACE, settings, metrics)
    assert stated.budgets["energy_mj"] == pytest.approx(0.6 * largest)
    assert not stated.why_not_exact


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


def test_energies_that_are_accepted_by_name_are_said_once_a_search(done, tmp_path):
    bad = {**done.table.energy["validation"], "verdict": "unreliable", "reason": "off by 20 %"}
    doubtful = replace(done.table, energy={**done.table.energy, "validation": bad})
    narrow = {"only": {"*.kernel_size": [3]}}
    wanted = Config(search={"objectives": ["error", "energy_mj"], **narrow})
    said: list[str] = []
    report = SimpleNamespace(warn=said.append)
    accepted = frozenset(("unreliable", "emulated", "gap"))
    context = Context(wanted, tmp_path, RunFolder(tmp_path), report, accepted)
    context.__dict__["space"] = SPACE
    error = SimpleNamespace(metric=lambda space: metrics_of(space)["macs"])
    assert make_problem(context, doubtful, error).budgets == {}
    name = done.table.target["name"]
    assert said == [
        f"energies of table {name} are unreliable: off by 20 %; accepted by name",
        f"energies of table {name} are emulated; accepted by name",
    ]


def test_energies_that_were_accepted_for_a_front_are_refused_again_without_the_word(
    done, tmp_path, capsys
):
    bad = {**done.table.energy["validation"], "verdict": "unreliable", "reason": "off by 20 %"}
    bad["noise"] = {"value": 0.2, "interval": [0.1, 0.3]}
    name, run = done.table.target["name"], RunFolder(tmp_path / "run")
    section = {**done.table.energy, "validation": bad}
    table.save(replace(done.table, energy=section), run.table(name))
    predictor.save(fit_predictor(SPACE, measured(SPACE, 60), 0, ""), run.predictor)
    (tmp_path / "hwnas.yaml").write_text(RUN.replace("kind: digits", "kind: none"))
    both = ("--accept", "emulated,unreliable")
    assert hwnas("search", tmp_path / "hwnas.yaml", *both) == 0
    assert hwnas("search", tmp_path / "hwnas.yaml", *both, "--json") == 0
    assert json.loads(capsys.readouterr().out)["up_to_date"] == [f"search.{name}"]
    assert hwnas("search", tmp_path / "hwnas.yaml", "--accept", "emulated") == 5
    assert "are unreliable: off by 20 %" in capsys.readouterr().err


def test_a_budget_is_missed_beyond_the_noise_only():
    assert misses(1.2, 1.0, 0.1)
    assert not misses(1.05, 1.0, 0.1)
    assert not misses(None, 1.0, 0.1)
    assert not misses(9.0, None, 0.1)


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
    assert "energies of table fake.fake.fp32.b1.t1 are emulated; accept" in capsys.readouterr().err
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
    assert json.loads(capsys.readouterr().out)["done"] == []


@pytest.mark.slow
def test_a_meter_that_is_used_again_gives_the_table_its_windows(tmp_path):
    first = metered_target(tmp_path).meter_options
    found = []
    for options, budget in ((first, 60), ({**first, "rails": "machine"}, 30), (first, 60)):
        described(tmp_path, meter_options=options)
        chosen = ("--set", f"profile.energy_budget_s={budget}", "--accept", "emulated")
        assert hwnas("profile", tmp_path / "hwnas.yaml", *chosen) == 0
        path = tmp_path / "run" / "tables" / "fake.fake.fp32.b1.t1.json"
        found.append(table.load_table(path).energy["windows"])
    assert found[0] == found[2] != found[1]


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
    found = here.energy_fields(metered_target(tmp_path), [path], SETTINGS)[0]
    expected = (fake.IDLE_W + fake.RUN_W) * (fake.RUN_MS + 100_000 * fake.MS_PER_BYTE)
    assert found["energy_mj"] == pytest.approx(expected, rel=0.03)
    assert found["energy"]["windows"] == 3
    plain = replace(metered_target(tmp_path), meter="none")
    assert here.energy_fields(plain, [path], SETTINGS) == [{}]


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
    found = here.measure_energies(target, [path], short)[0]
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
        here.measure_energies(broken, [path], SETTINGS)
    assert here.energy_fields(broken, [path], SETTINGS)[0]["energy_mj"] is None
